//! What can go wrong in the registry, by meaning, and how callers see it.

use tidemill_chassis::Fault;
use tidemill_platform::{fault_of_artifacts, fault_of_resources};
use tonic::Code;

use crate::gate::Finding;

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store of resources.
    #[error(transparent)]
    Resources(#[from] tidemill_resources::Error),
    /// The artifact store.
    #[error(transparent)]
    Artifacts(#[from] tidemill_artifacts::Error),
    /// Fields of a request: (path, description).
    #[error("{} wrong field(s)", .0.len())]
    Invalid(Vec<(String, String)>),
    /// An artifact of another kind.
    #[error("{digest} is a {kind}, not a model; give the digest of a model's directory")]
    NotAModel {
        /// Which artifact.
        digest: String,
        /// What it is.
        kind: String,
    },
    /// Figures of another model.
    #[error(
        "{evaluation} measured {measured}, and {version} is {digest}; figures belong to the version of that very digest"
    )]
    OtherDigest {
        /// Whose figures.
        evaluation: String,
        /// What was measured.
        measured: String,
        /// The version asked for.
        version: String,
        /// Its digest.
        digest: String,
    },
    /// The gate refused.
    #[error("{alias} does not move to {version}: {}", .unmet.iter().map(|f| f.text.as_str()).collect::<Vec<_>>().join("; "))]
    Refused {
        /// The alias that stays.
        alias: String,
        /// The candidate.
        version: String,
        /// Thresholds that do not hold.
        unmet: Vec<Finding>,
    },
    /// Nothing of that name or digest is known.
    #[error("{0} is not in the lineage: no node, and no record of a known dataset, has that name or digest")]
    Unknown(String),
    /// A short digest fits several.
    #[error("{0} is ambiguous: it begins {1}; give more digits")]
    Ambiguous(String, String),
}

/// Result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// One wrong field.
    pub(crate) fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Error::Invalid(vec![(field.into(), description.into())])
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Resources(error) => fault_of_resources(error),
            Error::Artifacts(error) => fault_of_artifacts(error),
            Error::Invalid(fields) => Fault::invalid_fields(fields),
            Error::NotAModel { .. } => Fault::invalid("model_version.digest", message),
            Error::OtherDigest { version, .. } => Fault::precondition("OTHER_DIGEST", &version, message),
            Error::Refused { unmet, .. } => Fault {
                preconditions: unmet.into_iter().map(|finding| (finding.metric, finding.text)).collect(),
                ..Fault::new(Code::FailedPrecondition, "GATE_REFUSED", message)
            },
            Error::Unknown(_) => Fault::new(Code::NotFound, "NOT_FOUND", message),
            Error::Ambiguous(..) => Fault::invalid("id", message),
        }
    }
}
