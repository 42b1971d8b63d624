//! tally99 reads donation events from Kafka, keeps counters per campaign, and
//! emits rolling totals while a giving day is under way.
//!
//! One idea carries all of it: **the log is the truth; a shard is a pure fold
//! of one partition's prefix; all else is a cache of that fold, tagged with the
//! offset at which it is exact.** `ARCHITECTURE.md` makes the argument.
//!
//! The pure core is [`event`], [`shard`] and [`merge`]: no I/O, no clock, no
//! randomness, no locks.

pub mod aggregate;
pub mod bench;
pub mod checkpoint;
pub mod checkpoints;
pub mod cli;
pub mod config;
pub mod demo;
pub mod event;
pub mod expected;
pub mod generate;
pub mod kafka;
pub mod logging;
pub mod merge;
pub mod money;
pub mod native;
pub mod offset;
pub mod publish;
pub mod run;
pub mod shard;
pub mod shutdown;
pub mod span;
pub mod totals;
pub mod view;
