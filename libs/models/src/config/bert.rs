//! `BertConfig` of transformers.

use serde_json::{Value, json};

use super::{Activation, Fields, sizes};

/// Sizes of BERT, named as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Layers.
    pub num_hidden_layers: i64,
    /// Heads.
    pub num_attention_heads: i64,
    /// Width inside the MLP.
    pub intermediate_size: i64,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Longest sequence.
    pub max_position_embeddings: i64,
    /// Types of tokens: first and second text.
    pub type_vocab_size: i64,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether it has the head that guesses masked tokens (`BertForMaskedLM`).
    pub masked_lm: bool,
    /// Whether it has a layer over the first token (`BertModel`).
    pub pooler: bool,
    /// Token that fills up a batch.
    pub pad_token_id: Option<i64>,
}

pub(super) fn read(fields: &mut Fields) -> BertConfig {
    for (name, supported) in [
        ("add_cross_attention", json!(false)),
        ("is_decoder", json!(false)),
        ("position_embedding_type", json!("absolute")),
        ("tie_word_embeddings", json!(true)),
    ] {
        fields.require_default(name, &supported);
    }
    fields.accept_any(&[
        "attention_probs_dropout_prob",
        "bos_token_id",
        "classifier_dropout",
        "eos_token_id",
        "gradient_checkpointing",
        "hidden_dropout_prob",
    ]);
    let classes = fields.texts("architectures").unwrap_or_else(|| vec!["BertModel".to_owned()]);
    let class = classes.first().map(String::as_str).unwrap_or_default();
    if !["BertModel", "BertForMaskedLM"].contains(&class) {
        fields.problem("architectures", &format!("{class:?} is not supported, only BertModel and BertForMaskedLM"));
    }
    let masked_lm = class == "BertForMaskedLM";
    BertConfig {
        vocab_size: fields.size("vocab_size"),
        hidden_size: fields.size("hidden_size"),
        num_hidden_layers: fields.size("num_hidden_layers"),
        num_attention_heads: fields.size("num_attention_heads"),
        intermediate_size: fields.size("intermediate_size"),
        hidden_act: Activation::read(fields, "hidden_act", Activation::Gelu),
        max_position_embeddings: fields.size("max_position_embeddings"),
        type_vocab_size: fields.size_or("type_vocab_size", 2),
        layer_norm_eps: fields.number_or("layer_norm_eps", 1e-12),
        initializer_range: fields.number_or("initializer_range", 0.02),
        masked_lm,
        pooler: !masked_lm,
        pad_token_id: fields.token("pad_token_id"),
    }
}

pub(super) fn write(config: &BertConfig) -> Vec<(&'static str, Value)> {
    vec![
        ("architectures", json!([if config.masked_lm { "BertForMaskedLM" } else { "BertModel" }])),
        ("attention_probs_dropout_prob", json!(0.0)),
        ("hidden_act", json!(config.hidden_act.name())),
        ("hidden_dropout_prob", json!(0.0)),
        ("hidden_size", json!(config.hidden_size)),
        ("initializer_range", json!(config.initializer_range)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("layer_norm_eps", json!(config.layer_norm_eps)),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("model_type", json!("bert")),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("pad_token_id", json!(config.pad_token_id)),
        ("tie_word_embeddings", json!(true)),
        ("type_vocab_size", json!(config.type_vocab_size)),
        ("vocab_size", json!(config.vocab_size)),
    ]
}

pub(super) fn problems(config: &BertConfig) -> Vec<String> {
    let mut problems = sizes(&[
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("intermediate_size", config.intermediate_size),
        ("max_position_embeddings", config.max_position_embeddings),
    ]);
    if problems.is_empty() && config.hidden_size % config.num_attention_heads != 0 {
        let (heads, width) = (config.num_attention_heads, config.hidden_size);
        problems.push(format!("num_attention_heads: {heads} does not divide hidden_size {width}"));
    }
    problems
}
