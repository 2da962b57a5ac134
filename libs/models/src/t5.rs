//! T5: an encoder and a decoder that looks at it. RMSNorm before each part, positions by learned biases on distances, no scaling.
//!
//! Shapes: b batch, t time, s time of the source, c width, h heads, d head size, v vocabulary.

mod positions;

use tch::{Device, Tensor};
use tidemill_torch::ops;

use crate::{
    Activation, Attention, Result, T5Config,
    attention::Pattern,
    builder::{Builder, Initial},
    linear::Linear,
    norm::RmsNorm,
    recompute::{Again, Laid, Layout},
};
use positions::Distances;

#[derive(Debug)]
pub(crate) struct T5 {
    embedding_vc: Tensor,
    encoder: Stack,
    decoder: Stack,
    head_vc: Tensor,
    /// Factor on the decoder's output before the head.
    scale: f64,
}

#[derive(Debug)]
struct Stack {
    blocks: Vec<Block>,
    norm: RmsNorm,
    distances: Distances,
}

#[derive(Debug)]
struct Block {
    layer: usize,
    heads: i64,
    causal: bool,
    activation: Activation,
    attention_norm: RmsNorm,
    qkv: Linear,
    output: Linear,
    cross: Option<Cross>,
    mlp_norm: RmsNorm,
    /// Gate above, where there is one.
    up: Linear,
    gated: bool,
    down: Linear,
}

/// The decoder's attention to what the encoder made of the source.
#[derive(Debug)]
struct Cross {
    norm: RmsNorm,
    query: Linear,
    key_value: Linear,
    output: Linear,
}

/// What the decoder looks at: the encoder's states of each source, [b,s,c], and how they are laid.
#[derive(Debug)]
pub(crate) struct Encoded<'a> {
    pub(crate) states_bsc: &'a Tensor,
    pub(crate) attention: &'a Attention<'a>,
}

impl T5 {
    pub(crate) fn new(builder: &mut Builder, config: &T5Config, device: Device) -> Result<Self> {
        let (v, c) = (config.vocab_size, config.d_model);
        let normal = Initial::Normal(config.initializer_factor);
        let embedding_vc = builder.matrix("shared.weight".to_owned(), v, c, normal)?;
        let encoder = Stack::new(builder, config, "encoder", config.num_layers, device)?;
        let decoder = Stack::new(builder, config, "decoder", config.num_decoder_layers, device)?;
        let head_vc = match config.tied_head {
            true => embedding_vc.shallow_clone(),
            false => builder.matrix("lm_head.weight".to_owned(), v, c, normal)?,
        };
        let scale = if config.scale_decoder_outputs { (c as f64).powf(-0.5) } else { 1.0 };
        Ok(Self { embedding_vc, encoder, decoder, head_vc, scale })
    }

    /// The encoder's states of a source: ids [b,s] -> [b,s,c].
    /// `again`: blocks keep their inputs alone for a backward pass.
    pub(crate) fn encode(
        &self,
        ids_bs: &Tensor,
        attention: &mut Attention<'_>,
        again: Option<&Again>,
    ) -> Result<Tensor> {
        let x_bsc = Tensor::f_embedding(&self.embedding_vc, ids_bs, -1, false, false)?;
        self.encoder.run(x_bsc, attention, None, again)
    }

    /// The decoder's states: ids [b,t] -> [b,t,c], ready for the head.
    pub(crate) fn decode(
        &self,
        ids_bt: &Tensor,
        attention: &mut Attention<'_>,
        encoded: Encoded<'_>,
        again: Option<&Again>,
    ) -> Result<Tensor> {
        let x_btc = Tensor::f_embedding(&self.embedding_vc, ids_bt, -1, false, false)?;
        Ok(self.decoder.run(x_btc, attention, Some(&encoded), again)?.f_mul_scalar(self.scale)?)
    }

    pub(crate) fn head(&self) -> &Tensor {
        &self.head_vc
    }

    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        self.encoder.blocks.iter_mut().chain(&mut self.decoder.blocks).flat_map(Block::linears).collect()
    }
}

