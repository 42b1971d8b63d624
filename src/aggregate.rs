//! A worker: the one thread that reads some partitions, folds them into their
//! shards, and hands what changed to merge.
//!
//! Nobody else touches its shards, so they need no locks. Its output is bounded:
//! when merge is behind, the worker waits, reads no further, and the backlog
//! stays in Kafka. Nothing is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use thiserror::Error;

use crate::config::Config;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::topics::ANSWER_WITHIN;
use crate::offset::{Offset, Partition};
use crate::publish::dead_letters::{DeadLetter, DeadLetters};
use crate::shard::{DonorsFlush, Flush, Outcome, Record, Rules, Shard};
use crate::shutdown::Shutdown;

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
    /// A batch does not match its checksum, time and again.
    #[error(
        "{topic}: a batch of records does not match its checksum, after {tries} tries ({error}): \
         the data is damaged on the broker or on the way. Check the broker's disks and the network"
    )]
    Damaged {
        /// The donations topic.
        topic: String,
        /// How often it was read.
        tries: u32,
        /// What librdkafka said.
        error: KafkaError,
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
        "Give the topic a longer retention.ms; totals over what is left would not be those of \
         the whole event, so a new group and new topics of tally99's own are needed for them"
    } else {
        "If the topic was meant to be made anew, use new names for tally99's own topics, or \
         delete them; else restore the broker's data"
    }
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
    commands: Receiver<Command>,
    output: SyncSender<FromWorker>,
    dead_letters: DeadLetters,
    shutdown: Shutdown,
    damaged_tries: u32,
    /// When trouble that people must end was last told.
    told: Option<Instant>,
}

/// Records read between two looks at the clock and at the commands.
const BATCH: usize = 2_000;
/// How long an idle reader waits for a record.
const IDLE: Duration = Duration::from_millis(20);
/// How often a damaged batch is read again.
const DAMAGED_TRIES: u32 = 5;

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
            commands: ends.commands,
            output: ends.output,
            dead_letters: ends.dead_letters,
            shutdown: ends.shutdown,
            damaged_tries: 0,
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
            self.read()?;
            if flushed.elapsed() >= self.flush_interval {
                flushed = Instant::now();
                let donors_due = donors_flushed.elapsed() >= self.donors_interval;
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
                    for partition in partitions {
                        let new = || Shard::new(partition, self.rules.clone());
                        let mut shard = self.parked.remove(&partition).unwrap_or_else(new);
                        // First a full one, so that merge knows the partition.
                        let _ = self.output.send(FromWorker::Flush(shard.full_flush()));
                        self.shards.insert(partition, shard);
                    }
                }
                Ok(Command::Revoke(partitions)) => {
                    changed = true;
                    self.shards
                        .retain(|partition, _| !partitions.contains(partition));
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

    /// Reads and folds up to a batch of records.
    fn read(&mut self) -> Result<(), WorkerError> {
        if self.shards.is_empty() {
            return Ok(());
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
                None => break,
                Some(Ok(message)) => {
                    let end = until
                        .as_ref()
                        .and_then(|ends| ends.get(&message.partition()));
                    let beyond = end.is_some_and(|end| message.offset() >= end.0);
                    if !beyond && let Some(shard) = shards.get_mut(&message.partition()) {
                        fold(topic, shard, &message, dead_letters, shutdown);
                        self.damaged_tries = 0;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    // All that was there at the start is read: skip what is no record.
                    let end = until
                        .as_ref()
                        .and_then(|ends| ends.get(&partition))
                        .copied();
                    if let (Some(end), Some(shard)) = (end, shards.get_mut(&partition)) {
                        shard.skip_to(end);
                    }
                }
                Some(Err(error)) => self.trouble(error)?,
            }
            patience = Duration::ZERO;
        }
        Ok(())
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

    /// An error of the reader: what goes away by itself is waited for, what
    /// people must end is told, what makes totals wrong ends the process.
    fn trouble(&mut self, error: KafkaError) -> Result<(), WorkerError> {
        use RDKafkaErrorCode as Code;
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Err(WorkerError::Fatal {
                topic: self.topic.clone(),
                error,
            });
        }
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => return self.compare_with_log(),
            Some(Code::BadMessage | Code::InvalidMessage | Code::BadCompression) => {
                // The reader goes on behind the batch; we do not.
                self.damaged_tries += 1;
                if self.damaged_tries >= DAMAGED_TRIES {
                    let (topic, tries) = (self.topic.clone(), self.damaged_tries);
                    return Err(WorkerError::Damaged {
                        topic,
                        tries,
                        error,
                    });
                }
                tracing::warn!(
                    "{}: a damaged batch ({error}); reading it again",
                    self.topic
                );
                self.assign_reader();
            }
            // The member watches the topic and tells.
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {}
            _ if self.health.note(&error) => {}
            _ if self
                .told
                .is_some_and(|at| at.elapsed() < Duration::from_secs(30)) => {}
            _ => {
                self.told = Some(Instant::now());
                match client::advice(&error, &self.topic, &self.group) {
                    Some(advice) => tracing::error!("reading {}: {advice}; trying on", self.topic),
                    None => tracing::warn!("reading {}: {error}; trying on", self.topic),
                }
            }
        }
        Ok(())
    }

    /// Some partition's next offset is not in the log: which, and why?
    fn compare_with_log(&mut self) -> Result<(), WorkerError> {
        for (&partition, shard) in &self.shards {
            let Ok((low, high)) =
                self.reader
                    .fetch_watermarks(&self.topic, partition, ANSWER_WITHIN)
            else {
                continue; // No answer now; the reader will fail again and ask again.
            };
            let (offset, start, end) = (shard.offset(), Offset(low), Offset(high));
            if offset < start || offset > end {
                let topic = self.topic.clone();
                return Err(WorkerError::LogChanged {
                    topic,
                    partition,
                    offset,
                    start,
                    end,
                });
            }
        }
        self.assign_reader();
        Ok(())
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
