//! A worker: the one thread that reads some partitions, folds them into their
//! shards, and hands what changed to merge.
//!
//! Nobody else touches its shards, so they need no locks. Its output is bounded:
//! when merge is behind, the worker waits, reads no further, and the backlog
//! stays in Kafka. Nothing is dropped.

mod call;
mod checkpoints;
mod error;
mod keep;
mod partition;
mod read;
mod silence;
mod trouble;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;

use crate::config::Config;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::clock;
use crate::kafka::member::Done;
use crate::kafka::reader::Reader;
use crate::kafka::topics::ANSWER_WITHIN;
use crate::logging::Seldom;
use crate::native::batch::Queue;
use crate::offset::{Offset, Partition};
use crate::publish::dead_letters::DeadLetters;
use crate::shard::{DonorsFlush, Flush, Names, Rules, Shard};
use crate::shutdown::Shutdown;
pub use call::Call;
pub use checkpoints::Checkpoints;
use checkpoints::Reply;
pub use error::WorkerError;
use keep::Kept;
use partition::{Owned, phase};
pub(crate) use read::BATCH;
use silence::Silence;
use trouble::Damage;

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// These partitions are yours.
    Assign(Vec<Partition>),
    /// These no longer: let go of them.
    Revoke {
        /// Which.
        partitions: Vec<Partition>,
        /// Others may have them already, so nothing is handed over.
        lost: bool,
        /// To be dropped when they have been let go of.
        done: Done,
    },
    /// The log may be another one.
    CheckLog,
}

/// What a worker hands to merge.
#[derive(Debug)]
pub enum FromWorker {
    /// Values of one shard that changed.
    Flush(Box<Flush>),
    /// Sketches of one shard that changed.
    Donors(DonorsFlush),
    /// What this worker had to hand over when it saw this [`Call`] has come.
    Answer(u64),
}

/// One reader and its shards.
pub struct Worker {
    topic: String,
    topic_name: CString,
    group: String,
    rules: Rules,
    donors_interval: Duration,
    reader: Reader,
    queue: Queue<Context>,
    health: Arc<Health>,
    owned: BTreeMap<Partition, Owned>,
    /// The campaigns of all shards.
    names: Names,
    /// Partitions whose checkpoint is on its way from the store, and whether they are
    /// ours still.
    restoring: BTreeMap<Partition, bool>,
    /// Shards of partitions that were taken from us. A shard is true for ever, so
    /// when its partition comes back, it is folded on from where it is.
    parked: BTreeMap<Partition, Owned>,
    checkpoints: Option<Checkpoints>,
    replies: (Sender<Reply>, Receiver<Reply>),
    kept: Kept,
    until: Until,
    commands: Receiver<Command>,
    output: SyncSender<FromWorker>,
    call: Arc<Call>,
    /// The newest that was answered.
    answered: u64,
    dead_letters: DeadLetters,
    shutdown: Shutdown,
    backlog: Backlog,
    /// Whether, at the last turn, more was left than a moment's records.
    is_behind: bool,
    began_at: Instant,
    flushed_at: Instant,
    /// Records folded since the last turn.
    folded: u64,
    damaged: Option<Damage>,
    silence: Silence,
    /// Whether the log did not have what the reader asked for.
    has_missed: bool,
    /// Which partitions are still to be asked for since.
    missed: Vec<Partition>,
    /// When the ends of the log were asked for last.
    asked_at: Option<Instant>,
    /// Of which partition.
    asked_for: Partition,
    /// When trouble that people must end was last told.
    told: Seldom,
}

/// What lay in a worker's partitions when it got them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backlog {
    Unread,
    Read,
}

/// Which of so many workers has a partition.
pub(crate) fn worker_of(partition: Partition, workers: usize) -> usize {
    partition.unsigned_abs() as usize % workers
}

