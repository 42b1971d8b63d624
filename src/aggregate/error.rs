//! Why a worker cannot go on, in words that say what to do.

use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::checkpoint::RestoreError;
use crate::kafka::topics::IF_MADE_ANEW;
use crate::offset::{Offset, Partition};

/// Why a worker cannot go on, and with it the process.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The log does not hold what the fold needs.
    #[error(
        "{topic}/{partition}: the fold is at offset {offset}, but the log now goes from {start} \
         to {end}. {}. Nothing was counted in its place. {}",
        log_changed(*offset, *start, *end), log_changed_advice(*offset, *start)
    )]
    LogChanged {
        /// The donations topic.
        topic: String,
        /// The partition at fault.
        partition: Partition,
        /// The next offset to apply.
        offset: Offset,
        /// The first offset that is still there.
        start: Offset,
        /// The next offset that will be written.
        end: Offset,
    },
    /// The log holds another record than the one that was folded.
    #[error(
        "{topic}/{partition}: the shard at offset {offset} was folded from another log. {} \
         ({}). The topic was made anew under its name, or an unclean leader election replaced the \
         end of the partition. Nothing was counted. {IF_MADE_ANEW}",
        differs(*expected, *offset, *found), goes(*ends)
    )]
    OtherLog {
        /// The donations topic.
        topic: String,
        /// The partition at fault.
        partition: Partition,
        /// What the shard, or the checkpoint that it comes from, is exact at.
        offset: Offset,
        /// Where its last record stood, if it had any.
        expected: Option<Offset>,
        /// Where the record is that the log holds in its place, or behind it.
        found: Offset,
        /// The first offset that is still there, and the next one that will be written;
        /// `None` if the brokers do not say.
        ends: Option<(Offset, Offset)>,
    },
    /// The log has become shorter than it was when a run with an end began.
    #[error(
        "{topic}/{partition}: this run is to end at {until}, where the log ended when it began, \
         but now it goes from {start} to {end}. The topic was made anew, or an unclean leader \
         election lost its last records. Start it again: it says then whether it is another log"
    )]
    EndGone {
        /// The donations topic.
        topic: String,
        /// The partition at fault.
        partition: Partition,
        /// Where the log ended.
        until: Offset,
        /// The first offset that is still there.
        start: Offset,
        /// The next offset that will be written.
        end: Offset,
    },
    /// The log has something, and brings nothing.
    #[error(
        "{topic}/{partition}: the log goes from {start} to {end}, but has brought nothing from \
         {from} on for {seconds} s, to compare the shard at offset {offset} with. If the topic was \
         made anew, this process cannot see it: start it again. If that does not help, see to the \
         brokers that hold the partition"
    )]
    Silent {
        /// The donations topic.
        topic: String,
        /// The partition at fault.
        partition: Partition,
        /// What the shard, or the checkpoint that it comes from, is exact at.
        offset: Offset,
        /// Where the log is read from.
        from: Offset,
        /// The first offset that is still there.
        start: Offset,
        /// The next offset that will be written.
        end: Offset,
        /// For how long.
        seconds: u64,
    },
    /// The partition cannot be restored.
    #[error("{error} ({})", goes(*ends))]
    Restore {
        /// Why; it names the partition.
        error: Box<RestoreError>,
        /// The first offset that the log still has, and the next one that will be
        /// written; `None` if the brokers do not say.
        ends: Option<(Offset, Offset)>,
    },
    /// A batch does not match its checksum, time and again.
    #[error(
        "{topic}: a batch of records cannot be read, after {tries} tries ({error}): the data is \
         damaged on the broker or on the way. It begins at one of these offsets: {at}. Check the \
         broker's disks and the network"
    )]
    Damaged {
        /// The donations topic.
        topic: String,
        /// The partitions that have not moved meanwhile, with the next offset to
        /// apply; librdkafka does not say which one it is.
        at: String,
        /// How often it was read.
        tries: u32,
        /// What librdkafka said.
        error: String,
    },
    /// librdkafka cannot go on.
    #[error("{topic}: reading failed for good: {error}")]
    Fatal {
        /// The donations topic.
        topic: String,
        /// What librdkafka said.
        error: KafkaError,
    },
}

fn differs(expected: Option<Offset>, offset: Offset, found: Offset) -> String {
    match expected {
        None => format!("No record stood before {offset}, and the log holds one at {found}"),
        Some(last) if last < found && found < offset => format!(
            "Its last record stood at {last}; none followed before {offset}, and the log holds one \
             at {found}"
        ),
        Some(last) => format!(
            "Its last record stood at {last}; the first that the log holds from there on, at \
             {found}, is not that one"
        ),
    }
}

fn goes(ends: Option<(Offset, Offset)>) -> String {
    ends.map_or("the brokers do not say how far it goes".to_owned(), |it| {
        format!("the log goes from {} to {}", it.0, it.1)
    })
}

fn log_changed(offset: Offset, start: Offset, end: Offset) -> String {
    if offset < start {
        format!(
            "{} offsets have expired before they were read",
            start.0 - offset.0
        )
    } else {
        format!(
            "The last {} are gone: the topic was made anew, or an unclean leader election lost them",
            offset.0 - end.0
        )
    }
}

fn log_changed_advice(offset: Offset, start: Offset) -> &'static str {
    if offset < start {
        "Give the topic a longer retention.ms. What has expired cannot be counted from this log \
         any more: to count what is left, copy it into a topic of another name, and give that one \
         topics of tally99's own and another place for checkpoints"
    } else {
        IF_MADE_ANEW
    }
}
