//! `tidemill model convert`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Map, Value, json};
use tidemill_models::{save, save_sharded};
use tidemill_training::import;

use super::{
    Failure,
    source::{GENERATION_FILE, Kind, Source, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE},
};

pub(super) const HELP: &str = "\
DIRECTORY gets config.json, model.safetensors (or shards and their index), tokenizer.json,
tokenizer_config.json, chat_template.jinja and generation_config.json. It must not exist: everything
is written beside it into DIRECTORY.part, which then takes its name.

Examples:
  tidemill model convert ./SmolLM2-135M-Instruct.Q4_1.gguf ./smollm2
  tidemill model convert ./old-layout ./new-layout --shard-bytes 2000000000";

/// `convert`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A Hugging Face directory or a GGUF file.
    model: PathBuf,
    /// The directory to make.
    directory: PathBuf,
    /// Most bytes of weights in one file; without this there is one file.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    shard_bytes: Option<u64>,
    /// Leave the tokenizer out, where it is one that cannot be converted.
    #[arg(long)]
    without_tokenizer: bool,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let (source, target) = (Source::open(&arguments.model)?, &arguments.directory);
    if target.exists() {
        return Err(Failure::content(target, "it exists already: name another directory, or remove it"));
    }
    let Some(name) = target.file_name() else {
        return Err(Failure::content(target, "not the name of a directory to make"));
    };
    let mut part = name.to_owned();
    part.push(".part");
    let part = target.with_file_name(part);
    fs::create_dir(&part).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::content(&part, "another run writes it, or was interrupted: remove it if none runs")
        }
        _ => Failure::file(&part, &error),
    })?;
    let written = write(&source, &part, arguments).and_then(|summary| {
        sync(&part).and_then(|()| fs::rename(&part, target)).map_err(|error| Failure::file(target, &error))?;
        Ok(summary)
    });
    match written {
        Ok(summary) => {
            println!("{}: {summary}", target.display());
            Ok(())
        }
        Err(failure) => {
            // What is left of a failed run would only stand in the way of the next.
            let _ = fs::remove_dir_all(&part);
            Err(failure)
        }
    }
}

/// Writes all files; gives a sentence about them.
fn write(source: &Source, directory: &Path, arguments: &Arguments) -> Result<String, Failure> {
    let files = if arguments.without_tokenizer { Vec::new() } else { tokenizer_files(source)? };
    let model = source.model()?;
    match arguments.shard_bytes {
        Some(bytes) => save_sharded(&model, directory, bytes)?,
        None => save(&model, directory)?,
    }
    let generation = match source.file(GENERATION_FILE) {
        Ok(Some(bytes)) if matches!(source.kind(), Kind::Directory) => Some(bytes),
        _ => generation(source)?,
    };
    let tokenizer = if files.iter().any(|(name, _)| *name == TOKENIZER_FILE) { "with its" } else { "without a" };
    let files = files.into_iter().chain(generation.map(|bytes| (GENERATION_FILE, bytes)));
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|error| Failure::file(&path, &error))?;
    }
    Ok(format!(
        "{}, {} parameters in float32, {tokenizer} tokenizer",
        model.config().model_type(),
        model.parameter_count()
    ))
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn tokenizer_files(source: &Source) -> Result<Files, Failure> {
    let failed = |error: tidemill_text::Error| {
        Failure::content(source.path(), format!("{error}\n(or leave the tokenizer out: --without-tokenizer)"))
    };
    let (tokenizer, config) = match source.kind() {
        Kind::Directory => (source.file(TOKENIZER_FILE)?, source.file(TOKENIZER_CONFIG_FILE)?),
        Kind::Gguf(gguf) => match import::vocabulary(gguf) {
            Some(vocabulary) => {
                let tokenizer = vocabulary.tokenizer().map_err(failed)?.json().to_vec();
                (Some(tokenizer), Some(vocabulary.config(source.config()?.context_length()).map_err(failed)?))
            }
            None => (None, None),
        },
    };
    // Older directories have the template in tokenizer_config.json alone.
    let template = source.chat()?.template.map(|template| template.source().as_bytes().to_vec());
    let named = [(TOKENIZER_FILE, tokenizer), (TOKENIZER_CONFIG_FILE, config), (TEMPLATE_FILE, template)];
    Ok(named.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))).collect())
}

/// generation_config.json of a model that has none: the tokens at the ends of texts, as its configuration has them.
fn generation(source: &Source) -> Result<Option<Vec<u8>>, Failure> {
    let all: Value =
        serde_json::from_str(&source.config_text()?).map_err(|error| Failure::content(source.path(), error))?;
    let names = ["bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"];
    let known = names.into_iter().map(|name| (name.to_owned(), all[name].clone()));
    let mut map: Map<String, Value> = known.filter(|(_, id)| !id.is_null()).collect();
    if map.is_empty() || all["model_type"] == "bert" {
        return Ok(None);
    }
    map.insert("_from_model_config".to_owned(), json!(true));
    Ok(Some(format!("{:#}\n", Value::Object(map)).into_bytes()))
}

/// A rename must not be on disk before what it names.
fn sync(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(directory)?.sync_all()
}
