//! What can go wrong with artifacts, by meaning.

use std::path::{Path, PathBuf};

use crate::Digest;

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No blob, manifest or reference of that name is there.
    #[error("{0} is not in the artifact store")]
    NotFound(String),
    /// Stored bytes are not the ones that their digest names.
    #[error(
        "{what} is damaged: its bytes have {found}, not {digest}; restore it from a backup, or delete it and rebuild it"
    )]
    Mismatch {
        /// Which artifact, or which file of which artifact.
        what: String,
        /// What it should be.
        digest: Digest,
        /// What its bytes are.
        found: Digest,
    },
    /// Stored bytes are what was written, but cannot be read as what they should be.
    #[error("{what} cannot be read: {reason}")]
    Corrupt {
        /// Which manifest or reference.
        what: String,
        /// Why.
        reason: String,
    },
    /// The reference names another artifact already, and references never move.
    #[error("reference {name} names {present} already; references never move")]
    AlreadyExists {
        /// The reference.
        name: String,
        /// What it names.
        present: Digest,
    },
    /// The disk is full.
    #[error("the disk that holds {0} is full; free space, then retry")]
    DiskFull(String),
    /// The store cannot be reached or opened.
    #[error("the artifact store {url} is unavailable: {reason}")]
    Unavailable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The store does not let us.
    #[error("the artifact store {url} refused: {reason}; look at the credentials and what they may do")]
    Denied {
        /// Where.
        url: String,
        /// What it said.
        reason: String,
    },
    /// An argument is not acceptable.
    #[error("{field} is not acceptable: {reason}")]
    Invalid {
        /// Which argument.
        field: String,
        /// Why.
        reason: String,
    },
    /// A file or folder of the caller cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { field: field.into(), reason: reason.into() }
    }

    /// An I/O error on a file of the caller.
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Error {
        if is_full(&source) {
            Error::DiskFull(path.display().to_string())
        } else {
            Error::File { path: path.to_owned(), source }
        }
    }

    /// An error of the store on something that we call `what`; counted where it is the store's fault.
    pub(crate) fn store(url: &str, what: &str, error: object_store::Error) -> Error {
        let error = Error::of_store(url, what, error);
        if let Error::Unavailable { .. } | Error::Denied { .. } | Error::DiskFull(_) = error {
            metrics::counter!("tidemill_dependency_failures_total", "dependency" => "artifacts").increment(1);
        }
        error
    }

    fn of_store(url: &str, what: &str, error: object_store::Error) -> Error {
        let url = tidemill_address::masked(url);
        match &error {
            error if is_missing(error) => return Error::NotFound(what.to_owned()),
            object_store::Error::NotFound { .. } => {
                return Error::Unavailable { url, reason: "the bucket does not exist; create it".to_owned() };
            }
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                return Error::Denied { url, reason: format!("{what}: {error}") };
            }
            _ => {}
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(present) = cause {
            if present.downcast_ref::<std::io::Error>().is_some_and(is_full) {
                return Error::DiskFull(url);
            }
            cause = present.source();
        }
        Error::Unavailable { url, reason: format!("{what}: {error}") }
    }
}

/// Whether an object is not there. S3 answers in the same way when the whole bucket is not.
pub(crate) fn is_missing(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotFound { source, .. } => !source.to_string().contains("NoSuchBucket"),
        _ => false,
    }
}

/// A full disk, or a quota that is used up.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
