//! Records into a Kafka topic, with nothing lost in silence.
//!
//! The producer is idempotent and asks for all acknowledgements. Only failures
//! are reported back one by one; what is neither failed nor in flight is
//! acknowledged, which spares a call for each of millions of records.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::traffic::Record;
use crate::config::{Config, KafkaConfig};
use crate::kafka::client::{self, Health, without_secrets};
use crate::kafka::topics;
use crate::offset::Partition;

/// How long brokers may take to answer at the start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a topic that was made may take to show all its partitions.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(30);

/// Why records cannot get to Kafka.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSinkError {
    /// A property is wrong, or the client cannot start.
    #[error("cannot make a Kafka client: check [kafka.properties] in the configuration")]
    Client(#[source] KafkaError),
    /// No broker answers.
    #[error(
        "no Kafka broker answers at {bootstrap_servers}: {why}. \
         Start it, or say where it is with --bootstrap-servers"
    )]
    NoAnswer {
        /// Where it was looked for.
        bootstrap_servers: String,
        /// What librdkafka says.
        why: String,
    },
    /// Brokers answer, but do not let this user do it.
    #[error("{advice}")]
    NotAllowed {
        /// What to do about it.
        advice: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// Brokers answer, but not what was asked.
    #[error("cannot look up topic {topic}")]
    Lookup {
        /// The topic.
        topic: String,
        /// What they say instead.
        source: KafkaError,
    },
    /// The topic was missing and could not be made.
    #[error(
        "topic {topic} is missing and cannot be made: {reason}; \
         make it by hand, or let this user create it"
    )]
    CannotCreate {
        /// The topic.
        topic: String,
        /// What the brokers say.
        reason: String,
    },
    /// The topic was made, but does not show up.
    #[error("topic {topic} was made but is not ready after {seconds} s: look at the brokers' logs", seconds = TOPIC_TIMEOUT.as_secs())]
    NotReady {
        /// The topic.
        topic: String,
    },
    /// The client refuses a record.
    #[error("a record for partition {partition} of {topic} is refused")]
    Refused {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// Records were sent but not written.
    #[error(
        "{records} records were not written, the first of them to partition {partition} of \
         {topic}: the topic now holds a part of the stream only"
    )]
    Delivery {
        /// How many failed so far.
        records: u64,
        /// The topic.
        topic: String,
        /// Where the first of them should have gone.
        partition: Partition,
        /// Why it failed.
        source: KafkaError,
    },
    /// The brokers stopped to acknowledge, and the caller stopped to wait.
    #[error(
        "{records} records of {topic} are not acknowledged after {seconds} s of waiting: \
         they may or may not be in the topic"
    )]
    Unacknowledged {
        /// How many.
        records: u64,
        /// The topic.
        topic: String,
        /// How long was waited for them.
        seconds: u64,
    },
}

/// A topic that takes records.
pub struct KafkaSink {
    producer: BaseProducer<Reports>,
    topic: String,
    partitions: i32,
}

impl KafkaSink {
    /// Looks the donations topic up, makes it with so many partitions if it is
    /// missing, and gets ready to write.
    pub fn open(config: &Config, partitions: i32) -> Result<KafkaSink, KafkaSinkError> {
        KafkaSink::open_with(config, partitions, &FOR_SPEED)
    }

    /// The same for records that are sent at their times: there is room for more than a second
    /// of them while a broker does not answer.
    pub fn open_for_schedule(
        config: &Config,
        partitions: i32,
    ) -> Result<KafkaSink, KafkaSinkError> {
        KafkaSink::open_with(config, partitions, &FOR_SCHEDULE)
    }

