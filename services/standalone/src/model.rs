//! `tidemill model …`: looks into model files, computes with them, converts them. Needs no server, and computes on the CPU.

mod cases;
mod convert;
mod disk;
mod failure;
mod generate;
mod ids;
mod inspect;
mod logits;
mod rows;
mod source;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use failure::Failure;

/// Look into model files, compute with them, convert them.
///
/// MODEL is a Hugging Face directory (config.json with model.safetensors or shards: llama, mistral, qwen2, qwen3, gpt2, bert, t5) or a
/// GGUF file (llama, mistral, qwen2, qwen3; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K). Numbers are float32, on the CPU.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what a model is: family, sizes, tensors, tokenizer, chat template. Reads no weights.
    #[command(
        after_help = "Examples:\n  tidemill model inspect ./SmolLM2.gguf\n  tidemill model inspect ./my-model --json"
    )]
    Inspect(inspect::Arguments),
    /// Compute logits, and with labels the loss and its gradients.
    #[command(after_help = logits::HELP)]
    Logits(logits::Arguments),
    /// Continue token ids or a text: by the likeliest token, or by beam search.
    #[command(after_help = generate::HELP)]
    Generate(generate::Arguments),
    /// Write a model as a Hugging Face directory in float32.
    #[command(after_help = convert::HELP)]
    Convert(convert::Arguments),
    /// Run many verbs in one process: a JSON list of argument lists.
    #[command(hide = true)]
    Cases {
        /// The list.
        file: PathBuf,
    },
}

/// Does what was asked: 0 done, 1 tried and failed, 2 the command or a file is wrong.
pub fn execute(arguments: &Arguments) -> ExitCode {
    match run(&arguments.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Inspect(arguments) => inspect::execute(arguments),
        Verb::Logits(arguments) => logits::execute(arguments),
        Verb::Generate(arguments) => generate::execute(arguments),
        Verb::Convert(arguments) => convert::execute(arguments),
        Verb::Cases { file } => cases::execute(file),
    }
}

#[cfg(test)]
mod tests;
