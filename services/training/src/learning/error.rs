//! What can go wrong while learning.

use std::path::PathBuf;

/// Errors by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the spec cannot be used.
    #[error("{field}: {problem}")]
    Spec {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A loss or gradient is not a number.
    #[error("{what} at step {step} is {value}: lower the learning rate, lengthen the warm-up, or look at the data")]
    NotFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// Steps done before.
        step: u64,
        /// The value.
        value: f64,
    },
    /// A step's batch has no token to learn from.
    #[error("the batch of step {step} has no supervised token: a loss of nothing would look like success")]
    NothingSupervised {
        /// Steps done before.
        step: u64,
    },
    /// A checkpoint's state file cannot be used.
    #[error("{path}: {problem}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] tidemill_dataset::Error),
    /// The model cannot be read, written or run.
    #[error(transparent)]
    Model(#[from] tidemill_models::Error),
    /// An answer cannot be read as text.
    #[error(transparent)]
    Text(#[from] tidemill_text::Error),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] tidemill_torch::Error),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Result of learning.
pub type Result<T> = std::result::Result<T, Error>;
