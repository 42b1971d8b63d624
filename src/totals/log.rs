//! Reading the two topics: `cuts` near its end, `campaign-totals` as a whole, and
//! both on from there.
//!
//! The ends of `cuts` are looked up before those of `campaign-totals`. Every
//! upsert of a complete cut was acknowledged before its record, so the totals
//! read are those of the newest complete cut read, or newer ones.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::listener::Listener;
use super::seen::{Place, Seen};
use crate::config::{Config, KafkaConfig};
use crate::kafka::{client, topics};
use crate::shutdown::Shutdown;

/// How many times a broker is asked before we say that none answers.
const ATTEMPTS: usize = 3;

/// How long the brokers may deliver nothing although more is there.
const STALL: Duration = Duration::from_secs(30);

/// How long `--follow` waits for the upserts of a cut that it has seen.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How many records at the end of `cuts` are read first. Two make a cut, but
/// publishers may have written at the same time. Over a long event the topic
/// has millions.
const TAIL: i64 = 200;

/// How often whoever follows gets a word, even if there is no newer cut.
const TICK: Duration = Duration::from_secs(1);

/// How long one poll waits; also how soon a wish to stop is seen.
const POLL: Duration = Duration::from_millis(100);

/// Why the topics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// librdkafka makes no client of the configuration.
    #[error("librdkafka refuses the configuration; see `tally99 config check`")]
    Client(#[source] KafkaError),
    /// Nobody answers.
    #[error(
        "no Kafka broker answers at {servers}: {why}. Check that one runs there, and that \
         --bootstrap-servers (kafka.bootstrap_servers) names it"
    )]
    NoBroker {
        /// The bootstrap servers.
        servers: String,
        /// What librdkafka said last.
        why: String,
    },
    /// A topic is not there.
    #[error(
        "there is no topic {topic} at {servers}. `tally99 run` makes it when it starts; if it has, \
         check {flag}"
    )]
    MissingTopic {
        /// Its name.
        topic: String,
        /// The bootstrap servers.
        servers: String,
        /// The flag that names it.
        flag: &'static str,
    },
    /// Kafka refuses a topic.
    #[error(
        "the brokers let us not read topic {topic}: {code}. Check that it is still there and that \
         this user may read it"
    )]
    Refused {
        /// Its name.
        topic: String,
        /// What the broker said.
        code: RDKafkaErrorCode,
    },
    /// The brokers have gone silent in the middle.
    #[error(
        "the brokers have delivered nothing from topic {topic} for {} s although there is more: {why}. \
         Try again when the cluster is well",
        STALL.as_secs()
    )]
    Stalled {
        /// Its name.
        topic: String,
        /// What librdkafka said last.
        why: String,
    },
    /// Somebody wants this process to end.
    #[error("stopped before all totals were read")]
    Stopped,
}

/// What whoever follows is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A newer cut is there, with all of its totals.
    Cut,
    /// There was none for a tick.
    Nothing,
    /// It is time to stop.
    End,
}

/// The two topics, read side by side.
pub(super) struct Follow<'a> {
    cuts: Topic,
    totals: Topic,
    shutdown: &'a Shutdown,
    /// The newest complete cut that was handed out.
    shown: Option<u64>,
}

