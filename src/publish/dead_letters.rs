//! Records that cannot be counted, kept with the reason.
//!
//! A dead letter's key is its place, `topic/partition/offset`, since a replay
//! sends it again and the topic is compacted. Its value is the original one;
//! the rest stands in headers: `topic`, `partition`, `offset`, `reason`,
//! `detail`, and `key` if the record had one. `null-value` says that the record
//! was a tombstone (a compacted topic would take an absent value as a deletion),
//! `truncated-from` how many bytes there were if the topic takes fewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};

use crate::config::KafkaConfig;
use crate::event::Rejected;
use crate::kafka::client::{self, Context, Health};
use crate::offset::Partition;
use crate::shutdown::Shutdown;

/// A record that cannot be counted.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Where it stands.
    pub topic: &'a str,
    /// Where it stands.
    pub partition: Partition,
    /// Where it stands.
    pub offset: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub payload: Option<&'a [u8]>,
    /// Why it cannot be counted.
    pub rejected: &'a Rejected,
}

/// Sends dead letters, and sends them again until they are there. Clones share
/// one producer.
#[derive(Clone)]
pub struct DeadLetters {
    topic: Arc<str>,
    producer: ThreadedProducer<Deliveries>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Sent and not yet acknowledged.
    waiting: AtomicU64,
    failed: Mutex<Vec<OwnedMessage>>,
    told: Mutex<Option<Instant>>,
}

/// What is kept of a value that the topic does not take whole, at most.
const TRUNCATED_BYTES: usize = 64 * 1024;
/// A batch holds one record, or as many as fit this size: a topic refuses a batch
/// as a whole, and small records are not to share the fate of a large one.
const BATCH_BYTES: usize = 16 * 1024;
/// The largest record that our producer sends; larger ones are truncated.
const MAX_BYTES: &str = "67108864";

impl DeadLetters {
    /// A sender to `topic`.
    pub fn new(
        config: &KafkaConfig,
        topic: &str,
        health: &Arc<Health>,
    ) -> Result<DeadLetters, KafkaError> {
        let state = Arc::new(State::default());
        let context = Deliveries {
            common: Context {
                health: health.clone(),
            },
            state: state.clone(),
        };
        let producer = client::producer(config, "dead-letters", Duration::ZERO)
            .set("message.max.bytes", MAX_BYTES)
            .set("batch.size", BATCH_BYTES.to_string())
            .create_with_context(context)?;
        Ok(DeadLetters {
            topic: topic.into(),
            producer,
            state,
        })
    }

    /// Sends one; waits while the queue is full, which slows the reader down.
    pub fn send(&self, letter: &DeadLetter<'_>, shutdown: &Shutdown) {
        let DeadLetter {
            topic,
            partition,
            offset,
            ..
        } = letter;
        let key = format!("{topic}/{partition}/{offset}");
        let (partition, offset) = (partition.to_string(), offset.to_string());
        let mut headers = OwnedHeaders::new()
            .insert(Header {
                key: "topic",
                value: Some(*topic),
            })
            .insert(Header {
                key: "partition",
                value: Some(&partition),
            })
            .insert(Header {
                key: "offset",
                value: Some(&offset),
            })
            .insert(Header {
                key: "reason",
                value: Some(letter.rejected.reason.code()),
            })
            .insert(Header {
                key: "detail",
                value: Some(&letter.rejected.detail),
            });
        if let Some(key) = letter.key {
            headers = headers.insert(Header {
                key: "key",
                value: Some(key),
            });
        }
        if letter.payload.is_none() {
            headers = headers.insert(Header {
                key: "null-value",
                value: Some("true"),
            });
        }
        self.state.waiting.fetch_add(1, Ordering::AcqRel);
        self.enqueue(
            key.as_bytes(),
            letter.payload.unwrap_or_default(),
            headers,
            shutdown,
        );
    }

    fn enqueue(&self, key: &[u8], payload: &[u8], headers: OwnedHeaders, shutdown: &Shutdown) {
        let record = BaseRecord::to(&self.topic)
            .key(key)
            .payload(payload)
            .headers(headers);
        let mut unsent = record;
        while let Err((error, record)) = self.producer.send(unsent) {
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if !shutdown.is_overdue(super::PATIENCE) => {
                    std::thread::sleep(Duration::from_millis(5));
                    unsent = record;
                }
                _ => {
                    // It stays in `waiting`, so that the end does not pass for clean.
                    self.state.tell(&error, &self.topic);
                    return;
                }
            }
        }
    }

    /// Sends again what was not delivered.
    pub fn retry(&self, shutdown: &Shutdown) {
        let failed = {
            let mut failed = self
                .state
                .failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *failed)
        };
        for message in failed {
            let headers = message.headers().cloned().unwrap_or_default();
            let (key, payload) = (message.key(), message.payload());
            let (key, payload) = (key.unwrap_or_default(), payload.unwrap_or_default());
            self.enqueue(key, payload, headers, shutdown);
        }
    }

    /// Waits until all are delivered, or the end is overdue; returns how many
    /// are not.
    pub fn finish(&self, shutdown: &Shutdown) -> u64 {
        loop {
            let waiting = self.state.waiting.load(Ordering::Acquire);
            if waiting == 0 || shutdown.is_overdue(super::PATIENCE) {
                return waiting;
            }
            self.retry(shutdown);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl State {
    /// Says that deliveries fail, every half a minute.
    fn tell(&self, error: &KafkaError, topic: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at: Instant| at.elapsed() >= Duration::from_secs(30)) {
            *told = Some(Instant::now());
            let advice = client::advice(error, topic, "").unwrap_or_else(|| error.to_string());
            tracing::warn!("dead letters to {topic} are not delivered: {advice}; trying on");
        }
    }
}

/// Takes the answers.
struct Deliveries {
    common: Context,
    state: Arc<State>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.common.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.common.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (error, message) = match result {
            Ok(_) => {
                self.state.waiting.fetch_sub(1, Ordering::AcqRel);
                return;
            }
            Err((error, message)) => (error, message.detach()),
        };
        let too_large = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
        let message = if too_large {
            truncated(message)
        } else {
            message
        };
        self.state.tell(error, message.topic());
        self.state
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
    }
}

/// The beginning of a value that the topic does not take whole. All of it is
/// still in the donations topic, at the place that the headers name.
fn truncated(message: OwnedMessage) -> OwnedMessage {
    let payload = message.payload().unwrap_or_default();
    let bytes = payload.len().to_string();
    // Once is not enough if the topic takes less than that; then half each time.
    let kept = TRUNCATED_BYTES.min(payload.len() / 2);
    let headers = message.headers().cloned().unwrap_or_default();
    let known = headers.iter().any(|header| header.key == "truncated-from");
    let headers = if known {
        headers
    } else {
        headers.insert(Header {
            key: "truncated-from",
            value: Some(&bytes),
        })
    };
    OwnedMessage::new(
        Some(payload[..kept].to_vec()),
        message.key().map(<[u8]>::to_vec),
        message.topic().to_owned(),
        message.timestamp(),
        message.partition(),
        message.offset(),
        Some(headers),
    )
}
