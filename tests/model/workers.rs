//! Workers: shards, the checkpoints that are on their way, and restores.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rand::Rng;
use tally99::checkpoint::{
    self, About, Folder, Footing, Keeper, RecordId, RestoreError, Restored, Unsaved, Written,
};
use tally99::offset::{Offset, Partition};
use tally99::shard::{Names, Record, Shard};

use crate::log::{Event, Logged};
use crate::simulator::{KEEP, PARTITIONS, Simulator, rules};
use tally99::event::Reason;
use tally99::shard::Outcome;

/// A process that folds some partitions. Two may fold the same one at a time.
#[derive(Default)]
pub struct Worker {
    pub held: BTreeMap<usize, Held>,
    /// It stands still, and does not know.
    is_stopped: bool,
    /// What it waits for, by partition; one thing each.
    tasks: BTreeMap<usize, Task>,
}

/// A shard in the hands of a worker.
pub struct Held {
    pub shard: Shard,
    names: Names,
    footing: Footing,
    keeper: Option<Keeper>,
    /// The last record of the snapshot that is being taken, and who will write it.
    taking: Option<(Option<RecordId>, Keeper)>,
}

type Work<T> = Pin<Box<dyn Future<Output = T>>>;

enum Task {
    Restore(Work<Result<Option<Restored>, RestoreError>>, Option<i64>),
    Save(Work<(Keeper, Result<Written, Unsaved>)>),
}

impl Held {
    /// Reads the log up to so many records further. The first one shows whether it
    /// is the log that the shard was folded from; if it is not, nothing is folded.
    pub fn fold_up_to(&mut self, log: &[Logged], records: usize) {
        let from = self.footing.read_from(self.shard.offset()).0;
        if !self.footing.is_verified() {
            let found = (from..).zip(log.get(from as usize..).unwrap_or_default());
            let mut found =
                found.filter_map(|(offset, logged)| Some((offset, logged, logged.payload()?)));
            let Some((offset, logged, payload)) = found.next() else {
                return;
            };
            if !self.footing.verify(&record(offset, logged, &payload), None) {
                return;
            }
        }
        let from = self.shard.offset().0;
        for (offset, logged) in (from..).zip(&log[from as usize..]).take(records) {
            let Some(payload) = logged.payload() else {
                continue; // Readers see a gap here.
            };
            let record = record(offset, logged, &payload);
            let outcome = self.shard.apply(record, &mut self.names);
            self.footing.step(&record, None);
            check_outcome(&outcome, logged);
        }
        // A reader hears that nothing follows the last record but no record.
        let to = log.len().min(from as usize + records);
        if matches!(log[..to].last(), Some(Logged::Marker)) {
            self.shard.skip_to(Offset(to as i64));
        }
    }

    pub fn is_verified(&self) -> bool {
        self.footing.is_verified()
    }

    pub fn new(partition: usize) -> Held {
        Held {
            shard: Shard::new(partition as Partition, rules()),
            names: Names::default(),
            footing: Footing::of(None),
            keeper: None,
            taking: None,
        }
    }
}

fn record<'a>(offset: i64, logged: &Logged, payload: &'a [u8]) -> Record<'a> {
    Record {
        offset,
        timestamp: Some(logged.timestamp()),
        payload: Some(payload),
    }
}

fn check_outcome(outcome: &Outcome, logged: &Logged) {
    let is_dead = |of: Reason| matches!(outcome, Outcome::DeadLetter(found) if found.reason == of);
    match logged {
        Logged::Damaged(reason) => assert!(is_dead(*reason)),
        Logged::Event(Event { .. }) if logged.is_ahead() => assert!(is_dead(Reason::Ahead)),
        _ => {}
    }
}

fn about() -> About {
    About {
        topic: "donations".into(),
        epoch: 1,
        rules: rules().to_string(),
    }
}

impl Simulator {
    fn folder(&self, partition: usize) -> Folder {
        self.checkpoints
            .folder("donations", 1, partition as Partition)
    }

    /// Some worker goes on with one of its shards.
    pub fn fold(&mut self) {
        let (worker, partition) = self.some_place();
        let records = self.random.random_range(1..200);
        if self.is_stopped(worker) {
            return;
        }
        if let Some(held) = self.workers[worker].held.get_mut(&partition) {
            held.fold_up_to(&self.logs[partition], records);
        }
    }

    pub fn flush(&mut self) {
        let (worker, partition) = self.some_place();
        let held = self.workers[worker].held.get_mut(&partition);
        let held = held.filter(|held| held.is_verified());
        self.network.extend(held.map(|held| held.shard.flush()));
    }

    /// A partition comes to a worker; who had it may never hear of it.
    pub fn assign(&mut self) {
        let (worker, partition) = self.some_place();
        let is_heard_of = !self.random.random_bool(self.habits.zombies);
        match self.random.random_range(0..7) {
            _ if !is_heard_of => {} // Zombies go on.
            // Lost: dropped at once, whatever was under way.
            0..=3 => self.take_from_all(partition),
            // Given up in order.
            _ => {
                for other in 0..self.workers.len() {
                    self.keep(other, partition);
                    for _ in 0..200 {
                        self.advance(other, partition);
                    }
                }
                self.take_from_all(partition);
            }
        }
        let Some(held) = self.workers[worker].held.get_mut(&partition) else {
            return self.restore(worker, partition);
        };
        held.footing.doubt();
        held.fold_up_to(&self.logs[partition], 0);
        self.network.push(held.shard.full_flush());
    }

