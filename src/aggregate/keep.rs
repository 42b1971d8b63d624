//! When a worker has its shards kept in checkpoints, and gets them back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::checkpoints::{Checkpoints, Reply, Taking};
use super::partition::{Owned, phase};
use super::{Backlog, FromWorker, Worker, WorkerError, hand_over};
use crate::checkpoint::{Footing, Keeper, RestoreError, Restored, Written};
use crate::kafka::clock;
use crate::kafka::member::Done;
use crate::kafka::topics::ANSWER_WITHIN;
use crate::logging::Seldom;
use crate::money::group_thousands;
use crate::offset::Partition;
use crate::shard::Shard;

/// How long the last checkpoints may take once the end is asked for.
const AT_THE_END: Duration = Duration::from_secs(10);
/// How long campaigns are encoded between two batches of records.
const SLICE: Duration = Duration::from_millis(2);
/// How many between two looks at the clock.
const AT_A_TIME: usize = 100;
/// How long the shard of a partition that is not ours any more is kept in memory.
const PARKED_FOR: Duration = Duration::from_secs(60);
/// How long the store may be too slow before it is said.
const SLOW_FOR: Duration = Duration::from_secs(60);
/// How often it is looked at, at the end, whether another worker has left room.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a worker did with checkpoints.
#[derive(Debug, Default)]
pub(super) struct Kept {
    written: u64,
    bytes: u64,
    /// How long the fold stood still at most while others were told to keep or a
    /// snapshot was taken, and how long the thread was at work at most: the rest of
    /// the time it waits for a core. What a campaign takes that is encoded because it
    /// changes is a part of folding.
    stopped_at_most: (Duration, Duration),
    /// When it was said last that those of a partition fail, if they do.
    failing: BTreeMap<Partition, Seldom>,
    /// Since when the store has not kept up, or when that was said.
    slow_since: Option<Instant>,
    /// When it was said last that nothing is deleted.
    untidy: Seldom,
}

/// A moment at which the fold stopped.
#[derive(Clone, Copy)]
struct Stop {
    at: Instant,
    worked: Duration,
}

impl Stop {
    fn now() -> Stop {
        Stop {
            at: Instant::now(),
            worked: clock::thread_time(),
        }
    }
}

impl Kept {
    fn note_stop(&mut self, since: Stop) {
        let (stopped, worked) = self.stopped_at_most;
        self.stopped_at_most = (
            stopped.max(since.at.elapsed()),
            worked.max(clock::thread_time().saturating_sub(since.worked)),
        );
    }
}

impl Worker {
    /// Makes a partition one of ours: from where it was parked, or from its newest
    /// checkpoint, or from the beginning of the log.
    pub(super) fn take(&mut self, partition: Partition) {
        let parked = self.owned.remove(&partition);
        let parked = parked.or_else(|| self.parked.remove(&partition));
        match (parked, &self.checkpoints) {
            (Some(owned), _) => self.own(partition, owned),
            (None, None) => {
                let shard = Shard::new(partition, self.rules.clone());
                self.own(partition, Owned::new(shard, Footing::of(None), None));
            }
            (None, Some(checkpoints)) => {
                if self.restoring.insert(partition, true).is_none() {
                    checkpoints.restore(partition, self.replies.0.clone());
                }
            }
        }
    }

    fn own(&mut self, partition: Partition, mut owned: Owned) {
        (owned.announced, owned.leaving) = (false, None);
        owned.waits_from_now();
        self.backlog = Backlog::Unread;
        self.owned.insert(partition, owned);
        self.read_anew(&[partition]);
    }

