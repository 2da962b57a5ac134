//! GPT-2: LayerNorm, learned positions, GELU; without biases it is nanoGPT's variant. The head shares the embedding.
//!
//! Shapes: b batch, t time, c width, h heads, d head size.

use tch::Tensor;
use tidemill_torch::ops;

use crate::{
    Activation, Attention, Gpt2Config, Result,
    attention::Pattern,
    builder::{Builder, Initial},
    linear::Linear,
    norm::LayerNorm,
};

#[derive(Debug)]
pub(crate) struct Gpt2 {
    embedding_vc: Tensor,
    positions_tc: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    heads: i64,
    activation: Activation,
}

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    qkv: Linear,
    output: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Gpt2 {
    pub(crate) fn new(builder: &mut Builder, config: &Gpt2Config) -> Result<Self> {
        let c = config.n_embd;
        let normal = Initial::Normal(config.initializer_range);
        let embedding_vc = builder.matrix("transformer.wte.weight".to_owned(), config.vocab_size, c, normal)?;
        let positions_tc = builder.matrix("transformer.wpe.weight".to_owned(), config.n_positions, c, normal)?;
        let blocks = (0..config.n_layer).map(|layer| Block::new(builder, config, layer)).collect::<Result<_>>()?;
        let norm = LayerNorm::new(builder, "transformer.ln_f", c, config.bias, config.layer_norm_epsilon)?;
        let activation = config.activation_function;
        Ok(Self { embedding_vc, positions_tc, blocks, norm, heads: config.n_head, activation })
    }

    pub(crate) fn hidden(&self, ids_bt: &Tensor, attention: &mut Attention<'_>) -> Result<Tensor> {
        let positions_tc = match attention {
            Attention::Documents(documents) => self.positions_tc.f_index_select(0, documents.positions())?,
            _ => self.positions_tc.f_narrow(0, attention.start(), ids_bt.size()[1])?,
        };
        let tokens_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        let mut x_btc = tokens_btc.f_add(&positions_tc)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = block.qkv.apply(&block.attention_norm.apply(&x_btc)?)?;
            let (q, k, v) = ops::split_qkv(&qkv, None, self.heads, self.heads)?;
            let mixed = attention.attend(layer, &q, &k, &v, Pattern::CAUSAL)?;
            x_btc = x_btc.f_add(&block.output.apply(&mixed)?)?;
            let inner = block.up.apply(&block.mlp_norm.apply(&x_btc)?)?;
            x_btc = x_btc.f_add(&block.down.apply(&self.activation.apply(&inner)?)?)?;
        }
        self.norm.apply(&x_btc)
    }

    pub(crate) fn head(&self) -> &Tensor {
        &self.embedding_vc
    }

    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        self.blocks.iter_mut().flat_map(Block::linears).collect()
    }
}

impl Block {
    fn linears(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.output, &mut self.up, &mut self.down]
    }

    fn new(builder: &mut Builder, config: &Gpt2Config, layer: i64) -> Result<Self> {
        let (c, inner, bias) = (config.n_embd, config.inner(), config.bias);
        let normal = Initial::Normal(config.initializer_range);
        // Each layer adds twice to the residual stream: its variance stays that of one addition.
        let residual = Initial::Normal(config.initializer_range / (2.0 * config.n_layer as f64).sqrt());
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        let norm = |builder: &mut Builder, part: &str| {
            LayerNorm::new(builder, &name(part), c, bias, config.layer_norm_epsilon)
        };
        Ok(Self {
            attention_norm: norm(builder, "ln_1")?,
            qkv: builder.transposed(name("attn.c_attn"), 3 * c, c, normal, bias)?,
            output: builder.transposed(name("attn.c_proj"), c, c, residual, bias)?,
            mlp_norm: norm(builder, "ln_2")?,
            up: builder.transposed(name("mlp.c_fc"), inner, c, normal, bias)?,
            down: builder.transposed(name("mlp.c_proj"), c, inner, residual, bias)?,
        })
    }
}