    /// Who stands still does not hear of it, and may go on much later with what it
    /// knew long ago.
    fn take_from_all(&mut self, partition: usize) {
        for worker in self.workers.iter_mut().filter(|it| !it.is_stopped) {
            worker.held.remove(&partition);
            worker.tasks.remove(&partition);
        }
    }

    fn is_stopped(&self, worker: usize) -> bool {
        self.workers[worker].is_stopped
    }

    /// A worker is stopped, or goes on as if nothing had happened.
    pub fn stop_or_continue(&mut self) {
        let some = self.random.random_range(0..self.workers.len());
        let stops = self.random.random_bool(0.6);
        let worker = &mut self.workers[some];
        worker.is_stopped = !worker.is_stopped && stops;
    }

    pub fn crash_worker(&mut self) {
        let worker = self.random.random_range(0..self.workers.len());
        self.workers[worker] = Worker::default();
        self.store.crash();
    }

    /// Begins to restore a partition.
    fn restore(&mut self, worker: usize, partition: usize) {
        let folder = self.folder(partition);
        let newest = self
            .store
            .newest_whole(&format!("donations/epoch-1/{partition:05}"));
        let newest = newest.filter(|_| self.store_habits.is_reliable());
        let work = async move {
            let rules = rules();
            checkpoint::restore(&folder, &about(), partition as Partition, &rules, false).await
        };
        let task = Task::Restore(Box::pin(work), newest);
        self.workers[worker].tasks.entry(partition).or_insert(task);
    }

    /// Begins to keep a shard, if it may be.
    fn keep(&mut self, worker: usize, partition: usize) {
        let folder = self.folder(partition);
        let worker = &mut self.workers[worker];
        let Some(held) = worker.held.get_mut(&partition) else {
            return;
        };
        let is_free = !worker.is_stopped && !worker.tasks.contains_key(&partition);
        let is_free = is_free && held.taking.is_none() && held.is_verified();
        if is_free && held.shard.has_changed_since_snapshot() {
            let new = || Keeper::new(folder, about(), None, KEEP);
            let mut keeper = held.keeper.take().unwrap_or_else(new);
            held.shard.begin_snapshot(keeper.begin());
            held.taking = Some((held.footing.last_record(), keeper));
        }
    }

    /// Goes on with a snapshot; when it is done, it is on its way to the store.
    fn take_snapshot(&mut self, worker: usize, partition: usize) {
        let campaigns = self.random.random_range(1..3);
        let store = self.store.clone();
        let worker = &mut self.workers[worker];
        let held = worker.held.get_mut(&partition);
        let Some(held) = held.filter(|held| held.taking.is_some()) else {
            return;
        };
        let Some(snapshot) = held.shard.continue_snapshot(campaigns) else {
            return;
        };
        let (last_record, mut keeper) = held.taking.take().expect("it is there");
        // Dead letters, say, are not acknowledged in time.
        let is_given_up = self.random.random_bool(0.02);
        let work = async move {
            if is_given_up {
                return (keeper, Err(Unsaved::TooSlow));
            }
            let clock = || store.time();
            let saved = keeper.save(snapshot, last_record, clock(), clock).await;
            if saved.is_ok() {
                let _ = keeper.tidy(clock).await;
            }
            (keeper, saved)
        };
        worker.tasks.insert(partition, Task::Save(Box::pin(work)));
    }

    /// Some worker has one of its shards kept.
    pub fn checkpoint(&mut self) {
        let (worker, partition) = self.some_place();
        let worker = (worker..worker + self.workers.len()).map(|it| it % self.workers.len());
        let mut holders = worker.filter(|it| self.workers[*it].held.contains_key(&partition));
        if let Some(worker) = holders.next() {
            self.keep(worker, partition);
        }
    }

    /// Something that is under way goes one step on.
    pub fn go_on(&mut self) {
        for worker in 0..self.workers.len() {
            for partition in 0..PARTITIONS {
                if self.random.random_bool(0.5) {
                    for _ in 0..self.habits.turns {
                        self.advance(worker, partition);
                    }
                }
            }
        }
    }

