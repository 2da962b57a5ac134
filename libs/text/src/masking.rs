//! Tokens that an encoder learns to guess (BERT, arXiv 1810.04805), hidden as transformers' `DataCollatorForLanguageModeling` hides them.
//! Training and evaluation both call this. What is hidden is a function of seed, window and place alone.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Error, IGNORED, Tokenizer};

/// Share of the tokens to guess that become the mask token.
const MASKED: f64 = 0.8;
/// Share that becomes any token of the vocabulary; the rest stays as it is.
const REPLACED: f64 = 0.1;

/// How tokens are hidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Masking {
    probability: f64,
    mask: u32,
    /// Tokens that are never hidden, in order.
    special: Arc<[u32]>,
    vocabulary_size: usize,
}

impl Masking {
    /// Share of tokens to guess where nobody says another: BERT's.
    pub const PROBABILITY: f64 = 0.15;

    /// With a tokenizer, and the `tokenizer_config.json` beside it, where there is one. Special tokens are never hidden.
    ///
    /// # Errors
    /// There is no mask token, or the probability is not above 0 and below 1.
    pub fn of(tokenizer: &Tokenizer, tokenizer_config: Option<&[u8]>, probability: f64) -> Result<Self, Error> {
        let mask = tokenizer.mask_token(tokenizer_config)?;
        Self::new(probability, mask, tokenizer.special_ids(), tokenizer.vocabulary_size())
    }

    /// Hides a share of tokens by `mask`, one of a vocabulary; `special` tokens are never hidden.
    ///
    /// # Errors
    /// The mask is beyond the vocabulary, or the probability is not above 0 and below 1.
    pub fn new(probability: f64, mask: u32, special: &[u32], vocabulary_size: usize) -> Result<Self, Error> {
        if !(probability > 0.0 && probability < 1.0) {
            return Err(Error::Invalid(format!("mask_probability {probability} is not above 0 and below 1")));
        }
        if mask as usize >= vocabulary_size {
            return Err(Error::UnknownId { id: mask, vocabulary_size });
        }
        let mut special = special.to_vec();
        special.sort_unstable();
        Ok(Self { probability, mask, special: special.into(), vocabulary_size })
    }

    /// Hides tokens of a window. Targets become the tokens to guess, and [`IGNORED`] elsewhere. One token at least is to guess, unless all
    /// are special: of a short window it is the one that was nearest to be drawn.
    pub fn hide(&self, seed: u64, window: u64, ids: &mut [i64], targets: &mut [i64]) {
        let key = xxh3_64_with_seed(&window.to_le_bytes(), seed);
        let ordinary = (0..ids.len()).filter(|at| self.special.binary_search(&(ids[*at] as u32)).is_err());
        let draws: Vec<(usize, f64)> = ordinary.map(|at| (at, unit(draw(key, at, 0)))).collect();
        let least = draws.iter().map(|(_, draw)| *draw).fold(f64::INFINITY, f64::min);
        targets.fill(IGNORED);
        for (at, chance) in draws {
            if chance >= self.probability && chance > least {
                continue;
            }
            targets[at] = ids[at];
            let kind = unit(draw(key, at, 1));
            if kind < MASKED {
                ids[at] = i64::from(self.mask);
            } else if kind < MASKED + REPLACED {
                ids[at] = (draw(key, at, 2) % self.vocabulary_size as u64).cast_signed();
            }
        }
    }
}

fn draw(key: u64, place: usize, purpose: u64) -> u64 {
    xxh3_64_with_seed(&(place as u64 * 4 + purpose).to_le_bytes(), key)
}

/// In [0, 1).
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: usize = 1000;
    const MASK: i64 = 4;

    fn masking() -> Masking {
        Masking::new(Masking::PROBABILITY, MASK as u32, &[3, 1, 4], VOCABULARY).unwrap()
    }

    fn hidden(seed: u64, window: u64, ids: &[i64]) -> (Vec<i64>, Vec<i64>) {
        let (mut inputs, mut targets) = (ids.to_vec(), vec![0; ids.len()]);
        masking().hide(seed, window, &mut inputs, &mut targets);
        (inputs, targets)
    }

    #[test]
    fn of_fifteen_in_a_hundred_tokens_eight_in_ten_are_masked_and_one_is_another_token() {
        let ids: Vec<i64> = (0..200_000).map(|at| 10 + at % 900).collect();
        let (inputs, targets) = hidden(7, 3, &ids);
        let (mut guessed, mut masked, mut replaced) = (0.0, 0.0, 0.0);
        for at in 0..ids.len() {
            if targets[at] == IGNORED {
                assert_eq!(inputs[at], ids[at], "only what is to guess is hidden");
                continue;
            }
            assert_eq!(targets[at], ids[at]);
            guessed += 1.0;
            masked += f64::from(u8::from(inputs[at] == MASK));
            replaced += f64::from(u8::from(inputs[at] != MASK && inputs[at] != ids[at]));
        }
        let count = ids.len() as f64;
        assert!((guessed / count - 0.15).abs() < 0.004, "{guessed}");
        assert!(
            (masked / guessed - 0.8).abs() < 0.01 && (replaced / guessed - 0.1).abs() < 0.01,
            "{masked} {replaced}"
        );
    }

    #[test]
    fn what_is_hidden_follows_from_seed_and_window() {
        let ids: Vec<i64> = (10..74).collect();
        assert_eq!(hidden(7, 3, &ids), hidden(7, 3, &ids));
        assert_ne!(hidden(7, 3, &ids), hidden(8, 3, &ids));
        assert_ne!(hidden(7, 3, &ids), hidden(7, 4, &ids));
    }

    #[test]
    fn special_tokens_stay_and_a_short_window_has_something_to_guess() {
        for window in 0..500 {
            let (inputs, targets) = hidden(1, window, &[1, 3, 20, 1, 30, 4]);
            assert!([0, 1, 3, 5].iter().all(|at| targets[*at] == IGNORED), "{targets:?}");
            assert_eq!((inputs[0], inputs[1], inputs[3], inputs[5]), (1, 3, 1, 4));
            assert!(targets.iter().any(|target| *target != IGNORED));
        }
        assert_eq!(hidden(1, 0, &[1, 3, 4]).1, [IGNORED; 3]);
    }

    #[test]
    fn a_mask_beyond_the_vocabulary_is_refused() {
        assert!(Masking::new(0.15, 1000, &[], VOCABULARY).unwrap_err().to_string().contains("id 1000"));
        for probability in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(Masking::new(probability, 4, &[], VOCABULARY).is_err(), "{probability}");
        }
    }
}
