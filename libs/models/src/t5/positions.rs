//! T5's positions: a learned number for each head and bucket of distances, added to attention's scores.
//!
//! Buckets are those of `T5Attention._relative_position_bucket` in transformers, computed by the same operations in float32.

use tch::{Device, Kind, Tensor};

use crate::{
    Result, T5Config,
    attention::Bias,
    builder::{Builder, Initial},
};

#[derive(Debug)]
pub(super) struct Distances {
    /// [buckets, h].
    table: Tensor,
    buckets: i64,
    farthest: i64,
    /// Whether what comes later has buckets of its own.
    both_ways: bool,
    device: Device,
}

impl Distances {
    /// The table of a stack, which the checkpoint keeps in its first block.
    pub(super) fn new(
        builder: &mut Builder,
        config: &T5Config,
        stack: &str,
        both_ways: bool,
        device: Device,
    ) -> Result<Self> {
        let (buckets, farthest) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        let initial = Initial::Normal(config.initializer_factor * (config.d_model as f64).powf(-0.5));
        let table = builder.matrix(name, buckets, config.num_heads, initial)?;
        Ok(Self { table, buckets, farthest, both_ways, device })
    }

    /// [buckets, h].
    pub(super) fn table(&self) -> &Tensor {
        &self.table
    }

    /// The same distances with the numbers of another handle of the table.
    pub(super) fn with(&self, table: Tensor) -> Self {
        Self { table, ..*self }
    }

    /// The bucket of each distance from query to key.
    fn bucket(&self, distances: &Tensor) -> Result<Tensor> {
        let (buckets, offsets, distances) = match self.both_ways {
            true => {
                let half = self.buckets / 2;
                (half, distances.f_gt(0)?.f_to_kind(Kind::Int64)?.f_mul_scalar(half)?, distances.f_abs()?)
            }
            false => (self.buckets, distances.f_zeros_like()?, distances.f_clamp_max(0)?.f_neg()?),
        };
        let exact = buckets / 2;
        let ratio = (self.farthest as f64 / exact as f64).ln();
        let far = distances.f_to_kind(Kind::Float)?.f_div_scalar(exact as f64)?.f_log()?.f_div_scalar(ratio)?;
        let far = far.f_mul_scalar((buckets - exact) as f64)?.f_to_kind(Kind::Int64)?.f_add_scalar(exact)?;
        let far = far.f_clamp_max(buckets - 1)?;
        Ok(distances.f_where_self(&distances.f_lt(exact)?, &far)?.f_add(&offsets)?)
    }
}

impl Bias for Distances {
    fn scores(&self, t: i64, s: i64, start: i64) -> Result<Tensor> {
        let options = (Kind::Int64, self.device);
        let queries = Tensor::f_arange(t, options)?.f_add_scalar(start)?.f_unsqueeze(1)?;
        let distances = Tensor::f_arange(s, options)?.f_unsqueeze(0)?.f_sub(&queries)?;
        let scores = Tensor::f_embedding(&self.table, &self.bucket(&distances)?, -1, false, false)?;
        Ok(scores.f_permute([2, 0, 1])?.f_unsqueeze(0)?)
    }
}