/// How long an idle reader waits for a record, and a call for its answer.
const IDLE: Duration = Duration::from_millis(5);
/// How often a worker looks after all that is not reading, at most.
const TURN: Duration = Duration::from_millis(100);
/// How often a worker that is behind flushes at most: what it hands over then is old
/// already, and of a long backlog nearly every event belongs to another campaign of a
/// partition, so that handing over what changed costs as much as folding it. The more
/// comes at once, the less is handed over twice.
const FLUSH_WHEN_BEHIND: Duration = Duration::from_secs(5);
/// The same for sketches.
const DONORS_WHEN_BEHIND: Duration = Duration::from_secs(10);
/// A worker is behind if what is left would take it longer than this, at the pace that it
/// has.
const BEHIND: Duration = Duration::from_secs(1);
/// So few records are no backlog.
const BEHIND_RECORDS: u64 = 10_000;
/// How many bytes the shards of a worker share for events that campaigns have not got yet.
const JOURNALS_BYTES: usize = 24 << 20;
/// What ties a worker to the rest of the process.
pub struct WorkerEnds {
    /// What it is told.
    pub commands: Receiver<Command>,
    /// Where its flushes go; bounded.
    pub output: SyncSender<FromWorker>,
    /// When they are called for.
    pub call: Arc<Call>,
    /// Where records go that cannot be counted.
    pub dead_letters: DeadLetters,
    /// Where shards are kept, if anywhere.
    pub checkpoints: Option<Checkpoints>,
    /// Where failed connections are noted.
    pub health: Arc<Health>,
    /// When to end.
    pub shutdown: Shutdown,
}

impl Worker {
    /// A worker without partitions. `until`: where to end in each partition.
    pub fn new(
        config: &Config,
        rules: Rules,
        until: Option<BTreeMap<Partition, Offset>>,
        ends: WorkerEnds,
    ) -> Result<Worker, KafkaError> {
        let topic = &config.topics.donations;
        let reader = Reader::new(&client::reader(&config.kafka), topic, ends.health.clone())?;
        Ok(Worker {
            topic: topic.clone(),
            topic_name: CString::new(topic.as_str()).expect("a topic's name has no zero in it"),
            group: config.kafka.group.clone(),
            rules,
            donors_interval: config.run.donors_interval,
            queue: Queue::of(reader.consumer()),
            reader,
            health: ends.health,
            owned: BTreeMap::new(),
            names: Names::default(),
            restoring: BTreeMap::new(),
            parked: BTreeMap::new(),
            checkpoints: ends.checkpoints,
            replies: mpsc::channel(),
            kept: Kept::default(),
            until,
            commands: ends.commands,
            output: ends.output,
            answered: ends.call.newest(),
            call: ends.call,
            dead_letters: ends.dead_letters,
            shutdown: ends.shutdown,
            backlog: Backlog::Read,
            is_behind: false,
            began_at: Instant::now(),
            flushed_at: Instant::now(),
            folded: 0,
            damaged: None,
            silence: Silence::default(),
            has_missed: false,
            missed: Vec::new(),
            asked_at: None,
            asked_for: -1,
            told: Seldom::default(),
        })
    }

    /// Works until the end is asked for, then hands over what is left.
    pub fn run(mut self) -> Result<(), WorkerError> {
        // Without it, the first fetch waits for librdkafka's own look, of up to a second.
        let _ = self
            .reader
            .consumer()
            .fetch_metadata(Some(&self.topic), ANSWER_WITHIN);
        let mut turn = Instant::now();
        while !self.shutdown.has_begun() {
            if !self.obey()? {
                break;
            }
            let has_more = self.read()?;
            self.look_at_log()?;
            self.announce();
            self.go_on_keeping();
            let has_caught_up = !has_more && self.catches_up();
            let is_over = has_caught_up || turn.elapsed() >= TURN;
            if is_over {
                self.is_behind = !has_caught_up && self.takes_longer(turn.elapsed());
                (turn, self.folded) = (Instant::now(), 0);
                self.make_room();
                self.skip_what_is_no_record();
            }
            self.flush_what_is_due(has_caught_up);
            if is_over {
                self.keep_those_due();
                self.forget_parked();
                self.dead_letters.retry(&self.shutdown);
            }
        }
        self.flush(true);
        // Merge ends when it hears from no worker any more.
        self.output = mpsc::sync_channel(1).0;
        self.keep_all();
        Ok(())
    }

