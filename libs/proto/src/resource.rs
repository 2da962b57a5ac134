//! What resources and jobs have in common, so that stores and services treat them alike.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use crate::r#type::v1::{Progress, State};
use crate::{evaluation, inference, ingestion, pipeline, preprocessing, registry, training};

/// Fields 1 to 5 of every resource: set by the store, never by a caller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Resource name.
    pub name: String,
    /// Unique for all time.
    pub uid: String,
    /// Changes with every write.
    pub etag: String,
    /// When it was created.
    pub create_time: Option<Timestamp>,
    /// When it was last written.
    pub update_time: Option<Timestamp>,
}

/// A message with a resource name.
pub trait Resource: prost::Message + prost::Name + Default + Clone + PartialEq + Send + Sync + 'static {
    /// Pattern of its names, with `-` for ids: `models/-/versions/-`.
    const COLLECTION: &'static str;
    /// Its resource name.
    fn name(&self) -> &str;
    /// Its uid.
    fn uid(&self) -> &str;
    /// Its etag.
    fn etag(&self) -> &str;
    /// Its labels.
    fn labels(&self) -> &BTreeMap<String, String>;
    /// Sets fields 1 to 5.
    fn set_meta(&mut self, meta: Meta);
}

/// A resource that is long work.
pub trait Job: Resource {
    /// Where its life stands.
    fn job_state(&self) -> State;
    /// Moves it on.
    fn set_job_state(&mut self, state: State);
    /// Why it failed.
    fn error(&self) -> Option<&tonic_types::Status>;
    /// Sets or clears the reason of its failure.
    fn set_error(&mut self, error: Option<tonic_types::Status>);
    /// How far it is.
    fn progress(&self) -> Option<&Progress>;
    /// Says how far it is.
    fn set_progress(&mut self, progress: Option<Progress>);
    /// When work on it began.
    fn start_time(&self) -> Option<Timestamp>;
    /// Sets the time when work on it began.
    fn set_start_time(&mut self, time: Option<Timestamp>);
    /// Sets the time when it ended.
    fn set_end_time(&mut self, time: Option<Timestamp>);
    /// Digest of its result; empty until it has one.
    fn result_digest(&self) -> &str;
    /// Whether it has ended.
    fn ended(&self) -> bool {
        matches!(self.job_state(), State::Succeeded | State::Failed | State::Cancelled)
    }
}

macro_rules! resources {
    ($($message:path => $collection:literal),* $(,)?) => {$(
        impl Resource for $message {
            const COLLECTION: &'static str = $collection;
            fn name(&self) -> &str {
                &self.name
            }
            fn uid(&self) -> &str {
                &self.uid
            }
            fn etag(&self) -> &str {
                &self.etag
            }
            fn labels(&self) -> &BTreeMap<String, String> {
                &self.labels
            }
            fn set_meta(&mut self, meta: Meta) {
                self.name = meta.name;
                self.uid = meta.uid;
                self.etag = meta.etag;
                self.create_time = meta.create_time;
                self.update_time = meta.update_time;
            }
        }
    )*};
}

resources! {
    evaluation::v1::Evaluation => "evaluations/-",
    inference::v1::Answer => "answers/-",
    inference::v1::Deployment => "deployments/-",
    ingestion::v1::DataSource => "dataSources/-",
    ingestion::v1::Dataset => "datasets/-",
    ingestion::v1::DatasetVersion => "datasets/-/versions/-",
    ingestion::v1::Feedback => "feedback/-",
    ingestion::v1::TopicCursor => "dataSources/-/cursors/-",
    ingestion::v1::TopicSegment => "dataSources/-/segments/-",
    pipeline::v1::Pipeline => "pipelines/-",
    pipeline::v1::PipelineRun => "pipelines/-/runs/-",
    preprocessing::v1::PreprocessingJob => "preprocessingJobs/-",
    registry::v1::Alias => "models/-/aliases/-",
    registry::v1::Model => "models/-",
    registry::v1::ModelVersion => "models/-/versions/-",
    registry::v1::Objective => "objectives/-",
    training::v1::Study => "studies/-",
    training::v1::TrainingJob => "trainingJobs/-",
}

macro_rules! jobs {
    ($($message:path => $digest:ident),* $(,)?) => {$(
        impl Job for $message {
            fn job_state(&self) -> State {
                self.state()
            }
            fn set_job_state(&mut self, state: State) {
                self.set_state(state);
            }
            fn error(&self) -> Option<&tonic_types::Status> {
                self.error.as_ref()
            }
            fn set_error(&mut self, error: Option<tonic_types::Status>) {
                self.error = error;
            }
            fn progress(&self) -> Option<&Progress> {
                self.progress.as_ref()
            }
            fn set_progress(&mut self, progress: Option<Progress>) {
                self.progress = progress;
            }
            fn start_time(&self) -> Option<Timestamp> {
                self.start_time
            }
            fn set_start_time(&mut self, time: Option<Timestamp>) {
                self.start_time = time;
            }
            fn set_end_time(&mut self, time: Option<Timestamp>) {
                self.end_time = time;
            }
            fn result_digest(&self) -> &str {
                &self.$digest
            }
        }
    )*};
}

jobs! {
    evaluation::v1::Evaluation => digest,
    ingestion::v1::DatasetVersion => digest,
    pipeline::v1::PipelineRun => model_digest,
    preprocessing::v1::PreprocessingJob => digest,
    training::v1::Study => model_digest,
    training::v1::TrainingJob => model_digest,
}
