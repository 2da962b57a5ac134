//! Configurations of the Llama family in transformers, versions 4 and 5: Llama, Mistral, Qwen2, Qwen3.

use serde_json::{Value, json};

use super::{Fields, Rope, rope, sizes};

/// Sizes of a decoder of the Llama family, named as in transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Which member: what `config.json` calls it.
    pub member: LlamaMember,
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
    /// Rotary positions.
    pub rope: Rope,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether attention's output has a bias.
    pub output_bias: bool,
    /// Whether the MLP has biases.
    pub mlp_bias: bool,
    /// Whether each head's queries and keys are normed.
    pub head_norms: bool,
    /// For each layer, how many tokens back it looks, itself included; empty where all look at everything.
    pub windows: Vec<Option<i64>>,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Token before a text.
    pub bos_token_id: Option<i64>,
    /// Token after a text.
    pub eos_token_id: Option<i64>,
}

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlamaMember {
    /// `llama`: also SmolLM2 and TinyLlama.
    Llama,
    /// `mistral`.
    Mistral,
    /// `qwen2`: also Qwen2.5.
    Qwen2,
    /// `qwen3`.
    Qwen3,
}

impl LlamaMember {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// The member of this `model_type`.
    pub fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|member| member.model_type() == model_type)
    }

    /// `model_type` of its configurations.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The class of its models in transformers.
    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

impl LlamaConfig {
    /// Longest window of a layer; none where a layer looks at everything.
    pub fn longest_window(&self) -> Option<i64> {
        if self.windows.is_empty() { None } else { self.windows.iter().copied().max().flatten() }
    }
}

pub(super) fn read(member: LlamaMember, fields: &mut Fields) -> LlamaConfig {
    fields.require_default("hidden_act", &json!("silu"));
    fields.accept_any(&["attention_dropout"]);
    match member {
        LlamaMember::Llama => {
            fields.require_default("pretraining_tp", &json!(1));
            // SmolLM2 writes these.
            fields.require_default("rope_interleaved", &json!(false));
            fields.accept_any(&["is_llama_config", "transformers.js_config"]);
        }
        LlamaMember::Qwen2 => fields.require_default("use_mrope", &json!(false)),
        LlamaMember::Mistral | LlamaMember::Qwen3 => {}
    }
    let hidden_size = fields.size("hidden_size");
    let num_attention_heads = fields.size("num_attention_heads");
    let num_hidden_layers = fields.size("num_hidden_layers");
    let has_attention_bias = matches!(member, LlamaMember::Llama | LlamaMember::Qwen3);
    let attention_bias = has_attention_bias && fields.bool_or("attention_bias", false);
    let usual_heads = if member == LlamaMember::Mistral { 8 } else { num_attention_heads };
    let usual_head = match member {
        LlamaMember::Qwen3 => 128,
        _ => (hidden_size / num_attention_heads).max(1),
    };
    LlamaConfig {
        member,
        vocab_size: fields.size("vocab_size"),
        hidden_size,
        intermediate_size: fields.size("intermediate_size"),
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: fields.size_or("num_key_value_heads", usual_heads),
        head_dim: fields.size_or("head_dim", usual_head),
        max_position_embeddings: fields.size("max_position_embeddings"),
        rope: rope::read(fields),
        rms_norm_eps: fields.number_or("rms_norm_eps", 1e-6),
        qkv_bias: attention_bias || member == LlamaMember::Qwen2,
        output_bias: attention_bias,
        mlp_bias: member == LlamaMember::Llama && fields.bool_or("mlp_bias", false),
        head_norms: member == LlamaMember::Qwen3,
        windows: windows(member, fields, num_hidden_layers),
        tie_word_embeddings: fields.bool_or("tie_word_embeddings", false),
        initializer_range: fields.number_or("initializer_range", 0.02),
        bos_token_id: fields.token("bos_token_id"),
        eos_token_id: fields.token("eos_token_id"),
    }
}

fn windows(member: LlamaMember, fields: &mut Fields, layers: i64) -> Vec<Option<i64>> {
    match member {
        LlamaMember::Llama => Vec::new(),
        LlamaMember::Mistral => match fields.size_or("sliding_window", 0) {
            0 => Vec::new(),
            window => vec![Some(window); layers as usize],
        },
        LlamaMember::Qwen2 | LlamaMember::Qwen3 => {
            let used = fields.bool_or("use_sliding_window", false);
            let window = Some(fields.size_or("sliding_window", 4096)).filter(|_| used);
            let first = fields.value("max_window_layers").and_then(|value| value.as_i64()).unwrap_or(28);
            let windows: Vec<_> = match fields.texts("layer_types") {
                None => (0..layers).map(|layer| window.filter(|_| layer >= first)).collect(),
                Some(types) => {
                    let known = |kind: &String| kind == "full_attention" || kind == "sliding_attention";
                    if types.len() as i64 != layers || !types.iter().all(known) {
                        let text = "should name full_attention or sliding_attention for each layer";
                        fields.problem("layer_types", text);
                    }
                    types.iter().map(|kind| window.filter(|_| kind == "sliding_attention")).collect()
                }
            };
            if windows.iter().all(Option::is_none) { Vec::new() } else { windows }
        }
    }
}

pub(super) fn write(config: &LlamaConfig) -> Vec<(&'static str, Value)> {
    let mut entries = vec![
        ("architectures", json!([config.member.class()])),
        ("attention_dropout", json!(0.0)),
        ("bos_token_id", json!(config.bos_token_id)),
        ("eos_token_id", json!(config.eos_token_id)),
        ("head_dim", json!(config.head_dim)),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(config.hidden_size)),
        ("initializer_range", json!(config.initializer_range)),
        ("intermediate_size", json!(config.intermediate_size)),
        ("max_position_embeddings", json!(config.max_position_embeddings)),
        ("model_type", json!(config.member.model_type())),
        ("num_attention_heads", json!(config.num_attention_heads)),
        ("num_hidden_layers", json!(config.num_hidden_layers)),
        ("num_key_value_heads", json!(config.num_key_value_heads)),
        ("pad_token_id", Value::Null),
        ("rms_norm_eps", json!(config.rms_norm_eps)),
        ("rope_parameters", rope::write(&config.rope)),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ("use_cache", json!(true)),
        ("vocab_size", json!(config.vocab_size)),
    ];
    let window = config.windows.iter().flatten().next();
    match config.member {
        LlamaMember::Llama => entries.extend([
            ("attention_bias", json!(config.output_bias)),
            ("mlp_bias", json!(config.mlp_bias)),
            ("pretraining_tp", json!(1)),
        ]),
        LlamaMember::Mistral => entries.push(("sliding_window", json!(window))),
        LlamaMember::Qwen2 | LlamaMember::Qwen3 => {
            let kinds = |window: &Option<i64>| if window.is_some() { "sliding_attention" } else { "full_attention" };
            let types: Vec<_> = config.windows.iter().map(kinds).collect();
            entries.extend([
                ("sliding_window", json!(window)),
                ("use_sliding_window", json!(window.is_some())),
                ("layer_types", if types.is_empty() { Value::Null } else { json!(types) }),
            ]);
            if config.member == LlamaMember::Qwen3 {
                entries.push(("attention_bias", json!(config.output_bias)));
            }
        }
    }
    entries
}

pub(super) fn problems(config: &LlamaConfig) -> Vec<String> {
    let mut problems = sizes(&[
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("num_key_value_heads", config.num_key_value_heads),
        ("max_position_embeddings", config.max_position_embeddings),
    ]);
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