    /// Lets go of a partition. One that is lost others may have already; all else is
    /// handed over and kept before `done` is dropped, and with it the group may have
    /// the partition.
    pub(super) fn let_go(&mut self, partition: Partition, lost: bool, done: &Done) {
        if let Some(is_ours) = self.restoring.get_mut(&partition) {
            *is_ours = false;
        }
        let Some(mut owned) = self.owned.remove(&partition) else {
            return;
        };
        if let Err(error) = self.reader.stop([partition]) {
            tracing::warn!(
                "{}/{partition}: the reader could not be stopped: {error}",
                self.topic
            );
        }
        let is_whole = owned.announced;
        if !lost && is_whole {
            hand_over(&self.output, &mut owned.shard, true);
            owned.leaving = self.checkpoints.is_some().then(|| done.clone());
        }
        owned.parked_at = Some(Instant::now());
        self.parked.insert(partition, owned);
        self.leave(partition);
    }

    /// Lets go of shards that have been parked for long: they would be far behind, and
    /// the store has what others have made of them since.
    pub(super) fn forget_parked(&mut self) {
        if self.checkpoints.is_some() {
            let is_needed = |owned: &Owned| owned.keeper.is_none() || owned.leaving.is_some();
            self.parked.retain(|_, owned| {
                is_needed(owned) || owned.parked_at.is_none_or(|at| at.elapsed() < PARKED_FOR)
            });
        }
    }

    /// Has what is leaving kept, unless it is already.
    fn leave(&mut self, partition: Partition) {
        let Some(owned) = self.parked.get_mut(&partition) else {
            return;
        };
        if owned.leaving.is_none() || owned.keeper.is_none() {
            return;
        }
        if owned.can_be_kept() {
            self.keep(partition); // Or the next time, if many are on their way.
        } else {
            owned.leaving = None;
        }
    }

    /// Takes in what others have done for us.
    pub(super) fn take_replies(&mut self) -> Result<(), WorkerError> {
        while let Ok(reply) = self.replies.1.try_recv() {
            match reply {
                Reply::Restored(partition, restored, keeper) => {
                    self.restored(partition, *restored, keeper)?;
                }
                Reply::Saved(partition, keeper, saved) => self.saved(partition, keeper, saved),
                Reply::Untidy(partition, why) => self.is_untidy(partition, &why),
                Reply::Panicked => panic!("a checkpoint's task has panicked"),
            }
        }
        Ok(())
    }

    fn restored(
        &mut self,
        partition: Partition,
        restored: Result<Option<Restored>, RestoreError>,
        keeper: Box<Keeper>,
    ) -> Result<(), WorkerError> {
        let is_ours = self.restoring.remove(&partition) == Some(true);
        let restored = restored.map_err(|error| WorkerError::Restore {
            error: Box::new(error),
            ends: self.reader.ends(partition, ANSWER_WITHIN).ok(),
        })?;
        let owned = match restored {
            Some(Restored {
                shard, manifest, ..
            }) => {
                tracing::info!(
                    "partition {partition}: restored at offset {}: {} campaigns, {} ids",
                    manifest.offset,
                    group_thousands(shard.campaign_count() as u128),
                    group_thousands(manifest.id_count().into()),
                );
                Owned::new(shard, Footing::of(manifest.last_record), Some(keeper))
            }
            None => {
                tracing::info!(
                    "partition {partition}: no checkpoint; folded from the beginning of the log"
                );
                let shard = Shard::new(partition, self.rules.clone());
                Owned::new(shard, Footing::of(None), Some(keeper))
            }
        };
        let owned = Owned {
            kept_at: self.staggered(partition),
            ..owned
        };
        // Taken from us meanwhile, it is true all the same.
        match is_ours {
            true => self.own(partition, owned),
            false => {
                let parked_at = Some(Instant::now());
                self.parked.insert(partition, Owned { parked_at, ..owned });
            }
        }
        Ok(())
    }

    /// When the last checkpoint of a partition is to have been, so that those of all
    /// are spread over the interval.
    fn staggered(&self, partition: Partition) -> Instant {
        let now = Instant::now();
        let interval = self.checkpoints.as_ref().map(|it| it.interval);
        let early = interval.unwrap_or_default().mul_f64(phase(partition));
        now.checked_sub(early).unwrap_or(now)
    }

