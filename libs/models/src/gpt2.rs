//! GPT-2: LayerNorm, learned positions, GELU; without biases it is nanoGPT's variant. The head shares the embedding.
//!
//! Shapes: b batch, t time, c width, h heads, d head size.

use tch::Tensor;
use tidemill_torch::ops;

use crate::{
    Activation, Attention, Gpt2Config, Result,
    builder::{Builder, Initial},
};

#[derive(Debug)]
pub(crate) struct Gpt2 {
    embedding_vc: Tensor,
    positions_tc: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    heads: i64,
    activation: Activation,
}

#[derive(Debug)]
struct Block {
    attention_norm: Norm,
    qkv: Linear,
    output: Linear,
    mlp_norm: Norm,
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
struct Norm {
    weight_c: Tensor,
    bias_c: Option<Tensor>,
    epsilon: f64,
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Gpt2 {
    pub(crate) fn new(builder: &mut Builder, config: &Gpt2Config) -> Result<Self> {
        let c = config.n_embd;
        let normal = Initial::Normal(config.initializer_range);
        let embedding_vc = builder.matrix("transformer.wte.weight".to_owned(), config.vocab_size, c, normal)?;
        let positions_tc = builder.matrix("transformer.wpe.weight".to_owned(), config.n_positions, c, normal)?;
        let blocks = (0..config.n_layer).map(|layer| Block::new(builder, config, layer)).collect::<Result<_>>()?;
        let norm = Norm::new(builder, "transformer.ln_f", config)?;
        let activation = config.activation_function;
        Ok(Self { embedding_vc, positions_tc, blocks, norm, heads: config.n_head, activation })
    }

    pub(crate) fn hidden(&self, ids_bt: &Tensor, attention: &mut Attention<'_>) -> Result<Tensor> {
        let (start, t) = (attention.start(), ids_bt.size()[1]);
        let positions_tc = self.positions_tc.f_narrow(0, start, t)?;
        let tokens_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        let mut x_btc = tokens_btc.f_add(&positions_tc)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = block.qkv.apply(&block.attention_norm.apply(&x_btc)?)?;
            let (q, k, v) = ops::split_qkv(&qkv, None, self.heads, self.heads)?;
            let mixed = attention.attend(layer, &q, &k, &v)?;
            x_btc = x_btc.f_add(&block.output.apply(&mixed)?)?;
            let inner = block.up.apply(&block.mlp_norm.apply(&x_btc)?)?;
            let inner = inner.f_gelu(self.activation.approximation())?;
            x_btc = x_btc.f_add(&block.down.apply(&inner)?)?;
        }
        self.norm.apply(&x_btc)
    }

    pub(crate) fn head(&self) -> &Tensor {
        &self.embedding_vc
    }
}

impl Block {
    fn new(builder: &mut Builder, config: &Gpt2Config, layer: i64) -> Result<Self> {
        let (c, inner) = (config.n_embd, config.inner());
        let normal = Initial::Normal(config.initializer_range);
        // Each layer adds twice to the residual stream: its variance stays that of one addition.
        let residual = Initial::Normal(config.initializer_range / (2.0 * config.n_layer as f64).sqrt());
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        Ok(Self {
            attention_norm: Norm::new(builder, &name("ln_1"), config)?,
            qkv: Linear::new(builder, &name("attn.c_attn"), 3 * c, c, normal, config.bias)?,
            output: Linear::new(builder, &name("attn.c_proj"), c, c, residual, config.bias)?,
            mlp_norm: Norm::new(builder, &name("ln_2"), config)?,
            up: Linear::new(builder, &name("mlp.c_fc"), inner, c, normal, config.bias)?,
            down: Linear::new(builder, &name("mlp.c_proj"), c, inner, residual, config.bias)?,
        })
    }
}

impl Norm {
    fn new(builder: &mut Builder, name: &str, config: &Gpt2Config) -> Result<Self> {
        let weight_c = builder.vector(format!("{name}.weight"), config.n_embd, Initial::Ones)?;
        let bias_c = match config.bias {
            true => Some(builder.vector(format!("{name}.bias"), config.n_embd, Initial::Zeros)?),
            false => None,
        };
        Ok(Self { weight_c, bias_c, epsilon: config.layer_norm_epsilon })
    }

    fn apply(&self, x_btc: &Tensor) -> Result<Tensor> {
        let width = self.weight_c.size();
        Ok(x_btc.f_layer_norm(width, Some(&self.weight_c), self.bias_c.as_ref(), self.epsilon, false)?)
    }
}

impl Linear {
    fn new(builder: &mut Builder, name: &str, outputs: i64, inputs: i64, initial: Initial, bias: bool) -> Result<Self> {
        let weight = builder.transposed(format!("{name}.weight"), outputs, inputs, initial)?;
        let bias = match bias {
            true => Some(builder.vector(format!("{name}.bias"), outputs, Initial::Zeros)?),
            false => None,
        };
        Ok(Self { weight, bias })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(x, &self.weight, self.bias.as_ref())?)
    }
}
