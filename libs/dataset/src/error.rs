//! What can go wrong with datasets, by meaning.

use parquet::errors::ParquetError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is out of range; the message names it and the remedy.
    #[error("{0}")]
    Invalid(String),
    /// Stored bytes are not what their name says.
    #[error("{what} is corrupt: {detail}")]
    Corrupt {
        /// Which file or field.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Parquet could not be written.
    #[error("Parquet could not be written")]
    Write(#[source] ParquetError),
}

impl Error {
    pub(crate) fn corrupt(what: impl Into<String>, detail: impl ToString) -> Self {
        Self::Corrupt { what: what.into(), detail: detail.to_string() }
    }

    /// What Parquet's writer says about a shard; what the system said about the file beneath it stays what it is, such as a full disk.
    pub(crate) fn write(path: &std::path::Path) -> impl FnOnce(ParquetError) -> Self + '_ {
        move |error| match error {
            ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
                Ok(source) => Self::Io { path: path.display().to_string(), source: *source },
                Err(cause) => Self::Write(ParquetError::External(cause)),
            },
            other => Self::Write(other),
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.display().to_string(), source }
    }
}
