//! Models that were trained elsewhere, as complete Hugging Face directories: weights checked and in float32, with tokenizer and template.

mod vocabulary;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tch::Device;
use tidemill_models::{Config, Model, gguf};
use tidemill_text::ChatFormat;

use crate::error::{Error, Result};
use crate::learning;

pub use vocabulary::vocabulary;

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
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"] {
        let path = source.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => files.push((name, bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file(&path)(error)),
        }
    }
    with_template(source, model, files)
}

fn of_gguf(source: &Path) -> Result<(Model, Files)> {
    let unfit =
        |reason: String| Error::Unfit { field: "import.uri", reason: format!("{}: {reason}", source.display()) };
    let file = gguf::open(source).map_err(learning::Error::from)?;
    let model = file.model(Device::Cpu).map_err(learning::Error::from)?;
    let mut files = Vec::new();
    if let Some(vocabulary) = vocabulary(&file) {
        let failed = |error: tidemill_text::Error| unfit(error.to_string());
        files.push(("tokenizer.json", vocabulary.tokenizer().map_err(failed)?.json().to_vec()));
        let context = model.config().context_length();
        files.push(("tokenizer_config.json", vocabulary.config(context).map_err(failed)?));
    }
    with_template(source, model, files)
}

/// The template as a file of its own, as version 5 of transformers writes it; it may be inside tokenizer_config.json.
fn with_template(source: &Path, model: Model, mut files: Files) -> Result<(Model, Files)> {
    let find = |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map(|(_, bytes)| bytes.as_slice());
    let chat = ChatFormat::read(find("chat_template.jinja"), find("tokenizer_config.json"));
    let chat =
        chat.map_err(|error| Error::Unfit { field: "import.uri", reason: format!("{}: {error}", source.display()) })?;
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
