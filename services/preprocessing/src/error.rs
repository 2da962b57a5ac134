//! What can go wrong in preparation, by meaning; and its one translation into faults.

use std::{io, path::Path};

use tidemill_chassis::Fault;
use tonic::Code;

/// An error of this service's domain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{digest} is a {kind}, not a raw dataset version: give the digest of a DatasetVersion")]
    NotADataset { digest: String, kind: String },
    #[error("nothing is left to train on{detail}: relax the recipe or add data")]
    NothingLeft { detail: String },
    #[error("the tokenizer has no end-of-text token: use one with {}", tidemill_text::END_OF_TEXT)]
    NoEndOfText,
    #[error("{0}")]
    Tokenizer(tidemill_text::Error),
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("the disk is full: free space below the data directory")]
    DiskFull,
    #[error("{0}")]
    Damaged(tidemill_dataset::Error),
    #[error("the work was stopped")]
    Stopped,
}

impl Error {
    /// A file that could not be read or written.
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::File { path: path.display().to_string(), source },
        }
    }

    fn reason(&self) -> (Code, &'static str) {
        match self {
            Self::NotADataset { .. } => (Code::FailedPrecondition, "NOT_A_DATASET"),
            Self::NothingLeft { .. } => (Code::FailedPrecondition, "NOTHING_LEFT"),
            Self::NoEndOfText => (Code::FailedPrecondition, "NO_END_OF_TEXT"),
            Self::Tokenizer(_) => (Code::FailedPrecondition, "TOKENIZER_UNUSABLE"),
            Self::File { .. } => (Code::FailedPrecondition, "FILE_ERROR"),
            Self::DiskFull => (Code::ResourceExhausted, "DISK_FULL"),
            Self::Damaged(_) => (Code::DataLoss, "ARTIFACT_CORRUPT"),
            Self::Stopped => (Code::Unavailable, "UNAVAILABLE"),
        }
    }
}

impl From<tidemill_dataset::Error> for Error {
    fn from(error: tidemill_dataset::Error) -> Self {
        match error {
            tidemill_dataset::Error::Io { path, source } => Self::file(Path::new(&path), source),
            other => Self::Damaged(other),
        }
    }
}

impl From<tidemill_text::Error> for Error {
    fn from(error: tidemill_text::Error) -> Self {
        Self::Tokenizer(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (code, reason) = error.reason();
        Fault::new(code, reason, error.to_string())
    }
}
