//! Several processes that train one model, on one machine or several: c10d over gloo.
//!
//! Sums are the same bytes on every rank, and from run to run: gloo adds in an order that the number of ranks and the shape decide.

use std::ffi::{CString, c_void};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Tensor};

use crate::{Error, Result, ffi};

/// How long a rank waits for the others: one of them may read a large dataset, or store a large checkpoint, meanwhile.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Gradients are summed in pieces of about so many bytes, as PyTorch's DistributedDataParallel does.
const BUCKET_BYTES: i64 = 25 << 20;

/// Where ranks find each other; served by rank 0.
#[derive(Debug)]
pub struct Store {
    raw: *mut c_void,
    address: SocketAddr,
}

// SAFETY: c10d's TCP store may be used and dropped by any thread.
unsafe impl Send for Store {}

impl Store {
    /// Serves one on a free port of an address of this machine's, until it is dropped. It trusts whoever reaches it.
    ///
    /// # Errors
    /// The address is not this machine's.
    pub fn serve(address: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).map_err(|source| Error::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let (host, port) = (text(address.ip()), i32::from(address.port()));
        let mut raw = ptr::null_mut();
        // SAFETY: the text outlives the call, the socket becomes the store's, the place is valid and is written only on success.
        let served =
            unsafe { ffi::tm_store_serve(host.as_ptr(), port, listener.into_raw_fd(), millis(PATIENCE), &mut raw) };
        ffi::check(served)?;
        Ok(Self { raw, address })
    }

    /// Where it is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: `raw` came from tm_store_serve, and is freed once.
        unsafe { ffi::tm_store_free(self.raw) }
    }
}

/// This process among several. Whatever it calls, the others must call too, in the same order.
#[derive(Debug)]
pub struct Ranks {
    raw: *mut c_void,
    rank: usize,
    size: usize,
}

// SAFETY: c10d's process groups lock for themselves; the order of calls is the caller's promise anyhow.
unsafe impl Send for Ranks {}
// SAFETY: as above.
unsafe impl Sync for Ranks {}

impl Ranks {
    /// Waits until all `size` ranks have come to the store. `own` is the address of this machine's at which the others reach it.
    ///
    /// # Errors
    /// They did not come within half an hour.
    pub fn join(store: SocketAddr, own: IpAddr, rank: usize, size: usize) -> Result<Self> {
        let (host, port, own) = (text(store.ip()), i32::from(store.port()), text(own));
        let (number, count) = (rank as i32, size as i32);
        let mut raw = ptr::null_mut();
        // SAFETY: the texts outlive the call; the place is valid, and is written only on success.
        let joined =
            unsafe { ffi::tm_ranks_join(host.as_ptr(), port, own.as_ptr(), number, count, millis(PATIENCE), &mut raw) };
        ffi::check(joined)?;
        Ok(Self { raw, rank, size })
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Sums numbers over all ranks.
    ///
    /// # Errors
    /// Here and below: a rank is lost, or silent for half an hour.
    pub fn sum(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        let tensor = Tensor::f_from_slice(numbers)?;
        // SAFETY: the tensor outlives the call.
        ffi::check(unsafe { ffi::tm_ranks_sum(self.raw, ffi::raw(&tensor)) })?;
        Ok(Vec::try_from(&tensor)?)
    }

    /// Makes `tensors[i]` on every rank what it is on rank `roots[i]`.
    pub fn broadcast(&self, tensors: &[Tensor], roots: &[usize]) -> Result<()> {
        if tensors.len() != roots.len() {
            return Err(Error::Count { what: "roots", expected: tensors.len(), actual: roots.len() });
        }
        let raw = ffi::raw_all(tensors);
        let roots: Vec<i32> = roots.iter().map(|root| *root as i32).collect();
        // SAFETY: both arrays have `tensors.len()` entries, and the tensors outlive the call.
        ffi::check(unsafe { ffi::tm_ranks_broadcast(self.raw, raw.as_ptr(), roots.as_ptr(), raw.len() as i64) })
    }

    /// Sends a tensor to a rank that receives one of that shape.
    pub fn send(&self, tensor: &Tensor, to: usize) -> Result<()> {
        // SAFETY: the tensor outlives the call.
        ffi::check(unsafe { ffi::tm_ranks_send(self.raw, ffi::raw(tensor), to as i32) })
    }

    /// A tensor that a rank sends, with the shape and kind of `like`.
    pub fn receive(&self, like: &Tensor, from: usize) -> Result<Tensor> {
        let tensor = Tensor::f_zeros(like.size(), (like.kind(), Device::Cpu))?;
        // SAFETY: the tensor outlives the call.
        ffi::check(unsafe { ffi::tm_ranks_receive(self.raw, ffi::raw(&tensor), from as i32) })?;
        Ok(tensor)
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        // SAFETY: `raw` came from tm_ranks_join, and is freed once; buckets hold an `Arc` of this.
        unsafe { ffi::tm_ranks_free(self.raw) }
    }
}

/// Sums gradients over all ranks while they come.
#[derive(Debug)]
pub struct Buckets {
    raw: *mut c_void,
    _ranks: Arc<Ranks>,
}

// SAFETY: c10d's reducer locks for itself, and the thread that runs the backward pass is the one that calls its hooks.
unsafe impl Send for Buckets {}

impl Buckets {
    /// For all parameters that get a gradient in each backward pass.
    pub fn new(ranks: &Arc<Ranks>, parameters: &[Tensor]) -> Result<Self> {
        let (all, mut raw) = (ffi::raw_all(parameters), ptr::null_mut());
        // SAFETY: the array has as many entries as it says, the tensors outlive the call, the place is written only on success.
        ffi::check(unsafe { ffi::tm_reducer_new(ranks.raw, all.as_ptr(), all.len() as i64, BUCKET_BYTES, &mut raw) })?;
        Ok(Self { raw, _ranks: ranks.clone() })
    }

