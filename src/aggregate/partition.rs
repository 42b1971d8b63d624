//! A partition in the hands of a worker.

use std::time::{Duration, Instant};

use super::checkpoints::Taking;
use super::silence::LONG;
use crate::checkpoint::{Footing, Keeper, RecordId};
use crate::kafka::clock;
use crate::kafka::member::Done;
use crate::offset::{Offset, Partition};
use crate::shard::Shard;

const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;

/// Where the turns of a partition lie within an interval, from 0 to 1, so that those of all
/// are spread over it: multiples of the golden ratio lie evenly between whole numbers, however
/// many.
pub(super) fn phase(partition: Partition) -> f64 {
    (f64::from(partition) * GOLDEN_RATIO).fract()
}

/// A shard, and what belongs to it.
pub(super) struct Owned {
    pub shard: Shard,
    /// What it knows of the log.
    pub footing: Footing,
    /// Since when it has been waiting to be verified, if it is; and when it last brought
    /// a record, or was read anew. Times since the machine's start, as those of
    /// [`Silence`](super::silence::Silence).
    pub waiting_since: Duration,
    pub heard_at: Duration,
    /// Since when brokers have said of the log, each time that they were asked, what ends the
    /// process if they go on saying it.
    pub suspect_since: Option<Duration>,
    /// After how long without a record the log is compared unasked.
    pub doubt_after: Duration,
    /// Whether the reader is at the end of the log, and nobody has looked yet how far that
    /// is.
    pub at_end: bool,
    /// Where that is, if the reader has said it.
    pub end: Option<Offset>,
    /// Where the shard was when the reader was last at the end.
    pub ended_at: Option<Offset>,
    /// What did not count since the log had to be compared before: the end, or a record. If
    /// it comes again after that, it is of the same log.
    pub doubtful_end: bool,
    pub doubtful: Option<RecordId>,
    /// Whether merge has had all of the shard.
    pub announced: bool,
    /// The [turn](super::Worker::donors_turns) in which it had the donors last.
    pub donors_turn: u64,
    /// Writes its checkpoints; `None` while one is taken or written, and without a
    /// store.
    pub keeper: Option<Box<Keeper>>,
    /// Whether the last snapshot has not become a checkpoint, or not a lasting one.
    pub unsaved: bool,
    /// When the last checkpoint was begun.
    pub kept_at: Instant,
    /// The snapshot that is being taken.
    pub taking: Option<Taking>,
    /// When it was taken from us, if it was.
    pub parked_at: Option<Instant>,
    /// Dropped when the group may have the partition.
    pub leaving: Option<Done>,
}

impl Owned {
    /// A shard as it was made or restored.
    pub fn new(shard: Shard, footing: Footing, keeper: Option<Box<Keeper>>) -> Owned {
        Owned {
            shard,
            footing,
            waiting_since: clock::since_boot(),
            heard_at: Duration::ZERO,
            suspect_since: None,
            doubt_after: LONG,
            at_end: false,
            end: None,
            ended_at: None,
            doubtful_end: false,
            doubtful: None,
            announced: false,
            donors_turn: 0,
            keeper,
            unsaved: false,
            kept_at: Instant::now(),
            parked_at: None,
            leaving: None,
            taking: None,
        }
    }

    /// Whether merge is to have all of it.
    pub fn is_news(&self) -> bool {
        !self.announced && self.footing.is_verified()
    }

    /// Where its reader begins.
    pub fn read_from(&self) -> Offset {
        self.footing.read_from(self.shard.offset())
    }

    /// Its reader is pointed at the log anew. What has been waiting goes on waiting.
    pub fn doubt(&mut self) {
        if self.footing.is_verified() {
            self.waits_from_now();
        }
        self.footing.doubt();
        (self.at_end, self.end, self.ended_at) = (false, None, None);
    }

    /// What it has been waiting for could not come until now.
    pub fn waits_from_now(&mut self) {
        self.waiting_since = clock::since_boot();
        self.suspect_since = None;
    }

    /// Whether there is something new to keep, and a keeper that is free.
    pub fn can_be_kept(&self) -> bool {
        self.keeper.is_some()
            && self.footing.is_verified()
            && (self.unsaved || self.shard.has_changed_since_snapshot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turns_of_partitions_are_spread_over_an_interval() {
        for partitions in 2..200 {
            let mut phases: Vec<_> = (0..partitions).map(phase).collect();
            phases.sort_by(f64::total_cmp);
            assert!(phases[0] >= 0.0 && phases[phases.len() - 1] < 1.0);
            // The first of the next interval follows the last.
            phases.push(1.0 + phases[0]);
            let gaps = phases.windows(2).map(|pair| pair[1] - pair[0]);
            let most = gaps.fold(0.0, f64::max) * f64::from(partitions);
            assert!(most < 2.5, "{partitions}: {most} times an even share");
        }
    }
}