    /// Gives each shard its part of what there is for journals, and says to it what it has
    /// to expect.
    fn make_room(&mut self) {
        let part = JOURNALS_BYTES / self.owned.len().max(1);
        let left: Vec<_> = self
            .owned
            .iter()
            .map(|(&partition, owned)| self.records_left_of(partition, owned))
            .collect();
        for (owned, left) in self.owned.values_mut().zip(left) {
            owned.shard.set_journal_room(part);
            owned.shard.expect(left.unwrap_or(0));
        }
    }

    /// Whether the backlog of the last assignment has just been read. The first
    /// cut waits for the sketches of it, so they do not wait for their interval.
    fn catches_up(&mut self) -> bool {
        let has_just = self.backlog == Backlog::Unread && self.records_left() == Some(0);
        if has_just {
            self.backlog = Backlog::Read;
        }
        has_just
    }

    /// Whether what is left would take longer than a moment, at the pace of this turn.
    fn takes_longer(&self, turn: Duration) -> bool {
        let in_a_moment = self.folded as f64 * BEHIND.div_duration_f64(turn);
        let left = self.records_left().unwrap_or(0);
        left > (in_a_moment as u64).max(BEHIND_RECORDS)
    }

    /// How many records are there that are not folded, as far as brokers have said; `None`
    /// while they have not, of some partition.
    fn records_left(&self) -> Option<u64> {
        let left = |(&partition, owned)| self.records_left_of(partition, owned);
        self.owned.iter().map(left).sum()
    }

    /// The same of one partition.
    fn records_left_of(&self, partition: Partition, owned: &Owned) -> Option<u64> {
        let offset = owned.shard.offset();
        if owned.ended_at == Some(offset) || is_read(&self.until, partition, offset) {
            return Some(0);
        }
        let end = self.queue.last_known_end(&self.topic_name, partition)?;
        let end = at_most(&self.until, partition, end);
        Some(end.0.saturating_sub(offset.0).max(0).unsigned_abs())
    }

