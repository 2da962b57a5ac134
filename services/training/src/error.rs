//! What can go wrong in a training job, by meaning, and what a caller is told of it.

use std::path::PathBuf;

use tidemill_chassis::Fault;
use tidemill_platform::fault_of_artifacts;
use tonic::Code;

use crate::learning;

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An artifact is missing, damaged or cannot be stored.
    #[error(transparent)]
    Artifacts(#[from] tidemill_artifacts::Error),
    /// Learning failed.
    #[error(transparent)]
    Learning(#[from] learning::Error),
    /// A file of a dataset cannot be read.
    #[error("dataset {digest}: {source}")]
    Dataset { digest: String, source: tidemill_dataset::Error },
    /// What the job names does not fit together.
    #[error("{field}: {reason}")]
    Unfit { field: &'static str, reason: String },
    /// A file of ours cannot be read or written.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// A rank has ended before its time.
    #[error("a rank is lost: {0}")]
    RankLost(String),
    /// Ranks cannot be run.
    #[error("ranks: {0}")]
    Ranks(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An I/O error on a file of ours.
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }

    /// Whether the end of another rank may be its cause.
    pub(crate) fn may_be_a_lost_rank(&self) -> bool {
        use tidemill_models::Error as Model;
        let torch = matches!(
            self,
            Self::Learning(learning::Error::Torch(_)) | Self::Learning(learning::Error::Model(Model::Torch(_)))
        );
        torch || matches!(self, Self::RankLost(_))
    }

    /// Whether it was met in talking to another rank, by the words of those who carry the talk.
    pub(crate) fn is_of_talking(&self) -> bool {
        let text = self.to_string();
        self.may_be_a_lost_rank() && ["gloo", "NCCL"].iter().any(|carrier| text.contains(carrier))
    }

    /// The error of the operating system beneath, where there is one.
    fn io(&self) -> Option<&std::io::Error> {
        use tidemill_dataset::Error as Data;
        use tidemill_models::Error as Model;
        match self {
            Self::File { source, .. }
            | Self::Dataset { source: Data::Io { source, .. }, .. }
            | Self::Learning(learning::Error::Data(Data::Io { source, .. }))
            | Self::Learning(learning::Error::Model(Model::Io { source, .. })) => Some(source),
            _ => None,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        use learning::Error as Learning;
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        use tidemill_dataset::Error as Data;
        use tidemill_models::Error as Model;
        let text = error.to_string();
        if let Some(source) = error.io() {
            return match source.kind() {
                StorageFull | QuotaExceeded => {
                    Fault::exhausted("DISK_FULL", format!("the disk is full; free space, then retry: {text}"))
                }
                _ => Fault::new(Code::FailedPrecondition, "FILE_ERROR", text),
            };
        }
        let unusable = |reason| Fault::new(Code::FailedPrecondition, reason, text.clone());
        match error {
            Error::Artifacts(error) => fault_of_artifacts(error),
            Error::Learning(Learning::Spec { field, problem }) => Fault::invalid(format!("spec.{field}"), problem),
            Error::Unfit { field, reason } => Fault::invalid(field, reason),
            Error::Dataset { source: Data::Corrupt { .. }, .. }
            | Error::Learning(Learning::Data(Data::Corrupt { .. })) => {
                Fault::new(Code::DataLoss, "ARTIFACT_CORRUPT", text)
            }
            Error::Dataset { .. } | Error::Learning(Learning::Data(_)) => unusable("DATASET_UNUSABLE"),
            Error::Learning(Learning::NotFinite { .. }) => unusable("LOSS_NOT_FINITE"),
            Error::Learning(Learning::NothingSupervised { .. }) => unusable("NOTHING_SUPERVISED"),
            Error::Learning(Learning::Checkpoint { .. }) => Fault::new(Code::DataLoss, "ARTIFACT_CORRUPT", text),
            Error::Learning(Learning::Model(Model::Torch(_)) | Learning::Torch(_)) if text.contains("memory") => {
                let hint =
                    "not enough memory; use a smaller batch_size with more accumulation, or a smaller architecture";
                Fault::new(Code::FailedPrecondition, "OUT_OF_MEMORY", format!("{hint}: {text}"))
            }
            Error::Learning(Learning::Model(Model::Config { .. } | Model::Weights { .. })) => {
                unusable("MODEL_UNUSABLE")
            }
            Error::Learning(_) | Error::File { .. } | Error::RankLost(_) | Error::Ranks(_) => Fault::internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such_wherever_it_was_met() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = PathBuf::from("/folder/model.safetensors");
        let model = tidemill_models::Error::Io { path: path.clone(), source: full() };
        for error in [Error::from(learning::Error::from(model)), Error::File { path, source: full() }] {
            let fault = Fault::from(error);
            assert_eq!((fault.code, fault.reason), (Code::ResourceExhausted, "DISK_FULL"));
            assert!(fault.is_transient() && fault.message.contains("model.safetensors"), "{fault}");
        }
    }

    #[test]
    fn a_loss_that_is_no_number_fails_the_job_with_a_remedy() {
        let error = learning::Error::NotFinite { what: "the loss", step: 7, value: f64::NAN };
        let fault = Fault::from(Error::from(error));
        assert!(!fault.is_transient());
        assert!(fault.message.contains("step 7") && fault.message.contains("learning rate"), "{fault}");
    }
}
