//! Emission to Kafka.

pub mod records;
