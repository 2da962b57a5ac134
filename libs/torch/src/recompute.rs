//! Activation checkpointing (arXiv 1604.06174): time for memory.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tch::Tensor;

use crate::{
    Error, Result,
    ffi::{self, RawTensor},
};

/// A part of a network that can run again.
pub trait Part: Send {
    /// What it makes of its inputs. Everything else that it computes with must be its own or a parameter: no gradient reaches other tensors.
    fn run(&self, xs: &[Tensor]) -> Result<Tensor>;

    /// Follows each run, and where there is one the backward pass through it: what the run brought together may be let go.
    fn leave(&self) -> Result<()>;
}

impl<F: Fn(&[Tensor]) -> Result<Tensor> + Send> Part for F {
    fn run(&self, xs: &[Tensor]) -> Result<Tensor> {
        self(xs)
    }

    fn leave(&self) -> Result<()> {
        Ok(())
    }
}

/// What `part` makes of one or more inputs, keeping these alone: a backward pass runs `part` again, with the random draws and the precision
/// that it had, and goes on through it to the inputs and to the parameters inside. The numbers are those of a plain run, bit by bit.
pub fn recompute(xs: &[&Tensor], part: impl Part + 'static) -> Result<Tensor> {
    let inputs: Vec<RawTensor> = xs.iter().map(|x| ffi::raw(x)).collect();
    let part: Box<Box<dyn Part>> = Box::new(Box::new(part));
    let data = Box::into_raw(part).cast();
    let mut out = ptr::null_mut();
    // SAFETY: the inputs outlive the call; `data` is a Part that nobody else holds, which the shim gives back to `release` once, after the last
    // `call` and `leave`, on success and on failure; one thread at a time calls it, and it may be any (Part: Send); `out` is written on
    // success only.
    ffi::check(unsafe {
        ffi::tm_recompute(inputs.as_ptr(), inputs.len() as i64, call, leave, release, data, &raw mut out)
    })?;
    Ok(ffi::adopt(out))
}

unsafe extern "C" fn call(
    data: *mut c_void,
    xs: *const RawTensor,
    count: i64,
    out: *mut RawTensor,
    message: *mut c_char,
    room: i64,
) -> i32 {
    // SAFETY: `data` is what `recompute` handed over and `release` has not taken back; `xs` are so many tensors that live through this call.
    let (part, xs) = unsafe {
        let xs = std::slice::from_raw_parts(xs, count as usize);
        (&*data.cast::<Box<dyn Part>>(), xs.iter().map(|x| Tensor::clone_from_ptr(x.cast())).collect::<Vec<_>>())
    };
    match guarded(|| part.run(&xs)) {
        Ok(y) => {
            // SAFETY: `out` is a place for one pointer; the tensor behind it is now the shim's.
            unsafe { *out = ffi::raw(&y) };
            std::mem::forget(y);
            0
        }
        // SAFETY: `message` has `room` bytes.
        Err(text) => unsafe { tell(&text, message, room) },
    }
}

unsafe extern "C" fn leave(data: *mut c_void, message: *mut c_char, room: i64) -> i32 {
    // SAFETY: `data` is what `recompute` handed over and `release` has not taken back.
    let part = unsafe { &*data.cast::<Box<dyn Part>>() };
    match guarded(|| part.leave()) {
        Ok(()) => 0,
        // SAFETY: `message` has `room` bytes.
        Err(text) => unsafe { tell(&text, message, room) },
    }
}

/// A panic would end the process in the middle of C++.
fn guarded<T>(body: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::Shim(text))) => Err(text),
        Ok(Err(other)) => Err(other.to_string()),
        Err(_) => Err("a part that is run again panicked".to_owned()),
    }
}

/// Writes what failed, as much as there is room for.
///
/// # Safety
/// `message` has `room` bytes, at least one.
unsafe fn tell(text: &str, message: *mut c_char, room: i64) -> i32 {
    let bytes = &text.as_bytes()[..text.len().min(room as usize - 1)];
    // SAFETY: the text and its end take at most `room` bytes.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), message.cast(), bytes.len());
        *message.add(bytes.len()) = 0;
    }
    1
}

