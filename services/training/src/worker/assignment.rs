//! What a worker is told: the job, and how many threads to use.

use prost::Message;
use serde::{Deserialize, Serialize};
use tidemill_chassis::Fault;
use tidemill_proto::training::v1::TrainingJob;

/// The work of one worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    /// Threads of libtorch; 0 means all cores.
    pub(crate) threads: usize,
    /// What to train.
    pub(crate) job: TrainingJob,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    threads: usize,
    /// The encoded job in hex.
    job: String,
}

impl Assignment {
    /// As text, for the worker's arguments.
    pub(crate) fn encode(&self) -> String {
        // The curve so far is long, and none of the worker's business.
        let job = TrainingJob { history: Vec::new(), progress: None, ..self.job.clone() };
        let wire = Wire { threads: self.threads, job: hex::encode(job.encode_to_vec()) };
        serde_json::to_string(&wire).expect("a number and a text are always serialised")
    }

    /// Reads what `encode` wrote.
    pub(crate) fn decode(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: String| Fault::invalid("spec", reason);
        let wire: Wire = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let bytes = hex::decode(&wire.job).map_err(|error| wrong(error.to_string()))?;
        let job = TrainingJob::decode(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { threads: wire.threads, job })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_reaches_the_worker_as_it_was() {
        let job = TrainingJob { name: "trainingJobs/a".to_owned(), uid: "u".to_owned(), ..TrainingJob::default() };
        let assignment = Assignment { threads: 2, job };
        assert_eq!(Assignment::decode(&assignment.encode()).unwrap(), assignment);
        assert!(Assignment::decode("{}").is_err());
    }
}
