//! What the command and the process that measures say to each other: a job goes in as one
//! line of JSON, and what was found comes out, a line each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use crate::config::Config;
use crate::offset::{Offset, Partition};

/// From where each partition begins to where it ends.
pub(super) type Log = BTreeMap<Partition, (Offset, Offset)>;

/// What is to be measured.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub config: Config,
    pub work: Work,
}

/// The kinds of measurements.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    /// librdkafka alone, from where the log begins to where it ended.
    Raw { mode: RawMode, log: Log },
    /// `tally99 run`, up to where the log ends, or until the job is withdrawn.
    Fold { until_end: bool },
}

/// How librdkafka is asked for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawMode {
    /// One by one.
    Poll,
    /// Hundreds at once.
    Batch,
}

/// What the process that measures has to say. Times are of the clock that is the same for
/// all processes of a machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// So many records are read.
    Read(u64),
    /// A cut is complete.
    Cut(CutAt),
    /// How it is just now.
    Sample(Sample),
    /// All is done.
    Measured(Measured),
    /// It cannot be done.
    Failed(String),
}

/// A complete cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CutAt {
    pub at_ns: u64,
    pub events: u64,
    pub offsets: BTreeMap<Partition, Offset>,
}

/// The process at a moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    pub at_ns: u64,
    pub cpu: Cpu,
    pub resident_bytes: u64,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// When the process began.
    pub started_ns: u64,
    /// When the readers were pointed at the first partition.
    pub began_ns: u64,
    /// When the last record was read, or the last cut complete.
    pub ended_ns: u64,
    /// Records up to then.
    pub events: u64,
    /// Bytes of their keys and values, where they were looked at.
    pub bytes: Option<u64>,
    /// CPU of the whole process; `None` where the system does not tell by thread.
    pub cpu: Option<Cpu>,
    /// The most memory that was resident at any time, likewise.
    pub peak_memory_bytes: Option<u64>,
}