    fn saved(&mut self, partition: Partition, keeper: Box<Keeper>, saved: Result<Written, String>) {
        let is_written = saved.is_ok();
        match saved {
            Ok(written) => {
                self.kept.written += 1;
                self.kept.bytes += written.bytes;
                tracing::debug!(
                    "partition {partition}: checkpoint at offset {}, {} bytes",
                    written.offset,
                    written.bytes
                );
                if self.kept.failing.remove(&partition).is_some() {
                    tracing::info!("{}/{partition}: checkpoints are written again", self.topic);
                }
            }
            Err(error) => {
                if self.kept.failing.entry(partition).or_default().is_due() {
                    tracing::warn!(
                        "no checkpoint of {}/{partition} is written: {error}; trying on. Totals \
                         are exact all the same; a restart takes longer",
                        self.topic
                    );
                }
            }
        }
        let owned = self.owned.get_mut(&partition);
        if let Some(owned) = owned.or_else(|| self.parked.get_mut(&partition)) {
            owned.unsaved = !is_written || keeper.is_damaged();
            owned.keeper = Some(keeper);
            if is_written {
                self.leave(partition);
            } else {
                owned.leaving = None; // Whoever comes next reads a little more.
            }
        }
    }

    fn is_untidy(&mut self, partition: Partition, why: &str) {
        if self.kept.untidy.is_due() {
            tracing::warn!(
                "old checkpoints of {}/{partition} are not deleted: {why}; trying on",
                self.topic
            );
        }
    }

    /// Begins to keep the partitions whose turn it is.
    pub(super) fn keep_those_due(&mut self) {
        let Some(checkpoints) = &self.checkpoints else {
            return;
        };
        let since = Stop::now();
        let interval = checkpoints.interval;
        let is_due = |owned: &Owned| owned.kept_at.elapsed() >= interval && owned.can_be_kept();
        let due = self.owned.iter().filter(|(_, owned)| is_due(owned));
        let due = due.map(|(&partition, owned)| (owned.kept_at, partition));
        let mut due: Vec<_> = due.collect();
        if due.is_empty() {
            return;
        }
        // Those first that have waited longest, or a slow store would never get some.
        due.sort_unstable();
        let all = due.into_iter().all(|(_, partition)| self.keep(partition));
        self.kept.note_stop(since);
        self.note_slowness(all);
    }

    /// `keeps_up`: whether all partitions are kept whose turn it is.
    fn note_slowness(&mut self, keeps_up: bool) {
        if keeps_up {
            self.kept.slow_since = None;
            return;
        }
        let since = *self.kept.slow_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SLOW_FOR {
            self.kept.slow_since = Some(Instant::now());
            tracing::warn!(
                "the store takes checkpoints of {} more slowly than checkpoints.interval_ms asks \
                 for; a restart takes longer. A faster store or a longer interval helps",
                self.topic
            );
        }
    }

    /// Goes on with what is being kept, for a moment.
    pub(super) fn go_on_keeping(&mut self) {
        let since = Stop::now();
        let leaving = self.parked.iter().filter(|(_, it)| it.leaving.is_some());
        let leaving: Vec<_> = leaving.map(|(&partition, _)| partition).collect();
        leaving.into_iter().for_each(|it| self.leave(it));
        let mut all = self.owned.values().chain(self.parked.values());
        if all.any(|owned| owned.taking.is_some()) {
            self.continue_snapshots(SLICE);
            self.kept.note_stop(since);
        }
    }

    /// Begins to keep a partition, if it [can be](Owned::can_be_kept) and not too many
    /// are on their way; whether it has begun.
    fn keep(&mut self, partition: Partition) -> bool {
        let owned = self.owned.get_mut(&partition);
        let owned = owned.or_else(|| self.parked.get_mut(&partition));
        let owned = owned.filter(|owned| owned.can_be_kept());
        let permit = self.checkpoints.as_ref().and_then(Checkpoints::permit);
        let (Some(owned), Some(permit)) = (owned, permit) else {
            return false;
        };
        let Some(mut keeper) = owned.keeper.take() else {
            return false;
        };
        owned.kept_at = Instant::now();
        owned.shard.begin_snapshot(keeper.begin());
        owned.taking = Some(Taking {
            keeper,
            last_record: owned.footing.last_record(),
            letters: self.dead_letters.mark(),
            permit,
        });
        true
    }

