//! Reading `cuts`: where those before us ended, and whether others write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::records::{CutId, CutRecord};
use super::sender::{Upsert, upsert};
use crate::config::KafkaConfig;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::topics::{self, ANSWER_WITHIN};
use crate::merge::Gate;
use crate::offset::{Offset, Partition};
use crate::shutdown::Shutdown;

/// Cuts have an order, so they have one partition.
const PARTITION: i32 = 0;
/// How many records at the end are read for the newest cut. Two would do, but
/// for publishers that wrote at the same time.
const TAIL: i64 = 100;

/// Where those before us ended.
#[derive(Debug, Default)]
pub struct Newest {
    /// A number above every one that was used.
    pub next_cut: u64,
    /// The highest epoch found.
    pub epoch: u32,
    /// What must be reached before anything is published; `None` if there were
    /// cuts and all have expired, so that nobody knows how far they got.
    pub gate: Option<Gate>,
}

/// The `cuts` topic.
pub struct Cuts {
    topic: String,
    reader: BaseConsumer<Context>,
    told: Option<Instant>,
}

impl Cuts {
    /// A reader of `topic`.
    pub fn new(
        config: &KafkaConfig,
        topic: &str,
        health: &Arc<Health>,
    ) -> Result<Cuts, KafkaError> {
        let context = Context {
            health: health.clone(),
        };
        let reader = client::reader(config).create_with_context(context)?;
        Ok(Cuts {
            topic: topic.to_owned(),
            reader,
            told: None,
        })
    }

    /// A record of a cut, to be sent.
    pub fn upsert(&self, number: u64, record: &CutRecord) -> Upsert {
        upsert(&self.topic, &number.to_string(), record).to_partition(PARTITION)
    }

    /// Reads the end of the topic, trying until it is read; from then on
    /// [`foreign`](Cuts::foreign) reads what comes after. `None` if the end of the
    /// process comes first.
    pub fn newest(&mut self, shutdown: &Shutdown) -> Option<Newest> {
        while !shutdown.is_overdue(super::PATIENCE) {
            match self.read_tail() {
                Ok(newest) => return Some(newest),
                Err(error) => self.tell(&error),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }

    fn read_tail(&mut self) -> Result<Newest, KafkaError> {
        let (low, high) = self
            .reader
            .fetch_watermarks(&self.topic, PARTITION, ANSWER_WITHIN)?;
        let from = (high - TAIL).max(low);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, PARTITION, KafkaOffset::Offset(from))?;
        self.reader.assign(&list)?;

        // Every cut writes a record at least, so no number is above the end.
        let mut newest = Newest {
            next_cut: high as u64 + 1,
            ..Newest::default()
        };
        let mut offsets = BTreeMap::new();
        let mut highest = None;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut next = from;
        while next < high {
            match self.reader.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    let Some(cut) = parse(message.payload()) else {
                        continue;
                    };
                    highest = highest.max(Some(cut.cut));
                    newest.epoch = newest.epoch.max(cut.epoch);
                    for (partition, offset) in cut.offsets {
                        let reached = offsets.entry(partition).or_insert(offset);
                        *reached = offset.max(*reached);
                    }
                }
                Some(Err(error)) => return Err(error),
                None if Instant::now() > deadline => {
                    return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
                }
                None => {}
            }
        }
        if let Some(highest) = highest {
            newest.next_cut = highest + 1;
        }
        if highest.is_some() || high == 0 {
            newest.gate = Some(Gate::at(offsets));
        }
        Ok(newest)
    }

    /// Where each partition of the donations topic ends, trying until the brokers
    /// say. `None` if the end of the process comes first.
    pub fn log_ends(
        &mut self,
        donations: &str,
        shutdown: &Shutdown,
    ) -> Option<BTreeMap<Partition, Offset>> {
        while !shutdown.is_overdue(super::PATIENCE) {
            let client = self.reader.client();
            let ends = topics::partitions(client, donations)
                .and_then(|found| topics::log_ranges(client, donations, found.unwrap_or(0)));
            match ends {
                Ok(ends) => return Some(ends.into_iter().map(|(p, (_, end))| (p, end)).collect()),
                Err(error) => self.tell(&error),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }

    /// The newest record since the last look that `own` did not write.
    pub fn foreign(&mut self, own: &str) -> Option<CutId> {
        let mut found: Option<CutId> = None;
        while let Some(result) = self.reader.poll(Duration::ZERO) {
            match result {
                Ok(message) => {
                    if let Some(cut) = parse(message.payload()).filter(|cut| cut.publisher != own) {
                        found = Some(cut);
                    }
                }
                Err(error) => {
                    self.tell(&error);
                    break;
                }
            }
        }
        found
    }

    fn tell(&mut self, error: &KafkaError) {
        let known = self.reader.context().health.note(error);
        if !known
            && self
                .told
                .is_none_or(|at| at.elapsed() >= Duration::from_secs(30))
        {
            self.told = Some(Instant::now());
            let advice =
                client::advice(error, &self.topic, "").unwrap_or_else(|| error.to_string());
            tracing::warn!("reading {}: {advice}; trying on", self.topic);
        }
    }
}

fn parse(payload: Option<&[u8]>) -> Option<CutId> {
    CutRecord::parse(payload?)
        .ok()
        .map(|record| record.id().clone())
}