impl Stack {
    fn new(builder: &mut Builder, config: &T5Config, name: &str, layers: i64, device: Device) -> Result<Self> {
        let causal = name == "decoder";
        let distances = Distances::new(builder, config, name, !causal, device)?;
        let blocks = (0..layers)
            .map(|layer| Block::new(builder, config, &format!("{name}.block.{layer}"), layer as usize, causal))
            .collect::<Result<_>>()?;
        let norm = RmsNorm::new(
            builder,
            format!("{name}.final_layer_norm.weight"),
            config.d_model,
            config.layer_norm_epsilon,
        )?;
        Ok(Self { blocks, norm, distances })
    }

    fn run(
        &self,
        mut x_btc: Tensor,
        attention: &mut Attention<'_>,
        encoded: Option<&Encoded<'_>>,
        again: Option<&Again>,
    ) -> Result<Tensor> {
        let laid = Laid::of(attention, again)?;
        for block in &self.blocks {
            // A handle for each block, so that what a block adds to the table's gradient is one number, however often it reads it.
            let distances = self.distances.with(self.distances.table().f_alias()?);
            x_btc = match &laid {
                Some(laid) => block.again(laid, &x_btc, distances, encoded)?,
                None => block.apply(&x_btc, attention, &distances, encoded)?,
            };
        }
        self.norm.apply(&x_btc)
    }
}

impl Cross {
    fn apply(&self, x_btc: &Tensor, attention: &Attention<'_>, encoded: &Encoded<'_>, heads: i64) -> Result<Tensor> {
        let (b, t, _) = x_btc.size3()?;
        let (_, s, _) = encoded.states_bsc.size3()?;
        let q = self.query.apply(x_btc)?.f_view([b, t, heads, -1])?.f_transpose(1, 2)?;
        let both = self.key_value.apply(encoded.states_bsc)?.f_view([b, s, 2 * heads, -1])?.f_transpose(1, 2)?;
        let (k, v) = (both.f_narrow(1, 0, heads)?, both.f_narrow(1, heads, heads)?);
        let pattern = Pattern { scale: Some(1.0), ..Pattern::ALL };
        self.output.apply(&attention.look(&q, (&k, &v), encoded.attention, pattern)?)
    }

    /// The same, by other handles of its tensors.
    fn share(&self) -> Self {
        Self {
            norm: self.norm.share(),
            query: self.query.share(),
            key_value: self.key_value.share(),
            output: self.output.share(),
        }
    }
}

impl Block {
    /// [b,t,c] -> [b,t,c].
    fn apply(
        &self,
        x_btc: &Tensor,
        attention: &mut Attention<'_>,
        distances: &Distances,
        encoded: Option<&Encoded<'_>>,
    ) -> Result<Tensor> {
        let pattern = Pattern { causal: self.causal, window: None, scale: Some(1.0), bias: Some(distances) };
        let qkv = self.qkv.apply(&self.attention_norm.apply(x_btc)?)?;
        let (q, k, v) = ops::split_qkv(&qkv, None, self.heads, self.heads)?;
        let mixed = attention.attend(self.layer, &q, &k, &v, pattern)?;
        let mut x_btc = x_btc.f_add(&self.output.apply(&mixed)?)?;
        if let (Some(cross), Some(encoded)) = (&self.cross, encoded) {
            let added = cross.apply(&cross.norm.apply(&x_btc)?, attention, encoded, self.heads)?;
            x_btc = x_btc.f_add(&added)?;
        }
        let inner = self.up.apply(&self.mlp_norm.apply(&x_btc)?)?;
        let inner = match self.gated {
            true => {
                let halves = inner.f_chunk(2, -1)?;
                self.activation.apply(&halves[0])?.f_mul(&halves[1])?
            }
            false => self.activation.apply(&inner)?,
        };
        Ok(x_btc.f_add(&self.down.apply(&inner)?)?)
    }