impl<'a> Follow<'a> {
    /// Finds brokers, topics, and the ends that are read to first.
    pub fn open(config: &Config, shutdown: &'a Shutdown) -> Result<Follow<'a>, LogError> {
        let (kafka, topics) = (&config.kafka, &config.topics);
        let cuts = Topic::open(kafka, &topics.cuts, "--cuts-topic", shutdown)?;
        let totals = Topic::open(kafka, &topics.totals, "--totals-topic", shutdown)?;
        Ok(Follow {
            cuts,
            totals,
            shutdown,
            shown: None,
        })
    }

    /// Reads up to the ends found by [`Follow::open`].
    pub fn read_to_ends(&mut self) -> Result<Seen, LogError> {
        let mut tail = TAIL;
        let mut seen = loop {
            let mut seen = Seen::default();
            let more = self.cuts.start(tail).map_err(LogError::Client)?;
            self.cuts
                .read_to_end(self.shutdown, STALL, &mut |place, message| {
                    seen.cut(place, message.payload(), message.timestamp().to_millis());
                })?;
            if seen.complete.is_some() || !more {
                break seen;
            }
            // Publishers have begun many cuts and completed none: further back.
            tail = tail.saturating_mul(16);
        };
        self.totals.start(i64::MAX).map_err(LogError::Client)?;
        self.read_totals_to_end(&mut seen, STALL)?;
        self.shown = seen.complete.as_ref().map(|cut| cut.record.id.cut);
        Ok(seen)
    }

    /// Waits until a newer cut is complete and all of its totals are read, but no
    /// longer than a tick. Until then no total is read: those shown are of one cut.
    ///
    /// A broker that is lost is waited for: it is no error, since whoever
    /// follows wants to see what comes after.
    pub fn next(&mut self, seen: &mut Seen) -> Result<Next, LogError> {
        let until = Instant::now() + TICK;
        while !self.shutdown.has_begun() {
            self.cuts.poll(POLL, &mut |place, message| {
                seen.cut(place, message.payload(), message.timestamp().to_millis());
            })?;
            self.cuts.consumer.context().warn_of_trouble();
            let complete = seen.complete.as_ref().map(|cut| cut.record.id.cut);
            let caught_up = complete != self.shown
                && self.totals.find_ends().is_ok()
                && match self.read_totals_to_end(seen, CATCH_UP) {
                    Ok(()) => true,
                    Err(LogError::Stalled { .. } | LogError::Stopped) => false,
                    Err(error) => return Err(error),
                };
            if caught_up {
                self.shown = complete;
                return Ok(Next::Cut);
            }
            if Instant::now() >= until {
                return Ok(Next::Nothing);
            }
        }
        Ok(Next::End)
    }

    /// That no broker answers, if so.
    pub fn trouble(&self) -> Option<String> {
        self.cuts.consumer.context().trouble()
    }

    fn read_totals_to_end(&mut self, seen: &mut Seen, stall: Duration) -> Result<(), LogError> {
        self.totals
            .read_to_end(self.shutdown, stall, &mut |place, message| {
                seen.total(place, message.key(), message.payload());
            })
    }
}

/// One topic, all its partitions read by one consumer.
struct Topic {
    consumer: BaseConsumer<Listener>,
    name: String,
    partitions: BTreeMap<i32, Progress>,
    /// Not yet read to its end. Until then, librdkafka's word that a partition
    /// has no more is good: its end was looked up before. Later that word may be
    /// older than an end looked up meanwhile, and only offsets count.
    first_time: bool,
}

/// Offsets of one partition.
#[derive(Default)]
struct Progress {
    /// The first one that is there.
    begin: i64,
    /// The next one to read.
    next: i64,
    /// Where to read to.
    end: i64,
}

type Take<'t> = &'t mut dyn FnMut(Place<'_>, &BorrowedMessage<'_>);

impl Topic {
    fn open(
        kafka: &KafkaConfig,
        name: &str,
        flag: &'static str,
        shutdown: &Shutdown,
    ) -> Result<Topic, LogError> {
        // It joins no group and commits nothing, so `run` does not notice.
        let mut settings = client::reader(kafka);
        settings
            // Compaction and retention may take the head away while we read:
            // then what is left is the beginning.
            .set("auto.offset.reset", "earliest")
            // The last offsets of a partition may hold no record.
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer<Listener> = settings
            .create_with_context(Listener::default())
            .map_err(LogError::Client)?;
        let mut topic = Topic {
            consumer,
            name: name.into(),
            partitions: BTreeMap::new(),
            first_time: true,
        };
        topic.find_partitions(kafka, flag, shutdown)?;
        topic
            .find_ends()
            .map_err(|error| topic.unanswered(kafka, &error))?;
        Ok(topic)
    }

