//! Records that cannot be counted, kept with the reason.
//!
//! A dead letter's key is its place, `topic/partition/offset`, since a replay
//! sends it again and the topic is compacted. Its value is the original one;
//! the rest stands in headers: `topic`, `partition`, `offset`, `reason`,
//! `detail`, and `key` if the record had one. `null-value` says that the record
//! was a tombstone (a compacted topic would take an absent value as a deletion),
//! `truncated-from` and `key-truncated-from` how many bytes there were if the
//! topic takes fewer.
//!
//! None is lost: what the brokers do not take is kept and sent again, and when too
//! much is kept, the reader waits. If the process dies, a replay sends it again: no
//! checkpoint is written before all letters of the records in it are acknowledged
//! ([`DeadLetters::mark`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage, Timestamp};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};

use crate::config::KafkaConfig;
use crate::event::Rejected;
use crate::kafka::client::{self, Context, Health};
use crate::logging::Seldom;
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

/// Which one it is: the partition of its record, and how many were sent before it.
type Number = (Partition, u64);

#[derive(Default)]
struct State {
    /// How many were ever sent.
    sent: AtomicU64,
    /// Sent and not yet acknowledged.
    waiting: Mutex<BTreeSet<Number>>,
    failed: Mutex<Vec<(Number, OwnedMessage)>>,
    told: Mutex<Seldom>,
}

