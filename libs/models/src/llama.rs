//! The Llama family: RMSNorm, rotary positions, SwiGLU, grouped-query attention. Its members differ by configuration: Mistral looks
//! back over a window, Qwen2 has biases on queries, keys and values, Qwen3 norms queries and keys.
//!
//! Shapes: b batch, t time, c width, h query heads, k key and value heads, d head size, i width inside the MLP.

use tch::{Device, Tensor};
use tidemill_torch::ops;

use crate::{
    Attention, LlamaConfig, Result,
    attention::Pattern,
    builder::{Builder, Initial},
    linear::Linear,
    norm::RmsNorm,
    recompute::{Again, Laid},
    rope::Rotation,
};

#[derive(Debug)]
pub(crate) struct Llama {
    embedding_vc: Tensor,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head_vc: Tensor,
    rotation: Rotation,
}

#[derive(Debug)]
struct Block {
    layer: usize,
    heads: i64,
    kv_heads: i64,
    attention_norm: RmsNorm,
    qkv: Linear,
    /// Over each head's queries and keys, before they turn.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    output: Linear,
    mlp_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
    window: Option<i64>,
}

impl Llama {
    pub(crate) fn new(builder: &mut Builder, config: &LlamaConfig, device: Device) -> Result<Self> {
        let (v, c) = (config.vocab_size, config.hidden_size);
        let normal = Initial::Normal(config.initializer_range);
        let embedding_vc = builder.matrix("model.embed_tokens.weight".to_owned(), v, c, normal)?;
        let blocks =
            (0..config.num_hidden_layers).map(|layer| Block::new(builder, config, layer)).collect::<Result<_>>()?;
        let norm = RmsNorm::new(builder, "model.norm.weight".to_owned(), c, config.rms_norm_eps)?;
        let head_vc = match config.tie_word_embeddings {
            true => embedding_vc.shallow_clone(),
            false => builder.matrix("lm_head.weight".to_owned(), v, c, normal)?,
        };
        let rotation = Rotation::new(&config.rope, config.head_dim, config.max_position_embeddings, device)?;
        Ok(Self { embedding_vc, blocks, norm, head_vc, rotation })
    }

    /// The last layer's output after its norm: ids [b,t] -> [b,t,c]. `again`: blocks keep their input alone for a backward pass.
    pub(crate) fn hidden(
        &self,
        ids_bt: &Tensor,
        attention: &mut Attention<'_>,
        again: Option<&Again>,
    ) -> Result<Tensor> {
        let (cosines, sines) = match attention {
            Attention::Documents(documents) => self.rotation.at(documents.positions())?,
            _ => self.rotation.range(attention.start(), ids_bt.size()[1])?,
        };
        let mut x_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        let laid = Laid::of(attention, again)?;
        for (number, block) in self.blocks.iter().enumerate() {
            x_btc = match &laid {
                Some(laid) => {
                    let (own, cosines, sines) = (block.share(), cosines.shallow_clone(), sines.shallow_clone());
                    laid.through(number, [&x_btc], move |[x], attention| own.apply(x, (&cosines, &sines), attention))?
                }
                None => block.apply(&x_btc, (&cosines, &sines), attention)?,
            };
        }
        self.norm.apply(&x_btc)
    }

    pub(crate) fn head(&self) -> &Tensor {
        &self.head_vc
    }

    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        self.blocks.iter_mut().flat_map(Block::linears).collect()
    }
}

impl Block {
    /// [b,t,c] -> [b,t,c].
    fn apply(&self, x_btc: &Tensor, rotation: (&Tensor, &Tensor), attention: &mut Attention<'_>) -> Result<Tensor> {
        let qkv = self.qkv.apply(&self.attention_norm.apply(x_btc)?)?;
        let (q, k, v) = self.heads(&qkv, rotation)?;
        let pattern = Pattern { window: self.window, ..Pattern::CAUSAL };
        let mixed = attention.attend(self.layer, &q, &k, &v, pattern)?;
        let x_btc = x_btc.f_add(&self.output.apply(&mixed)?)?;
        let inner = ops::swiglu(&self.gate_up.apply(&self.mlp_norm.apply(&x_btc)?)?)?;
        Ok(x_btc.f_add(&self.down.apply(&inner)?)?)
    }

    /// Turned queries [b,h,t,d] and keys [b,k,t,d], and values.
    fn heads(&self, qkv: &Tensor, rotation: (&Tensor, &Tensor)) -> Result<(Tensor, Tensor, Tensor)> {
        let Some((query_norm, key_norm)) = &self.head_norms else {
            return Ok(ops::split_qkv(qkv, Some(rotation), self.heads, self.kv_heads)?);
        };
        // The norms stand between the projection and the rotation.
        let (b, t, _) = qkv.size3()?;
        let (h, k) = (self.heads, self.kv_heads);
        let rows = qkv.f_view([b, t, h + 2 * k, -1])?;
        let parts = [
            query_norm.apply(&rows.f_narrow(2, 0, h)?)?,
            key_norm.apply(&rows.f_narrow(2, h, k)?)?,
            rows.f_narrow(2, h + k, k)?,
        ];
        let normed = Tensor::f_cat(&parts, 2)?.f_flatten(2, 3)?;
        Ok(ops::split_qkv(&normed, Some(rotation), h, k)?)
    }

    /// The same block, by other handles of its tensors.
    fn share(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.share(),
            qkv: self.qkv.share(),
            head_norms: self.head_norms.as_ref().map(|(queries, keys)| (queries.share(), keys.share())),
            output: self.output.share(),
            mlp_norm: self.mlp_norm.share(),
            gate_up: self.gate_up.share(),
            down: self.down.share(),
            ..*self
        }
    }

    fn linears(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }

    fn new(builder: &mut Builder, config: &LlamaConfig, layer: i64) -> Result<Self> {
        let (c, i, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (queries, keys) = (config.num_attention_heads * d, config.num_key_value_heads * d);
        let normal = Initial::Normal(config.initializer_range);
        // Each layer adds twice to the residual stream: its variance stays that of one addition.
        let residual = Initial::Normal(config.initializer_range / (2.0 * config.num_hidden_layers as f64).sqrt());
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let norm = |builder: &mut Builder, part: &str, size: i64| {
            RmsNorm::new(builder, name(&format!("{part}.weight")), size, config.rms_norm_eps)
        };
        let attention_norm = norm(builder, "input_layernorm", c)?;
        let modules =
            [(name("self_attn.q_proj"), queries), (name("self_attn.k_proj"), keys), (name("self_attn.v_proj"), keys)];
        let qkv = builder.stacked(name("self_attn.qkv_proj"), &modules, c, normal, config.qkv_bias)?;
        let head_norms = match config.head_norms {
            true => Some((norm(builder, "self_attn.q_norm", d)?, norm(builder, "self_attn.k_norm", d)?)),
            false => None,
        };
        let output = builder.linear(name("self_attn.o_proj"), c, queries, residual, config.output_bias)?;
        let mlp_norm = norm(builder, "post_attention_layernorm", c)?;
        let modules = [(name("mlp.gate_proj"), i), (name("mlp.up_proj"), i)];
        let gate_up = builder.stacked(name("mlp.gate_up_proj"), &modules, c, normal, config.mlp_bias)?;
        let down = builder.linear(name("mlp.down_proj"), c, i, residual, config.mlp_bias)?;
        let layer = layer as usize;
        let window = config.windows.get(layer).copied().flatten();
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        Ok(Self { layer, heads, kv_heads, attention_norm, qkv, head_norms, output, mlp_norm, gate_up, down, window })
    }
}
