//! `LlamaConfig` of transformers, versions 4 and 5.

use serde_json::{Value, json};

use super::Fields;

/// Sizes of a Llama-style decoder, named as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Width inside the MLP.
    pub intermediate_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Query heads.
    pub num_attention_heads: i64,
    /// Key and value heads.
    pub num_key_value_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Longest sequence.
    pub max_position_embeddings: i64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Token before a text.
    pub bos_token_id: Option<i64>,
    /// Token after a text.
    pub eos_token_id: Option<i64>,
}

pub(super) fn read(fields: &mut Fields) -> LlamaConfig {
    for (name, supported) in [
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("hidden_act", json!("silu")),
        ("pretraining_tp", json!(1)),
        ("rope_scaling", Value::Null),
    ] {
        fields.require_default(name, &supported);
    }
    fields.accept_any(&["attention_dropout"]);
    let hidden_size = fields.size("hidden_size");
    let num_attention_heads = fields.size("num_attention_heads");
    LlamaConfig {
        vocab_size: fields.size("vocab_size"),
        hidden_size,
        intermediate_size: fields.size("intermediate_size"),
        num_hidden_layers: fields.size("num_hidden_layers"),
        num_attention_heads,
        num_key_value_heads: fields.size_or("num_key_value_heads", num_attention_heads),
        head_dim: fields.size_or("head_dim", (hidden_size / num_attention_heads).max(1)),
        max_position_embeddings: fields.size("max_position_embeddings"),
        rope_theta: rope_theta(fields),
        rms_norm_eps: fields.number_or("rms_norm_eps", 1e-6),
        tie_word_embeddings: fields.bool_or("tie_word_embeddings", false),
        initializer_range: fields.number_or("initializer_range", 0.02),
        bos_token_id: fields.token("bos_token_id"),
        eos_token_id: fields.token("eos_token_id"),
    }
}

/// Version 4 has `rope_theta` at the top, version 5 inside `rope_parameters`; both at once must agree.
fn rope_theta(fields: &mut Fields) -> f64 {
    let top = fields.number_or("rope_theta", 0.0); // 0: absent
    let Some(mut rope) = fields.object("rope_parameters") else {
        return if top > 0.0 { top } else { 10_000.0 };
    };
    rope.require_default("rope_type", &json!("default"));
    let inner = rope.number_or("rope_theta", if top > 0.0 { top } else { 10_000.0 });
    fields.absorb("rope_parameters", rope);
    if top > 0.0 && top != inner {
        fields.problem("rope_theta", &format!("{top} contradicts rope_parameters.rope_theta {inner}"));
    }
    inner
}

pub(super) fn write(config: &LlamaConfig) -> Vec<(&'static str, Value)> {
    vec![
        ("architectures", json!(["LlamaForCausalLM"])),
        ("attention_bias", json!(false)),
        ("attention_dropout", json!(0.0)),
        ("bos_token_id", json!(config.bos_token_id)),
        ("eos_token_id", json!(config.eos_token_id)),
        ("head_dim", json!(config.head_dim)),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(config.hidden_size)),
        ("initializer_range", json!(config.initializer_range)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("mlp_bias", json!(false)),
        ("model_type", json!("llama")),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("num_key_value_heads", json!(config.num_key_value_heads)),
        ("pad_token_id", Value::Null),
        ("rms_norm_eps", json!(config.rms_norm_eps)),
        ("rope_parameters", json!({"rope_theta": config.rope_theta, "rope_type": "default"})),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ("use_cache", json!(true)),
        ("vocab_size", json!(config.vocab_size)),
    ]
}

pub(super) fn problems(config: &LlamaConfig) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, size) in [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
        ("max_position_embeddings", config.max_position_embeddings),
    ] {
        if size < 1 {
            problems.push(format!("{name}: {size} is not a positive integer"));
        }
    }
    if !problems.is_empty() {
        return problems;
    }
    if config.head_dim < 2 || config.head_dim % 2 != 0 {
        problems.push(format!("head_dim: {} is not a positive even number", config.head_dim));
    }
    if config.num_attention_heads % config.num_key_value_heads != 0 {
        problems.push(format!(
            "num_key_value_heads: {} does not divide num_attention_heads {}",
            config.num_key_value_heads, config.num_attention_heads
        ));
    }
    for (name, token) in [("bos_token_id", config.bos_token_id), ("eos_token_id", config.eos_token_id)] {
        if let Some(token) = token.filter(|token| *token >= config.vocab_size) {
            problems.push(format!("{name}: {token} is outside the vocabulary of {}", config.vocab_size));
        }
    }
    problems
}