    fn find_partitions(
        &mut self,
        kafka: &KafkaConfig,
        flag: &'static str,
        shutdown: &Shutdown,
    ) -> Result<(), LogError> {
        let mut attempt = 1;
        let partitions = loop {
            match topics::partitions(self.consumer.client(), &self.name) {
                Ok(partitions) => break partitions,
                Err(_) if shutdown.has_begun() => return Err(LogError::Stopped),
                Err(error) => {
                    if let Some(code) = refusal(&error) {
                        return Err(LogError::Refused {
                            topic: self.name.clone(),
                            code,
                        });
                    }
                    // Hears what librdkafka has to say about it.
                    let until = Instant::now() + POLL;
                    while self.consumer.poll(POLL / 10).is_some() || Instant::now() < until {}
                    if attempt == ATTEMPTS || self.consumer.context().is_hopeless() {
                        return Err(self.unanswered(kafka, &error));
                    }
                    attempt += 1;
                }
            }
        };
        self.consumer.context().is_well();
        let Some(partitions) = partitions else {
            let servers = kafka.bootstrap_servers.clone();
            return Err(LogError::MissingTopic {
                topic: self.name.clone(),
                servers,
                flag,
            });
        };
        self.partitions = (0..partitions as i32)
            .map(|id| (id, Progress::default()))
            .collect();
        Ok(())
    }

    /// Looks up where the partitions end now.
    fn find_ends(&mut self) -> Result<(), KafkaError> {
        let ranges = topics::log_ranges(self.consumer.client(), &self.name, self.partitions.len())?;
        for (partition, (low, high)) in ranges {
            if let Some(progress) = self.partitions.get_mut(&partition) {
                progress.begin = low.0;
                progress.next = progress.next.max(low.0);
                progress.end = high.0;
            }
        }
        Ok(())
    }

    /// Begins to read `tail` records before the ends, or at the beginnings; whether
    /// there are any before that.
    fn start(&mut self, tail: i64) -> Result<bool, KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut more = false;
        for (&partition, progress) in &mut self.partitions {
            progress.next = progress.begin.max(progress.end.saturating_sub(tail));
            more |= progress.next > progress.begin;
            list.add_partition_offset(&self.name, partition, Offset::Offset(progress.next))?;
        }
        self.first_time = true;
        self.consumer.assign(&list)?;
        Ok(more)
    }

    /// Reads until every partition is at its end. Gives up when nothing comes
    /// for `stall`.
    fn read_to_end(
        &mut self,
        shutdown: &Shutdown,
        stall: Duration,
        take: Take<'_>,
    ) -> Result<(), LogError> {
        let mut last = Instant::now();
        while self
            .partitions
            .values()
            .any(|progress| progress.next < progress.end)
        {
            if shutdown.has_begun() {
                return Err(LogError::Stopped);
            }
            if self.poll(POLL, take)? {
                last = Instant::now();
            } else if last.elapsed() >= stall {
                let why = self.consumer.context().last_words("no reason is known");
                return Err(LogError::Stalled {
                    topic: self.name.clone(),
                    why,
                });
            }
        }
        self.first_time = false;
        Ok(())
    }

    /// Takes what is there, waiting for `wait` if nothing is. Whether anything
    /// was.
    fn poll(&mut self, wait: Duration, take: Take<'_>) -> Result<bool, LogError> {
        let mut wait = wait;
        let mut any = false;
        // Bounded, so that a busy topic does not keep the caller from the other.
        for _ in 0..10_000 {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    take(
                        Place {
                            topic: &self.name,
                            partition,
                            offset,
                        },
                        &message,
                    );
                    if let Some(progress) = self.partitions.get_mut(&partition) {
                        progress.next = offset + 1;
                    }
                    self.consumer.context().is_well();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(progress) = self.partitions.get_mut(&partition)
                        && self.first_time
                    {
                        progress.next = progress.end;
                    }
                }
                Some(Err(error)) => {
                    if let Some(code) = refusal(&error) {
                        return Err(LogError::Refused {
                            topic: self.name.clone(),
                            code,
                        });
                    }
                    // librdkafka connects again by itself; read_to_end gives up
                    // if that never helps.
                    return Ok(any);
                }
            }
            any = true;
            wait = Duration::ZERO;
        }
        Ok(any)
    }

    fn unanswered(&self, kafka: &KafkaConfig, error: &KafkaError) -> LogError {
        let fallback = error
            .rdkafka_error_code()
            .map_or_else(|| error.to_string(), |code| code.to_string());
        LogError::NoBroker {
            servers: kafka.bootstrap_servers.clone(),
            why: self.consumer.context().last_words(&fallback),
        }
    }
}

/// The code of an error that does not go away by trying again.
fn refusal(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code().filter(|code| {
        matches!(
            code,
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
        )
    })
}
