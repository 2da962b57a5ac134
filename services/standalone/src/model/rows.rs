//! Rows of token ids as a model reads them: a matrix, or, where there is padding, documents laid end to end.

use tch::{Device, Kind, Tensor};
use tidemill_models::{Attention, Documents};

use super::Failure;

pub(super) struct Rows {
    /// Tokens of each row without its padding.
    lengths: Vec<usize>,
    /// Tokens of a row with its padding.
    width: usize,
    /// Where at least one row has padding.
    documents: Option<Documents>,
}

impl Rows {
    /// Rows as long as `width` with their padding, or `packed` even where none has any.
    pub(super) fn new(lengths: Vec<usize>, width: usize, packed: bool) -> Result<Self, Failure> {
        let documents = match packed || lengths.iter().any(|length| *length < width) {
            true => Some(Documents::new(lengths.iter().map(|length| *length as i64).collect(), Device::Cpu)?),
            false => None,
        };
        Ok(Self { lengths, width, documents })
    }

    pub(super) fn packed(&self) -> bool {
        self.documents.is_some()
    }

    pub(super) fn attention(&self) -> Attention<'_> {
        self.documents.as_ref().map_or(Attention::Full, Attention::Documents)
    }

    /// Ids without padding, ready for a model.
    pub(super) fn laid(&self, rows: &[Vec<i64>]) -> Result<Tensor, Failure> {
        let ids: Vec<i64> = rows.iter().zip(&self.lengths).flat_map(|(row, length)| &row[..*length]).copied().collect();
        let shape = if self.packed() { [1, ids.len() as i64] } else { [rows.len() as i64, self.width as i64] };
        Ok(Tensor::f_from_slice(&ids)?.f_view(shape)?)
    }

    /// What a model gave for each token as [rows, width, n], with zeros in the padding.
    pub(super) fn padded(&self, values: &Tensor) -> Result<Tensor, Failure> {
        if !self.packed() {
            return Ok(values.shallow_clone());
        }
        let inner = values.size()[2];
        let mut from = 0;
        let mut rows = Vec::with_capacity(self.lengths.len());
        for length in &self.lengths {
            let row = values.f_narrow(1, from, *length as i64)?.f_squeeze_dim(0)?;
            let padding = Tensor::f_zeros([(self.width - length) as i64, inner], (Kind::Float, Device::Cpu))?;
            rows.push(Tensor::f_cat(&[row, padding], 0)?);
            from += *length as i64;
        }
        Ok(Tensor::f_stack(&rows, 0)?)
    }

    /// The mean of each row's tokens, of length 1: [rows, width, n], zero in the padding -> [rows, n].
    pub(super) fn embeddings(&self, padded: &Tensor) -> Result<Tensor, Failure> {
        let counts: Vec<f32> = self.lengths.iter().map(|length| *length as f32).collect();
        let sums = padded.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
        let means = sums.f_div(&Tensor::f_from_slice(&counts)?.f_unsqueeze(1)?)?;
        let sizes = means.f_norm_scalaropt_dim(2.0, [1i64].as_slice(), true)?.f_clamp_min(1e-12)?;
        Ok(means.f_div(&sizes)?)
    }
}
