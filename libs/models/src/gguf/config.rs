//! The `config.json` that says what a GGUF file's metadata says.

use serde_json::{Map, Value as Json, json};

use super::{header::Header, rope, value::Value};

const SUPPORTED: &str = "llama (with mistral), qwen2 and qwen3 are supported";

/// Keys below the architecture's name that are read here, or that repeat what is read elsewhere.
const KNOWN: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "tensor_data_layout",
    "vocab_size",
];

impl Header {
    pub(super) fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        match self.metadata.get(key)? {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }
}

/// Keys of the architecture, and what is wrong with them.
pub(super) struct Keys<'a> {
    header: &'a Header,
    architecture: &'a str,
    pub(super) problems: Vec<String>,
}

impl Keys<'_> {
    fn find(&self, key: &str) -> (String, Option<&Value>) {
        let key = format!("{}.{key}", self.architecture);
        let value = self.header.metadata.get(&key);
        (key, value)
    }

    pub(super) fn size_or(&mut self, key: &str, default: Option<i64>) -> i64 {
        let (key, value) = self.find(key);
        let problem = match (value, default) {
            (None, Some(default)) => return default,
            (None, None) => format!("{key}: missing"),
            (Some(Value::Integer(value)), _) if (1..=i64::from(i32::MAX)).contains(value) => return *value,
            (Some(Value::Integers(_)), _) => format!("{key}: layers that differ are not supported"),
            (Some(other), _) => format!("{key}: {other:?} is not a positive integer"),
        };
        self.problems.push(problem);
        1
    }

    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        let (key, value) = self.find(key);
        let problem = match value? {
            Value::Float(value) if value.is_finite() && *value > 0.0 => return Some(*value),
            other => format!("{key}: {other:?} is not a positive number"),
        };
        self.problems.push(problem);
        None
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.header.text(&format!("{}.{key}", self.architecture))
    }

    pub(super) fn problem(&mut self, key: &str, what: &str) {
        self.problems.push(format!("{}.{key}: {what}", self.architecture));
    }

    /// A key that is not known may change what the model computes; switches that are off do not.
    fn refuse_unknown(&mut self) {
        let prefix = format!("{}.", self.architecture);
        let off =
            |value: &Value| matches!(value, Value::Integer(0) | Value::Bool(false)) || *value == Value::Float(0.0);
        for (key, value) in &self.header.metadata {
            if let Some(rest) = key.strip_prefix(&prefix)
                && !KNOWN.contains(&rest)
                && !off(value)
            {
                self.problems.push(format!("{key}: unknown key, which may change the model"));
            }
        }
    }
}

/// The text, or everything that keeps the file from being one of our models. `factors` are the values of `rope_freqs.weight`.
pub(super) fn json(header: &Header, factors: Option<&[f32]>) -> Result<String, Vec<String>> {
    let architecture = match header.architecture() {
        Some(name @ ("llama" | "qwen2" | "qwen3")) => name,
        Some(other) => return Err(vec![format!("general.architecture: {other:?} is not supported; {SUPPORTED}")]),
        None => return Err(vec![format!("general.architecture: missing; {SUPPORTED}")]),
    };
    if header.integer("split.count").is_some_and(|count| count > 1) {
        let text = "split.count: one of several files; join them with llama.cpp's `llama-gguf-split --merge`";
        return Err(vec![text.to_owned()]);
    }
    let mut keys = Keys { header, architecture, problems: Vec::new() };
    keys.refuse_unknown();
    let width = keys.size_or("embedding_length", None);
    let heads = keys.size_or("attention.head_count", None);
    let head_size = keys.size_or("attention.key_length", Some((width / heads).max(1)));
    for key in ["attention.value_length", "rope.dimension_count"] {
        let other = keys.size_or(key, Some(head_size));
        if other != head_size {
            keys.problem(key, &format!("{other} is not the head size {head_size}, which is not supported"));
        }
    }
    let sliding_window = keys.size_or("attention.sliding_window", Some(0));
    let family = match architecture {
        "llama" if sliding_window > 0 => "mistral",
        other => other,
    };
    let mut map = Map::new();
    let mut put = |name: &str, value: Json| map.insert(name.to_owned(), value);
    put("architectures", json!([class(family)]));
    put("model_type", json!(family));
    put("hidden_size", json!(width));
    put("num_attention_heads", json!(heads));
    put("head_dim", json!(head_size));
    put("hidden_act", json!("silu"));
    put("num_key_value_heads", json!(keys.size_or("attention.head_count_kv", Some(heads))));
    put("intermediate_size", json!(keys.size_or("feed_forward_length", None)));
    put("num_hidden_layers", json!(keys.size_or("block_count", None)));
    put("max_position_embeddings", json!(keys.size_or("context_length", None)));
    match keys.number("attention.layer_norm_rms_epsilon") {
        Some(epsilon) => put("rms_norm_eps", json!(epsilon)),
        None => {
            keys.problem("attention.layer_norm_rms_epsilon", "missing or wrong");
            None
        }
    };
    put("rope_parameters", rope::parameters(&mut keys, head_size, factors));
    put("tie_word_embeddings", json!(!header.has_tensor("output.weight")));
    if sliding_window > 0 {
        put("sliding_window", json!(sliding_window));
    }
    if family == "llama" {
        put("mlp_bias", json!(header.has_tensor("blk.0.ffn_up.bias")));
    }
    if matches!(family, "llama" | "qwen3") {
        put("attention_bias", json!(header.has_tensor("blk.0.attn_output.bias")));
    }
    match header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight") {
        Some(embedding) => put("vocab_size", json!(embedding.shape[0])),
        None => {
            keys.problems.push("tensor token_embd.weight is missing".to_owned());
            None
        }
    };
    for name in ["bos", "eos", "padding"] {
        if let Some(id) = header.integer(&format!("tokenizer.ggml.{name}_token_id")) {
            put(
                if name == "padding" { "pad_token_id".to_owned() } else { format!("{name}_token_id") }.as_str(),
                json!(id),
            );
        }
    }
    if keys.problems.is_empty() { Ok(format!("{:#}\n", Json::Object(map))) } else { Err(keys.problems) }
}

fn class(family: &str) -> &'static str {
    match family {
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}
