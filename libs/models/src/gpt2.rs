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
    recompute::{Again, Laid},
};

#[derive(Debug)]
pub(crate) struct Gpt2 {
    embedding_vc: Tensor,
    positions_tc: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Block {
    layer: usize,
    heads: i64,
    activation: Activation,
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
        Ok(Self { embedding_vc, positions_tc, blocks, norm })
    }

    /// The last layer's output after its norm: ids [b,t] -> [b,t,c]. `again`: blocks keep their input alone for a backward pass.
    pub(crate) fn hidden(
        &self,
        ids_bt: &Tensor,
        attention: &mut Attention<'_>,
        again: Option<&Again>,
    ) -> Result<Tensor> {
        let positions_tc = match attention {
            Attention::Documents(documents) => self.positions_tc.f_index_select(0, documents.positions())?,
            _ => self.positions_tc.f_narrow(0, attention.start(), ids_bt.size()[1])?,
        };
        let tokens_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        let mut x_btc = tokens_btc.f_add(&positions_tc)?;
        let laid = Laid::of(attention, again)?;
        for (number, block) in self.blocks.iter().enumerate() {
            x_btc = match &laid {
                Some(laid) => {
                    let own = block.share();
                    laid.through(number, [&x_btc], move |[x], attention| own.apply(x, attention))?
                }
                None => block.apply(&x_btc, attention)?,
            };
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
    /// [b,t,c] -> [b,t,c].
    fn apply(&self, x_btc: &Tensor, attention: &mut Attention<'_>) -> Result<Tensor> {
        let qkv = self.qkv.apply(&self.attention_norm.apply(x_btc)?)?;
        let (q, k, v) = ops::split_qkv(&qkv, None, self.heads, self.heads)?;
        let mixed = attention.attend(self.layer, &q, &k, &v, Pattern::CAUSAL)?;
        let x_btc = x_btc.f_add(&self.output.apply(&mixed)?)?;
        let inner = self.up.apply(&self.mlp_norm.apply(&x_btc)?)?;
        Ok(x_btc.f_add(&self.down.apply(&self.activation.apply(&inner)?)?)?)
    }

    /// The same block, by other handles of its tensors.
    fn share(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.share(),
            qkv: self.qkv.share(),
            output: self.output.share(),
            mlp_norm: self.mlp_norm.share(),
            up: self.up.share(),
            down: self.down.share(),
            ..*self
        }
    }

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
            layer: layer as usize,
            heads: config.n_head,
            activation: config.activation_function,
            attention_norm: norm(builder, "ln_1")?,
            qkv: builder.transposed(name("attn.c_attn"), 3 * c, c, normal, bias)?,
            output: builder.transposed(name("attn.c_proj"), c, c, residual, bias)?,
            mlp_norm: norm(builder, "ln_2")?,
            up: builder.transposed(name("mlp.c_fc"), inner, c, normal, bias)?,
            down: builder.transposed(name("mlp.c_proj"), c, inner, residual, bias)?,
        })
    }
}
