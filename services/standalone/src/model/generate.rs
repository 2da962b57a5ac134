//! `tidemill model generate`.

use std::{fs, path::PathBuf};

use clap::Args;
use tidemill_models::{Model, generate};
use tidemill_text::{Message, Tokenizer};

use super::{Failure, ids::Ids, source::Source};

pub(super) const HELP: &str = "\
With --ids the new ids of each row are printed as a JSON list of lists (rows may differ in length),
with --prompt or --chat the new text. A row ends with a token that generation_config.json or
config.json calls the end of a text, or after --max-new-tokens.

Examples:
  tidemill model generate ./SmolLM2.gguf --prompt 'The capital of France is' --max-new-tokens 16
  tidemill model generate ./SmolLM2.gguf --chat 'What is the capital of France?'
  tidemill model generate ./my-model --ids ids.json --max-new-tokens 32 --beams 4";

/// `generate`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").args(["ids", "prompt", "chat"]).required(true))]
pub(super) struct Arguments {
    /// A Hugging Face directory or a GGUF file.
    model: PathBuf,
    /// Rows of token ids, as `logits` takes them.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// A text to continue; special tokens in it are taken as such.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A user's message, written by the model's chat template.
    #[arg(long, value_name = "TEXT")]
    chat: Option<String>,
    /// Most tokens to write for each row.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_new_tokens: u16,
    /// Search with so many beams; 1 takes the likeliest token each time.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    beams: u16,
    /// Write into a file instead of printing.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn execute(arguments: &Arguments) -> Result<(), Failure> {
    let source = Source::open(&arguments.model)?;
    let vocabulary = source.config()?.vocabulary_size();
    // What can be wrong is looked at before the weights are read.
    let given = match &arguments.ids {
        Some(path) => Some(Ids::read(path, vocabulary)?),
        None => None,
    };
    let text = match &given {
        Some(_) => None,
        None => Some(prompt(&source, arguments)?),
    };
    let (model, ends) = (source.model()?, source.ends()?);
    let write = |prompt: &[i64]| written(&model, prompt, arguments, &ends);
    let result = match (text, given) {
        (Some((tokenizer, prompt)), _) => {
            let ids: Vec<u32> = write(&prompt)?.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
            tokenizer.decode(&ids).map_err(|error| Failure::Failed(error.to_string()))?
        }
        (None, given) => {
            let ids = given.unwrap_or_default();
            let rows = ids.input_ids.iter().zip(ids.lengths());
            let rows = rows.map(|(row, length)| write(&row[..length])).collect::<Result<Vec<_>, _>>()?;
            serde_json::json!(rows).to_string()
        }
    };
    match &arguments.output {
        Some(path) => fs::write(path, format!("{result}\n")).map_err(|error| Failure::file(path, &error)),
        None => {
            println!("{result}");
            Ok(())
        }
    }
}

fn written(model: &Model, prompt: &[i64], arguments: &Arguments, ends: &[i64]) -> Result<Vec<i64>, Failure> {
    let most = usize::from(arguments.max_new_tokens);
    Ok(match usize::from(arguments.beams) {
        1 => generate::greedy(model, prompt, most, ends)?,
        beams => generate::beam_search(model, prompt, most, ends, beams)?,
    })
}

/// The tokenizer, and the ids of the text to continue.
fn prompt(source: &Source, arguments: &Arguments) -> Result<(Tokenizer, Vec<i64>), Failure> {
    let failed = |error: tidemill_text::Error| Failure::content(source.path(), error);
    let missing = || Failure::content(source.path(), "it has no tokenizer: give token ids with --ids");
    let tokenizer = source.tokenizer()?.ok_or_else(missing)?;
    let ids = match (&arguments.chat, &arguments.prompt) {
        (Some(message), _) => {
            let text = source.chat()?.render(&[Message::new("user", message)], true).map_err(failed)?;
            tokenizer.encode_template(&text).map_err(failed)?
        }
        (None, prompt) => {
            let (before, after) = tokenizer.around().map_err(failed)?;
            let text = tokenizer.encode_template(prompt.as_deref().unwrap_or_default()).map_err(failed)?;
            [before, text, after].concat()
        }
    };
    if ids.is_empty() {
        return Err(Failure::Input("--prompt: an empty text has no tokens to continue".to_owned()));
    }
    Ok((tokenizer, ids.into_iter().map(i64::from).collect()))
}