    /// As [`Self::apply`], keeping the inputs alone: gradients also reach the table of distances and the encoder's states.
    fn again(
        &self,
        laid: &Laid,
        x_btc: &Tensor,
        distances: Distances,
        encoded: Option<&Encoded<'_>>,
    ) -> Result<Tensor> {
        let (own, number, table) = (self.share(), self.number(), distances.table().shallow_clone());
        let Some(Encoded { states_bsc, attention }) = encoded else {
            return laid.through(number, [x_btc, &table], move |[x_btc, table], attention| {
                own.apply(x_btc, attention, &distances.with(table.shallow_clone()), None)
            });
        };
        let source = Layout::of(attention).expect("no source is read from a cache");
        laid.through(number, [x_btc, &table, states_bsc], move |[x_btc, table, states_bsc], attention| {
            let encoded = Encoded { states_bsc, attention: &source.attention() };
            own.apply(x_btc, attention, &distances.with(table.shallow_clone()), Some(&encoded))
        })
    }

    /// As `Parameter::block` has it.
    fn number(&self) -> usize {
        2 * self.layer + usize::from(self.cross.is_some())
    }

    /// The same block, by other handles of its tensors.
    fn share(&self) -> Self {
        Self {
            attention_norm: self.attention_norm.share(),
            qkv: self.qkv.share(),
            output: self.output.share(),
            cross: self.cross.as_ref().map(Cross::share),
            mlp_norm: self.mlp_norm.share(),
            up: self.up.share(),
            down: self.down.share(),
            ..*self
        }
    }

    fn linears(&mut self) -> Vec<&mut Linear> {
        let mut all = vec![&mut self.qkv, &mut self.output];
        if let Some(cross) = &mut self.cross {
            all.extend([&mut cross.query, &mut cross.key_value, &mut cross.output]);
        }
        all.extend([&mut self.up, &mut self.down]);
        all
    }

    fn new(builder: &mut Builder, config: &T5Config, name: &str, layer: usize, decoder: bool) -> Result<Self> {
        let (c, i) = (config.d_model, config.d_ff);
        let (inner, epsilon) = (config.num_heads * config.d_kv, config.layer_norm_epsilon);
        let factor = config.initializer_factor;
        let by_root = |size: i64| Initial::Normal(factor * (size as f64).powf(-0.5));
        let queries = Initial::Normal(factor * ((c * config.d_kv) as f64).powf(-0.5));
        let norm = |builder: &mut Builder, part: &str| {
            RmsNorm::new(builder, format!("{name}.layer.{part}.layer_norm.weight"), c, epsilon)
        };
        let attention = |part: &str| format!("{name}.layer.{part}");
        let own = attention("0.SelfAttention");
        let modules = ["q", "k", "v"].map(|part| (format!("{own}.{part}"), inner));
        let attention_norm = norm(builder, "0")?;
        let qkv = builder.stacked(format!("{own}.qkv"), &modules, c, queries, false)?;
        let output = builder.linear(format!("{own}.o"), c, inner, by_root(inner), false)?;
        let cross = match decoder {
            true => {
                let other = attention("1.EncDecAttention");
                let modules = ["k", "v"].map(|part| (format!("{other}.{part}"), inner));
                Some(Cross {
                    norm: norm(builder, "1")?,
                    query: builder.linear(format!("{other}.q"), inner, c, queries, false)?,
                    key_value: builder.stacked(format!("{other}.kv"), &modules, c, by_root(c), false)?,
                    output: builder.linear(format!("{other}.o"), c, inner, by_root(inner), false)?,
                })
            }
            false => None,
        };
        let last = if decoder { "2" } else { "1" };
        let mlp = format!("{name}.layer.{last}.DenseReluDense");
        let mlp_norm = norm(builder, last)?;
        let up = match config.gated {
            true => {
                let modules = ["wi_0", "wi_1"].map(|part| (format!("{mlp}.{part}"), i));
                builder.stacked(format!("{mlp}.wi_gate_up"), &modules, c, by_root(c), false)?
            }
            false => builder.linear(format!("{mlp}.wi"), i, c, by_root(c), false)?,
        };
        let down = builder.linear(format!("{mlp}.wo"), c, i, by_root(i), false)?;
        let (heads, gated, activation) = (config.num_heads, config.gated, config.activation);
        Ok(Self {
            layer,
            heads,
            causal: decoder,
            activation,
            attention_norm,
            qkv,
            output,
            cross,
            mlp_norm,
            up,
            gated,
            down,
        })
    }
}
