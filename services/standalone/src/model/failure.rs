//! Why a verb did not end well.

use std::path::Path;

use tidemill_models::Error;

/// Printed as it is; the kind gives the exit code.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command or a file is wrong.
    #[error("{0}")]
    Input(String),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Input(_) => 2,
        }
    }

    /// A file that cannot be read or written.
    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::Input(format!("{}: {error}", path.display()))
    }

    /// A file with something wrong in it.
    pub(super) fn content(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Input(format!("{}: {what}", path.display()))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Torch(error) => Self::Failed(error.to_string()),
            // One line each: there may be hundreds.
            Error::Config { path, problems } | Error::Weights { path, problems } => {
                Self::content(&path, problems.join("\n  "))
            }
            other => Self::Input(other.to_string()),
        }
    }
}

impl From<tch::TchError> for Failure {
    fn from(error: tch::TchError) -> Self {
        Self::Failed(error.to_string())
    }
}
