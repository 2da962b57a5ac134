//! The table of topics: every topic, who writes it, who reads it, what it carries, and its shape in a log of many brokers.

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
    /// Its shape.
    pub shape: Shape,
}

/// What a topic is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many members of a group can work at a time. It never changes: a key's partition depends on it.
    pub partitions: i32,
    /// How long an event is kept, in days.
    pub retention_days: u32,
}

/// Of a topic that is not in the table.
const OTHER: Shape = Shape { partitions: 8, retention_days: 7 };

/// Of a dead-letter queue: somebody looks at it within a week, in order.
const DEAD_LETTERS: Shape = Shape { partitions: 1, retention_days: 7 };

impl Shape {
    /// The shape of a topic: of the table, of a dead-letter queue, or the default.
    pub fn of(topic: &str) -> Shape {
        match ALL.iter().find(|known| known.name == topic) {
            Some(known) => known.shape,
            None if topic.ends_with(DEAD_LETTER_SUFFIX) => DEAD_LETTERS,
            None => OTHER,
        }
    }
}

macro_rules! topics {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $payload:literal, $producer:literal => [$($consumer:literal),*],
        $partitions:literal x $days:literal;)*) => {
        $($(#[$doc])* pub const $id: &str = $name;)*
        /// Every topic.
        pub const ALL: &[Topic] = &[
            $(Topic {
                name: $name,
                payload: $payload,
                producer: $producer,
                consumers: &[$($consumer),*],
                shape: Shape { partitions: $partitions, retention_days: $days },
            },)*
        ];
    };
}

topics! {
    /// Dataset versions to read.
    INGESTION_TASKS = "tidemill.ingestion.tasks", "tidemill.event.v1.JobRequested", "ingestion" => ["ingestion"], 8 x 30;
    /// Preparation to do.
    PREPROCESSING_TASKS = "tidemill.preprocessing.tasks", "tidemill.event.v1.JobRequested", "preprocessing" => ["preprocessing"], 8 x 30;
    /// Training to do.
    TRAINING_TASKS = "tidemill.training.tasks", "tidemill.event.v1.JobRequested", "training" => ["training"], 8 x 30;
    /// Studies to drive.
    STUDY_TASKS = "tidemill.study.tasks", "tidemill.event.v1.JobRequested", "training" => ["training"], 8 x 30;
    /// Measuring to do.
    EVALUATION_TASKS = "tidemill.evaluation.tasks", "tidemill.event.v1.JobRequested", "evaluation" => ["evaluation"], 8 x 30;
    /// Pipeline runs to drive.
    PIPELINE_TASKS = "tidemill.pipeline.tasks", "tidemill.event.v1.JobRequested", "pipeline" => ["pipeline"], 8 x 30;
    /// Ends of dataset versions.
    DATASET_EVENTS = "tidemill.dataset.events", "tidemill.event.v1.JobEnded", "ingestion" => [], 4 x 30;
    /// Ends of preparation.
    PREPROCESSING_JOB_EVENTS = "tidemill.preprocessingjob.events", "tidemill.event.v1.JobEnded", "preprocessing" => [], 4 x 30;
    /// Ends of training.
    TRAINING_JOB_EVENTS = "tidemill.trainingjob.events", "tidemill.event.v1.JobEnded", "training" => [], 4 x 30;
    /// Ends of studies.
    STUDY_EVENTS = "tidemill.study.events", "tidemill.event.v1.JobEnded", "training" => [], 4 x 30;
    /// Ends of evaluations.
    EVALUATION_EVENTS = "tidemill.evaluation.events", "tidemill.event.v1.JobEnded", "evaluation" => [], 4 x 30;
    /// Ends of pipeline runs.
    PIPELINE_RUN_EVENTS = "tidemill.pipelinerun.events", "tidemill.event.v1.JobEnded", "pipeline" => ["pipeline"], 4 x 30;
    /// New feedback.
    FEEDBACK_EVENTS = "tidemill.feedback.events", "tidemill.event.v1.FeedbackCreated", "ingestion" => ["pipeline"], 4 x 30;
    /// Moves of aliases.
    ALIAS_EVENTS = "tidemill.alias.events", "tidemill.event.v1.AliasMoved", "registry" => ["inference"], 4 x 30;
    /// New deployments.
    DEPLOYMENT_EVENTS = "tidemill.deployment.events", "tidemill.event.v1.DeploymentCreated", "inference" => ["inference"], 4 x 30;
}

const DEAD_LETTER_SUFFIX: &str = ".dlq";

/// Where a consumer puts what it cannot read.
pub fn dead_letter(topic: &str) -> String {
    format!("{topic}{DEAD_LETTER_SUFFIX}")
}
