//! The observer: reads `cuts` and `campaign-totals` all along, every record, in
//! order, and recomputes a sample of the cuts from the oracle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::producer::Log;
use crate::reader::Reader;
use crate::totals::{Cut, CutName, Upsert};
use crate::truth::Truth;

pub const CUTS: &str = "cuts";
pub const TOTALS: &str = "campaign-totals";

/// One of so many cuts is recomputed, and the first one of each publisher.
const SAMPLE: u64 = 5;
/// How long the brokers may take to say where the totals end.
const ANSWER: Duration = Duration::from_secs(5);
/// How long one look for records takes.
const LOOK: Duration = Duration::from_millis(20);

/// What the observer has seen, shared with whoever breaks things.
#[derive(Default)]
pub struct Seen {
    pub reader: Reader,
    /// What the newest complete cut says.
    pub newest: Cut,
    /// What is read up to, of the totals by partition, and of the cuts.
    pub totals_read: Vec<i64>,
    pub cuts_read: i64,
    /// How many cuts were recomputed and equal, and how many upserts of them.
    pub checked: (u64, u64),
    /// What must not be, and is.
    pub broken: Option<String>,
}

/// Observes in a thread of its own until it is stopped.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Truth>,
}

impl Observer {
    /// Both topics must be there.
    pub fn start(client: &ClientConfig, truth: Truth, log: Log, partitions: usize) -> Observer {
        let mut client = client.clone();
        client
            .set("group.id", "none: it commits nothing and joins no group")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = client.create().expect("valid settings");
        let mut list = TopicPartitionList::new();
        let totals = (0..partitions as i32).map(|partition| (TOTALS, partition));
        for (topic, partition) in totals.chain([(CUTS, 0)]) {
            let start = Offset::Offset(0);
            let added = list.add_partition_offset(topic, partition, start);
            added.expect("a valid offset");
        }
        consumer.assign(&list).expect("valid partitions");
        let seen = Arc::new(Mutex::new(Seen {
            totals_read: vec![0; partitions],
            ..Seen::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            consumer,
            seen: seen.clone(),
            truth,
            log,
            publisher: String::new(),
            upserts: BTreeMap::new(),
            waiting: Vec::new(),
        };
        let told = stop.clone();
        let thread = std::thread::spawn(move || watch.run(&told));
        Observer { seen, stop, thread }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("the observer panicked")
    }

    /// Ends it; hands out what it saw, and the oracle.
    pub fn finish(self) -> (Seen, Truth) {
        self.stop.store(true, Ordering::Release);
        let truth = self.thread.join().expect("the observer panicked");
        let seen = std::mem::take(&mut *self.seen.lock().expect("nobody panicked"));
        (seen, truth)
    }
}

struct Watch {
    consumer: BaseConsumer,
    seen: Arc<Mutex<Seen>>,
    truth: Truth,
    log: Log,
    /// Who wrote the last complete cut.
    publisher: String,
    /// The upserts by cut, since the last one that was recomputed.
    upserts: BTreeMap<u64, Vec<Upsert>>,
    /// Complete cuts of the sample that wait to be recomputed.
    waiting: Vec<Waiting>,
}

struct Waiting {
    name: CutName,
    cut: Cut,
    /// Where the totals ended when it was known to be complete: all of its upserts
    /// are before that.
    ends: Option<Vec<i64>>,
}

type Checked = Result<(), String>;

impl Watch {
    fn run(mut self, stop: &AtomicBool) -> Truth {
        while !stop.load(Ordering::Acquire) {
            let taken = match self.consumer.poll(LOOK) {
                Some(Ok(message)) => {
                    // The borrow of the message ends here; its bytes are few.
                    let record = Record::of(&message);
                    drop(message);
                    self.take(&record)
                }
                Some(Err(error)) if is_loss(&error) => Err(format!("records are lost: {error}")),
                Some(Err(_)) | None => Ok(()), // Brokers come and go.
            };
            if let Err(broken) = taken.and_then(|()| self.check()) {
                let mut seen = self.seen.lock().expect("nobody panicked");
                seen.broken.get_or_insert(broken);
                break;
            }
        }
        self.truth
    }

    fn take(&mut self, record: &Record) -> Checked {
        let mut seen = self.seen.lock().expect("nobody panicked");
        if !record.is_cut {
            let upsert: Upsert = record.parse()?;
            seen.reader.take_upsert(&upsert)?;
            seen.totals_read[record.partition as usize] = record.offset + 1;
            self.upserts.entry(upsert.cut).or_default().push(upsert);
            return Ok(());
        }
        let name: CutName = record.parse()?;
        let complete = seen.reader.complete.len();
        seen.reader.take_cut(&name)?;
        seen.cuts_read = record.offset + 1;
        if name.state == "complete" {
            let cut: Cut = record.parse()?;
            if seen.reader.complete.len() > complete {
                seen.newest = cut.clone();
            }
            let is_first = self.publisher != name.publisher;
            self.publisher.clone_from(&name.publisher);
            if is_first || name.cut.is_multiple_of(SAMPLE) {
                let ends = None;
                self.waiting.push(Waiting { name, cut, ends });
            }
        }
        Ok(())
    }

    /// Recomputes the first cut that waits, once all of it can be known.
    fn check(&mut self) -> Checked {
        let Some(waiting) = self.waiting.first_mut() else {
            return Ok(());
        };
        let read = self
            .seen
            .lock()
            .expect("nobody panicked")
            .totals_read
            .clone();
        if waiting.ends.is_none() {
            let end = |partition| {
                let marks = self.consumer.fetch_watermarks(TOTALS, partition, ANSWER);
                Some(marks.ok()?.1)
            };
            // No answer is an answer later.
            waiting.ends = (0..read.len() as i32).map(end).collect();
        }
        let Some(ends) = &waiting.ends else {
            return Ok(());
        };
        let is_read = read.iter().zip(ends).all(|(read, end)| read >= end);
        // What is counted was in the log, but its acknowledgement may be on the way.
        let acknowledged = self.log.ends();
        let is_known = (waiting.name.offsets.iter().zip(&acknowledged)).all(|(to, end)| to <= end);
        if !is_read || !is_known {
            return Ok(());
        }
        let Waiting { name, cut, .. } = self.waiting.remove(0);
        self.recompute(&name, &cut)
    }

    fn recompute(&mut self, name: &CutName, cut: &Cut) -> Checked {
        self.truth.count_to(&name.offsets);
        compare(&format!("cut {}", name.cut), cut, &self.truth.cut())?;
        let number = name.cut;
        let upserts = self.upserts.remove(&number).unwrap_or_default();
        self.upserts = self.upserts.split_off(&number);
        let mut seen = self.seen.lock().expect("nobody panicked");
        let truth: BTreeMap<_, _> = self.truth.totals().collect();
        for upsert in &upserts {
            let expected = truth.get(&upsert.campaign).copied().cloned();
            let what = format!("{} in cut {number}", upsert.campaign);
            compare(&what, &Some(upsert.total()), &expected)?;
        }
        // A reader that follows the versions has all of it, or newer.
        for (campaign, expected) in truth {
            let held = seen.reader.highest.get(&campaign);
            let version = held.map_or(0, |(_, total)| total.version);
            if version < expected.version {
                return Err(format!(
                    "cut {number} is complete, but {campaign} stands at {version}, not at {}",
                    expected.version
                ));
            }
        }
        seen.checked.0 += 1;
        seen.checked.1 += upserts.len() as u64;
        Ok(())
    }
}

/// The observer's own copy of a record.
struct Record {
    is_cut: bool,
    partition: i32,
    offset: i64,
    value: Vec<u8>,
}

impl Record {
    fn of(message: &BorrowedMessage<'_>) -> Record {
        Record {
            is_cut: message.topic() == CUTS,
            partition: message.partition(),
            offset: message.offset(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.value).map_err(|error| {
            let text = String::from_utf8_lossy(&self.value);
            format!("{error} in {text}")
        })
    }
}

/// Whether the consumer cannot go on where it was.
fn is_loss(error: &rdkafka::error::KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::BadMessage)
    )
}

/// Two of a kind that must be equal.
pub fn compare<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, expected: &T) -> Checked {
    if is == expected {
        return Ok(());
    }
    Err(format!("{what} is\n  {is:?}\nexpected\n  {expected:?}"))
}
