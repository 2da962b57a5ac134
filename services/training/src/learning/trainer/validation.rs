//! Measurements on the validation split.

use std::collections::BTreeMap;

use tch::no_grad;
use tidemill_dataset::Tokens;
use tidemill_text::Masking;

use super::{Trainer, Validation, gradients::means, held};
use crate::learning::{Method, Result, Rows, loader::MicroBatch, masked, objective::Learner};

/// Tokens that a measurement during training looks at: enough to steer by, little enough not to be felt.
const TOKENS: usize = 1 << 15;
/// Tokens of one validation batch of a stream.
const BATCH_TOKENS: usize = 1 << 12;
/// Rows that a measurement during training looks at.
const ROWS: usize = 128;

/// A mean loss, and figures of the method.
pub(super) type Measured = (f64, BTreeMap<String, f64>);

impl Trainer {
    /// Mean loss (nats a token) over the first `most_tokens` of a validation stream, in whole windows; none without one.
    pub fn validate(&self, most_tokens: usize) -> Result<Option<f64>> {
        held(&self.spread, || match &self.validation {
            Validation::Tokens(tokens) => Ok(Some(self.stream(tokens, most_tokens)?)),
            Validation::Masked(tokens, masking) => self.masked(tokens, masking, most_tokens).map(Some),
            _ => Ok(None),
        })
    }

    pub(super) fn measure(&self) -> Result<Option<Measured>> {
        self.model.set_dropout(false);
        let measured = match &self.validation {
            Validation::None => Ok(None),
            Validation::Tokens(tokens) => self.stream(tokens, TOKENS).map(|loss| Some((loss, BTreeMap::new()))),
            Validation::Masked(tokens, masking) => {
                self.masked(tokens, masking, TOKENS).map(|loss| Some((loss, BTreeMap::new())))
            }
            Validation::Rows(rows) => match self.spec.method {
                Method::Grouped(constants) => self.rewarded(rows, constants).map(Some),
                _ => self.rows(rows).map(Some),
            },
        };
        self.model.set_dropout(true);
        measured
    }

    fn stream(&self, tokens: &Tokens, most_tokens: usize) -> Result<f64> {
        let end = tokens.len().min(most_tokens.max(self.loader.window).saturating_add(1));
        let rows = (BATCH_TOKENS / self.loader.window).max(1);
        // What is measured is the likelihood alone.
        let learner = Learner { z_loss: 0.0, method: Method::Language, teacher: None, ..self.learner() };
        let (mut sum, mut count, mut start) = (0.0, 0, 0);
        while start + 1 < end {
            let rows = rows.min((end - 1 - start).div_ceil(self.loader.window));
            let batch = self.loader.windows(tokens, start, rows)?;
            sum += no_grad(|| learner.outcome(&batch))?.loss.f_double_value(&[])?;
            count += (tokens.len() - 1 - start).min(rows * self.loader.window);
            start += rows * self.loader.window;
        }
        Ok(sum / count as f64)
    }

    /// Mean loss (nats) of the tokens that are hidden in the first windows.
    fn masked(&self, tokens: &Tokens, masking: &Masking, most_tokens: usize) -> Result<f64> {
        let learner = Learner { z_loss: 0.0, teacher: None, ..self.learner() };
        let (window, device) = (self.loader.window, self.loader.device);
        let rows = (BATCH_TOKENS / window).max(1);
        let most = most_tokens.div_ceil(window);
        let (mut sum, mut count, mut first) = (0.0, 0, 0);
        while first < most {
            let part = (first, rows.min(most - first));
            let Some(batch) = masked::batch(tokens, masking, window, part, device)? else { break };
            sum += no_grad(|| learner.outcome(&batch))?.loss.f_double_value(&[])?;
            count += batch.supervised;
            first += rows;
        }
        Ok(sum / count.max(1) as f64)
    }

    fn rows(&self, rows: &Rows) -> Result<Measured> {
        let learner = Learner { z_loss: 0.0, teacher: None, ..self.learner() };
        let (mut sum, mut weight, mut seen) = (0.0, 0, 0);
        let mut sums: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
        for part in rows.measured(self.spec.batch_size) {
            let batch: MicroBatch = rows.laid(&part, self.loader.device)?;
            let outcome = no_grad(|| learner.outcome(&batch))?;
            sum += outcome.loss.f_double_value(&[])?;
            weight += self.spec.method.weight(&batch);
            for (name, (sum, count)) in outcome.figures {
                let all = sums.entry(name).or_default();
                *all = (all.0 + sum, all.1 + count);
            }
            seen += part.len();
            if seen >= ROWS {
                break;
            }
        }
        Ok((sum / weight.max(1) as f64, means(sums, "validation_")))
    }
}
