//! A worker: the one thread that reads some partitions, folds them into their
//! shards, and hands what changed to merge.
//!
//! Nobody else touches its shards, so they need no locks. Its output is bounded:
//! when merge is behind, the worker waits, reads no further, and the backlog
//! stays in Kafka. Nothing is dropped.

mod error;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use crate::config::Config;
use crate::kafka::client::{self, Context, Health};
use crate::offset::{Offset, Partition};
use crate::publish::dead_letters::{DeadLetter, DeadLetters};
use crate::shard::{DonorsFlush, Flush, Outcome, Record, Rules, Shard};
use crate::shutdown::Shutdown;
pub use error::WorkerError;
use trouble::Damage;

/// What a worker is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// These partitions are yours: fold them from the start.
    Assign(Vec<Partition>),
    /// These no longer: let go of them.
    Revoke(Vec<Partition>),
}

/// What a worker hands to merge.
#[derive(Debug)]
pub enum FromWorker {
    /// Values of one shard that changed.
    Flush(Flush),
    /// Sketches of one shard that changed.
    Donors(DonorsFlush),
}

/// One reader and its shards.
pub struct Worker {
    topic: String,
    group: String,
    rules: Rules,
    flush_interval: Duration,
    donors_interval: Duration,
    reader: BaseConsumer<Context>,
    health: Arc<Health>,
    shards: BTreeMap<Partition, Shard>,
    /// Shards of partitions that were taken from us. A shard is true for ever, so
    /// when its partition comes back, it is folded on from where it is.
    parked: BTreeMap<Partition, Shard>,
    /// Where to end in each partition, if the run has an end.
    until: Option<BTreeMap<Partition, Offset>>,
    /// The partitions whose log was seen to go as far as `until`.
    end_is_known: BTreeSet<Partition>,
    commands: Receiver<Command>,
    output: SyncSender<FromWorker>,
    dead_letters: DeadLetters,
    shutdown: Shutdown,
    backlog: Backlog,
    damaged: Option<Damage>,
    /// When trouble that people must end was last told.
    told: Option<Instant>,
}

/// Where a worker is in what lay in its partitions when it got them.
#[derive(Clone, Copy)]
enum Backlog {
    Awaited,
    Begun,
    Read,
}

