//! The log, read once more from its beginning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::checkpoint::RecordId;
use crate::config::Config;
use crate::kafka::client::{self, Health};
use crate::kafka::reader::Reader;
use crate::kafka::topics::ANSWER_WITHIN;
use crate::native::batch::Taken;
use crate::offset::{Offset, Partition};
use crate::shard::{Names, Rules, Shard};

/// How long brokers may bring nothing although there is more.
const STALL: Duration = Duration::from_secs(60);
/// How long one look for a record takes at most.
const POLL: Duration = Duration::from_millis(100);
/// After how many records the progress is told.
const TELL_EVERY: u64 = 4_096;

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// librdkafka makes no client of the configuration.
    #[error("librdkafka refuses the configuration; see `tally99 config check`")]
    Client(#[source] KafkaError),
    /// A partition does not say where it begins and ends.
    #[error(
        "cannot read {place}. Check that brokers run there, and that \
         --bootstrap-servers and --topic name the right ones"
    )]
    NoAnswer {
        /// The donations topic, its partition, the bootstrap servers, and what
        /// librdkafka said last.
        place: String,
        /// The answer.
        source: KafkaError,
    },
    /// Kafka refuses what cannot do without.
    #[error("{0}")]
    Refused(String),
    /// It stopped in the middle.
    #[error("reading {place} failed at offset {at}; try again when the cluster is well")]
    Broken {
        /// The donations topic and its partition.
        place: String,
        /// The next record that was to be read.
        at: Offset,
        /// Why.
        source: KafkaError,
    },
    /// The brokers have gone silent in the middle.
    #[error(
        "{place}: the brokers have brought nothing for {} s although there is more at offset \
         {at}{}. Try again when the cluster is well", STALL.as_secs(), because(.why)
    )]
    Stalled {
        /// The donations topic and its partition.
        place: String,
        /// The next record that was to be read.
        at: Offset,
        /// What librdkafka said last; may be empty.
        why: String,
    },
}

fn because(why: &str) -> String {
    match why {
        "" => String::new(),
        why => format!(" ({why})"),
    }
}

/// A log, and what reads it, one partition at a time.
pub(super) struct Log {
    reader: Reader,
    health: Arc<Health>,
    topic: String,
    group: String,
    servers: String,
}

/// What came out of folding.
pub(super) enum Folded {
    /// All of the log up to the offset.
    Whole {
        shard: Box<Shard>,
        /// The last record before the offset.
        last: Option<RecordId>,
    },
    /// The log begins later.
    Expired { start: Offset },
    /// The log does not reach the offset.
    TooShort { end: Offset },
    /// Nobody waits for it any more.
    Unwanted,
}

impl Log {
    pub fn open(config: &Config) -> Result<Log, LogError> {
        let health = Arc::new(Health::default());
        let settings = client::reader(&config.kafka);
        let reader = Reader::new(&settings, &config.topics.donations, health.clone());
        Ok(Log {
            reader: reader.map_err(LogError::Client)?,
            health,
            topic: config.topics.donations.clone(),
            group: config.kafka.group.clone(),
            servers: config.kafka.bootstrap_servers.clone(),
        })
    }

    /// Folds a partition from its beginning to an offset. `last_record` is where the
    /// last record before that should stand, if any does. `tick` hears how far it is,
    /// and says whether it is still wanted.
    pub fn fold(
        &mut self,
        partition: Partition,
        rules: Rules,
        to: Offset,
        last_record: Option<RecordId>,
        tick: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Folded, LogError> {
        let folded = self.read(partition, rules, to, last_record, tick);
        // An error of this partition, still on its way, does not say whose it is.
        self.reader.stop([partition]).map_err(LogError::Client)?;
        folded
    }

    fn read(
        &mut self,
        partition: Partition,
        rules: Rules,
        to: Offset,
        last_record: Option<RecordId>,
        tick: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Folded, LogError> {
        let (start, end) = self.ends(partition)?;
        if start > Offset::START {
            return Ok(Folded::Expired { start });
        }
        if end < to {
            return Ok(Folded::TooShort { end });
        }
        let look_from = last_record.map_or(0, |it| it.offset);
        let mut shard = Box::new(Shard::new(partition, rules));
        let (mut names, mut last, mut count) = (Names::default(), None, 0);
        self.read_from(partition, Offset::START)?;
        let mut heard = Instant::now();
        while shard.offset() < to {
            match self.reader.consumer().poll(POLL) {
                None if !tick(shard.offset().0 as u64) => return Ok(Folded::Unwanted),
                None if heard.elapsed() < STALL => continue,
                None => {
                    return Err(LogError::Stalled {
                        place: self.place(partition),
                        at: shard.offset(),
                        why: self.health.last_failure(),
                    });
                }
                Some(Ok(message)) => {
                    let Taken { key, record, .. } = Taken::of(&message);
                    if record.offset >= to.0 {
                        break;
                    }
                    if record.offset >= look_from {
                        last = Some(RecordId::of(&record, key));
                    }
                    shard.apply(record, &mut names);
                    count += 1;
                    if count % TELL_EVERY == 0 && !tick(shard.offset().0 as u64) {
                        return Ok(Folded::Unwanted);
                    }
                }
                // What is left may be no record (markers of transactions), or the broker that
                // was asked does not know all of the log yet.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let positions = self.reader.positions().unwrap_or_default();
                    if positions.get(&partition).is_some_and(|it| *it >= to) {
                        break;
                    }
                    let (_, end) = self.ends(partition)?;
                    if end < to {
                        return Ok(Folded::TooShort { end });
                    }
                    continue;
                }
                Some(Err(error)) => {
                    // Retention goes on while we read.
                    let is_out_of_range = matches!(
                        error.rdkafka_error_code(),
                        Some(
                            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange
                        )
                    );
                    if is_out_of_range {
                        let (start, _) = self.ends(partition)?;
                        if start > shard.offset() {
                            return Ok(Folded::Expired { start });
                        }
                    }
                    if is_out_of_range || !self.health.note(&error) {
                        return Err(self.refused(&error).unwrap_or(LogError::Broken {
                            place: self.place(partition),
                            at: shard.offset(),
                            source: error,
                        }));
                    }
                    continue;
                }
            }
            heard = Instant::now();
        }
        shard.skip_to(to);
        Ok(Folded::Whole { shard, last })
    }

    fn ends(&self, partition: Partition) -> Result<(Offset, Offset), LogError> {
        let ends = self.reader.ends(partition, ANSWER_WITHIN);
        ends.map_err(|error| {
            self.refused(&error).unwrap_or_else(|| {
                let (place, why) = (self.place(partition), self.health.last_failure());
                LogError::NoAnswer {
                    place: format!("{place} at {}{}", self.servers, because(&why)),
                    source: error,
                }
            })
        })
    }

    fn place(&self, partition: Partition) -> String {
        format!("{}/{partition}", self.topic)
    }

    fn refused(&self, error: &KafkaError) -> Option<LogError> {
        client::advice(error, &self.topic, &self.group).map(LogError::Refused)
    }

    fn read_from(&mut self, partition: Partition, from: Offset) -> Result<(), LogError> {
        let pointed = self.reader.read_from([(partition, from)]);
        pointed.map_err(LogError::Client)
    }
}
