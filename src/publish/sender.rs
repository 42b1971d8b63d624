//! Sending upserts, and waiting until the brokers have acknowledged all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use serde::Serialize;

use crate::config::KafkaConfig;
use crate::kafka::client::{self, Context, Health};
use crate::logging::Seldom;
use crate::shutdown::Shutdown;

/// A record that replaces those of the same key.
#[derive(Clone, Debug)]
pub struct Upsert {
    topic: String,
    partition: Option<i32>,
    key: String,
    value: Vec<u8>,
}

/// An upsert of `record` under `key`.
pub fn upsert(topic: &str, key: &str, record: &impl Serialize) -> Upsert {
    let value = serde_json::to_vec(record).expect("our records have string keys only");
    Upsert {
        topic: topic.to_owned(),
        partition: None,
        key: key.to_owned(),
        value,
    }
}

impl Upsert {
    /// The same, to this partition.
    pub fn to_partition(self, partition: i32) -> Upsert {
        Upsert {
            partition: Some(partition),
            ..self
        }
    }
}

/// Why not all was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// This process has been replaced.
    Evicted,
    /// The end of the process came first, or membership is not confirmed yet.
    Ended,
}

/// A producer whose callers wait for the acknowledgements.
pub struct Sender {
    settings: ClientConfig,
    health: Arc<Health>,
    producer: BaseProducer<Acknowledgements>,
    answers: Arc<Mutex<Answers>>,
    told: Seldom,
}

#[derive(Default)]
struct Answers {
    acknowledged: usize,
    /// Places of upserts that were not delivered.
    failed: Vec<usize>,
    error: Option<KafkaError>,
}

/// How long is waited between two looks for acknowledgements.
const LOOK: Duration = Duration::from_millis(1);

impl Sender {
    /// A producer of our topics.
    pub fn new(config: &KafkaConfig, health: &Arc<Health>) -> Result<Sender, KafkaError> {
        let settings = client::publisher(config);
        let (producer, answers) = producer(&settings, health)?;
        let health = health.clone();
        Ok(Sender {
            settings,
            health,
            producer,
            answers,
            told: Seldom::default(),
        })
    }

    /// Sends all of `upserts` and waits for every acknowledgement; what fails is
    /// sent again for as long as `may_send` agrees and the process lives.
    ///
    /// `may_send` is asked before every try. While it says [`Unsent::Ended`] it is
    /// asked again; anything else ends the sending.
    pub fn send(
        &mut self,
        upserts: &[Upsert],
        may_send: impl Fn() -> Result<(), Unsent>,
        shutdown: &Shutdown,
    ) -> Result<(), Unsent> {
        let mut left: Vec<usize> = (0..upserts.len()).collect();
        while !left.is_empty() {
            match may_send() {
                Ok(()) => {
                    left = self.try_once(upserts, &left);
                    self.replace_if_broken();
                }
                Err(Unsent::Evicted) => return Err(Unsent::Evicted),
                Err(Unsent::Ended) => std::thread::sleep(Duration::from_millis(20)),
            }
            if !left.is_empty() && shutdown.is_overdue(super::PATIENCE) {
                return Err(Unsent::Ended);
            }
        }
        Ok(())
    }

    /// An idempotent producer that has lost track of its sequence (its topic was
    /// deleted, say) sends nothing any more. All that it had is answered for by
    /// now, so another one goes on.
    fn replace_if_broken(&mut self) {
        let Some((code, reason)) = self.producer.client().fatal_error() else {
            return;
        };
        tracing::warn!("the producer of upserts gave up ({code}: {reason}); trying with another");
        match producer(&self.settings, &self.health) {
            Ok((producer, answers)) => (self.producer, self.answers) = (producer, answers),
            Err(error) => tracing::error!("no other producer: {error}"),
        }
        std::thread::sleep(Duration::from_secs(1));
    }

    /// Sends some of `upserts`; returns those that were not delivered.
    fn try_once(&mut self, upserts: &[Upsert], places: &[usize]) -> Vec<usize> {
        let mut unsent = Vec::new();
        for &place in places {
            if let Err(error) = self.enqueue(&upserts[place], place) {
                self.tell(&error, &upserts[place].topic);
                unsent.push(place);
            }
        }
        let expected = places.len() - unsent.len();
        loop {
            self.look();
            let answers = &mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.acknowledged + answers.failed.len() < expected {
                continue; // librdkafka answers for each in a while: see `client::publisher`.
            }
            let Answers { failed, error, .. } = std::mem::take(answers);
            if let (Some(error), Some(&place)) = (error, failed.first()) {
                let told = &mut self.told;
                tell(told, &error, &upserts[place].topic);
            }
            unsent.extend(failed);
            return unsent;
        }
    }

    fn enqueue(&self, upsert: &Upsert, place: usize) -> Result<(), KafkaError> {
        let mut record = BaseRecord::with_opaque_to(&upsert.topic, place)
            .key(&upsert.key)
            .payload(&upsert.value);
        record.partition = upsert.partition;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, returned)) => {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        return Err(error);
                    }
                    record = returned;
                    self.look();
                }
            }
        }
    }

    /// Takes in an answer; if there is none, waits for a moment. A `poll` that waits would
    /// not: rust-rdkafka asks librdkafka again until its time is over, by whole milliseconds
    /// of what is left, so that it asks without end in the last one, and takes a core.
    fn look(&self) {
        let answered = || {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.acknowledged + answers.failed.len()
        };
        let before = answered();
        self.producer.poll(Duration::ZERO);
        if answered() == before {
            std::thread::sleep(LOOK);
        }
    }

    fn tell(&mut self, error: &KafkaError, topic: &str) {
        tell(&mut self.told, error, topic);
    }
}

fn producer(
    settings: &ClientConfig,
    health: &Arc<Health>,
) -> Result<(BaseProducer<Acknowledgements>, Arc<Mutex<Answers>>), KafkaError> {
    let answers = Arc::new(Mutex::new(Answers::default()));
    let common = Context {
        health: health.clone(),
    };
    let context = Acknowledgements {
        common,
        answers: answers.clone(),
    };
    Ok((settings.create_with_context(context)?, answers))
}

/// Says that deliveries fail, every half a minute.
fn tell(told: &mut Seldom, error: &KafkaError, topic: &str) {
    if told.is_due() {
        let advice = client::advice(error, topic, "").unwrap_or_else(|| error.to_string());
        tracing::warn!("upserts to {topic} are not delivered: {advice}; trying on");
    }
}

/// Takes the answers.
struct Acknowledgements {
    common: Context,
    answers: Arc<Mutex<Answers>>,
}

impl ClientContext for Acknowledgements {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.common.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.common.error(error, reason);
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let answers = &mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => answers.acknowledged += 1,
            Err((error, _)) => {
                answers.failed.push(place);
                answers.error = Some(error.clone());
            }
        }
    }
}
