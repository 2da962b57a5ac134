//! The process that learns: alone, or a rank among several that share each step's micro-batches.

use std::sync::Arc;

use tch::{Device, Tensor};
use tidemill_torch::ranks::{Buckets, Ranks};

use super::{Error, Result};

/// This process among those of one run. What one rank calls, all call, in the same order.
#[derive(Clone, Debug)]
pub struct World(Option<Arc<Ranks>>);

impl World {
    /// One process.
    pub fn alone() -> Self {
        Self(None)
    }

    /// A rank.
    pub fn among(ranks: Ranks) -> Self {
        Self(Some(Arc::new(ranks)))
    }

    /// This process's number; rank 0 measures, saves and reports.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |ranks| ranks.rank())
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |ranks| ranks.size())
    }

    /// Makes tensors of this process's device shared, whichever that is.
    ///
    /// # Errors
    /// Some ranks have a GPU of their own and others have none; or what shares their tensors is not there.
    pub fn share_devices(&self, device: Device) -> Result<()> {
        let Some(ranks) = &self.0 else { return Ok(()) };
        let gpus = self.sum(&[f64::from(device.is_cuda())])?[0] as usize;
        let refused = |problem| Err(Error::Spec { field: "ranks", problem });
        match gpus {
            0 => Ok(()),
            gpus if gpus < self.size() => refused(format!(
                "{} ranks need a GPU each, and {gpus} have one: use {gpus}, or more machines",
                self.size()
            )),
            _ => ranks
                .add_gpu()
                .or_else(|error| refused(format!("GPUs share nothing without NCCL, run `make cuda`: {error}"))),
        }
    }

    /// Whether it is so on any rank.
    pub fn any(&self, here: bool) -> Result<bool> {
        Ok(self.sum(&[f64::from(here)])?[0] > 0.0)
    }

    /// The number that rank 0 says; what the others say does not matter.
    pub fn told(&self, number: u64) -> Result<u64> {
        let said = if self.rank() == 0 { number as f64 } else { 0.0 };
        Ok(self.sum(&[said])?[0] as u64)
    }

    /// Sums over all ranks.
    pub(super) fn sum(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        Ok(match &self.0 {
            Some(ranks) => ranks.sum(numbers)?,
            None => numbers.to_vec(),
        })
    }

    /// What sums gradients while they come; nothing is needed where there is one process.
    pub(super) fn buckets(&self, parameters: &[Tensor]) -> Result<Option<Buckets>> {
        Ok(self.0.as_ref().map(|ranks| Buckets::new(ranks, parameters)).transpose()?)
    }

    /// The rank that looks after each parameter, by their sizes: each has about as many elements as the others.
    pub(super) fn owners(&self, sizes: &[usize]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(sizes[*index]));
        let (mut loads, mut owners) = (vec![0; self.size()], vec![0; sizes.len()]);
        for index in order {
            let least = (0..loads.len()).min_by_key(|rank| loads[*rank]).unwrap_or_default();
            loads[least] += sizes[index];
            owners[index] = least;
        }
        owners
    }

    /// Makes each tensor on every rank what it is on its owner.
    pub(super) fn share(&self, tensors: &[Tensor], owners: &[usize]) -> Result<()> {
        let Some(ranks) = &self.0 else { return Ok(()) };
        tch::no_grad(|| {
            let roots = self.roots(owners);
            let row = |root: &usize| match *root == self.rank() {
                true => end_to_end(of(tensors, owners, *root)),
                // What is here is not what it shall be.
                false => {
                    let count = of(tensors, owners, *root).map(Tensor::numel).sum::<usize>() as i64;
                    let like = of(tensors, owners, *root).next().unwrap_or(&tensors[0]);
                    Ok(Tensor::f_empty([count], (like.kind(), like.device()))?)
                }
            };
            let rows: Vec<Tensor> = roots.iter().map(row).collect::<Result<_>>()?;
            ranks.broadcast(&rows, &roots)?;
            for (root, row) in roots.iter().zip(&rows).filter(|(root, _)| **root != self.rank()) {
                let mut start = 0;
                for tensor in of(tensors, owners, *root) {
                    let count = tensor.numel() as i64;
                    let part = row.f_narrow(0, start, count)?.f_view_as(tensor)?;
                    tensor.f_detach()?.f_copy_(&part)?;
                    start += count;
                }
            }
            Ok(())
        })
    }

    /// Sums tensors over all ranks, each for its owner: what this rank owns comes back, end to end, if it owns any.
    pub(super) fn reduce(&self, tensors: Vec<Tensor>, owners: &[usize]) -> Result<Option<Tensor>> {
        let Some(ranks) = &self.0 else { return end_to_end(tensors.iter()).map(Some) };
        let roots = self.roots(owners);
        let mut rows: Vec<Tensor> =
            roots.iter().map(|root| end_to_end(of(&tensors, owners, *root))).collect::<Result<_>>()?;
        drop(tensors);
        ranks.reduce(&rows, &roots)?;
        Ok(roots.iter().position(|root| *root == self.rank()).map(|place| rows.swap_remove(place)))
    }

    /// The ranks that own something.
    fn roots(&self, owners: &[usize]) -> Vec<usize> {
        (0..self.size()).filter(|rank| owners.contains(rank)).collect()
    }

    /// Brings a tensor from its owner to rank 0: there it is returned. `like` has its shape.
    pub(super) fn collect(&self, owner: usize, own: Option<&Tensor>, like: &Tensor) -> Result<Option<Tensor>> {
        match (&self.0, own, self.rank()) {
            (_, Some(tensor), 0) => Ok(Some(tensor.shallow_clone())),
            (Some(ranks), None, 0) => Ok(Some(ranks.receive(like, owner)?)),
            (Some(ranks), Some(tensor), _) => {
                // Through the memory of the host: rank 0 may have no room for the state of all on its GPU.
                ranks.send(&tensor.f_to_device(like.device())?, 0)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// The tensors of one owner.
fn of<'a>(tensors: &'a [Tensor], owners: &'a [usize], owner: usize) -> impl Iterator<Item = &'a Tensor> {
    tensors.iter().zip(owners).filter(move |(_, other)| **other == owner).map(|(tensor, _)| tensor)
}

/// One long row: a message for each of hundreds of tensors would wait more than it carries.
fn end_to_end<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<Tensor> {
    let parts: Vec<Tensor> = tensors.map(|p| p.f_detach()?.f_view([-1])).collect::<std::result::Result<_, _>>()?;
    Ok(Tensor::f_cat(&parts, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_owns_everything_and_sums_nothing() {
        let world = World::alone();
        assert_eq!(world.owners(&[3, 1, 2]), [0, 0, 0]);
        assert_eq!(world.sum(&[1.0, 2.0]).unwrap(), [1.0, 2.0]);
        assert!(!world.any(false).unwrap() && world.any(true).unwrap());
    }
}
