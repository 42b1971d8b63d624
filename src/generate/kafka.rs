//! Records into a Kafka topic, with nothing lost in silence.
//!
//! The producer is idempotent and asks for all acknowledgements. Only failures
//! are reported back one by one; what is neither failed nor in flight is
//! acknowledged, which spares a call for each of millions of records.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::traffic::Record;
use crate::kafka::client::without_secrets;
use crate::offset::Partition;

/// How long brokers may take to answer at the start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a topic that was made may take to show all its partitions.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(30);

/// Where records go.
#[derive(Clone, Debug)]
pub struct KafkaTarget {
    /// `host:port[,host:port…]`.
    pub bootstrap_servers: String,
    /// The topic's name.
    pub topic: String,
    /// How many partitions the topic is made with if it is missing.
    pub partitions: i32,
    /// How many copies of it are made then; `None`: the brokers' default.
    pub replication: Option<i32>,
    /// Passed to librdkafka, after our own settings.
    pub properties: BTreeMap<String, String>,
}

/// Why records cannot get to Kafka.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSinkError {
    /// A property is wrong, or the client cannot start.
    #[error("cannot make a Kafka client: check [kafka.properties] in the configuration")]
    Client(#[source] KafkaError),
    /// No broker answers.
    #[error(
        "no Kafka broker answers at {bootstrap_servers}: \
         start it, or say where it is with --bootstrap-servers"
    )]
    NoAnswer {
        /// Where it was looked for.
        bootstrap_servers: String,
        /// What librdkafka says.
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
    /// Looks the topic up, makes it if it is missing, and gets ready to write.
    pub fn open(target: &KafkaTarget) -> Result<KafkaSink, KafkaSinkError> {
        let partitions = ensure_topic(target)?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &target.bootstrap_servers)
            .set("client.id", "tally99-generate")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("reconnect.backoff.max.ms", "1000")
            // Small enough that a record is still in the processor's cache when
            // it is sent: a queue of 500,000 made it a quarter slower.
            .set("queue.buffering.max.messages", "30000");
        for (name, value) in &target.properties {
            config.set(name, value);
        }
        // What counts as acknowledged rests on it.
        config.set("delivery.report.only.error", "true");
        let producer = config
            .create_with_context(Reports::default())
            .map_err(KafkaSinkError::Client)?;
        Ok(KafkaSink {
            producer,
            topic: target.topic.clone(),
            partitions,
        })
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
        let message = BaseRecord::to(&self.topic)
            .key(record.key())
            .payload(record.payload())
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
        let begin = Instant::now();
        loop {
            // In slices, so that a failure ends it at once.
            let slice = Duration::from_millis(200);
            let is_empty = self.producer.flush(slice).is_ok();
            self.poll(Duration::ZERO)?;
            if is_empty {
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
}

/// What librdkafka reports back.
#[derive(Default)]
struct Reports(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    records: u64,
    first: Option<(Partition, KafkaError)>,
    complaint: Option<String>,
}

impl Reports {
    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        // Whoever panicked while holding it left numbers that are still true.
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ClientContext for Reports {
    /// What matters of these lines comes as an error, too.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {}", without_secrets(line));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.failures().complaint = Some(match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => "no broker can be reached".to_owned(),
            _ => without_secrets(reason).into_owned(),
        });
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

/// The topic's number of partitions, after it was made if it was missing.
fn ensure_topic(target: &KafkaTarget) -> Result<i32, KafkaSinkError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &target.bootstrap_servers);
    for (name, value) in &target.properties {
        config.set(name, value);
    }
    let admin: AdminClient<Reports> = config
        .create_with_context(Reports::default())
        .map_err(KafkaSinkError::Client)?;
    if let Some(partitions) = count_partitions(&admin, target)? {
        return Ok(partitions);
    }
    create_topic(&admin, target)?;
    let deadline = Instant::now() + TOPIC_TIMEOUT;
    while Instant::now() < deadline {
        // Partitions show up one after the other.
        match count_partitions(&admin, target)? {
            Some(partitions) if partitions >= target.partitions => return Ok(partitions),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    Err(KafkaSinkError::NotReady {
        topic: target.topic.clone(),
    })
}

/// The topic's number of partitions, or `None` if there is no such topic. All
/// topics are asked for, since a broker may make one that is asked for by name.
fn count_partitions(
    admin: &AdminClient<Reports>,
    target: &KafkaTarget,
) -> Result<Option<i32>, KafkaSinkError> {
    let metadata = admin
        .inner()
        .fetch_metadata(None, ANSWER_TIMEOUT)
        .map_err(|source| KafkaSinkError::NoAnswer {
            bootstrap_servers: target.bootstrap_servers.clone(),
            source,
        })?;
    let topic = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == target.topic);
    let partitions = topic.map_or(0, |topic| topic.partitions().len() as i32);
    Ok((partitions > 0).then_some(partitions))
}

fn create_topic(admin: &AdminClient<Reports>, target: &KafkaTarget) -> Result<(), KafkaSinkError> {
    let failed = |reason: String| KafkaSinkError::CannotCreate {
        topic: target.topic.clone(),
        reason,
    };
    // -1 leaves it to the brokers.
    let replication = TopicReplication::Fixed(target.replication.unwrap_or(-1));
    let topic = NewTopic::new(&target.topic, target.partitions, replication);
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let results = runtime
        .block_on(admin.create_topics([&topic], &options))
        .map_err(|error| failed(error.to_string()))?;
    for result in results {
        match result {
            // Somebody else was quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(code.to_string())),
        }
    }
    Ok(())
}