/// Records read between two looks at the clock and at the commands.
const BATCH: usize = 2_000;
/// How long an idle reader waits for a record.
const IDLE: Duration = Duration::from_millis(20);
/// A worker that is behind flushes so many times less often: what it hands over
/// then is old already, and every flush costs what changed, which is folded and
/// merged the cheaper the more of it comes at once.
const WHEN_BEHIND: u32 = 5;
/// What ties a worker to the rest of the process.
pub struct WorkerEnds {
    /// What it is told.
    pub commands: Receiver<Command>,
    /// Where its flushes go; bounded.
    pub output: SyncSender<FromWorker>,
    /// Where records go that cannot be counted.
    pub dead_letters: DeadLetters,
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
        let context = Context {
            health: ends.health.clone(),
        };
        let mut settings = client::reader(&config.kafka);
        if until.is_some() {
            // The end of a partition is not always behind a record.
            settings.set("enable.partition.eof", "true");
            // Only the leader knows how far the log goes.
            settings.set("client.rack", "");
        }
        Ok(Worker {
            topic: config.topics.donations.clone(),
            group: config.kafka.group.clone(),
            rules,
            flush_interval: config.run.flush_interval,
            donors_interval: config.run.donors_interval,
            reader: settings.create_with_context(context)?,
            health: ends.health,
            shards: BTreeMap::new(),
            parked: BTreeMap::new(),
            until,
            end_is_known: BTreeSet::new(),
            commands: ends.commands,
            output: ends.output,
            dead_letters: ends.dead_letters,
            shutdown: ends.shutdown,
            backlog: Backlog::Read,
            damaged: None,
            told: None,
        })
    }

    /// Works until the end is asked for, then hands over what is left.
    pub fn run(mut self) -> Result<(), WorkerError> {
        let mut flushed = Instant::now();
        let mut donors_flushed = Instant::now();
        while !self.shutdown.has_begun() {
            if !self.obey() {
                break;
            }
            let is_behind = self.read()?;
            let patience = if is_behind { WHEN_BEHIND } else { 1 };
            let has_caught_up = self.catches_up(is_behind);
            if has_caught_up || flushed.elapsed() >= patience * self.flush_interval {
                flushed = Instant::now();
                let donors_due =
                    has_caught_up || donors_flushed.elapsed() >= patience * self.donors_interval;
                if donors_due {
                    donors_flushed = Instant::now();
                }
                self.flush(donors_due);
                self.dead_letters.retry(&self.shutdown);
            }
        }
        self.flush(true);
        Ok(())
    }

    /// Whether the backlog of the last assignment has just been read. The first
    /// cut waits for the sketches of it, so they do not wait for their interval.
    fn catches_up(&mut self, is_behind: bool) -> bool {
        self.backlog = match (self.backlog, is_behind) {
            (Backlog::Awaited, true) => Backlog::Begun,
            (Backlog::Begun, false) => {
                self.backlog = Backlog::Read;
                return true;
            }
            (backlog, _) => backlog,
        };
        false
    }

    /// Does what it was told since; `false` if nobody is left to tell.
    fn obey(&mut self) -> bool {
        let patience = if self.shards.is_empty() {
            IDLE
        } else {
            Duration::ZERO
        };
        let mut changed = false;
        loop {
            match self.commands.recv_timeout(patience) {
                Ok(Command::Assign(partitions)) => {
                    changed = true;
                    self.backlog = Backlog::Awaited;
                    for partition in partitions {
                        let known = self.shards.remove(&partition);
                        let known = known.or_else(|| self.parked.remove(&partition));
                        let new = || Shard::new(partition, self.rules.clone());
                        let mut shard = known.unwrap_or_else(new);
                        // First a full one, so that merge knows the partition.
                        let _ = self.output.send(FromWorker::Flush(shard.full_flush()));
                        self.shards.insert(partition, shard);
                    }
                }
                Ok(Command::Revoke(partitions)) => {
                    changed = true;
                    for partition in partitions {
                        let shard = self.shards.remove_entry(&partition);
                        self.parked.extend(shard);
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            if !changed {
                break;
            }
        }
        if changed {
            self.assign_reader();
        }
        true
    }

    /// Points the reader at the next offset of every shard that is not at its end.
    fn assign_reader(&self) {
        let mut list = TopicPartitionList::new();
        for (&partition, shard) in &self.shards {
            if !self.is_read(partition, shard.offset()) {
                let offset = KafkaOffset::Offset(shard.offset().0);
                let added = list.add_partition_offset(&self.topic, partition, offset);
                debug_assert!(added.is_ok());
            }
        }
        let done = if list.count() == 0 {
            self.reader.unassign()
        } else {
            self.reader.assign(&list)
        };
        if let Err(error) = done {
            tracing::warn!("{}: assigning partitions failed: {error}", self.topic);
        }
    }

    fn is_read(&self, partition: Partition, offset: Offset) -> bool {
        let ends = self.until.as_ref();
        ends.and_then(|ends| ends.get(&partition))
            .is_some_and(|&end| offset >= end)
    }

    /// Reads and folds up to a batch of records; whether more were waiting.
    fn read(&mut self) -> Result<bool, WorkerError> {
        if self.shards.is_empty() {
            return Ok(false);
        }
        let mut patience = IDLE.min(self.flush_interval);
        for _ in 0..BATCH {
            // The message borrows the reader, and is folded into its neighbours.
            let Worker {
                reader,
                shards,
                dead_letters,
                until,
                shutdown,
                topic,
                ..
            } = self;
            match reader.poll(patience) {
                None => return Ok(false),
                Some(Ok(message)) => {
                    let end = until
                        .as_ref()
                        .and_then(|ends| ends.get(&message.partition()));
                    let beyond = end.is_some_and(|end| message.offset() >= end.0);
                    if !beyond && let Some(shard) = shards.get_mut(&message.partition()) {
                        fold(topic, shard, &message, dead_letters, shutdown);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.reached_end(partition),
                Some(Err(error)) => self.trouble(error)?,
            }
            patience = Duration::ZERO;
        }
        Ok(true)
    }

    /// Hands what changed to merge, waiting if merge is behind.
    fn flush(&mut self, with_donors: bool) {
        for shard in self.shards.values_mut() {
            if shard.has_changes() && self.output.send(FromWorker::Flush(shard.flush())).is_err() {
                return; // Merge has ended; so does the process.
            }
            if with_donors && let Some(donors) = shard.flush_donors() {
                let _ = self.output.send(FromWorker::Donors(donors));
            }
        }
    }
}

/// Folds one record; one that cannot be counted goes to the dead letters.
fn fold(
    topic: &str,
    shard: &mut Shard,
    message: &BorrowedMessage<'_>,
    dead_letters: &DeadLetters,
    shutdown: &Shutdown,
) {
    let outcome = shard.apply(Record {
        offset: message.offset(),
        timestamp: message
            .timestamp()
            .to_millis()
            .filter(|&timestamp| timestamp >= 0),
        payload: message.payload(),
    });
    if let Outcome::DeadLetter(rejected) = outcome {
        let letter = DeadLetter {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            key: message.key(),
            payload: message.payload(),
            rejected: &rejected,
        };
        dead_letters.send(&letter, shutdown);
    }
}
