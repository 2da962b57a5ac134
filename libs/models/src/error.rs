//! What can be wrong with a model directory or a request to a model.

use std::path::PathBuf;

/// Errors by meaning. Lists hold every problem found, not only the first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `config.json` is not what this crate can build.
    #[error("{path}: {}", .problems.join("; "))]
    Config {
        /// The file.
        path: PathBuf,
        /// One entry a field: its name and what is wrong with it.
        problems: Vec<String>,
    },
    /// A weights file is broken or does not fit the configuration.
    #[error("{path}: {}", .problems.join("; "))]
    Weights {
        /// The file.
        path: PathBuf,
        /// One entry a tensor, or one for the file as a whole.
        problems: Vec<String>,
    },
    /// More tokens than the model or its cache has places for.
    #[error("{needed} tokens do not fit a context of {capacity}")]
    ContextExceeded {
        /// Tokens asked for, with those already in the cache.
        needed: i64,
        /// Places.
        capacity: i64,
    },
    /// Token ids that are not a non-empty [batch, time] matrix.
    #[error("token ids must be a non-empty [batch, time] matrix, got shape {0:?}")]
    Shape(Vec<i64>),
    /// Documents that are not laid in one row that they fill.
    #[error("documents of {documents} tokens need one row of as many, got {rows} rows of {tokens}")]
    Documents {
        /// Rows given.
        rows: i64,
        /// Tokens in each.
        tokens: i64,
        /// Tokens of all documents.
        documents: i64,
    },
    /// An adapter that does not fit the model; one entry a problem.
    #[error("adapter: {}", .0.join("; "))]
    Adapter(Vec<String>),
    /// The family has no such use.
    #[error("{0}")]
    Unsupported(String),
    /// No token can be drawn.
    #[error(transparent)]
    Logits(#[from] crate::sampling::BadLogits),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] tidemill_torch::Error),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
