//! BERT: an encoder. LayerNorm after each addition, learned positions, GELU; with a masked-LM head, or a pooler, or neither.
//!
//! Shapes: b batch, t time, c width, h heads, d head size, v vocabulary.

use tch::Tensor;
use tidemill_torch::ops;

use crate::{
    Activation, Attention, BertConfig, Result,
    attention::Pattern,
    builder::{Builder, Initial},
    linear::Linear,
    norm::LayerNorm,
    recompute::{Again, Laid},
};

#[derive(Debug)]
pub(crate) struct Bert {
    embedding_vc: Tensor,
    positions_tc: Tensor,
    types: Tensor,
    embedding_norm: LayerNorm,
    blocks: Vec<Block>,
    head: Option<Head>,
    activation: Activation,
}

#[derive(Debug)]
struct Block {
    layer: usize,
    heads: i64,
    activation: Activation,
    qkv: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    mlp_norm: LayerNorm,
}

/// Before the products with the embedding: a layer of its own, and a bias after them.
#[derive(Debug)]
struct Head {
    transform: Linear,
    norm: LayerNorm,
    bias_v: Tensor,
}

impl Bert {
    pub(crate) fn new(builder: &mut Builder, config: &BertConfig) -> Result<Self> {
        let (v, c, epsilon) = (config.vocab_size, config.hidden_size, config.layer_norm_eps);
        let normal = Initial::Normal(config.initializer_range);
        let embedding = |builder: &mut Builder, part: &str, rows: i64| {
            builder.matrix(format!("bert.embeddings.{part}.weight"), rows, c, normal)
        };
        let embedding_vc = embedding(builder, "word_embeddings", v)?;
        let positions_tc = embedding(builder, "position_embeddings", config.max_position_embeddings)?;
        let types = embedding(builder, "token_type_embeddings", config.type_vocab_size)?;
        let embedding_norm = LayerNorm::new(builder, "bert.embeddings.LayerNorm", c, true, epsilon)?;
        let blocks =
            (0..config.num_hidden_layers).map(|layer| Block::new(builder, config, layer)).collect::<Result<_>>()?;
        if config.pooler {
            // Read and written, so that nothing of a checkpoint is lost; sentence embeddings are means here.
            builder.linear("bert.pooler.dense".to_owned(), c, c, normal, true)?;
        }
        let head = match config.masked_lm {
            true => Some(Head {
                bias_v: builder.vector("cls.predictions.bias".to_owned(), v, Initial::Zeros)?,
                transform: builder.linear("cls.predictions.transform.dense".to_owned(), c, c, normal, true)?,
                norm: LayerNorm::new(builder, "cls.predictions.transform.LayerNorm", c, true, epsilon)?,
            }),
            false => None,
        };
        let activation = config.hidden_act;
        Ok(Self { embedding_vc, positions_tc, types, embedding_norm, blocks, head, activation })
    }

    /// The last layer's output: ids [b,t] -> [b,t,c]. All tokens are of type 0. `again`: blocks keep their input alone for a backward pass.
    pub(crate) fn hidden(
        &self,
        ids_bt: &Tensor,
        attention: &mut Attention<'_>,
        again: Option<&Again>,
    ) -> Result<Tensor> {
        let positions_tc = match attention {
            Attention::Documents(documents) => self.positions_tc.f_index_select(0, documents.positions())?,
            _ => self.positions_tc.f_narrow(0, 0, ids_bt.size()[1])?,
        };
        let tokens_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        let x_btc = tokens_btc.f_add(&self.types.f_select(0, 0)?)?.f_add(&positions_tc)?;
        let mut x_btc = self.embedding_norm.apply(&x_btc)?;
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
        Ok(x_btc)
    }

    /// What the head makes of hidden states before the products with the embedding, and the bias after them.
    pub(crate) fn transformed(&self, x_btc: &Tensor) -> Result<Option<(Tensor, &Tensor)>> {
        let Some(head) = &self.head else { return Ok(None) };
        let x_btc = head.norm.apply(&self.activation.apply(&head.transform.apply(x_btc)?)?)?;
        Ok(Some((x_btc, &head.bias_v)))
    }

    pub(crate) fn embedding(&self) -> &Tensor {
        &self.embedding_vc
    }

    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        // PEFT adapts the head's own layer too; the products with the embedding are no layer.
        let head = self.head.iter_mut().map(|head| &mut head.transform);
        self.blocks.iter_mut().flat_map(Block::linears).chain(head).collect()
    }
}

impl Block {
    /// [b,t,c] -> [b,t,c].
    fn apply(&self, x_btc: &Tensor, attention: &mut Attention<'_>) -> Result<Tensor> {
        let (q, k, v) = ops::split_qkv(&self.qkv.apply(x_btc)?, None, self.heads, self.heads)?;
        let mixed = attention.attend(self.layer, &q, &k, &v, Pattern::ALL)?;
        let x_btc = self.attention_norm.apply(&self.output.apply(&mixed)?.f_add(x_btc)?)?;
        let inner = self.activation.apply(&self.up.apply(&x_btc)?)?;
        self.mlp_norm.apply(&self.down.apply(&inner)?.f_add(&x_btc)?)
    }

    /// The same block, by other handles of its tensors.
    fn share(&self) -> Self {
        Self {
            qkv: self.qkv.share(),
            output: self.output.share(),
            attention_norm: self.attention_norm.share(),
            up: self.up.share(),
            down: self.down.share(),
            mlp_norm: self.mlp_norm.share(),
            ..*self
        }
    }

    fn linears(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv, &mut self.output, &mut self.up, &mut self.down]
    }

    fn new(builder: &mut Builder, config: &BertConfig, layer: i64) -> Result<Self> {
        let (c, i, epsilon) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let normal = Initial::Normal(config.initializer_range);
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        let modules = ["query", "key", "value"].map(|part| (name(&format!("attention.self.{part}")), c));
        Ok(Self {
            layer: layer as usize,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            qkv: builder.stacked(name("attention.self.qkv"), &modules, c, normal, true)?,
            output: builder.linear(name("attention.output.dense"), c, c, normal, true)?,
            attention_norm: LayerNorm::new(builder, &name("attention.output.LayerNorm"), c, true, epsilon)?,
            up: builder.linear(name("intermediate.dense"), i, c, normal, true)?,
            down: builder.linear(name("output.dense"), c, i, normal, true)?,
            mlp_norm: LayerNorm::new(builder, &name("output.LayerNorm"), c, true, epsilon)?,
        })
    }
}
