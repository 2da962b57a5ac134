//! Llama: RMSNorm, rotary positions (half-split, as Hugging Face stores them), SwiGLU, grouped-query attention.
//!
//! Shapes: b batch, t time, c width, h query heads, k key and value heads, d head size, i width inside the MLP.

use tch::{Device, Kind, Tensor};
use tidemill_torch::ops;

use crate::{
    Attention, LlamaConfig, Result,
    builder::{Builder, Initial},
};

#[derive(Debug)]
pub(crate) struct Llama {
    embedding_vc: Tensor,
    blocks: Vec<Block>,
    norm_c: Tensor,
    head_vc: Tensor,
    rotation: Rotation,
    heads: i64,
    kv_heads: i64,
    epsilon: f64,
}

#[derive(Debug)]
struct Block {
    attention_norm_c: Tensor,
    qkv: Tensor,
    output: Tensor,
    mlp_norm_c: Tensor,
    gate_up: Tensor,
    down: Tensor,
}

/// Cosines and sines of every position, [context, d/2].
#[derive(Debug)]
struct Rotation {
    cosines: Tensor,
    sines: Tensor,
}

impl Llama {
    pub(crate) fn new(builder: &mut Builder, config: &LlamaConfig, device: Device) -> Result<Self> {
        let (v, c) = (config.vocab_size, config.hidden_size);
        let normal = Initial::Normal(config.initializer_range);
        let embedding_vc = builder.matrix("model.embed_tokens.weight".to_owned(), v, c, normal)?;
        let blocks =
            (0..config.num_hidden_layers).map(|layer| Block::new(builder, config, layer)).collect::<Result<_>>()?;
        let norm_c = builder.vector("model.norm.weight".to_owned(), c, Initial::Ones)?;
        let head_vc = match config.tie_word_embeddings {
            true => embedding_vc.shallow_clone(),
            false => builder.matrix("lm_head.weight".to_owned(), v, c, normal)?,
        };
        let rotation = Rotation::new(config, device)?;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        Ok(Self { embedding_vc, blocks, norm_c, head_vc, rotation, heads, kv_heads, epsilon: config.rms_norm_eps })
    }

    pub(crate) fn hidden(&self, ids_bt: &Tensor, attention: &mut Attention<'_>) -> Result<Tensor> {
        let (cosines, sines) = self.rotation.at(attention.start(), ids_bt.size()[1])?;
        let mut x_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = ops::rms_norm(&x_btc, &block.attention_norm_c, self.epsilon)?;
            let qkv = ops::linear(&normed, &block.qkv, None)?;
            let (q, k, v) = ops::split_qkv(&qkv, Some((&cosines, &sines)), self.heads, self.kv_heads)?;
            let mixed = attention.attend(layer, &q, &k, &v)?;
            x_btc = x_btc.f_add(&ops::linear(&mixed, &block.output, None)?)?;
            let normed = ops::rms_norm(&x_btc, &block.mlp_norm_c, self.epsilon)?;
            let inner = ops::swiglu(&ops::linear(&normed, &block.gate_up, None)?)?;
            x_btc = x_btc.f_add(&ops::linear(&inner, &block.down, None)?)?;
        }
        Ok(ops::rms_norm(&x_btc, &self.norm_c, self.epsilon)?)
    }

    pub(crate) fn head(&self) -> &Tensor {
        &self.head_vc
    }
}

impl Block {
    fn new(builder: &mut Builder, config: &LlamaConfig, layer: i64) -> Result<Self> {
        let (c, i, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, keys) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let normal = Initial::Normal(config.initializer_range);
        // Each layer adds twice to the residual stream: its variance stays that of one addition.
        let residual = Initial::Normal(config.initializer_range / (2.0 * config.num_hidden_layers as f64).sqrt());
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let attention_norm_c = builder.vector(name("input_layernorm"), c, Initial::Ones)?;
        let pieces = vec![
            (name("self_attn.q_proj"), queries),
            (name("self_attn.k_proj"), keys),
            (name("self_attn.v_proj"), keys),
        ];
        let qkv = builder.stacked(name("self_attn.qkv_proj"), pieces, c, normal)?;
        let output = builder.matrix(name("self_attn.o_proj"), c, queries, residual)?;
        let mlp_norm_c = builder.vector(name("post_attention_layernorm"), c, Initial::Ones)?;
        let pieces = vec![(name("mlp.gate_proj"), i), (name("mlp.up_proj"), i)];
        let gate_up = builder.stacked(name("mlp.gate_up_proj"), pieces, c, normal)?;
        let down = builder.matrix(name("mlp.down_proj"), c, i, residual)?;
        Ok(Self { attention_norm_c, qkv, output, mlp_norm_c, gate_up, down })
    }
}

impl Rotation {
    fn new(config: &LlamaConfig, device: Device) -> Result<Self> {
        let half = config.head_dim / 2;
        // float32 throughout, in the order of operations that transformers uses.
        let exponents = Tensor::f_arange(half, (Kind::Float, Device::Cpu))?.f_mul_scalar(2.0)?;
        let exponents = exponents.f_div_scalar(config.head_dim as f64)?;
        let frequencies = Tensor::from(config.rope_theta as f32).f_pow(&exponents)?.f_reciprocal()?;
        let positions = Tensor::f_arange(config.max_position_embeddings, (Kind::Float, Device::Cpu))?;
        let angles = positions.f_outer(&frequencies)?;
        Ok(Self { cosines: angles.f_cos()?.f_to_device(device)?, sines: angles.f_sin()?.f_to_device(device)? })
    }

    fn at(&self, start: i64, t: i64) -> Result<(Tensor, Tensor)> {
        Ok((self.cosines.f_narrow(0, start, t)?, self.sines.f_narrow(0, start, t)?))
    }
}
