//! What a worker is told: the evaluation, and how many threads to use.

use prost::Message;
use serde::{Deserialize, Serialize};
use tidemill_chassis::Fault;
use tidemill_proto::evaluation::v1::Evaluation;

/// The work of one worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    /// Threads of libtorch; 0 means all cores.
    pub(crate) threads: usize,
    /// What to measure.
    pub(crate) evaluation: Evaluation,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    threads: usize,
    /// The encoded evaluation in hex.
    evaluation: String,
}

impl Assignment {
    /// As text, for the worker's arguments.
    pub(crate) fn encode(&self) -> String {
        let wire = Wire { threads: self.threads, evaluation: hex::encode(self.evaluation.encode_to_vec()) };
        serde_json::to_string(&wire).expect("a number and a text are always serialised")
    }

    /// Reads what `encode` wrote.
    pub(crate) fn decode(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: String| Fault::invalid("spec", reason);
        let wire: Wire = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let bytes = hex::decode(&wire.evaluation).map_err(|error| wrong(error.to_string()))?;
        let evaluation = Evaluation::decode(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { threads: wire.threads, evaluation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_reaches_the_worker_as_it_was() {
        let evaluation = Evaluation { name: "evaluations/a".to_owned(), uid: "u".to_owned(), ..Evaluation::default() };
        let assignment = Assignment { threads: 2, evaluation };
        assert_eq!(Assignment::decode(&assignment.encode()).unwrap(), assignment);
        assert!(Assignment::decode("{}").is_err());
    }
}