    /// Does what it was told since, and takes in what was done for it; `false` if
    /// nobody is left to tell.
    fn obey(&mut self) -> Result<bool, WorkerError> {
        let patience = if self.owned.is_empty() {
            IDLE
        } else {
            Duration::ZERO
        };
        self.take_replies()?;
        loop {
            match self.commands.recv_timeout(patience) {
                Ok(Command::Assign(partitions)) => {
                    for partition in partitions {
                        self.take(partition);
                    }
                }
                Ok(Command::Revoke {
                    partitions,
                    lost,
                    done,
                }) => {
                    for partition in partitions {
                        self.let_go(partition, lost, &done);
                    }
                }
                Ok(Command::CheckLog) => self.read_all_anew(),
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Reads partitions again from one record before what is folded next: it shows
    /// whether the log is still the same.
    fn read_anew(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.doubt();
                owned.heard_at = clock::since_boot();
            }
        }
        self.point_reader(partitions);
    }

    /// The worker was away: what was waited for did not come for lack of a look, and any
    /// log may be another one.
    fn come_back(&mut self) {
        self.owned.values_mut().for_each(Owned::waits_from_now);
        self.read_all_anew();
    }

    fn read_all_anew(&mut self) {
        let all: Vec<_> = self.owned.keys().copied().collect();
        self.read_anew(&all);
    }

    /// Points the reader at those of the partitions that are not read to their end.
    fn point_reader(&mut self, partitions: &[Partition]) {
        let owned = partitions
            .iter()
            .filter_map(|it| self.owned.get_key_value(it));
        let (unread, read): (Vec<_>, Vec<_>) = owned.partition(|&(&partition, owned)| {
            !owned.footing.is_verified() || !is_read(&self.until, partition, owned.shard.offset())
        });
        let unread = unread
            .into_iter()
            .map(|(&it, owned)| (it, owned.read_from()));
        let stopped = self.reader.stop(read.into_iter().map(|(&it, _)| it));
        if let Err(error) = stopped.and_then(|()| self.reader.read_from(unread)) {
            self.has_missed = true; // It is tried again.
            tracing::warn!(
                "{}: reading {partitions:?} anew failed: {error}; trying on",
                self.topic
            );
        }
    }

    /// Hands over what changed when it is called for, and when a backlog has just been read:
    /// the first cut waits for it.
    fn flush_what_is_due(&mut self, has_caught_up: bool) {
        let call = self.call.newest();
        let is_called = call != self.answered;
        let is_due = is_called && self.flushed_at.elapsed() >= self.at_least(FLUSH_WHEN_BEHIND);
        if has_caught_up || is_due {
            self.flush(has_caught_up);
        }
        if is_called {
            self.answered = call;
            let _ = self.output.send(FromWorker::Answer(call)); // Or merge has ended.
        }
    }

    /// How long it waits at least between what it would wait so long for if it was behind.
    fn at_least(&self, when_behind: Duration) -> Duration {
        match self.is_behind {
            true => when_behind,
            false => Duration::ZERO,
        }
    }

    /// Hands what changed to merge, waiting if merge is behind; with all donors, or with those
    /// of partitions that have their turn, of which each has one in an interval: all together
    /// would hold up one cut.
    fn flush(&mut self, all_donors: bool) {
        self.flushed_at = Instant::now();
        let donors_turn = self.donors_turns();
        let apart = self.at_least(DONORS_WHEN_BEHIND);
        let apart = apart.div_duration_f64(self.donors_interval).max(1.0) as u64;
        let owned = self.owned.iter_mut().filter(|(_, it)| it.announced);
        for (&partition, owned) in owned {
            let turn = donors_turn(partition);
            let with_donors = all_donors || turn >= owned.donors_turn + apart;
            if with_donors {
                owned.donors_turn = turn;
            }
            if !hand_over(&self.output, &mut owned.shard, with_donors) {
                return;
            }
        }
    }

    /// Which turn it is, by now, for a partition to hand its donors over: each has one in an
    /// interval, at a [phase] of its own.
    fn donors_turns(&self) -> impl Fn(Partition) -> u64 + use<> {
        let since = self.began_at.elapsed();
        let intervals = since.div_duration_f64(self.donors_interval);
        move |partition| (intervals + phase(partition)) as u64
    }
}

/// Hands what changed in one shard to merge; `false` if merge has ended, and with
/// it the process.
fn hand_over(output: &SyncSender<FromWorker>, shard: &mut Shard, with_donors: bool) -> bool {
    if shard.has_changes() {
        let flush = Box::new(shard.flush());
        if output.send(FromWorker::Flush(flush)).is_err() {
            return false;
        }
    }
    if with_donors && let Some(donors) = shard.flush_donors() {
        let _ = output.send(FromWorker::Donors(donors));
    }
    true
}

/// Where to end in each partition; `None`: the run has no end.
type Until = Option<BTreeMap<Partition, Offset>>;

fn end_of(until: &Until, partition: Partition) -> Option<Offset> {
    until
        .as_ref()
        .and_then(|ends| ends.get(&partition))
        .copied()
}

/// `offset`, or where to end, if that comes first.
fn at_most(until: &Until, partition: Partition, offset: Offset) -> Offset {
    end_of(until, partition).map_or(offset, |end| end.min(offset))
}

fn is_read(until: &Until, partition: Partition, offset: Offset) -> bool {
    end_of(until, partition).is_some_and(|end| offset >= end)
}
