//! Which models and data a method is for: with others, a job would run and learn something else.

use tidemill_models::Config;

use super::Method;
use crate::learning::{Error, Result, Train};

impl Method {
    /// Whether the method is for models of a shape; if not, why.
    pub fn check_model(self, config: &Config) -> std::result::Result<(), String> {
        let (fits, wanted) = match self {
            Self::MaskedLanguage { .. } => {
                (matches!(config, Config::Bert(bert) if bert.masked_lm), "encoders with a masked-LM head")
            }
            Self::SequenceToSequence { .. } => (matches!(config, Config::T5(_)), "encoder-decoders"),
            _ => (config.is_decoder(), "decoders, which continue a text"),
        };
        if fits {
            return Ok(());
        }
        let remedy = match config {
            Config::Bert(bert) if !bert.masked_lm => {
                "which has no such head: start from a BertForMaskedLM, or from an architecture"
            }
            Config::Bert(_) => "an encoder: use masked_language_modeling on packed tokens",
            Config::T5(_) => "an encoder-decoder: use sequence_to_sequence on prompts with completions",
            Config::Llama(_) | Config::Gpt2(_) => "a decoder: use another method, or another model",
        };
        Err(format!("it is for {wanted}, and the model is a {}, {remedy}", config.model_type()))
    }

    /// Refuses data that were made for another method.
    pub(in crate::learning) fn check_data(self, train: &Train) -> Result<()> {
        let fits = match (self, train) {
            (Self::MaskedLanguage { .. }, Train::Windows(samples)) => samples.are_masked(),
            (Self::MaskedLanguage { .. }, Train::Rows(_)) => false,
            (Self::SequenceToSequence { .. }, Train::Rows(rows)) => rows.have_sources(true),
            (Self::SequenceToSequence { .. }, Train::Windows(_)) => false,
            (_, Train::Windows(samples)) => !samples.are_masked(),
            (_, Train::Rows(rows)) => rows.have_sources(false),
        };
        let problem = "the data were made for another method: windows with hidden tokens are for masked_language_modeling, \
                       rows with sources for sequence_to_sequence";
        if fits { Ok(()) } else { Err(Error::Spec { field: "method", problem: problem.to_owned() }) }
    }
}