    fn open_with(
        config: &Config,
        partitions: i32,
        good: &[(&str, &str)],
    ) -> Result<KafkaSink, KafkaSinkError> {
        let mut sink = KafkaSink {
            producer: settings(&config.kafka, good)
                .create_with_context(Reports::default())
                .map_err(KafkaSinkError::Client)?,
            topic: config.topics.donations.clone(),
            partitions,
        };
        sink.partitions = sink.ensure_topic(config)?;
        Ok(sink)
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's real number of partitions.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Hands a record to the producer; false if its queue is full. Then
    /// [`KafkaSink::poll`] waits for room.
    pub fn try_send(&self, record: &Record) -> Result<bool, KafkaSinkError> {
        let partition = record.partition(self.partitions);
        self.try_send_to(partition, record.key(), record.payload())
    }

    /// The same with a partition, a key and a value.
    pub fn try_send_to(
        &self,
        partition: Partition,
        key: &[u8],
        payload: &[u8],
    ) -> Result<bool, KafkaSinkError> {
        let message = BaseRecord::to(&self.topic)
            .key(key)
            .payload(payload)
            .partition(partition);
        match self.producer.send(message) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((source, _)) => Err(KafkaSinkError::Refused {
                topic: self.topic.clone(),
                partition,
                source,
            }),
        }
    }

    /// Takes in what brokers report, for so long; an error if they report that
    /// records were not written.
    pub fn poll(&self, timeout: Duration) -> Result<(), KafkaSinkError> {
        self.producer.poll(timeout);
        let failures = self.producer.context().failures();
        match &failures.first {
            None => Ok(()),
            Some((partition, source)) => Err(KafkaSinkError::Delivery {
                records: failures.records,
                topic: self.topic.clone(),
                partition: *partition,
                source: source.clone(),
            }),
        }
    }

    /// What the client complained about since the last time, for people.
    pub fn take_complaint(&self) -> Option<String> {
        self.producer.context().failures().complaint.take()
    }

    /// How many records are neither acknowledged nor failed.
    pub fn in_flight(&self) -> u64 {
        self.producer.in_flight_count().unsigned_abs().into()
    }

    /// Waits until every record is acknowledged. Without a `timeout` it waits
    /// until librdkafka gives up (`message.timeout.ms`, 5 min by default).
    pub fn flush(&self, timeout: Option<Duration>) -> Result<(), KafkaSinkError> {
        self.flush_unless(timeout, || false)
    }

    /// The same, unless the end comes first: then it is not said whether all are.
    pub fn flush_unless(
        &self,
        timeout: Option<Duration>,
        mut is_the_end: impl FnMut() -> bool,
    ) -> Result<(), KafkaSinkError> {
        let begin = Instant::now();
        loop {
            // In slices, so that a failure ends it at once.
            let slice = Duration::from_millis(200);
            let is_empty = self.producer.flush(slice).is_ok();
            self.poll(Duration::ZERO)?;
            if is_empty || is_the_end() {
                return Ok(());
            }
            if let Some(timeout) = timeout.filter(|timeout| begin.elapsed() >= *timeout) {
                return Err(KafkaSinkError::Unacknowledged {
                    records: self.in_flight(),
                    topic: self.topic.clone(),
                    seconds: timeout.as_secs(),
                });
            }
        }
    }

