//! How well a model predicts documents: every token once, from up to a full context of what comes before it.
//!
//! The stream of a document begins after the end-of-text token, as it does in training. Windows overlap by half a context.

use tch::{Device, Tensor};
use tidemill_models::{Attention, IGNORED, Model};

use crate::error::{Error, Result};

/// Tokens of a batch, about.
const BATCH_TOKENS: usize = 4096;

/// One pass of the model: inputs, and at the same places the tokens to predict or [`IGNORED`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    inputs: Vec<i64>,
    targets: Vec<i64>,
}

impl Window {
    fn scored(&self) -> u64 {
        self.targets.iter().filter(|target| **target != IGNORED).count() as u64
    }
}

/// The windows of one document.
pub(crate) fn windows(ids: &[u32], end_of_text: u32, context: usize) -> Vec<Window> {
    let target = |at: usize| i64::from(ids[at]);
    let input = |at: usize| if at == 0 { i64::from(end_of_text) } else { target(at - 1) };
    let stride = (context / 2).max(1);
    let mut windows = Vec::new();
    let mut scored = 0;
    while scored < ids.len() {
        let end = if scored == 0 { context } else { scored + stride }.min(ids.len());
        let start = end.saturating_sub(context);
        windows.push(Window {
            inputs: (start..end).map(input).collect(),
            targets: (start..end).map(|at| if at < scored { IGNORED } else { target(at) }).collect(),
        });
        scored = end;
    }
    windows
}

/// What was measured so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Score {
    /// Negative log-likelihood of all tokens, in nats.
    pub(crate) nats: f64,
    /// Tokens predicted.
    pub(crate) tokens: u64,
}

impl Score {
    /// Bits to code `bytes` bytes of text with, each.
    pub(crate) fn bits_per_byte(&self, bytes: f64) -> f64 {
        self.nats / std::f64::consts::LN_2 / bytes
    }

    /// The number of tokens among which the model is as unsure as a fair die of so many sides.
    pub(crate) fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }
}

/// Scores windows batch after batch; `between` is asked after each whether to go on. Nothing comes back if it said no.
pub(crate) async fn score(
    model: &Model,
    digest: &str,
    windows: &[Window],
    mut between: impl FnMut(&Score) -> bool,
) -> Result<Option<Score>> {
    let longest = windows.iter().map(|window| window.inputs.len()).max().unwrap_or(1);
    let mut score = Score::default();
    for batch in windows.chunks((BATCH_TOKENS / longest).max(1)) {
        score.nats += batch_nats(model, batch).map_err(|source| Error::Model { digest: digest.to_owned(), source })?;
        score.tokens += batch.iter().map(Window::scored).sum::<u64>();
        if !score.nats.is_finite() {
            return Err(Error::NotFinite(digest.to_owned()));
        }
        // Signals are seen while we wait.
        tokio::task::yield_now().await;
        if !between(&score) {
            return Ok(None);
        }
    }
    Ok(Some(score))
}

fn batch_nats(model: &Model, batch: &[Window]) -> tidemill_models::Result<f64> {
    let length = batch.iter().map(|window| window.inputs.len()).max().unwrap_or(0);
    // Padding comes after the text, where causal attention keeps it from being seen.
    let pad = |rows: &mut dyn Iterator<Item = &Vec<i64>>, with: i64| -> Vec<i64> {
        rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(with, length - row.len()))).collect()
    };
    let inputs = pad(&mut batch.iter().map(|window| &window.inputs), 0);
    let targets = pad(&mut batch.iter().map(|window| &window.targets), IGNORED);
    let place = |values: &[i64], device: Device| -> tidemill_models::Result<Tensor> {
        Ok(Tensor::from_slice(values).f_view([batch.len() as i64, length as i64])?.f_to_device(device)?)
    };
    let device = model.device();
    let nats = model.loss_sum(&place(&inputs, device)?, &place(&targets, device)?, Attention::Full, 0.0)?;
    Ok(f64::try_from(&nats)?)
}

#[cfg(test)]
mod tests;
