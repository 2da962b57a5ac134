//! `T5Config` of transformers, versions 1.0 and 1.1 of the model.

use serde_json::{Value, json};

use super::{Activation, Fields, sizes};

/// Sizes of T5, named as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// Width.
    pub d_model: i64,
    /// Width of a head.
    pub d_kv: i64,
    /// Width inside the MLP.
    pub d_ff: i64,
    /// Layers of the encoder.
    pub num_layers: i64,
    /// Layers of the decoder.
    pub num_decoder_layers: i64,
    /// Heads.
    pub num_heads: i64,
    /// Distances that attention tells apart.
    pub relative_attention_num_buckets: i64,
    /// From here on all distances are one.
    pub relative_attention_max_distance: i64,
    /// Added to the mean square in norms.
    pub layer_norm_epsilon: f64,
    /// Factor on the deviations of initial weights.
    pub initializer_factor: f64,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether the MLP is gated (1.1).
    pub gated: bool,
    /// Whether the head is the embedding. Told by the weights: transformers 5 writes `tie_word_embeddings: true` always.
    pub tied_head: bool,
    /// Whether the decoder's output is divided by the root of the width before the head (1.0).
    pub scale_decoder_outputs: bool,
    /// Token that begins a decoder's text, and fills up a batch.
    pub decoder_start_token_id: i64,
    /// Token after a text.
    pub eos_token_id: Option<i64>,
}

impl T5Config {
    /// Distances have no end: positions are relative. This is what serving and training allow.
    pub const CONTEXT: i64 = 1 << 20;
}

pub(super) fn read(fields: &mut Fields) -> T5Config {
    fields.require_default("is_encoder_decoder", &json!(true));
    fields.require_default("is_decoder", &json!(false));
    fields.accept_any(&["bos_token_id", "classifier_dropout", "dropout_rate", "n_positions", "task_specific_params"]);
    let projection = fields.text("feed_forward_proj").unwrap_or_else(|| "relu".to_owned());
    let (gated, name) = match projection.strip_prefix("gated-") {
        // T5 1.1 says gelu and means the other form; transformers reads it so.
        Some("gelu") => (true, "gelu_new"),
        Some(name) => (true, name),
        None => (false, projection.as_str()),
    };
    let activation = Activation::named(name).unwrap_or_else(|| {
        fields.problem("feed_forward_proj", &format!("{projection:?} is not supported"));
        Activation::Relu
    });
    // Both follow from the projection.
    fields.accept_any(&["dense_act_fn", "is_gated_act"]);
    let tied = fields.bool_or("tie_word_embeddings", true);
    let num_layers = fields.size_or("num_layers", 6);
    let pad = fields.token("pad_token_id").unwrap_or(0);
    T5Config {
        vocab_size: fields.size("vocab_size"),
        d_model: fields.size("d_model"),
        d_kv: fields.size_or("d_kv", 64),
        d_ff: fields.size("d_ff"),
        num_layers,
        num_decoder_layers: fields.size_or("num_decoder_layers", num_layers),
        num_heads: fields.size("num_heads"),
        relative_attention_num_buckets: fields.size_or("relative_attention_num_buckets", 32),
        relative_attention_max_distance: fields.size_or("relative_attention_max_distance", 128),
        layer_norm_epsilon: fields.number_or("layer_norm_epsilon", 1e-6),
        initializer_factor: fields.number_or("initializer_factor", 1.0),
        activation,
        gated,
        tied_head: tied,
        scale_decoder_outputs: fields.bool_or("scale_decoder_outputs", tied),
        decoder_start_token_id: fields.token("decoder_start_token_id").unwrap_or(pad),
        eos_token_id: fields.token("eos_token_id"),
    }
}

pub(super) fn write(config: &T5Config) -> Vec<(&'static str, Value)> {
    let name = match (config.gated, config.activation) {
        (true, Activation::GeluNew) => "gated-gelu".to_owned(),
        (true, other) => format!("gated-{}", other.name()),
        (false, other) => other.name().to_owned(),
    };
    vec![
        ("architectures", json!(["T5ForConditionalGeneration"])),
        ("d_ff", json!(config.d_ff)),
        ("d_kv", json!(config.d_kv)),
        ("d_model", json!(config.d_model)),
        ("decoder_start_token_id", json!(config.decoder_start_token_id)),
        ("dropout_rate", json!(0.0)),
        ("eos_token_id", json!(config.eos_token_id)),
        ("feed_forward_proj", json!(name)),
        ("initializer_factor", json!(config.initializer_factor)),
        ("is_encoder_decoder", json!(true)),
        ("layer_norm_epsilon", json!(config.layer_norm_epsilon)),
        ("model_type", json!("t5")),
        ("num_decoder_layers", json!(config.num_decoder_layers)),
        ("num_heads", json!(config.num_heads)),
        ("num_layers", json!(config.num_layers)),
        ("pad_token_id", json!(config.decoder_start_token_id)),
        ("relative_attention_max_distance", json!(config.relative_attention_max_distance)),
        ("relative_attention_num_buckets", json!(config.relative_attention_num_buckets)),
        ("scale_decoder_outputs", json!(config.scale_decoder_outputs)),
        ("tie_word_embeddings", json!(config.tied_head)),
        ("use_cache", json!(true)),
        ("vocab_size", json!(config.vocab_size)),
    ]
}

pub(super) fn problems(config: &T5Config) -> Vec<String> {
    let mut problems = sizes(&[
        ("vocab_size", config.vocab_size),
        ("d_model", config.d_model),
        ("d_kv", config.d_kv),
        ("d_ff", config.d_ff),
        ("num_layers", config.num_layers),
        ("num_decoder_layers", config.num_decoder_layers),
        ("num_heads", config.num_heads),
    ]);
    let (buckets, distance) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
    if buckets < 4 || buckets % 4 != 0 {
        problems.push(format!("relative_attention_num_buckets: {buckets} is not a positive multiple of 4"));
    }
    if distance <= buckets / 2 {
        problems
            .push(format!("relative_attention_max_distance: {distance} is not above half of the {buckets} buckets"));
    }
    problems
}
