//! Causal attention over a whole sequence or over a cache, chosen by the caller.
//!
//! Shapes: b batch, h query heads, k key and value heads, g = h/k, t new tokens, s all tokens, d head size.

use tch::{Device, Kind, Tensor};
use tidemill_torch::ops;

use crate::{Cache, Result};

/// Where keys and values come from.
#[derive(Debug)]
pub enum Attention<'a> {
    /// The sequence given, from position 0: training and scoring.
    Full,
    /// The sequence given continues what the cache holds, and is added to it: generation.
    Cached(&'a mut Cache),
}

impl Attention<'_> {
    /// Position of the first token given.
    pub(crate) fn start(&self) -> i64 {
        match self {
            Self::Full => 0,
            Self::Cached(cache) => cache.length(),
        }
    }

    /// Attends each query to all tokens up to its own position. Queries [b,h,t,d], keys and values [b,k,t,d] -> [b,t,h*d].
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        queries_bhtd: &Tensor,
        keys_bktd: &Tensor,
        values_bktd: &Tensor,
    ) -> Result<Tensor> {
        let (b, h, t, d) = queries_bhtd.size4()?;
        let out_bhtd = match self {
            Self::Full => return Ok(ops::causal_attention(queries_bhtd, keys_bktd, values_bktd)?),
            Self::Cached(cache) => {
                let (keys_bksd, values_bksd) = cache.extend(layer, keys_bktd, values_bktd)?;
                let s = keys_bksd.size()[2];
                if t == 1 {
                    // One query a head: the group of heads that shares keys becomes the time axis, nothing is copied.
                    let k = keys_bksd.size()[1];
                    let queries_bkgd = queries_bhtd.f_reshape([b, k, h / k, d])?;
                    let out_bkgd = product(&queries_bkgd, &keys_bksd, &values_bksd, None)?;
                    return Ok(out_bkgd.f_reshape([b, 1, h * d])?);
                }
                if s == t {
                    return Ok(ops::causal_attention(queries_bhtd, keys_bktd, values_bktd)?);
                }
                let (keys, values) = (repeat(&keys_bksd, h)?, repeat(&values_bksd, h)?);
                let mask = continuation_mask(t, s, queries_bhtd.device())?;
                product(queries_bhtd, &keys, &values, Some(&mask))?
            }
        };
        Ok(out_bhtd.f_transpose(1, 2)?.f_reshape([b, t, h * d])?)
    }
}

/// [b,k,s,d] -> [b,h,s,d], each head beside the others of its group.
fn repeat(x_bksd: &Tensor, heads: i64) -> Result<Tensor> {
    let (b, k, s, d) = x_bksd.size4()?;
    if k == heads {
        return Ok(x_bksd.shallow_clone());
    }
    Ok(x_bksd.f_unsqueeze(2)?.f_expand([b, k, heads / k, s, d], false)?.f_reshape([b, heads, s, d])?)
}

/// True where token `s - t + i` may look: at tokens up to itself.
fn continuation_mask(t: i64, s: i64, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_ones([t, s], (Kind::Bool, device))?.f_tril(s - t)?)
}

fn product(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, false, None, false)?)
}
