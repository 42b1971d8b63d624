//! librdkafka alone: the client, the threads and the partitions of a run, and nothing done
//! with what comes but counting it. The bytes themselves are not touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;

use super::{Teller, now_ns};
use crate::aggregate::{BATCH, worker_of};
use crate::bench::message::{Log, Measured, Message, RawMode};
use crate::config::Config;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::reader::{Reader, positions};
use crate::kafka::topics::ANSWER_WITHIN;
use crate::native::batch::{NoRecord, Queue};
use crate::offset::{Offset, Partition};
use crate::shutdown::Shutdown;

/// What its threads are called, with their numbers.
pub(in crate::bench) const READER: &str = "raw";
/// How long a poll waits for a record.
const IDLE: Duration = Duration::from_millis(20);
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What the threads share.
#[derive(Default)]
struct Shared {
    read: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicBool,
}

/// What a thread tells.
enum Told {
    Ready,
    Done,
}

/// One thread's side: all begin together, and are looked at together before they end.
struct Together {
    tell: Sender<Told>,
    /// Opened once all are ready, and closed once they have been looked at, or if not all
    /// could be started.
    gate: Receiver<()>,
}

impl Drop for Together {
    /// However it ends.
    fn drop(&mut self) {
        let _ = self.tell.send(Told::Done);
        let _ = self.gate.recv();
    }
}

/// Reads all of it.
pub(super) fn read(
    config: &Config,
    mode: RawMode,
    log: &Log,
    stop: &Shutdown,
    teller: &Teller,
) -> Result<Measured, String> {
    let workers = config.run.workers;
    let shared = &Shared::default();
    std::thread::scope(|scope| {
        let (tell, told) = channel();
        let (mut gates, mut threads) = (Vec::new(), Vec::new());
        for worker in 0..workers {
            let its = log.iter().map(|(&partition, &ends)| (partition, ends));
            let its: Log = its
                .filter(|(partition, _)| worker_of(*partition, workers) == worker)
                .collect();
            let (open, gate) = channel();
            let tell = tell.clone();
            let together = Together { tell, gate };
            let read = move || read_some(config, mode, its, shared, together, stop);
            let thread = std::thread::Builder::new().name(format!("{READER}-{worker}"));
            let thread = thread.spawn_scoped(scope, read);
            threads.push(thread.map_err(|error| error.to_string())?);
            gates.push(open);
        }
        let (mut ready, mut done) = (0, 0);
        while ready + done < workers {
            match told.recv() {
                Ok(Told::Ready) => ready += 1,
                Ok(Told::Done) | Err(_) => done += 1,
            }
        }
        gates.iter().for_each(|gate| {
            let _ = gate.send(()); // Or it has ended already.
        });
        let began_ns = now_ns();
        let mut told_at = Instant::now();
        while done < workers {
            match told.recv_timeout(TELL_EVERY) {
                Ok(Told::Ready) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Told::Done) | Err(RecvTimeoutError::Disconnected) => done += 1,
            }
            if told_at.elapsed() >= TELL_EVERY {
                told_at = Instant::now();
                teller.tell(&Message::Read(shared.read.load(Ordering::Relaxed)));
            }
        }
        teller.look(); // While they are still there.
        drop(gates);
        let ended: Result<Vec<u64>, String> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a reader ended; this is a bug".into()))
            })
            .collect();
        let ended_ns = ended?.into_iter().max().unwrap_or(began_ns);
        let [read, bytes] = [&shared.read, &shared.bytes].map(|it| it.load(Ordering::Relaxed));
        Ok(teller.measured(began_ns, ended_ns, read, Some(bytes)))
    })
}

/// Reads some partitions to their ends; when the last record came.
fn read_some(
    config: &Config,
    mode: RawMode,
    log: Log,
    shared: &Shared,
    together: Together,
    stop: &Shutdown,
) -> Result<u64, String> {
    let ready = Progress::new(config, log);
    let _ = together.tell.send(Told::Ready); // Whatever went wrong: the others wait for it.
    if together.gate.recv().is_err() {
        return Err("another reader could not be started".into());
    }
    let mut lost = Instant::now();
    let result = ready.and_then(|mut it| {
        it.begin()?;
        let consumer = it.reader.consumer().clone();
        let queue = Queue::of(&consumer);
        while it.left > 0 && !stop.has_begun() && !shared.failed.load(Ordering::Relaxed) {
            let before = it.read;
            match mode {
                RawMode::Poll => it.polls(&consumer)?,
                RawMode::Batch => it.batch(&consumer, &queue)?,
            }
            if it.read > before {
                lost = Instant::now();
                shared.read.fetch_add(it.read - before, Ordering::Relaxed);
            } else if lost.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(format!(
                    "topic {} has brought nothing for {seconds} s: see to the brokers",
                    it.topic
                ));
            }
        }
        shared.bytes.fetch_add(it.bytes, Ordering::Relaxed);
        Ok(it.last_ns)
    });
    if result.is_err() {
        shared.failed.store(true, Ordering::Relaxed);
    }
    result
}