    /// Makes the next backward pass, from `loss`, sum gradients over all ranks, those that passes before it left included.
    pub fn prepare(&self, loss: &Tensor) -> Result<()> {
        // SAFETY: the tensor outlives the call.
        ffi::check(unsafe { ffi::tm_reducer_prepare(self.raw, ffi::raw(loss)) })
    }
}

impl Drop for Buckets {
    fn drop(&mut self) {
        // SAFETY: `raw` came from tm_reducer_new, and is freed once, before the ranks.
        unsafe { ffi::tm_reducer_free(self.raw) }
    }
}

fn text(address: IpAddr) -> CString {
    CString::new(address.to_string()).expect("an address has no zero byte")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tch::Kind;

    use super::*;

    /// Runs the same on several ranks, threads here.
    fn among<T: Send>(size: usize, body: impl Fn(Arc<Ranks>) -> T + Sync) -> Vec<T> {
        let store = Store::serve(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (at, body) = (store.address(), &body);
        std::thread::scope(|scope| {
            let join = move |rank| Arc::new(Ranks::join(at, at.ip(), rank, size).unwrap());
            let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || body(join(rank)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn ranks_sum_numbers_and_share_tensors() {
        let sums = among(3, |ranks| {
            let own = Tensor::from_slice(&[ranks.rank() as f32]);
            let parts = [own.copy(), own.copy()];
            ranks.broadcast(&parts, &[2, 1]).unwrap();
            let parts: Vec<f32> = parts.iter().map(|part| part.double_value(&[0]) as f32).collect();
            assert_eq!(parts, [2.0, 1.0]);
            match ranks.rank() {
                0 => assert_eq!(ranks.receive(&own, 2).unwrap().double_value(&[0]), 2.0),
                2 => ranks.send(&own, 0).unwrap(),
                _ => {}
            }
            ranks.sum(&[1.0, ranks.rank() as f64]).unwrap()
        });
        assert_eq!(sums, [[3.0, 3.0], [3.0, 3.0], [3.0, 3.0]]);
    }

    #[test]
    fn gradients_are_summed_with_those_left_before() {
        let gradients = among(2, |ranks| {
            let own = (ranks.rank() + 1) as f64;
            let weights =
                [Tensor::ones([3], (Kind::Float, Device::Cpu)), Tensor::ones([2, 2], (Kind::Float, Device::Cpu))]
                    .map(|weight| weight.set_requires_grad(true));
            let buckets = Buckets::new(&ranks, &weights).unwrap();
            let mut found = Vec::new();
            for _ in 0..2 {
                let loss = |factor: f64| (weights[0].sum(Kind::Float) + weights[1].sum(Kind::Float) * 10.0) * factor;
                loss(own).backward();
                let last = loss(100.0 * own);
                buckets.prepare(&last).unwrap();
                last.backward();
                let taken = crate::gradients::take(&weights.each_ref().map(Tensor::shallow_clone)).unwrap();
                found.push(taken.iter().map(|gradient| gradient.max().double_value(&[])).collect::<Vec<_>>());
            }
            found
        });
        assert_eq!(gradients, vec![vec![vec![303.0, 3030.0]; 2]; 2]);
    }

    #[test]
    fn a_rank_that_leaves_is_an_error_for_those_that_wait() {
        let outcomes = among(2, |ranks| match ranks.rank() {
            0 => ranks.sum(&[1.0]).is_err(),
            _ => true,
        });
        assert_eq!(outcomes, [true, true]);
    }

    #[test]
    fn a_store_is_served_on_its_address_alone() {
        let store = Store::serve(Ipv4Addr::LOCALHOST.into()).unwrap();
        let at = |address: IpAddr| std::net::TcpStream::connect((address, store.address().port()));
        assert!(at(Ipv4Addr::LOCALHOST.into()).is_ok());
        assert!(at(Ipv4Addr::new(127, 0, 0, 2).into()).is_err());
        let elsewhere = Store::serve(Ipv4Addr::new(192, 0, 2, 1).into()).unwrap_err().to_string();
        assert!(elsewhere.contains("192.0.2.1"), "{elsewhere}");
    }
}