unsafe extern "C" fn release(data: *mut c_void) {
    // SAFETY: `data` is what `recompute` handed over; the shim releases it once.
    drop(unsafe { Box::from_raw(data.cast::<Box<dyn Part>>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tch::{Device, Kind};

    /// Two layers with dropout between; the weights are parameters of the caller's.
    fn part(weights: &[Tensor; 2], x: &Tensor) -> Result<Tensor> {
        let inner = crate::ops::linear(x, &weights[0], None)?.f_dropout(0.3, true)?.f_gelu("none")?;
        Ok(crate::ops::linear(&inner, &weights[1], None)?.f_add(x)?)
    }

    /// Output, gradient of the input and gradients of the weights.
    fn run(again: bool, input_needs: bool, low: bool) -> Vec<Tensor> {
        tch::manual_seed(3);
        let draw = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        let weights = [draw(&[40, 24]), draw(&[24, 40])].map(|weight| weight.set_requires_grad(true));
        let x = draw(&[7, 24]).set_requires_grad(input_needs);
        let body = || {
            let mut y = x.shallow_clone();
            for _ in 0..2 {
                let own = weights.each_ref().map(Tensor::shallow_clone);
                y = match again {
                    true => recompute(&[&y], move |xs: &[Tensor]| part(&own, &xs[0])).unwrap(),
                    false => part(&own, &y).unwrap(),
                };
            }
            y
        };
        let y = if low { crate::autocast::bfloat16(Device::Cpu, body).unwrap() } else { body() };
        y.square().sum(Kind::Float).backward();
        // What is drawn afterwards does not show that something was drawn again.
        let after = draw(&[3]);
        let gradient = if input_needs { x.grad() } else { Tensor::zeros([1], (Kind::Float, Device::Cpu)) };
        let mut all = vec![y.detach(), gradient, after];
        all.extend(weights.iter().map(Tensor::grad));
        all
    }

    #[test]
    fn a_part_that_runs_again_gives_the_same_numbers_gradients_and_draws() {
        if !crate::alone::alone("recompute::tests::a_part_that_runs_again_gives_the_same_numbers_gradients_and_draws") {
            return;
        }
        for (input_needs, low) in [(true, false), (false, false), (true, true)] {
            let (plain, again) = (run(false, input_needs, low), run(true, input_needs, low));
            for (index, (a, b)) in plain.iter().zip(&again).enumerate() {
                assert!(a.equal(b), "tensor {index}, input {input_needs}, bfloat16 {low}");
            }
        }
    }

    #[test]
    fn what_a_part_holds_is_let_go_after_the_backward_pass() {
        let x = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let held = Arc::new(());
        let own = held.clone();
        let y = recompute(&[&x], move |xs: &[Tensor]| {
            let _held = &own;
            Ok(xs[0].f_square()?)
        })
        .unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        y.sum(Kind::Float).backward();
        drop(y);
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(x.grad().double_value(&[0]), 2.0);
    }

    #[test]
    fn gradients_reach_each_input_that_needs_one() {
        let of = |value: f64, needs: bool| Tensor::from(value).set_requires_grad(needs);
        let [x, y, z] = [of(2.0, true), of(3.0, false), of(5.0, true)];
        let product = |xs: &[Tensor]| Ok(xs[0].f_mul(&xs[1])?.f_mul(&xs[2])?.f_square()?);
        recompute(&[&x, &y, &z], product).unwrap().backward();
        assert_eq!((x.grad().double_value(&[]), z.grad().double_value(&[])), (900.0, 360.0));
        assert!(!y.grad().defined());
    }

    #[test]
    fn errors_and_panics_of_a_part_are_errors_of_the_pass() {
        let x = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let failed = recompute(&[&x], |_: &[Tensor]| Err(Error::Shim("a reason".to_owned()))).unwrap_err().to_string();
        assert_eq!(failed, "libtorch: a reason");
        let panicked = recompute(&[&x], |_: &[Tensor]| -> Result<Tensor> { panic!("lost") }).unwrap_err().to_string();
        assert!(panicked.contains("panicked"), "{panicked}");
    }
}