    /// The topic's number of partitions, after it was made if it was missing.
    fn ensure_topic(&self, config: &Config) -> Result<i32, KafkaSinkError> {
        if let Some(partitions) = self.count_partitions(config)? {
            return Ok(partitions);
        }
        self.create_topic(config)?;
        let deadline = Instant::now() + TOPIC_TIMEOUT;
        while Instant::now() < deadline {
            // Partitions show up one after the other.
            match self.count_partitions(config)? {
                Some(partitions) if partitions >= self.partitions => return Ok(partitions),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Err(KafkaSinkError::NotReady {
            topic: self.topic.clone(),
        })
    }

    /// The topic's number of partitions, or `None` if there is no such topic.
    fn count_partitions(&self, config: &Config) -> Result<Option<i32>, KafkaSinkError> {
        let begin = Instant::now();
        loop {
            let error = match topics::partitions(self.producer.client(), &self.topic) {
                Ok(found) => return Ok(found.filter(|n| *n > 0).map(|n| n as i32)),
                Err(error) => error,
            };
            // That nobody has answered in time says little; the reports tell why.
            self.producer.poll(Duration::from_millis(100));
            let reports = self.producer.context();
            let refusal = reports.failures().refusal.take();
            for source in [Some(error.clone()), refusal].into_iter().flatten() {
                if let Some(advice) = self.advice(&source, config) {
                    return Err(KafkaSinkError::NotAllowed { advice, source });
                }
            }
            if !reports.health().note(&error) {
                return Err(KafkaSinkError::Lookup {
                    topic: self.topic.clone(),
                    source: error,
                });
            }
            if begin.elapsed() >= ANSWER_TIMEOUT {
                let why = reports.health().last_failure();
                return Err(KafkaSinkError::NoAnswer {
                    bootstrap_servers: config.kafka.bootstrap_servers.clone(),
                    why: if why.is_empty() {
                        error.to_string()
                    } else {
                        why
                    },
                });
            }
        }
    }

    fn create_topic(&self, config: &Config) -> Result<(), KafkaSinkError> {
        let failed = |reason: String| KafkaSinkError::CannotCreate {
            topic: self.topic.clone(),
            reason,
        };
        let admin = client::admin(&config.kafka, self.producer.context().health())
            .map_err(KafkaSinkError::Client)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let partitions = self.partitions.unsigned_abs() as usize;
        let replication = config.topics.replication;
        let made = topics::make(&admin, &self.topic, partitions, replication, &[]);
        match runtime.block_on(made) {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(
                self.advice(&error, config)
                    .unwrap_or_else(|| error.to_string()),
            )),
        }
    }

    /// What to do about an error that does not go away by itself.
    fn advice(&self, error: &KafkaError, config: &Config) -> Option<String> {
        let topic = &self.topic;
        match error.rdkafka_error_code() {
            // What `run` needs is less, and another.
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Some(format!(
                "no permission for topic {topic}: grant DESCRIBE, WRITE and CREATE on it to this user"
            )),
            _ => client::advice(error, topic, &config.kafka.group),
        }
    }
}

/// Settings of a producer that is as fast as it can be.
const FOR_SPEED: [(&str, &str); 3] = [
    ("compression.type", "lz4"),
    ("linger.ms", "20"),
    // Small enough that a record is still in the processor's cache when it is
    // sent: a queue of 500,000 made it a quarter slower.
    ("queue.buffering.max.messages", "30000"),
];

/// Settings of a producer that waits for nobody. (With a linger of 5 ms, more and smaller
/// batches cost the generator a seventh more, and librdkafka's readers a fifth.)
const FOR_SCHEDULE: [(&str, &str); 3] = [
    ("compression.type", "lz4"),
    ("linger.ms", "20"),
    ("queue.buffering.max.messages", "1000000"),
];

/// The producer's settings.
fn settings(kafka: &KafkaConfig, good: &[(&str, &str)]) -> ClientConfig {
    let must = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        // What counts as acknowledged rests on it.
        ("delivery.report.only.error", "true"),
    ];
    client::settings(kafka, "generate", good, &must)
}

/// What librdkafka reports back.
#[derive(Default)]
struct Reports {
    context: client::Context,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    records: u64,
    first: Option<(Partition, KafkaError)>,
    complaint: Option<String>,
    /// The brokers do not let us in.
    refusal: Option<KafkaError>,
}

impl Reports {
    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Whoever panicked while holding it left numbers that are still true.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> &Arc<Health> {
        &self.context.health
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    /// Kept for the progress bar, which a line in between would tear.
    fn error(&self, error: KafkaError, reason: &str) {
        let complaint = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                format!("no broker answers ({})", self.health().last_failure())
            }
            _ => without_secrets(reason).into_owned(),
        };
        let mut failures = self.failures();
        failures.complaint = Some(complaint);
        if client::advice(&error, "", "").is_some() {
            failures.refusal = Some(error);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, message)) = result {
            let mut failures = self.failures();
            failures.records += 1;
            failures
                .first
                .get_or_insert_with(|| (message.partition(), error.clone()));
        }
    }
}
