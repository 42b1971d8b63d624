//! Reading `cuts`: where those before us ended, and whether others write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use serde::Deserialize;

use super::records::{CutId, CutRecord};
use super::sender::{Upsert, upsert};
use crate::config::KafkaConfig;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::group::{self, GroupMember};
use crate::kafka::reader::positions;
use crate::kafka::topics::{self, ANSWER_WITHIN};
use crate::logging::Seldom;
use crate::offset::{Offset, Partition};
use crate::shutdown::Shutdown;

/// Cuts have an order, so they have one partition.
const PARTITION: i32 = 0;
/// How many records at the end are read for the newest cut. Two would do, but
/// for publishers that wrote at the same time.
const TAIL: i64 = 100;
/// How long to wait before brokers are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Where those before us ended.
#[derive(Debug, Default)]
pub struct Newest {
    /// A number above every one that was used.
    pub next_cut: u64,
    /// The highest epoch found.
    pub epoch: u32,
    /// The newest cut; `None` if there is none, or none any more.
    pub id: Option<CutId>,
    /// The highest offsets of all cuts found.
    pub offsets: BTreeMap<Partition, Offset>,
}

/// The `cuts` topic.
pub struct Cuts {
    topic: String,
    reader: BaseConsumer<Context>,
    /// How long a member of a group may be dead.
    patience: Duration,
    told: Seldom,
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
        let settings = client::reader_of_leaders(config);
        Ok(Cuts {
            topic: topic.to_owned(),
            reader: settings.create_with_context(context)?,
            patience: config.session_timeout + Duration::from_secs(2),
            told: Seldom::default(),
        })
    }

    /// A record of a cut, to be sent.
    pub fn upsert(&self, number: u64, record: &CutRecord) -> Upsert {
        upsert(&self.topic, &number.to_string(), record).to_partition(PARTITION)
    }

    /// Reads the end of the topic, trying until it is read; from then on
    /// [`intrusion`](Cuts::intrusion) reads what comes after. `None` if the end of the
    /// process comes first.
    pub fn newest(&mut self, shutdown: &Shutdown) -> Option<Newest> {
        self.ask(shutdown, Cuts::read_tail)
    }

    /// Asks until there is an answer. `None` if the end of the process comes first.
    fn ask<T>(
        &mut self,
        shutdown: &Shutdown,
        question: impl Fn(&mut Cuts) -> Result<T, KafkaError>,
    ) -> Option<T> {
        while !shutdown.is_overdue(super::PATIENCE) {
            match question(self) {
                Ok(answer) => return Some(answer),
                Err(error) => self.tell(&error),
            }
            std::thread::sleep(ASK_AGAIN);
        }
        None
    }

    fn read_tail(&mut self) -> Result<Newest, KafkaError> {
        let topic = self.topic.clone();
        let mut newest = Newest::default();
        let high = self.read_last(&topic, PARTITION, TAIL, |payload| {
            let Some(id) = parse(payload) else { return };
            newest.next_cut = newest.next_cut.max(id.cut.saturating_add(1));
            newest.epoch = newest.epoch.max(id.epoch);
            for (&partition, &offset) in &id.offsets {
                let reached = newest.offsets.entry(partition).or_insert(offset);
                *reached = offset.max(*reached);
            }
            newest.id = Some(id);
        })?;
        if newest.id.is_none() {
            // Every cut writes a record at least, so no number is above the end.
            newest.next_cut = high as u64 + 1;
        }
        Ok(newest)
    }

    /// Hands the values of the last `count` records of a partition to `take`;
    /// returns the partition's end.
    fn read_last(
        &mut self,
        topic: &str,
        partition: Partition,
        count: i64,
        mut take: impl FnMut(Option<&[u8]>),
    ) -> Result<i64, KafkaError> {
        let (low, high) = self
            .reader
            .fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
        let mut next = (high - count).max(low);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, KafkaOffset::Offset(next))?;
        self.reader.assign(&list)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        while next < high {
            match self.reader.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    take(message.payload());
                }
                // What is left may be no record; or the leader was just elected, and does not
                // know all of its log yet.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let position = positions(&self.reader)?.get(&partition).copied();
                    if position.is_some_and(|position| position.0 >= high) {
                        break;
                    }
                    return Err(KafkaError::MessageConsumption(Code::OffsetNotAvailable));
                }
                Some(Err(error)) => return Err(error),
                None if Instant::now() > deadline => {
                    return Err(KafkaError::MessageConsumption(Code::OperationTimedOut));
                }
                None => {}
            }
        }
        Ok(high)
    }

    /// The number of the newest cut that any upsert in `topic` is of; 0 if there
    /// are none. For when `cuts` is empty: it may have been deleted, and the totals
    /// not. `None` if the end of the process comes first.
    pub fn newest_in(&mut self, topic: &str, shutdown: &Shutdown) -> Option<u64> {
        self.ask(shutdown, |cuts| cuts.read_newest_in(topic))
    }

    fn read_newest_in(&mut self, upserts: &str) -> Result<u64, KafkaError> {
        #[derive(Deserialize)]
        struct OfCut {
            cut: u64,
        }
        let mut newest = 0;
        let partitions = topics::partitions(self.reader.client(), upserts)?;
        let ends = topics::log_ends(&self.reader, upserts, partitions.unwrap_or(0))?;
        let written = ends.into_iter().filter(|(_, end)| *end > Offset::START);
        for (partition, _) in written {
            // Numbers rise within a partition, but for what a zombie wrote.
            self.read_last(upserts, partition, TAIL, |payload| {
                let upsert = payload.and_then(|json| serde_json::from_slice::<OfCut>(json).ok());
                newest = newest.max(upsert.map_or(0, |upsert| upsert.cut));
            })?;
        }
        // From here on `intrusion` reads `cuts` again.
        let topic = self.topic.clone();
        self.read_last(&topic, PARTITION, 0, |_| {})?;
        Ok(newest)
    }

    /// Where each partition of the donations topic ends, trying until the brokers
    /// say. `None` if the end of the process comes first.
    pub fn log_ends(
        &mut self,
        donations: &str,
        shutdown: &Shutdown,
    ) -> Option<BTreeMap<Partition, Offset>> {
        self.ask(shutdown, |cuts| {
            match topics::partitions(cuts.reader.client(), donations)? {
                Some(partitions) => topics::log_ends(&cuts.reader, donations, partitions),
                // A broker that has just started may not know it yet. Whether it
                // is gone, the member finds out.
                None => Err(KafkaError::MetadataFetch(Code::LeaderNotAvailable)),
            }
        })
    }

    /// Where a partition of the donations begins. `None` if the end comes first.
    pub fn log_start(
        &mut self,
        donations: &str,
        partition: Partition,
        shutdown: &Shutdown,
    ) -> Option<Offset> {
        self.ask(shutdown, |cuts| {
            let ends = cuts
                .reader
                .fetch_watermarks(donations, partition, ANSWER_WITHIN);
            ends.map(|(start, _)| Offset(start))
        })
    }

    /// Why what we know of `cuts` is not all that is in it, if so: since the last
    /// look somebody other than `own` wrote to it, or it is another one.
    pub fn intrusion(&mut self, own: &str) -> Option<String> {
        let mut found = None;
        while let Some(result) = self.reader.poll(Duration::ZERO) {
            match result {
                Ok(message) => {
                    if let Some(id) = parse(message.payload()).filter(|id| id.publisher != own) {
                        let CutId { publisher, cut, .. } = id;
                        found = Some(format!("another publisher, {publisher}, wrote cut {cut}"));
                    }
                }
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => match error.rdkafka_error_code() {
                    // The reader would stand still from here on.
                    Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                        return Some(format!("{} was made anew, or lost records", self.topic));
                    }
                    _ => {
                        self.tell(&error);
                        break;
                    }
                },
            }
        }
        found
    }

    /// The live members of another group. One that was killed stays a member until
    /// its session ends, so that is waited for. `None` if the end of the process
    /// comes first.
    pub fn live_members(&mut self, group: &str, shutdown: &Shutdown) -> Option<Vec<GroupMember>> {
        let since = Instant::now();
        while !shutdown.is_overdue(super::PATIENCE) {
            match group::others_at_work(self.reader.client(), group) {
                Ok(members) if members.is_empty() || since.elapsed() > self.patience => {
                    return Some(members);
                }
                Ok(_) => {}
                Err(error) if group::is_unsupported(&error) => return Some(Vec::new()),
                Err(error) => self.tell(&error),
            }
            std::thread::sleep(ASK_AGAIN);
        }
        None
    }

    fn tell(&mut self, error: &KafkaError) {
        let known = self.reader.context().health.note(error);
        if !known && self.told.is_due() {
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
