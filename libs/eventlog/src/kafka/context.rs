//! What librdkafka has to tell, as log lines of ours.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// The context of every client that has nothing else to hear.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        failed(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// A line of librdkafka's log. A broker that is away is no error of ours: clients keep trying.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
            tracing::debug!(facility, message, "kafka client");
        }
        _ => tracing::warn!(facility, message, "kafka client"),
    }
}

/// Something that a client goes on from by itself.
pub(super) fn failed(error: &KafkaError, reason: &str) {
    tracing::warn!(%error, reason, "kafka client");
}
