//! The producer: paced, idempotent, and patient for ever; and the log that it
//! remembers.
//!
//! It is the only one, and it orders what it sends to a partition. So the record
//! at offset `o` of a partition is the `o`-th that was sent there, and every
//! acknowledgement must say the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tally99::generate::Pace;

use crate::traffic::{PARTITIONS, Traffic};

/// What was written where.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Places>>);

/// The log by partition.
#[derive(Default)]
pub struct Places {
    /// The number of the record at each offset, also of those under way.
    pub sent: [Vec<u32>; PARTITIONS],
    /// How many of them are acknowledged.
    pub acknowledged: [usize; PARTITIONS],
    /// What must not happen, and did.
    pub broken: Option<String>,
}

impl Log {
    pub fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().expect("the producer panicked")
    }

    /// The offsets up to which everything is sent; acknowledgements may be late.
    pub fn sent(&self) -> Vec<i64> {
        self.places()
            .sent
            .each_ref()
            .map(|it| it.len() as i64)
            .to_vec()
    }

    /// The offsets up to which everything is acknowledged.
    pub fn ends(&self) -> Vec<i64> {
        let acknowledged = self.places().acknowledged;
        acknowledged.iter().map(|&end| end as i64).collect()
    }
}

/// Writes in a thread of its own until it is stopped.
pub struct Producer {
    pub log: Log,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Producer {
    pub fn start(mut client: ClientConfig, topic: &str, traffic: Traffic) -> Producer {
        let log = Log::default();
        let stop = Arc::new(AtomicBool::new(false));
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // With more under way, librdkafka 2.12 may write some of them twice when a
            // leader dies: told that they are out of order, it sends them again as
            // another producer (confluentinc/librdkafka#4953).
            .set("max.in.flight.requests.per.connection", "1")
            .set("message.timeout.ms", "0")
            .set("compression.type", "lz4")
            .set("linger.ms", "5");
        let producer = client.create_with_context(Acknowledgements(log.clone()));
        let producer = producer.expect("valid settings");
        let (topic, its_log, told) = (topic.to_owned(), log.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            write(&producer, &topic, traffic, &its_log, &told);
        });
        Producer { log, stop, thread }
    }

    /// Ends it, and waits until all that was sent is acknowledged.
    pub fn finish(self) -> Log {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the producer panicked");
        self.log
    }
}

/// How long the last records may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(120);

fn write(
    producer: &BaseProducer<Acknowledgements>,
    topic: &str,
    traffic: Traffic,
    log: &Log,
    stop: &AtomicBool,
) {
    let pace = Pace::new(traffic.rate, traffic.start_ms);
    let mut number = 0;
    while !stop.load(Ordering::Acquire) && log.places().broken.is_none() {
        for _ in 0..pace.due(number) {
            send(producer, topic, traffic, number, log);
            number += 1;
        }
        // With no time at all it takes in one report, however many wait.
        producer.poll(Duration::from_millis(1));
    }
    let begun = Instant::now();
    while producer.in_flight_count() > 0 && begun.elapsed() < FLUSH {
        producer.poll(Duration::from_millis(100));
    }
    let left = producer.in_flight_count();
    if left > 0 {
        let broken = format!("{left} records are not acknowledged after {FLUSH:?}");
        log.places().broken.get_or_insert(broken);
    }
}

fn send(
    producer: &BaseProducer<Acknowledgements>,
    topic: &str,
    traffic: Traffic,
    number: u64,
    log: &Log,
) {
    let record = traffic.record(number);
    let (partition, timestamp) = (record.partition, record.timestamp);
    let payload = traffic.payload(record);
    let key = number.to_string();
    // Before it is sent: its acknowledgement is compared with this.
    log.places().sent[partition].push(number as u32);
    let mut record = BaseRecord::with_opaque_to(topic, number as usize)
        .partition(partition as i32)
        .timestamp(timestamp)
        .key(&key)
        .payload(&payload);
    while let Err((error, refused)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            let broken = format!("record {number} cannot be sent: {error}");
            log.places().broken.get_or_insert(broken);
            return;
        }
        producer.poll(Duration::from_millis(100));
        record = refused;
    }
}

/// Compares every acknowledgement with what was sent.
struct Acknowledgements(Log);

impl ClientContext for Acknowledgements {
    fn error(&self, _: KafkaError, _: &str) {
        // Brokers come and go here; what counts are the deliveries.
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut places = self.0.places();
        let wrong = match result {
            Ok(message) => {
                let partition = message.partition() as usize;
                let next = places.acknowledged[partition];
                let expected = (next as i64, places.sent[partition].get(next).copied());
                places.acknowledged[partition] += 1;
                let is = (message.offset(), Some(number as u32));
                (is != expected).then(|| format!("is at {is:?}, expected at {expected:?}"))
            }
            Err((error, _)) => Some(format!("is not written: {error}")),
        };
        if let Some(wrong) = wrong {
            let broken = format!("record {number} {wrong}");
            places.broken.get_or_insert(broken);
        }
    }
}
