//! What can go wrong, by meaning; and the one place where the ports' errors become faults that callers see.

use std::path::PathBuf;

use tidemill_chassis::Fault;
use tidemill_chassis::settings::Mistakes;
use tonic::Code;

/// What can go wrong while connecting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong settings.
    #[error(transparent)]
    Settings(#[from] Mistakes),
    /// The data directory cannot be made.
    #[error("platform.data_dir: {path} cannot be made: {source}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store of resources.
    #[error(transparent)]
    Resources(#[from] tidemill_resources::Error),
    /// The event log.
    #[error(transparent)]
    EventLog(#[from] tidemill_eventlog::Error),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] tidemill_cache::Error),
    /// The artifact store.
    #[error(transparent)]
    Artifacts(#[from] tidemill_artifacts::Error),
    /// The launcher.
    #[error(transparent)]
    Launcher(#[from] tidemill_launcher::Error),
}

/// An error of the resource store, as a caller sees it.
pub fn fault_of_resources(error: tidemill_resources::Error) -> Fault {
    use tidemill_resources::Error as E;
    match error {
        E::NotFound(name) => Fault::not_found(&name),
        E::AlreadyExists(_) => Fault::new(Code::AlreadyExists, "ALREADY_EXISTS", error.to_string()),
        E::Conflict(_) => Fault::new(Code::Aborted, "ETAG_MISMATCH", error.to_string()),
        E::InvalidArgument { field, reason } => Fault::invalid(field, reason),
        E::DiskFull(_) => Fault::exhausted("DISK_FULL", error.to_string()),
        E::Unavailable { .. } => Fault::unavailable(error.to_string()),
        E::Corrupt { .. } => Fault::new(Code::DataLoss, "RESOURCE_CORRUPT", error.to_string()),
    }
}

/// An error of the artifact store, as a caller sees it.
pub fn fault_of_artifacts(error: tidemill_artifacts::Error) -> Fault {
    use tidemill_artifacts::Error as E;
    let message = error.to_string();
    match error {
        E::NotFound(_) => Fault::new(Code::NotFound, "ARTIFACT_NOT_FOUND", message),
        E::Mismatch { .. } => Fault::new(Code::DataLoss, "ARTIFACT_DAMAGED", message),
        E::Corrupt { .. } => Fault::new(Code::DataLoss, "ARTIFACT_CORRUPT", message),
        E::AlreadyExists { .. } => Fault::new(Code::AlreadyExists, "REFERENCE_EXISTS", message),
        E::DiskFull(_) => Fault::exhausted("DISK_FULL", message),
        E::Unavailable { .. } => Fault::unavailable(message),
        E::Denied { .. } => Fault::new(Code::FailedPrecondition, "ARTIFACT_STORE_DENIED", message),
        E::Invalid { field, reason } => Fault::invalid(field, reason),
        E::File { .. } => Fault::new(Code::FailedPrecondition, "FILE_ERROR", message),
    }
}
