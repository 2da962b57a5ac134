//! The adapter for Apache Kafka.

mod address;
