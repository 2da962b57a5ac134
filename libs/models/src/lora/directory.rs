//! PEFT's adapter directory: `adapter_config.json` and `adapter_model.safetensors`.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

use super::LoraConfig;
use crate::{Config, Error, Result, config::Fields};

/// The file that describes an adapter.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The file that holds its weights.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Fields that change nothing for a single adapter that is read for use.
const HARMLESS: &[&str] = &[
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Switches of PEFT that this crate knows in one position only.
fn fixed() -> [(&'static str, Value); 14] {
    let (no, none, empty) = (json!(false), Value::Null, json!({}));
    [
        ("alora_invocation_tokens", none.clone()),
        ("alpha_pattern", empty.clone()),
        ("bias", json!("none")),
        ("ensure_weight_tying", no.clone()),
        ("exclude_modules", none.clone()),
        ("layer_replication", none.clone()),
        ("layers_to_transform", none.clone()),
        ("lora_bias", no.clone()),
        ("modules_to_save", none.clone()),
        ("rank_pattern", empty),
        ("target_parameters", none.clone()),
        ("trainable_token_indices", none.clone()),
        ("use_bdlora", none),
        ("use_qalora", no),
    ]
}

/// Reads `adapter_config.json`; every field that is not understood is listed.
pub(crate) fn read_config(directory: &Path) -> Result<LoraConfig> {
    let path = directory.join(ADAPTER_CONFIG_FILE);
    let text = fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    parse(&text).map_err(|problems| Error::Config { path, problems })
}

fn parse(text: &str) -> std::result::Result<LoraConfig, Vec<String>> {
    let map: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| vec![format!("not a JSON object: {error}")])?;
    let mut fields = Fields::new(map);
    fields.accept_any(HARMLESS);
    for (name, supported) in fixed() {
        fields.require_default(name, &supported);
    }
    // GPT-2's layers are [in, out] on disk, and this says so; the layer knows it as well.
    fields.accept_any(&["fan_in_fan_out"]);
    if fields.text("peft_type").as_deref() != Some("LORA") {
        fields.problem("peft_type", "only LORA is supported");
    }
    let target_modules = match fields.value("target_modules") {
        Some(Value::String(all)) if all == "all-linear" => Vec::new(),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        other => {
            let found = other.unwrap_or_default();
            fields.problem("target_modules", &format!("{found} is neither a list of names nor \"all-linear\""));
            Vec::new()
        }
    };
    let config = LoraConfig {
        r: fields.size("r"),
        alpha: fields.number_or("lora_alpha", 8.0),
        dropout: match fields.value("lora_dropout").map(|value| value.as_f64()) {
            None => 0.0,
            Some(Some(share)) if (0.0..1.0).contains(&share) => share,
            Some(_) => {
                fields.problem("lora_dropout", "is not in [0, 1)");
                0.0
            }
        },
        target_modules,
        use_rslora: fields.bool_or("use_rslora", false),
        use_dora: fields.bool_or("use_dora", false),
    };
    let problems = fields.finish();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// What PEFT wraps a family's model in; it has no wrapper for masked LM.
pub(crate) fn task_type(config: &Config) -> Option<&'static str> {
    match config {
        Config::Llama(_) | Config::Gpt2(_) => Some("CAUSAL_LM"),
        Config::T5(_) => Some("SEQ_2_SEQ_LM"),
        Config::Bert(_) => None,
    }
}

/// `adapter_config.json` as PEFT reads it. `base` is where the base model is from, `transposed` whether its weights are [in, out].
pub(crate) fn write(
    config: &LoraConfig,
    base: &str,
    modules: &[String],
    transposed: bool,
    task_type: Option<&str>,
) -> String {
    // Older versions of PEFT do not know the newest fields: those that have their usual value are left out.
    let mut map = Map::new();
    let mut set = |name: &str, value: Value| map.insert(name.to_owned(), value);
    set("alpha_pattern", json!({}));
    set("bias", json!("none"));
    set("modules_to_save", Value::Null);
    set("rank_pattern", json!({}));
    set("peft_type", json!("LORA"));
    set("task_type", json!(task_type));
    set("base_model_name_or_path", json!(base));
    set("revision", Value::Null);
    set("inference_mode", json!(true));
    set("r", json!(config.r));
    set("lora_alpha", json!(config.alpha));
    set("lora_dropout", json!(config.dropout));
    set("target_modules", json!(modules));
    set("fan_in_fan_out", json!(transposed));
    set("use_rslora", json!(config.use_rslora));
    set("use_dora", json!(config.use_dora));
    format!("{:#}\n", Value::Object(map))
}