    fn advance(&mut self, worker: usize, partition: usize) {
        if self.is_stopped(worker) {
            return;
        }
        self.take_snapshot(worker, partition);
        let Some(task) = self.workers[worker].tasks.get_mut(&partition) else {
            return;
        };
        let context = &mut Context::from_waker(Waker::noop());
        match task {
            Task::Save(work) => {
                if let Poll::Ready((keeper, saved)) = work.as_mut().poll(context) {
                    self.workers[worker].tasks.remove(&partition);
                    self.checkpoints_written += u64::from(saved.is_ok());
                    // A manifest that others have deleted since is no fault.
                    let is_fault = match &saved {
                        Err(Unsaved::Failed(error)) => !error.is_not_found(),
                        Ok(_) | Err(Unsaved::TooSlow) => false,
                    };
                    let is_allowed = !is_fault || !self.store_habits.is_reliable();
                    assert!(is_allowed, "{saved:?}");
                    if let Some(held) = self.workers[worker].held.get_mut(&partition) {
                        held.keeper = Some(keeper);
                    }
                }
            }
            Task::Restore(work, newest) => {
                let newest = *newest;
                if let Poll::Ready(restored) = work.as_mut().poll(context) {
                    self.workers[worker].tasks.remove(&partition);
                    self.take_restored(worker, partition, restored, newest);
                }
            }
        }
    }

    fn take_restored(
        &mut self,
        worker: usize,
        partition: usize,
        restored: Result<Option<Restored>, RestoreError>,
        newest: Option<i64>,
    ) {
        let restored = match restored {
            Ok(restored) => restored,
            Err(RestoreError::Store(_) | RestoreError::Unreadable(_)) => {
                return self.restore(worker, partition);
            }
            Err(error) => panic!("{error}"),
        };
        let found = restored.as_ref().map(|restored| restored.manifest.offset.0);
        assert!(
            found >= newest,
            "{found:?} is restored where {newest:?} is there"
        );
        let mut held = Held::new(partition);
        if let Some(Restored {
            shard,
            name,
            manifest,
        }) = restored
        {
            self.restores += 1;
            let folder = self.folder(partition);
            held.footing = Footing::of(manifest.last_record);
            held.shard = shard;
            // After a look at all of it, what changes next must be told from that.
            let is_looked_at = self.random.random_bool(0.1);
            if is_looked_at {
                self.check_restored(partition, &mut held);
            }
            let manifest = Some((name, manifest)).filter(|_| !is_looked_at);
            held.keeper = Some(Keeper::new(folder, about(), manifest, KEEP));
        }
        held.fold_up_to(&self.logs[partition], 0);
        assert!(held.is_verified(), "the log has not changed");
        self.network.push(held.shard.full_flush());
        self.workers[worker].held.insert(partition, held);
    }

    /// What is restored is the fold of the log up to its offset, byte by byte.
    pub fn check_restored(&self, partition: usize, held: &mut Held) {
        let mut straight = Held::new(partition);
        let log = &self.logs[partition][..held.shard.offset().0 as usize];
        straight.fold_up_to(log, log.len());
        assert_eq!(straight.shard.offset(), held.shard.offset());
        let (straight_last, last) = (straight.footing.last_record(), held.footing.last_record());
        assert_eq!(straight_last, last);
        let (straight, found) = (straight.shard.full_snapshot(), held.shard.full_snapshot());
        assert!(
            straight.counters == found.counters,
            "the counters are others"
        );
        assert_eq!(straight.ids, found.ids);
    }

    /// Whatever is under way ends, once the store does what it is asked for.
    pub fn finish_checkpoints(&mut self) {
        self.store.is_mended();
        self.workers.iter_mut().for_each(|it| it.is_stopped = false);
        for worker in 0..self.workers.len() {
            for partition in 0..PARTITIONS {
                for _ in 0..5_000 {
                    self.advance(worker, partition);
                }
                let is_left = self.workers[worker].tasks.contains_key(&partition);
                assert!(!is_left, "a task of partition {partition} does not end");
            }
        }
    }

    /// What is in the store can be folded on with the log that it was folded from,
    /// and with no other.
    pub fn restore_onto_other_logs(&mut self) {
        for partition in 0..PARTITIONS {
            let (folder, about, rules) = (self.folder(partition), about(), rules());
            let number = partition as Partition;
            let work = checkpoint::restore(&folder, &about, number, &rules, false);
            let restored = now_or_never(work).expect("a store that is fine");
            let Some(Restored {
                shard, manifest, ..
            }) = restored
            else {
                continue;
            };
            let offset = shard.offset().0 as usize;
            let Some(last) = manifest.last_record else {
                continue; // Of markers alone; any log has that prefix.
            };
            let mut held = Held::new(partition);
            (held.shard, held.footing) = (shard, Footing::of(manifest.last_record));

            let log = self.logs[partition].clone();
            let mut anew = vec![Logged::Event(self.event()); log.len() + 1];
            let mut tail_lost = log.clone();
            tail_lost.truncate(last.offset as usize);
            let mut regrown = tail_lost.clone();
            regrown.resize(log.len() + 1, Logged::Event(self.event()));
            anew.truncate(log.len() + self.random.random_range(0..2));
            for other in [anew, tail_lost, regrown] {
                held.footing.doubt();
                held.fold_up_to(&other, other.len());
                assert!(!held.is_verified(), "another log is taken for the own");
                assert_eq!(held.shard.offset().0 as usize, offset);
            }
            held.fold_up_to(&log, log.len());
            assert!(held.is_verified(), "the own log is taken for another");
            self.check_restored(partition, &mut held);
        }
    }
}

fn now_or_never<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    let context = &mut Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return done;
        }
    }
}
