//! The order in which training reads a token stream: a pure function of (seed, position), so that one number resumes a run.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Error;

const ROUNDS: u64 = 6;

/// Cuts a stream of tokens into windows and visits every window once an epoch, in an order keyed by (seed, epoch).
///
/// A sample is `window + 1` tokens: inputs and, shifted by one, targets. The windows of an epoch start at a common offset below
/// `window`, keyed by the epoch, so that later epochs see other cuts. Every epoch has the same number of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    tokens: u64,
    window: u64,
    seed: u64,
    windows: u64,
}

impl Sampler {
    /// A sampler over `tokens` tokens with windows of `window`; refuses a stream too short for one sample.
    pub fn new(tokens: u64, window: u64, seed: u64) -> Result<Self, Error> {
        if window == 0 {
            return Err(Error::Invalid("the window is 0 tokens: it must be at least 1".into()));
        }
        if tokens <= window {
            return Err(Error::Invalid(format!(
                "the stream holds {tokens} tokens, and a sample of window {window} needs {}: add text or shorten the window",
                window.saturating_add(1)
            )));
        }
        // Counting from the largest offset keeps the number of windows the same in every epoch.
        let windows = ((tokens - window) / window).max(1);
        Ok(Self { tokens, window, seed, windows })
    }

    /// Windows in an epoch.
    #[must_use]
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// The epoch a position falls into, counted from 0.
    #[must_use]
    pub fn epoch(&self, position: u64) -> u64 {
        position / self.windows
    }

    /// The first token of the sample at `position`, counted over all epochs; the sample is `start .. start + window + 1`.
    #[must_use]
    pub fn start(&self, position: u64) -> u64 {
        let epoch = self.epoch(position);
        let key = key(self.seed, epoch);
        self.offset(key) + self.window * permute(position % self.windows, self.windows, key)
    }

    fn offset(&self, key: u64) -> u64 {
        let slack = self.tokens - 1 - self.windows * self.window;
        mix(u64::MAX, key) % self.window.min(slack + 1)
    }
}

fn key(seed: u64, epoch: u64) -> u64 {
    xxh3_64_with_seed(&epoch.to_le_bytes(), seed)
}

fn mix(value: u64, key: u64) -> u64 {
    xxh3_64_with_seed(&value.to_le_bytes(), key)
}

/// A permutation of `0..length`, keyed: a Feistel network over the next even number of bits, walked until it lands inside.
fn permute(index: u64, length: u64, key: u64) -> u64 {
    let bits = u64::BITS - (length - 1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (mix(right, key.wrapping_add(round)) & mask));
        }
        value = left << half | right;
        if value < length {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_epoch_is_a_permutation_of_windows_in_range() {
        for (tokens, window) in
            [(2, 1), (65, 64), (128, 64), (129, 64), (130, 64), (1_000, 7), (10_000, 64), (70_001, 3)]
        {
            for seed in [0, 1, u64::MAX] {
                let sampler = Sampler::new(tokens, window, seed).unwrap();
                for epoch in 0..3 {
                    let first = epoch * sampler.windows();
                    let starts: HashSet<u64> = (first..first + sampler.windows()).map(|p| sampler.start(p)).collect();
                    assert_eq!(
                        starts.len() as u64,
                        sampler.windows(),
                        "{tokens} {window} {seed} {epoch}: a window was repeated"
                    );
                    let offset = *starts.iter().min().unwrap();
                    assert!(offset < window);
                    for start in starts {
                        assert_eq!((start - offset) % window, 0);
                        assert!(start + window < tokens, "{tokens} {window}: sample at {start} leaves the stream");
                    }
                }
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat_exactly() {
        let order = |seed, epoch| {
            let sampler = Sampler::new(100_000, 64, seed).unwrap();
            (0..100).map(|i| sampler.start(epoch * sampler.windows() + i)).collect::<Vec<_>>()
        };
        assert_eq!(order(7, 0), order(7, 0));
        assert_ne!(order(7, 0), order(7, 1));
        assert_ne!(order(7, 0), order(8, 0));
    }

    #[test]
    fn the_order_is_frozen() {
        // A change here breaks the resumption of every run in flight and the reproduction of every past one.
        let sampler = Sampler::new(1_000, 10, 42).unwrap();
        let starts: Vec<u64> = (0..6).map(|p| sampler.start(p)).collect();
        assert_eq!(starts, [456, 236, 446, 56, 96, 716]);
    }

    #[test]
    fn the_order_is_mixed() {
        let sampler = Sampler::new(64 * 4_096 + 64, 64, 3).unwrap();
        let rising = (1..sampler.windows()).filter(|&p| sampler.start(p) > sampler.start(p - 1)).count() as f64;
        let share = rising / sampler.windows() as f64;
        assert!((0.45..0.55).contains(&share), "{share} of the steps rise: the order is not shuffled");
    }

    #[test]
    fn a_stream_shorter_than_a_sample_is_refused() {
        assert!(Sampler::new(64, 64, 0).unwrap_err().to_string().contains("holds 64 tokens"));
        assert!(Sampler::new(64, 0, 0).is_err());
    }
}
