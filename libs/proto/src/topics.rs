//! The table of topics: every topic, who writes it, who reads it, and what it carries.

/// A topic and its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// Full name of the payload's message.
    pub payload: &'static str,
    /// The service that writes it.
    pub producer: &'static str,
    /// The services that read it.
    pub consumers: &'static [&'static str],
}

macro_rules! topics {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $payload:literal, $producer:literal => [$($consumer:literal),*];)*) => {
        $($(#[$doc])* pub const $id: &str = $name;)*
        /// Every topic.
        pub const ALL: &[Topic] = &[
            $(Topic { name: $name, payload: $payload, producer: $producer, consumers: &[$($consumer),*] },)*
        ];
    };
}

topics! {
    /// Dataset versions to read.
    INGESTION_TASKS = "tidemill.ingestion.tasks", "tidemill.event.v1.JobRequested", "ingestion" => ["ingestion"];
    /// Preparation to do.
    PREPROCESSING_TASKS = "tidemill.preprocessing.tasks", "tidemill.event.v1.JobRequested", "preprocessing" => ["preprocessing"];
    /// Training to do.
    TRAINING_TASKS = "tidemill.training.tasks", "tidemill.event.v1.JobRequested", "training" => ["training"];
    /// Measuring to do.
    EVALUATION_TASKS = "tidemill.evaluation.tasks", "tidemill.event.v1.JobRequested", "evaluation" => ["evaluation"];
    /// Pipeline runs to drive.
    PIPELINE_TASKS = "tidemill.pipeline.tasks", "tidemill.event.v1.JobRequested", "pipeline" => ["pipeline"];
    /// Ends of dataset versions.
    DATASET_EVENTS = "tidemill.dataset.events", "tidemill.event.v1.JobEnded", "ingestion" => [];
    /// Ends of preparation.
    PREPROCESSING_JOB_EVENTS = "tidemill.preprocessingjob.events", "tidemill.event.v1.JobEnded", "preprocessing" => [];
    /// Ends of training.
    TRAINING_JOB_EVENTS = "tidemill.trainingjob.events", "tidemill.event.v1.JobEnded", "training" => [];
    /// Ends of evaluations.
    EVALUATION_EVENTS = "tidemill.evaluation.events", "tidemill.event.v1.JobEnded", "evaluation" => [];
    /// Ends of pipeline runs.
    PIPELINE_RUN_EVENTS = "tidemill.pipelinerun.events", "tidemill.event.v1.JobEnded", "pipeline" => ["pipeline"];
    /// New feedback.
    FEEDBACK_EVENTS = "tidemill.feedback.events", "tidemill.event.v1.FeedbackCreated", "ingestion" => ["pipeline"];
    /// Moves of aliases.
    ALIAS_EVENTS = "tidemill.alias.events", "tidemill.event.v1.AliasMoved", "registry" => ["inference"];
    /// New deployments.
    DEPLOYMENT_EVENTS = "tidemill.deployment.events", "tidemill.event.v1.DeploymentCreated", "inference" => ["inference"];
}

/// Where a consumer puts what it cannot read.
pub fn dead_letter(topic: &str) -> String {
    format!("{topic}.dlq")
}
