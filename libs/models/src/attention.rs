//! Attention over whole sequences, over documents packed into one, or over a cache, chosen by the caller.
//!
//! Shapes: b batch, h query heads, k key and value heads, g = h/k, t new tokens, s all tokens, d head size.

mod documents;

use tch::{Device, Kind, Tensor};
use tidemill_torch::ops;

use crate::{Cache, Error, Result};

pub use documents::Documents;

/// Where keys and values come from.
#[derive(Debug)]
pub enum Attention<'a> {
    /// The sequences given, from position 0: training and scoring.
    Full,
    /// One row of documents laid end to end: each has its own positions, and no token attends to another document.
    Documents(&'a Documents),
    /// The sequence given continues what the cache holds, and is added to it: generation.
    Cached(&'a mut Cache),
}

/// Which tokens a query attends to, and how scores are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern<'a> {
    /// Only tokens up to the query's own position.
    pub(crate) causal: bool,
    /// Only the last so many of them.
    pub(crate) window: Option<i64>,
    /// Factor on the products; absent means 1 / sqrt(d).
    pub(crate) scale: Option<f64>,
    /// Added to the scores, by position of query and key in their document: (t, s, first query's position) -> [1, h, t, s].
    pub(crate) bias: Option<&'a dyn Bias>,
}

/// See [`Pattern::bias`].
pub(crate) trait Bias: std::fmt::Debug {
    /// [1, h, t, s] for queries from position `start` on and keys from 0 on.
    fn scores(&self, t: i64, s: i64, start: i64) -> Result<Tensor>;
}

impl Pattern<'_> {
    /// Causal attention without limits.
    pub(crate) const CAUSAL: Pattern<'static> = Pattern { causal: true, window: None, scale: None, bias: None };
    /// Attention to all tokens of the sequence.
    pub(crate) const ALL: Pattern<'static> = Pattern { causal: false, window: None, scale: None, bias: None };
}

impl Attention<'_> {
    /// Position of the first token given.
    pub(crate) fn start(&self) -> i64 {
        match self {
            Self::Full | Self::Documents(_) => 0,
            Self::Cached(cache) => cache.length(),
        }
    }

    /// Checks that `ids_bt` fits, and a context of `capacity` is enough.
    pub(crate) fn check(&self, ids_bt: &Tensor, capacity: i64) -> Result<()> {
        let (b, t) = ids_bt.size2().map_err(|_| Error::Shape(ids_bt.size()))?;
        if b == 0 || t == 0 {
            return Err(Error::Shape(ids_bt.size()));
        }
        let needed = match self {
            Self::Full => t,
            Self::Documents(documents) => {
                documents.check(b, t)?;
                documents.longest()
            }
            Self::Cached(cache) => {
                cache.check(b, t)?;
                cache.length() + t
            }
        };
        if needed > capacity { Err(Error::ContextExceeded { needed, capacity }) } else { Ok(()) }
    }

    /// Attends queries [b,h,t,d] to keys and values [b,k,t,d] -> [b,t,h*d].
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        pattern: Pattern<'_>,
    ) -> Result<Tensor> {
        match self {
            Self::Full => whole(q, k, v, 0, pattern),
            Self::Documents(documents) => documents.attend(q, (k, v), documents, pattern),
            Self::Cached(cache) => {
                let (keys, values) = cache.extend(layer, k, v)?;
                whole(q, &keys, &values, cache.length(), pattern)
            }
        }
    }

    /// Attends queries [b,h,t,d] to the keys and values [b,h,s,d] of other sequences, laid as `others` says: document to document.
    pub(crate) fn look(
        &self,
        q: &Tensor,
        keys_values: (&Tensor, &Tensor),
        others: &Attention<'_>,
        pattern: Pattern<'_>,
    ) -> Result<Tensor> {
        match (self, others) {
            (Self::Documents(own), Attention::Documents(others)) => own.attend(q, keys_values, others, pattern),
            _ => whole(q, keys_values.0, keys_values.1, 0, pattern),
        }
    }
}

/// Attention of queries from position `start` on to keys and values from 0 on: [b,h,t,d], [b,k,s,d] -> [b,t,h*d].
pub(crate) fn whole(q: &Tensor, keys: &Tensor, values: &Tensor, start: i64, pattern: Pattern<'_>) -> Result<Tensor> {
    let (b, h, t, d) = q.size4()?;
    let (k, s) = (keys.size()[1], keys.size()[2]);
    let windowed = pattern.window.is_some_and(|window| s > window);
    let special = windowed || pattern.bias.is_some() || pattern.scale.is_some();
    if pattern.causal && start == 0 && s == t && !special {
        return Ok(ops::causal_attention(q, keys, values)?);
    }
    if t == 1 && pattern.bias.is_none() {
        // One query a head: the group of heads that shares keys becomes the time axis, nothing is copied.
        let first = pattern.window.map_or(0, |window| (s - window).max(0));
        let (keys, values) = (keys.f_narrow(2, first, s - first)?, values.f_narrow(2, first, s - first)?);
        let out = product(&q.f_reshape([b, k, h / k, d])?, &keys, &values, None, pattern.scale)?;
        return Ok(out.f_reshape([b, 1, h * d])?);
    }
    let mut mask = match pattern.causal && (t > 1 || windowed) {
        true => Some(causal_mask(t, s, start, pattern.window.filter(|_| windowed), q.device())?),
        false => None,
    };
    if let Some(bias) = pattern.bias {
        let scores = bias.scores(t, s, start)?;
        mask = Some(match mask {
            Some(mask) => scores.f_masked_fill(&mask.f_logical_not()?, f64::NEG_INFINITY)?,
            None => scores,
        });
    }
    let out = product(q, &repeat(keys, h)?, &repeat(values, h)?, mask.as_ref(), pattern.scale)?;
    Ok(out.f_transpose(1, 2)?.f_reshape([b, t, h * d])?)
}

/// [b,k,s,d] -> [b,h,s,d], each head beside the others of its group.
fn repeat(x_bksd: &Tensor, heads: i64) -> Result<Tensor> {
    let (b, k, s, d) = x_bksd.size4()?;
    if k == heads {
        return Ok(x_bksd.shallow_clone());
    }
    Ok(x_bksd.f_unsqueeze(2)?.f_expand([b, k, heads / k, s, d], false)?.f_reshape([b, heads, s, d])?)
}

/// [t,s], true where the query at `start + i` may look: at tokens up to itself, and of them at the last `window`.
fn causal_mask(t: i64, s: i64, start: i64, window: Option<i64>, device: Device) -> Result<Tensor> {
    let mask = Tensor::f_ones([t, s], (Kind::Bool, device))?.f_tril(start)?;
    Ok(match window {
        Some(window) => mask.f_triu(start - window + 1)?,
        None => mask,
    })
}

fn product(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>, scale: Option<f64>) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, false, scale, false)?)
}
