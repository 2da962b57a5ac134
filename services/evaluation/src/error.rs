//! What can go wrong in measuring, by meaning, and what a caller is told of it.

use std::path::PathBuf;

use tidemill_chassis::Fault;
use tidemill_dataset::RecordId;
use tidemill_platform::fault_of_artifacts;
use tonic::Code;

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An artifact is missing, damaged or cannot be stored.
    #[error(transparent)]
    Artifacts(#[from] tidemill_artifacts::Error),
    /// A dataset's file cannot be read.
    #[error("dataset {digest}: {source}")]
    Dataset { digest: String, source: tidemill_dataset::Error },
    /// The split that should be measured has nothing to measure.
    #[error(
        "the {split} split of dataset {digest} holds no text; give it a share when the dataset is prepared, or measure another split"
    )]
    EmptySplit { split: String, digest: String },
    /// A row cannot be measured with this model.
    #[error("row {id}: {detail}")]
    Row { id: RecordId, detail: String },
    /// Compressors are for text, the base model is for rows.
    #[error("dataset {digest} holds {held}, which {baseline} is not for: leave it out of suite.baselines")]
    Baseline { digest: String, held: &'static str, baseline: &'static str },
    /// The model was not trained from another one.
    #[error(
        "model {0} was not trained from another model that is still there: leave BASELINE_BASE_MODEL out of the suite"
    )]
    NoBase(String),
    /// No row has an answer that is measured.
    #[error(
        "no row of the {split} split of dataset {digest} has an answer that was judged good; measure another split"
    )]
    NoAnswers { split: String, digest: String },
    /// The model's family has no such use.
    #[error("model {digest} is a {family}, {reason}")]
    Family { field: &'static str, digest: String, family: &'static str, reason: &'static str },
    /// No document has a token to guess.
    #[error("dataset {0}: its documents have no token that an encoder could guess; measure another split")]
    NothingHidden(String),
    /// The tokenizer gives ids that the model does not know.
    #[error(
        "model {digest}: its tokenizer has {tokenizer} ids, and its embedding only {model}; it needs the tokenizer that it was trained with"
    )]
    Vocabulary { digest: String, tokenizer: usize, model: i64 },
    /// The model's tokenizer or text cannot be used.
    #[error("{what}: {source}")]
    Text { what: String, source: tidemill_text::Error },
    /// The model cannot be loaded or run.
    #[error("model {digest}: {source}")]
    Model { digest: String, source: tidemill_models::Error },
    /// The model lacks the token that comes before a document.
    #[error("the tokenizer of model {0} has no end-of-text token, so that no document's first token can be predicted")]
    NoEndOfText(String),
    /// The figures are not numbers.
    #[error("model {0} predicts NaN: its weights are not usable; train it again with a smaller learning rate")]
    NotFinite(String),
    /// A prompt leaves no room for an answer.
    #[error("suite.prompts[{index}]: {tokens} tokens leave no room in a context of {context}; shorten it")]
    LongPrompt { index: usize, tokens: usize, context: i64 },
    /// A program is not installed.
    #[error(
        "the program {program} is missing; install it (Debian: apt-get install {package}), or leave the baseline out of the suite"
    )]
    MissingProgram { program: &'static str, package: &'static str },
    /// A program failed.
    #[error("{program} failed: {reason}")]
    Program { program: &'static str, reason: String },
    /// A file of ours cannot be read or written.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Artifacts(error) => fault_of_artifacts(error),
            Error::Dataset { .. } => Fault::new(Code::DataLoss, "ARTIFACT_CORRUPT", text),
            Error::Model { source: tidemill_models::Error::Torch(_), .. } => Fault::internal(text),
            Error::Model { .. } => Fault::new(Code::FailedPrecondition, "MODEL_UNUSABLE", text),
            Error::NotFinite(_) => Fault::new(Code::FailedPrecondition, "NOT_FINITE", text),
            Error::EmptySplit { .. }
            | Error::NoAnswers { .. }
            | Error::NothingHidden(_)
            | Error::Row { .. }
            | Error::Text { .. }
            | Error::NoEndOfText(_) => Fault::new(Code::FailedPrecondition, "NOT_MEASURABLE", text),
            Error::Baseline { .. } | Error::NoBase(_) => Fault::invalid("suite.baselines", text),
            Error::Family { field, .. } => Fault::invalid(field, text),
            Error::Vocabulary { .. } => Fault::new(Code::FailedPrecondition, "MODEL_UNUSABLE", text),
            Error::LongPrompt { index, .. } => Fault::invalid(format!("suite.prompts[{index}]"), text),
            Error::MissingProgram { .. } => Fault::new(Code::FailedPrecondition, "PROGRAM_MISSING", text),
            Error::Program { .. } => Fault::new(Code::Internal, "PROGRAM_FAILED", text),
            Error::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Fault::exhausted("DISK_FULL", text)
            }
            Error::File { .. } => Fault::new(Code::FailedPrecondition, "FILE_ERROR", text),
        }
    }
}
