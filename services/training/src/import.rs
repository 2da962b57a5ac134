//! Models that were trained elsewhere, as complete Hugging Face directories: weights checked and in float32, with tokenizer and template.

mod vocabulary;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tch::Device;
use tidemill_models::{Config, Model, gguf};
use tidemill_text::{ChatFormat, with_special_tokens};

use crate::error::{Error, Result};
use crate::learning;

pub use vocabulary::vocabulary;

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Reads a directory or a GGUF file and writes it as a directory that is there and empty.
///
/// # Errors
/// The model is of an unknown family, broken or incomplete, or a file cannot be written.
pub(crate) fn convert(source: &Path, into: &Path) -> Result<Model> {
    let (model, files) = if source.is_dir() { of_directory(source)? } else { of_gguf(source)? };
    tidemill_models::save(&model, into).map_err(learning::Error::from)?;
    let generation = files.iter().all(|(name, _)| *name != "generation_config.json");
    let generation = generation.then(|| generation_config(model.config())).flatten();
    for (name, bytes) in files.into_iter().chain(generation.map(|bytes| ("generation_config.json", bytes))) {
        let path = into.join(name);
        std::fs::write(&path, bytes).map_err(Error::file(&path))?;
    }
    Ok(model)
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn of_directory(source: &Path) -> Result<(Model, Files)> {
    let model = tidemill_models::load(source, Device::Cpu).map_err(learning::Error::from)?;
    let mut files = Vec::new();
    for name in ["tokenizer.json", "chat_template.jinja", "generation_config.json"] {
        files.extend(file(source, name)?.map(|bytes| (name, bytes)));
    }
    let (mut config, special) = (file(source, TOKENIZER_CONFIG)?, file(source, "special_tokens_map.json")?);
    if let Some(special) = special {
        let made = with_special_tokens(config.as_deref(), &special);
        config = Some(made.map_err(|error| unfit(source, &error.to_string()))?);
    }
    files.extend(config.map(|bytes| (TOKENIZER_CONFIG, bytes)));
    with_template(source, model, files)
}

/// A file's bytes, where it is there.
fn file(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&path)(error)),
    }
}

fn unfit(source: &Path, reason: &str) -> Error {
    Error::Unfit { field: "import.uri", reason: format!("{}: {reason}", source.display()) }
}

fn of_gguf(source: &Path) -> Result<(Model, Files)> {
    let file = gguf::open(source).map_err(learning::Error::from)?;
    let model = file.model(Device::Cpu).map_err(learning::Error::from)?;
    let mut files = Vec::new();
    if let Some(vocabulary) = vocabulary(&file) {
        let failed = |error: tidemill_text::Error| unfit(source, &error.to_string());
        files.push(("tokenizer.json", vocabulary.tokenizer().map_err(failed)?.json().to_vec()));
        let context = model.config().context_length();
        files.push((TOKENIZER_CONFIG, vocabulary.config(context).map_err(failed)?));
    }
    with_template(source, model, files)
}

/// The template as a file of its own, as version 5 of transformers writes it; it may be inside tokenizer_config.json.
fn with_template(source: &Path, model: Model, mut files: Files) -> Result<(Model, Files)> {
    let find = |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| bytes.as_slice());
    let chat = ChatFormat::read(find("chat_template.jinja"), find(TOKENIZER_CONFIG));
    let chat = chat.map_err(|error| unfit(source, &error.to_string()))?;
    files.retain(|(name, _)| *name != "chat_template.jinja");
    files.extend(chat.template.map(|template| ("chat_template.jinja", template.source().as_bytes().to_vec())));
    Ok((model, files))
}

/// generation_config.json of a model that has none: the tokens at the ends of texts, as its configuration has them.
pub(crate) fn generation_config(config: &Config) -> Option<Vec<u8>> {
    let all: Map<String, Value> = serde_json::from_str(&config.to_json()).ok()?;
    let names = ["bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"];
    let known = names.into_iter().filter_map(|name| Some((name.to_owned(), all.get(name)?.clone())));
    let mut map: Map<String, Value> = known.filter(|(_, id)| !id.is_null()).collect();
    if map.is_empty() || matches!(config, Config::Bert(_)) {
        return None;
    }
    map.insert("_from_model_config".to_owned(), json!(true));
    Some(format!("{:#}\n", Value::Object(map)).into_bytes())
}

/// The path of a `file://` URI.
///
/// # Errors
/// Another scheme, or a path that is not absolute.
pub(crate) fn path_of(uri: &str) -> std::result::Result<PathBuf, String> {
    match uri.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => Err(format!("{uri:?} is not of the form file:///folder or file:///model.gguf")),
    }
}

#[cfg(test)]
mod tests {
    use tidemill_models::{Activation, Gpt2Config};

    use super::*;

    #[test]
    fn a_directory_with_special_tokens_in_their_own_file_keeps_them() {
        let config = Config::Gpt2(Gpt2Config {
            vocab_size: 9,
            n_embd: 8,
            n_layer: 1,
            n_head: 2,
            n_positions: 8,
            n_inner: None,
            bias: true,
            activation_function: Activation::GeluNew,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            bos_token_id: None,
            eos_token_id: Some(0),
        });
        let (source, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tidemill_models::save(&Model::new(config, 1, Device::Cpu).unwrap(), source.path()).unwrap();
        let put = |name: &str, text: &str| std::fs::write(source.path().join(name), text).unwrap();
        put(TOKENIZER_CONFIG, r#"{"chat_template": "{{ messages }}"}"#);
        put("special_tokens_map.json", r#"{"eos_token": "<end>"}"#);
        convert(source.path(), into.path()).unwrap();
        let config = std::fs::read(into.path().join(TOKENIZER_CONFIG)).unwrap();
        let chat = ChatFormat::read(None, Some(&config)).unwrap();
        assert!(chat.eos_token == "<end>" && chat.template.is_some());

        put("special_tokens_map.json", "no JSON");
        let error = convert(source.path(), into.path()).unwrap_err().to_string();
        assert!(error.contains("special_tokens_map.json"), "{error}");
    }
}