/// How far one thread is.
struct Progress {
    topic: String,
    group: String,
    reader: Reader,
    health: Arc<Health>,
    /// From where its partitions are read.
    begin: Vec<(Partition, Offset)>,
    /// Where they end; `None` of those that are read, or others'.
    ends: Vec<Option<Offset>>,
    /// How many are not read to their ends.
    left: usize,
    read: u64,
    bytes: u64,
    last_ns: u64,
}

impl Progress {
    fn new(config: &Config, log: Log) -> Result<Progress, String> {
        let (topic, group) = (config.topics.donations.clone(), config.kafka.group.clone());
        let health = Arc::new(Health::default());
        let reader = Reader::new(&client::reader(&config.kafka), &topic, health.clone());
        let reader = reader.map_err(|error| error.to_string())?;
        // As a worker does: without it, the first fetch waits for librdkafka's own look.
        let _ = reader
            .consumer()
            .fetch_metadata(Some(&topic), ANSWER_WITHIN);
        let partitions = log.keys().next_back().map_or(0, |last| *last as usize + 1);
        let mut ends = vec![None; partitions];
        let full = log.into_iter().filter(|(_, (low, end))| low < end);
        let begin: Vec<_> = full
            .map(|(partition, (low, end))| {
                ends[partition as usize] = Some(end);
                (partition, low)
            })
            .collect();
        Ok(Progress {
            topic,
            group,
            reader,
            health,
            left: begin.len(),
            begin,
            ends,
            read: 0,
            bytes: 0,
            last_ns: 0,
        })
    }

    fn begin(&mut self) -> Result<(), String> {
        let begin = std::mem::take(&mut self.begin);
        let pointed = self.reader.read_from(begin);
        pointed.map_err(|error| error.to_string())
    }

    /// One by one, until none is there.
    fn polls(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), String> {
        for _ in 0..BATCH {
            if self.left == 0 || !self.poll(consumer)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there was something.
    fn poll(&mut self, consumer: &BaseConsumer<Context>) -> Result<bool, String> {
        match consumer.poll(IDLE) {
            None => return Ok(false),
            Some(Ok(message)) => {
                let bytes = message.key_len() + message.payload_len();
                self.take(message.partition(), message.offset(), bytes);
            }
            Some(Err(error)) => self.meet(error)?,
        }
        Ok(true)
    }

    /// Those that are there, at once.
    fn batch(
        &mut self,
        consumer: &BaseConsumer<Context>,
        queue: &Queue<Context>,
    ) -> Result<(), String> {
        let batch = queue.take(BATCH);
        for place in 0..batch.len() {
            match batch.get(place) {
                Ok(taken) => {
                    let value = taken.record.payload.map_or(0, <[u8]>::len);
                    let bytes = taken.key.map_or(0, <[u8]>::len) + value;
                    self.take(taken.partition, taken.record.offset, bytes);
                }
                Err(NoRecord::End { partition, at }) => self.reaches(partition, at),
                Err(NoRecord::Error(error)) => self.meet(error)?,
            }
        }
        if batch.is_empty() {
            self.poll(consumer)?;
        }
        Ok(())
    }

    #[inline]
    fn take(&mut self, partition: Partition, offset: i64, bytes: usize) {
        // What is behind the end is not of this measurement.
        if let Some(end) = self.ends[partition as usize]
            && offset < end.0
        {
            self.read += 1;
            self.bytes += bytes as u64;
            self.reaches(partition, Offset::after(offset));
        }
    }

    #[inline]
    fn reaches(&mut self, partition: Partition, at: Offset) {
        let place = &mut self.ends[partition as usize];
        if place.is_some_and(|end| at >= end) {
            *place = None;
            self.left -= 1;
            self.last_ns = now_ns();
        }
    }

    /// The end of a partition may be behind no record; what passes is waited for.
    fn meet(&mut self, error: KafkaError) -> Result<(), String> {
        if let KafkaError::PartitionEOF(partition) = error {
            let positions = positions(self.reader.consumer()).map_err(|error| error.to_string())?;
            let at = positions.get(&partition).copied().unwrap_or_default();
            self.reaches(partition, at);
            return Ok(());
        }
        if self.health.note(&error) {
            return Ok(());
        }
        let advice = client::advice(&error, &self.topic, &self.group);
        Err(advice.unwrap_or_else(|| format!("topic {} cannot be read: {error}", self.topic)))
    }
}