    /// Goes on with the snapshots that are begun, for as long in all; those of
    /// partitions that leave are taken to their end.
    fn continue_snapshots(&mut self, patience: Duration) {
        let Some(checkpoints) = &self.checkpoints else {
            return;
        };
        let since = Instant::now();
        let parked = self.parked.values_mut().map(|owned| (owned, Duration::MAX));
        let owned = self.owned.values_mut().map(|owned| (owned, patience));
        for (owned, patience) in parked.chain(owned) {
            let mut snapshot = None;
            while owned.taking.is_some() && snapshot.is_none() && since.elapsed() < patience {
                snapshot = owned.shard.continue_snapshot(AT_A_TIME);
            }
            if let Some(snapshot) = snapshot
                && let Some(taking) = owned.taking.take()
            {
                let reply = self.replies.0.clone();
                checkpoints.save(snapshot, taking, &self.dead_letters, reply);
            }
        }
    }

    /// Has all partitions kept before the process ends, unless it takes too long.
    pub(super) fn keep_all(&mut self) {
        if self.checkpoints.is_none() {
            return;
        }
        let (stopped, worked) = self.kept.stopped_at_most; // Nothing is left to be stopped.
        self.continue_snapshots(Duration::MAX);
        let until = Instant::now() + AT_THE_END;
        let mut left: Vec<_> = self.owned.keys().copied().collect();
        loop {
            left.retain(|partition| {
                let owned = &self.owned[partition];
                owned.keeper.is_none() || owned.can_be_kept()
            });
            let free = left.iter().position(|it| self.owned[it].keeper.is_some());
            // Once each: what fails now fails again.
            if let Some(free) = free
                && self.keep(left[free])
            {
                left.swap_remove(free);
                self.continue_snapshots(Duration::MAX);
                continue;
            }
            let is_done = left.is_empty() && !self.is_any_saving();
            if is_done || Instant::now() >= until {
                break;
            }
            // Other workers' checkpoints may be on their way, too, and leave no room.
            match self.replies.1.recv_timeout(LOOK_AGAIN) {
                Ok(Reply::Saved(partition, keeper, saved)) => self.saved(partition, keeper, saved),
                Ok(Reply::Panicked) => break,
                Ok(Reply::Restored(..) | Reply::Untidy(..)) | Err(_) => {}
            }
        }
        if self.is_any_saving() || !left.is_empty() {
            tracing::warn!(
                "the last checkpoints of {} are not written within {} s; the next start takes \
                 longer",
                self.topic,
                AT_THE_END.as_secs()
            );
        }
        let Kept { written, bytes, .. } = &self.kept;
        if *written > 0 {
            tracing::info!(
                "{written} checkpoints with {} bytes written; the fold stood still for {:.1} ms at \
                 most, {:.1} ms of work at most",
                group_thousands((*bytes).into()),
                stopped.as_secs_f64() * 1e3,
                worked.as_secs_f64() * 1e3
            );
        }
    }

    fn is_any_saving(&self) -> bool {
        self.owned.values().any(|owned| owned.keeper.is_none())
    }

    /// Tells merge all of the partitions whose log is known to be theirs.
    pub(super) fn announce(&mut self) {
        let donors_turn = self.donors_turns();
        let owned = self.owned.iter_mut();
        for (&partition, owned) in owned.filter(|(_, it)| it.is_news()) {
            owned.announced = true;
            owned.donors_turn = donors_turn(partition);
            let _ = self
                .output
                .send(FromWorker::Flush(Box::new(owned.shard.full_flush())));
            // A gate may be open already but for the donors.
            hand_over(&self.output, &mut owned.shard, true);
        }
    }
}
