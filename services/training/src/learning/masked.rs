//! Windows of which an encoder guesses hidden tokens, for training and for validation.

use tidemill_dataset::Tokens;
use tidemill_text::{IGNORED, Masking};

use super::{Data, Result, Samples, Train, Validation, loader::MicroBatch};

/// Key of what validation hides: the same in every job, so that losses can be compared.
const VALIDATION_SEED: u64 = 0;

/// Windows with tokens hidden. What is hidden follows from the seed and the position, which counts over all epochs: each epoch hides others,
/// and a run that resumes the same.
struct Masked {
    samples: Box<dyn Samples>,
    masking: Masking,
    seed: u64,
}

impl Samples for Masked {
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        self.samples.fill(position, inputs, targets);
        self.masking.hide(self.seed, position, inputs, targets);
    }

    fn are_masked(&self) -> bool {
        true
    }
}

impl Data {
    /// The same windows for an encoder: tokens of each are hidden, keyed by `seed`. Rows stay what they are.
    #[must_use]
    pub fn masked(self, masking: Masking, seed: u64) -> Self {
        let train = match self.train {
            Train::Windows(samples) => Train::Windows(Box::new(Masked { samples, masking: masking.clone(), seed })),
            rows @ Train::Rows(_) => rows,
        };
        let validation = match self.validation {
            Validation::Tokens(tokens) => Validation::Masked(tokens, masking),
            other => other,
        };
        Self { train, validation }
    }
}

/// Validation windows from number `first` on, at most `count`: whole ones, or the only one of a stream that is shorter. None beyond the end.
pub(super) fn batch(
    tokens: &Tokens,
    masking: &Masking,
    window: usize,
    (first, count): (usize, usize),
    device: tch::Device,
) -> Result<Option<MicroBatch>> {
    let length = window.min(tokens.len());
    let count = count.min((tokens.len() / length.max(1)).saturating_sub(first));
    if count == 0 {
        return Ok(None);
    }
    let (mut inputs, mut targets) = (vec![0; count * length], vec![IGNORED; count * length]);
    tokens.copy_to(first * length, &mut inputs);
    for (nth, (inputs, targets)) in inputs.chunks_mut(length).zip(targets.chunks_mut(length)).enumerate() {
        masking.hide(VALIDATION_SEED, (first + nth) as u64, inputs, targets);
    }
    MicroBatch::windows(&inputs, &targets, count, device).map(Some)
}
