//! Generation: the likeliest token, beams, or several draws at once. How one token is drawn is in [`crate::sampling`].

mod beams;
mod draws;

use tch::{Kind, Tensor};

use crate::{Attention, Cache, Error, Model, Result};

pub use beams::beam_search;
pub use draws::sample;

/// Goes on from a prompt with the likeliest token each time, until a token of `ends` or `most` new ones; gives the new ones.
pub fn greedy(model: &Model, prompt: &[i64], most: usize, ends: &[i64]) -> Result<Vec<i64>> {
    let _guard = tch::no_grad_guard();
    let (mut state, mut logits) = State::begin(model, prompt, most)?;
    let mut tokens = Vec::new();
    while tokens.len() < most {
        let next = logits.f_argmax(-1, false)?.f_int64_value(&[0])?;
        tokens.push(next);
        if ends.contains(&next) || tokens.len() == most {
            break;
        }
        logits = state.step(&[next])?;
    }
    Ok(tokens)
}

/// Sequences that are being generated from one prompt: a decoder's, or an encoder-decoder's from one source.
struct State<'a> {
    model: &'a Model,
    cache: Cache,
    /// What the encoder made of the source, for each sequence.
    source: Option<Tensor>,
}

impl<'a> State<'a> {
    /// Reads the prompt (of an encoder-decoder: the source); gives the logits of the first new token, [1, v].
    fn begin(model: &'a Model, prompt: &[i64], most: usize) -> Result<(Self, Tensor)> {
        let ids = Tensor::f_from_slice(prompt)?.f_unsqueeze(0)?.f_to_device(model.device())?;
        let mut cache = Cache::new(model, (prompt.len() + most) as i64)?;
        match model.config() {
            crate::Config::T5(config) => {
                let source = Some(model.encode(&ids, Attention::Full)?);
                let mut state = Self { model, cache, source };
                let logits = state.step(&[config.decoder_start_token_id])?;
                Ok((state, logits))
            }
            config if config.is_decoder() => {
                let logits = model.next(&ids, Attention::Cached(&mut cache))?;
                Ok((Self { model, cache, source: None }, logits.f_to_kind(Kind::Float)?))
            }
            config => Err(Error::Unsupported(format!("{} generates nothing: it is an encoder", config.model_type()))),
        }
    }

    /// One more token for each sequence; gives the logits of the ones after, [rows, v].
    fn step(&mut self, tokens: &[i64]) -> Result<Tensor> {
        let ids = Tensor::f_from_slice(tokens)?.f_unsqueeze(1)?.f_to_device(self.model.device())?;
        let attention = Attention::Cached(&mut self.cache);
        let logits = match &self.source {
            Some(source) => self.model.decode(&ids, attention, source, Attention::Full)?.f_select(1, -1)?,
            None => self.model.next(&ids, attention)?,
        };
        Ok(logits.f_to_kind(Kind::Float)?)
    }

    /// Lets sequence `i` go on from where sequence `rows[i]` is.
    fn reorder(&mut self, rows: &[i64]) -> Result<()> {
        let rows = Tensor::f_from_slice(rows)?.f_to_device(self.model.device())?;
        if let Some(source) = &mut self.source {
            *source = source.f_index_select(0, &rows)?;
        }
        self.cache.reorder(&rows)
    }
}