/// What is kept of a value that the topic does not take whole, at most.
const TRUNCATED_BYTES: usize = 64 * 1024;
/// The same of the record's key.
const TRUNCATED_KEY_BYTES: usize = 1024;
/// How many that were not delivered may wait; then no more are taken.
const FAILED_MAX: usize = 1_000;
/// A batch holds one record, or as many as fit this size: a topic refuses a batch
/// as a whole, and small records are not to share the fate of a large one.
const BATCH_BYTES: usize = 16 * 1024;
/// How long one waits for others. Each batch is a request, which costs a broker as much as
/// thousands of events that it hands out: while much is read, a few dead letters in a
/// thousand would take more of it than all else.
const LINGER_MS: &str = "500";
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
            // One that comes twice replaces itself, and an idempotent producer
            // gives up for good when its topic is deleted.
            .set("enable.idempotence", "false")
            .set("message.max.bytes", MAX_BYTES)
            .set("batch.size", BATCH_BYTES.to_string())
            .set("linger.ms", LINGER_MS)
            // Without a limit each of them is a request of its own, and those that a
            // checkpoint waits for stand in line behind thousands.
            .set("max.in.flight.requests.per.connection", "5")
            .create_with_context(context)?;
        Ok(DeadLetters {
            topic: topic.into(),
            producer,
            state,
        })
    }

    /// Sends one; waits while the queue is full or too many are not delivered,
    /// which slows the reader down.
    pub fn send(&self, letter: &DeadLetter<'_>, shutdown: &Shutdown) {
        while self.state.failed().len() >= FAILED_MAX && !shutdown.has_begun() {
            std::thread::sleep(Duration::from_millis(100));
            self.retry(shutdown);
        }
        let DeadLetter {
            topic,
            partition,
            offset,
            ..
        } = letter;
        let key = format!("{topic}/{partition}/{offset}");
        let number = (*partition, self.state.sent.fetch_add(1, Ordering::AcqRel));
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
        self.state.waiting().insert(number);
        self.enqueue(
            number,
            key.as_bytes(),
            letter.payload.unwrap_or_default(),
            headers,
            shutdown,
        );
    }

    fn enqueue(
        &self,
        number: Number,
        key: &[u8],
        payload: &[u8],
        headers: OwnedHeaders,
        shutdown: &Shutdown,
    ) {
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(number))
            .key(key)
            .payload(payload)
            .headers(headers);
        let mut unsent = record;
        while let Err((error, record)) = self.producer.send(unsent) {
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if !shutdown.has_begun() => {
                    std::thread::sleep(Duration::from_millis(5));
                    unsent = record;
                }
                _ => {
                    self.state.tell(&error, &self.topic);
                    let message = OwnedMessage::new(
                        record.payload.map(<[u8]>::to_vec),
                        record.key.map(<[u8]>::to_vec),
                        self.topic.to_string(),
                        Timestamp::NotAvailable,
                        -1,
                        -1,
                        record.headers,
                    );
                    self.state.failed().push((number, message));
                    return;
                }
            }
        }
    }

    /// Sends again what was not delivered.
    pub fn retry(&self, shutdown: &Shutdown) {
        let failed = std::mem::take(&mut *self.state.failed());
        for (number, message) in failed {
            let headers = message.headers().cloned().unwrap_or_default();
            let (key, payload) = (message.key(), message.payload());
            let (key, payload) = (key.unwrap_or_default(), payload.unwrap_or_default());
            self.enqueue(number, key, payload, headers, shutdown);
        }
    }

    /// The number of the next one: all that were sent so far have lower ones.
    pub fn mark(&self) -> u64 {
        self.state.sent.load(Ordering::Acquire)
    }

    /// Whether all of a partition below a [`mark`](DeadLetters::mark) are delivered.
    pub fn are_delivered(&self, partition: Partition, below: u64) -> bool {
        let waiting = self.state.waiting();
        let mut before = waiting.range((partition, 0)..(partition, below));
        before.next().is_none()
    }

    /// Waits until all are delivered, or the end is overdue; returns how many
    /// are not.
    pub fn finish(&self, shutdown: &Shutdown) -> u64 {
        loop {
            let waiting = self.state.waiting().len() as u64;
            if waiting == 0 || shutdown.is_overdue(super::PATIENCE) {
                return waiting;
            }
            self.retry(shutdown);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl State {
    fn waiting(&self) -> MutexGuard<'_, BTreeSet<Number>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Vec<(Number, OwnedMessage)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that deliveries fail, every half a minute.
    fn tell(&self, error: &KafkaError, topic: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_due() {
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
    type DeliveryOpaque = Box<Number>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<Number>) {
        let (error, message) = match result {
            Ok(_) => {
                self.state.waiting().remove(&*number);
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
        self.state.failed().push((*number, message));
    }
}

/// The beginning of a value that the topic does not take whole, and of its key.
/// All of both is still in the donations topic, at the place that the headers name.
fn truncated(message: OwnedMessage) -> OwnedMessage {
    // Once is not enough if the topic takes even less; then half each time.
    let kept = |bytes: &[u8], most: usize| bytes[..most.min(bytes.len() / 2)].to_vec();
    let payload = message.payload().unwrap_or_default();
    let mut sizes = vec![("truncated-from", payload.len())];
    let mut headers = OwnedHeaders::new();
    let old = message.headers().map(|headers| headers.iter());
    for header in old.into_iter().flatten() {
        let key = header.value.filter(|_| header.key == "key");
        let short = key.map(|key| {
            sizes.push(("key-truncated-from", key.len()));
            kept(key, TRUNCATED_KEY_BYTES)
        });
        headers = headers.insert(Header {
            key: header.key,
            value: short.as_deref().or(header.value),
        });
    }
    for (name, bytes) in sizes {
        let is_known = headers.iter().any(|header| header.key == name);
        if !is_known {
            headers = headers.insert(Header {
                key: name,
                value: Some(&bytes.to_string()),
            });
        }
    }
    OwnedMessage::new(
        Some(kept(payload, TRUNCATED_BYTES)),
        message.key().map(<[u8]>::to_vec),
        message.topic().to_owned(),
        message.timestamp(),
        message.partition(),
        message.offset(),
        Some(headers),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_gets_smaller_until_it_fits() {
        let value = |message: &OwnedMessage, name: &str| {
            let headers = message.headers().expect("headers");
            let header = headers.iter().find(|header| header.key == name);
            header.map(|header| header.value.expect("a value").to_vec())
        };
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: "offset",
                value: Some("17"),
            })
            .insert(Header {
                key: "key",
                value: Some(&[b'k'; 900_000]),
            });
        let mut message = OwnedMessage::new(
            Some(vec![b'v'; 1_000_000]),
            Some(b"donations/0/17".to_vec()),
            "letters".into(),
            Timestamp::NotAvailable,
            -1,
            -1,
            Some(headers),
        );
        let mut bytes = Vec::new();
        for _ in 0..30 {
            message = truncated(message);
            let key = value(&message, "key").expect("it had a key");
            bytes.push(message.payload().map_or(0, <[u8]>::len) + key.len());
        }
        assert_eq!(bytes[0], TRUNCATED_BYTES + TRUNCATED_KEY_BYTES);
        assert_eq!(bytes.last(), Some(&0));
        assert_eq!(message.key(), Some(&b"donations/0/17"[..]));
        for (name, text) in [
            ("offset", "17"),
            ("truncated-from", "1000000"),
            ("key-truncated-from", "900000"),
        ] {
            assert_eq!(value(&message, name), Some(text.into()), "{name}");
        }
    }
}
