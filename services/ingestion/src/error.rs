//! What can go wrong while reading a source, by meaning; and its one translation into faults.

use std::{io, path::Path};

use tidemill_chassis::Fault;
use tidemill_dataset::RowType;
use tidemill_platform::{fault_of_artifacts, fault_of_resources};
use tonic::Code;

/// An error of this service's domain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{uri} does not exist: check the path or the version")]
    Missing { uri: String },
    #[error("{uri} is empty: no usable record{detail}")]
    Empty { uri: String, detail: String },
    #[error("{uri} has sha256 {found}, expected {expected}: the source has changed, or the expectation is wrong")]
    Checksum { uri: String, expected: String, found: String },
    #[error("{uri} is damaged: {detail}")]
    Damaged { uri: String, detail: String },
    #[error("{uri} unpacks to more than {limit} bytes: raise ingestion.max_unpacked_bytes if that is right")]
    TooLarge { uri: String, limit: u64 },
    #[error(
        "{program} cannot be started: {detail}; install Node.js (Debian: apt-get install npm) or set ingestion.npm to its path"
    )]
    NoNpm { program: String, detail: String },
    #[error("{uri} may not be downloaded: {detail}")]
    Forbidden { uri: String, detail: String },
    #[error("{uri} cannot be downloaded: {detail}")]
    Download { uri: String, detail: String },
    #[error(
        "{first_origin} is a {first} row and {second_origin} a {second} row: a dataset has rows of one type, so include only the files of one"
    )]
    MixedRows { first: RowType, first_origin: String, second: RowType, second_origin: String },
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("the disk is full: free space below the data directory")]
    DiskFull,
    #[error(transparent)]
    Dataset(tidemill_dataset::Error),
    #[error(
        "offsets from {offset} on of partition {partition} were never collected, though its cursor has passed them: restore the resource store, or make a new source"
    )]
    Gap { partition: i32, offset: i64 },
    #[error(
        "{name} is not finished, and where it ends decides where the next version begins: wait for it, or cancel it"
    )]
    Unfinished { name: String },
    #[error(transparent)]
    Topic(#[from] tidemill_eventlog::Error),
    #[error(transparent)]
    Resources(#[from] tidemill_resources::Error),
    #[error(transparent)]
    Artifacts(#[from] tidemill_artifacts::Error),
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

    /// Whether waiting can mend it.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Resources(error) => {
                matches!(error, tidemill_resources::Error::Unavailable { .. } | tidemill_resources::Error::DiskFull(_))
            }
            Self::Artifacts(error) => {
                matches!(error, tidemill_artifacts::Error::Unavailable { .. } | tidemill_artifacts::Error::DiskFull(_))
            }
            _ => matches!(self.reason(), (Code::Unavailable | Code::ResourceExhausted, _)),
        }
    }

    fn reason(&self) -> (Code, &'static str) {
        match self {
            Self::Missing { .. } => (Code::NotFound, "SOURCE_NOT_FOUND"),
            Self::Empty { .. } => (Code::FailedPrecondition, "SOURCE_EMPTY"),
            Self::Checksum { .. } => (Code::FailedPrecondition, "CHECKSUM_MISMATCH"),
            Self::Damaged { .. } => (Code::DataLoss, "SOURCE_DAMAGED"),
            Self::MixedRows { .. } => (Code::FailedPrecondition, "MIXED_ROWS"),
            Self::TooLarge { .. } => (Code::FailedPrecondition, "SOURCE_TOO_LARGE"),
            Self::Forbidden { .. } => (Code::FailedPrecondition, "HOST_NOT_ALLOWED"),
            Self::NoNpm { .. } => (Code::FailedPrecondition, "NPM_MISSING"),
            Self::Download { .. } | Self::Stopped => (Code::Unavailable, "UNAVAILABLE"),
            Self::File { .. } => (Code::FailedPrecondition, "FILE_ERROR"),
            Self::DiskFull => (Code::ResourceExhausted, "DISK_FULL"),
            Self::Gap { .. } => (Code::DataLoss, "SEGMENT_MISSING"),
            Self::Unfinished { .. } => (Code::FailedPrecondition, "VERSION_UNFINISHED"),
            Self::Topic(tidemill_eventlog::Error::Address { .. }) => (Code::FailedPrecondition, "TOPIC_ADDRESS"),
            Self::Topic(_) => (Code::Unavailable, "TOPIC_UNAVAILABLE"),
            Self::Dataset(_) | Self::Resources(_) | Self::Artifacts(_) => (Code::Internal, "INTERNAL"),
        }
    }
}

impl From<tidemill_dataset::Error> for Error {
    fn from(error: tidemill_dataset::Error) -> Self {
        match error {
            tidemill_dataset::Error::Io { path, source } => Self::file(Path::new(&path), source),
            other => Self::Dataset(other),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match (error.reason(), error) {
            (_, Error::Resources(error)) => fault_of_resources(error),
            (_, Error::Artifacts(error)) => fault_of_artifacts(error),
            ((Code::Internal, _), error) => Fault::internal(error),
            ((code, reason), error) => Fault::new(code, reason, error.to_string()),
        }
    }
}
