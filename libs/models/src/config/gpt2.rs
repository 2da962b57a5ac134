//! `GPT2Config` of transformers, with nanoGPT's `bias: false`.

use serde_json::{Value, json};

use super::{Activation, Fields, sizes};

/// Sizes of a GPT-2-style decoder, named as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// Width.
    pub n_embd: i64,
    /// Layers.
    pub n_layer: i64,
    /// Heads.
    pub n_head: i64,
    /// Longest sequence.
    pub n_positions: i64,
    /// Width inside the MLP; absent means four times the width.
    pub n_inner: Option<i64>,
    /// Whether linear layers and norms have biases; false is written as a field of our own.
    pub bias: bool,
    /// The MLP's activation.
    pub activation_function: Activation,
    /// Added to the variance in norms.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Token before a text.
    pub bos_token_id: Option<i64>,
    /// Token after a text.
    pub eos_token_id: Option<i64>,
}

impl Gpt2Config {
    /// Width inside the MLP.
    pub fn inner(&self) -> i64 {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }
}

pub(super) fn read(fields: &mut Fields) -> Gpt2Config {
    for (name, supported) in [
        ("add_cross_attention", json!(false)),
        ("scale_attn_weights", json!(true)),
        ("scale_attn_by_inverse_layer_idx", json!(false)),
        ("tie_word_embeddings", json!(true)),
    ] {
        fields.require_default(name, &supported);
    }
    fields.accept_any(&[
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "reorder_and_upcast_attn",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "task_specific_params",
    ]);
    let n_positions = fields.size("n_positions");
    // Old files repeat n_positions under this name.
    fields.require_default("n_ctx", &json!(n_positions));
    let activation_function = Activation::read(fields, "activation_function", Activation::GeluNew);
    let n_inner = fields.size_or("n_inner", 0);
    Gpt2Config {
        vocab_size: fields.size("vocab_size"),
        n_embd: fields.size("n_embd"),
        n_layer: fields.size("n_layer"),
        n_head: fields.size("n_head"),
        n_positions,
        n_inner: (n_inner > 0).then_some(n_inner),
        bias: fields.bool_or("bias", true),
        activation_function,
        layer_norm_epsilon: fields.number_or("layer_norm_epsilon", 1e-5),
        initializer_range: fields.number_or("initializer_range", 0.02),
        bos_token_id: fields.token("bos_token_id"),
        eos_token_id: fields.token("eos_token_id"),
    }
}

pub(super) fn write(config: &Gpt2Config) -> Vec<(&'static str, Value)> {
    let mut entries = vec![
        ("activation_function", json!(config.activation_function.name())),
        ("architectures", json!(["GPT2LMHeadModel"])),
        ("attn_pdrop", json!(0.0)),
        ("bos_token_id", json!(config.bos_token_id)),
        ("embd_pdrop", json!(0.0)),
        ("eos_token_id", json!(config.eos_token_id)),
        ("initializer_range", json!(config.initializer_range)),
        ("layer_norm_epsilon", json!(config.layer_norm_epsilon)),
        ("model_type", json!("gpt2")),
        ("n_embd", json!(config.n_embd)),
        ("n_head", json!(config.n_head)),
        ("n_inner", json!(config.n_inner)),
        ("n_layer", json!(config.n_layer)),
        ("n_positions", json!(config.n_positions)),
        ("resid_pdrop", json!(0.0)),
        ("tie_word_embeddings", json!(true)),
        ("use_cache", json!(true)),
        ("vocab_size", json!(config.vocab_size)),
    ];
    if !config.bias {
        entries.push(("bias", json!(false)));
    }
    entries
}

pub(super) fn problems(config: &Gpt2Config) -> Vec<String> {
    let mut problems = sizes(&[
        ("vocab_size", config.vocab_size),
        ("n_embd", config.n_embd),
        ("n_layer", config.n_layer),
        ("n_head", config.n_head),
        ("n_positions", config.n_positions),
        ("n_inner", config.inner()),
    ]);
    if !problems.is_empty() {
        return problems;
    }
    if config.n_embd % config.n_head != 0 {
        problems.push(format!("n_head: {} does not divide n_embd {}", config.n_head, config.n_embd));
    }
    for (name, token) in [("bos_token_id", config.bos_token_id), ("eos_token_id", config.eos_token_id)] {
        if let Some(token) = token.filter(|token| *token >= config.vocab_size) {
            problems.push(format!("{name}: {token} is outside the vocabulary of {}", config.vocab_size));
        }
    }
    problems
}
