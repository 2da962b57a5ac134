//! The adapter for Apache Kafka.

pub(crate) mod address;
