//! Switches of the whole process: determinism, the number of threads, and which threads may be interrupted.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use crate::{Result, ffi};

/// Makes libtorch use only algorithms whose result does not vary from run to run; an operation without one fails.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: takes no pointers; sets flags of libtorch's global context.
    ffi::check(unsafe { ffi::tm_set_deterministic(i32::from(on)) })
}

/// Sets how many threads one operation may use. Sums are split by it, so the same number gives the same bits.
pub fn set_threads(threads: i32) {
    tch::set_num_threads(threads.max(1));
}

/// How many threads one operation may use.
pub fn threads() -> i32 {
    tch::get_num_threads()
}

/// While it lives, signals reach other threads than this one and those that it starts.
///
/// A thread must hold one while it computes, wherever the process handles a signal: oneDNN's matrix products point the stack register at a
/// buffer on the heap, and the kernel writes the frame of a handler that runs on such a thread below it, over what lies there. Signals that
/// a fault raises are not held back.
#[must_use]
pub struct Undisturbed {
    before: libc::sigset_t,
    /// The mask belongs to the thread.
    _thread: PhantomData<*const ()>,
}

/// See [`Undisturbed`].
pub fn undisturbed() -> Undisturbed {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: `all` is filled before it is read; both are the caller's own; pthread_sigmask writes `before`, and cannot fail with SIG_SETMASK.
    let before = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for fault in
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS]
        {
            libc::sigdelset(all.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    };
    Undisturbed { before, _thread: PhantomData }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // SAFETY: the mask is one that pthread_sigmask wrote; what was before is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::ops;

    static HANDLED: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn handle(_signal: i32) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }

    /// Without it the heap is damaged within a few hundred products, and this process aborts.
    #[test]
    fn no_handler_runs_on_a_thread_that_computes() {
        if !crate::alone::alone("process::tests::no_handler_runs_on_a_thread_that_computes") {
            return;
        }
        // SAFETY: the handler does no more than a handler may.
        unsafe { libc::signal(libc::SIGUSR1, handle as *const () as libc::sighandler_t) };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let undisturbed = undisturbed();
            // SAFETY: asks which thread this is.
            let computing = unsafe { libc::pthread_self() };
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: the thread that is named waits for this one.
                    unsafe { libc::pthread_kill(computing, libc::SIGUSR1) };
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let (weight, x) = (random(&[96, 64]).set_requires_grad(true), random(&[1024, 64]));
            for _ in 0..4000 {
                ops::linear(&x, &weight, None).unwrap().sum(Kind::Float).backward();
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(HANDLED.load(Ordering::Relaxed), 0);
            drop(undisturbed);
            assert!(HANDLED.load(Ordering::Relaxed) > 0, "what was held back comes now");
        });
    }
}
