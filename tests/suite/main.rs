//! Tests of the real binary, most of them against a real Apache Kafka.
//!
//! [`kafka`], [`s3`], [`place`], [`process`] and [`wait`] are what the tests stand on; every other
//! module is one subject. Tests run side by side in one process and share one
//! broker, so each makes topics and groups of its own ([`kafka::unique`]).

mod bench;
mod checkpoints;
mod config;
mod counting;
mod day;
mod dead_letters;
mod demo;
mod generate;
mod harness;
mod kafka;
mod others;
mod place;
mod process;
mod s3;
mod standby;
mod statics;
mod store;
mod takeover;
mod totals;
mod transactions;
mod trouble;
mod wait;
