//! Losses of sequences, which lie end to end in a batch; an encoder-decoder's have sources.

use tch::Tensor;
use tidemill_models::{Attention, Documents, Model, Pairs};
use tidemill_text::Supervised;

use crate::error::{Error, Result};

/// Tokens of a batch, about.
const BATCH_TOKENS: usize = 4096;

/// A sequence to score.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence<'a> {
    /// What an encoder-decoder reads before; empty for other models.
    pub(crate) source: &'a [i64],
    /// What the model reads, and what it should predict.
    pub(crate) text: &'a Supervised,
}

impl Sequence<'_> {
    /// Tokens that are run through the model.
    pub(crate) fn tokens(&self) -> usize {
        self.source.len() + self.text.inputs.len()
    }
}

/// Negative log-likelihood of what a sequence should predict.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    pub(crate) nats: f64,
    pub(crate) tokens: u64,
}

impl Loss {
    pub(crate) fn mean(self) -> f64 {
        self.nats / self.tokens as f64
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
    }
}

/// Scores sequences batch after batch; `between` is asked after each, with the tokens done, whether to go on. Nothing comes back if it
/// said no.
pub(crate) async fn score(
    model: &Model,
    digest: &str,
    sequences: &[Sequence<'_>],
    mut between: impl FnMut(u64) -> bool,
) -> Result<Option<Vec<Loss>>> {
    let (mut losses, mut done) = (Vec::with_capacity(sequences.len()), 0);
    for batch in batches(sequences) {
        let failed = |source| Error::Model { digest: digest.to_owned(), source };
        losses.extend(batch_losses(model, batch).map_err(failed)?);
        if losses.iter().any(|loss| !loss.nats.is_finite()) {
            return Err(Error::NotFinite(digest.to_owned()));
        }
        done += batch.iter().map(|sequence| sequence.tokens() as u64).sum::<u64>();
        // Signals are seen while we wait.
        tokio::task::yield_now().await;
        if !between(done) {
            return Ok(None);
        }
    }
    Ok(Some(losses))
}

/// Sequences in their order, as many a batch as fit.
fn batches<'a, 'b>(sequences: &'b [Sequence<'a>]) -> impl Iterator<Item = &'b [Sequence<'a>]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sequence| {
            tokens += sequence.tokens();
            tokens <= BATCH_TOKENS
        });
        // One that is longer than a batch is one of its own.
        let count = fitting.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (count > 0).then_some(batch)
    })
}

fn batch_losses(model: &Model, batch: &[Sequence<'_>]) -> tidemill_models::Result<Vec<Loss>> {
    let laid = |part: fn(&Sequence<'_>) -> Vec<i64>| -> tidemill_models::Result<(Tensor, Vec<i64>)> {
        let parts: Vec<Vec<i64>> = batch.iter().map(part).collect();
        let ids = Tensor::f_from_slice(&parts.concat())?.f_unsqueeze(0)?.f_to_device(model.device())?;
        Ok((ids, parts.iter().map(|part| part.len() as i64).collect()))
    };
    let (inputs, lengths) = laid(|sequence| sequence.text.inputs.clone())?;
    let (targets, _) = laid(|sequence| sequence.text.targets.clone())?;
    let documents = Documents::new(lengths, model.device())?;
    let losses = match batch.iter().any(|sequence| !sequence.source.is_empty()) {
        true => {
            let (sources, lengths) = laid(|sequence| sequence.source.to_vec())?;
            let source_documents = &Documents::new(lengths, model.device())?;
            let (texts, text_documents) = (&inputs, &documents);
            model.pairs_token_losses(Pairs { sources: &sources, source_documents, texts, text_documents }, &targets)?
        }
        false => model.token_losses(&inputs, &targets, Attention::Documents(&documents))?,
    };
    let losses = Vec::<f32>::try_from(&losses.f_to_device(tch::Device::Cpu)?)?;
    let mut rest = losses.as_slice();
    let of = |sequence: &Sequence<'_>| {
        let (own, after) = rest.split_at(sequence.text.inputs.len());
        rest = after;
        Loss { nats: own.iter().map(|loss| f64::from(*loss)).sum(), tokens: sequence.text.learned() as u64 }
    };
    Ok(batch.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_sequence_once_and_no_more_than_fits() {
        let text = |length: usize| Supervised { inputs: vec![0; length], targets: vec![0; length] };
        let texts: Vec<Supervised> = [10, BATCH_TOKENS, 3000, 1096, 1, BATCH_TOKENS + 5, 7].map(text).into();
        let all: Vec<Sequence<'_>> = texts.iter().map(|text| Sequence { source: &[], text }).collect();
        let lengths: Vec<Vec<usize>> =
            batches(&all).map(|batch| batch.iter().map(Sequence::tokens).collect()).collect();
        assert_eq!(lengths, [vec![10], vec![4096], vec![3000, 1096], vec![1], vec![4101], vec![7]]);
    }
}
