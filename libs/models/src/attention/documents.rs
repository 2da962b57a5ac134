//! Documents laid end to end in one row: no padding, and no token that sees another document.

use tch::{Device, Tensor};

use super::{Pattern, whole};
use crate::{Error, Result};

/// The lengths of documents in a row of tokens [1, t].
#[derive(Debug)]
pub struct Documents {
    lengths: Vec<i64>,
    longest: i64,
    /// Position of each token in its document, [t].
    positions_t: Tensor,
}

impl Documents {
    /// Documents of these lengths, in this order.
    ///
    /// # Errors
    /// No document, or an empty one.
    pub fn new(lengths: Vec<i64>, device: Device) -> Result<Self> {
        if lengths.is_empty() || lengths.iter().any(|length| *length < 1) {
            return Err(Error::Shape(lengths));
        }
        let positions: Vec<i64> = lengths.iter().flat_map(|length| 0..*length).collect();
        let positions_t = Tensor::f_from_slice(&positions)?.f_to_device(device)?;
        let longest = lengths.iter().copied().max().unwrap_or_default();
        Ok(Self { lengths, longest, positions_t })
    }

    /// The same documents, by another handle.
    pub(crate) fn share(&self) -> Self {
        Self { lengths: self.lengths.clone(), longest: self.longest, positions_t: self.positions_t.shallow_clone() }
    }

    /// Tokens of each document.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Tokens of the longest document.
    pub fn longest(&self) -> i64 {
        self.longest
    }

    /// Position of each token in its document, [t].
    pub(crate) fn positions(&self) -> &Tensor {
        &self.positions_t
    }

    pub(crate) fn check(&self, b: i64, t: i64) -> Result<()> {
        let sum: i64 = self.lengths.iter().sum();
        if b == 1 && t == sum { Ok(()) } else { Err(Error::Documents { rows: b, tokens: t, documents: sum }) }
    }

    /// Each document's queries [1,h,t,d] attend to the keys and values [1,k,s,d] of the document of the same number in `others`.
    pub(crate) fn attend(
        &self,
        q: &Tensor,
        (k, v): (&Tensor, &Tensor),
        others: &Self,
        pattern: Pattern<'_>,
    ) -> Result<Tensor> {
        let (mut from, mut other) = (0, 0);
        let mut parts = Vec::with_capacity(self.lengths.len());
        for (t, s) in self.lengths.iter().zip(&others.lengths) {
            let (q, k, v) = (q.f_narrow(2, from, *t)?, k.f_narrow(2, other, *s)?, v.f_narrow(2, other, *s)?);
            parts.push(whole(&q, &k, &v, 0, pattern)?);
            (from, other) = (from + t, other + s);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Tensor::f_cat(&parts, 1)? })
    }
}
