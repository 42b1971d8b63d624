//! The generator of a demo: a live stream at a steady rate, held back where more
//! would be on its way than the embedded broker keeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::in_flight::InFlight;
use crate::expected::Expected;
use crate::generate::{KafkaSink, KafkaSinkError, Pace, Record, Traffic};
use crate::shutdown::Shutdown;

/// How many records are made between two looks at clock, room and signals.
const CHUNK: u64 = 256;
/// More than a chunk of records can take: the longest has about 400 bytes.
const CHUNK_BYTES: usize = CHUNK as usize * 512;
/// How long the broker may take to acknowledge the last records.
const FLUSH_PATIENCE: Duration = Duration::from_secs(30);

/// What generator, readers and screen share.
pub(super) struct Shared {
    in_flight: Mutex<InFlight>,
    held_back_us: AtomicU64,
}

impl Shared {
    pub fn new(partitions: i32) -> Arc<Shared> {
        Arc::new(Shared {
            in_flight: Mutex::new(InFlight::new(partitions)),
            held_back_us: AtomicU64::new(0),
        })
    }

    pub fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the generator has waited for readers so far.
    pub fn held_back(&self) -> Duration {
        Duration::from_micros(self.held_back_us.load(Ordering::Relaxed))
    }
}

/// What the generator has done.
pub(super) struct Made {
    /// What its events add up to.
    pub expected: Expected,
    /// How long it took, to the last acknowledgement.
    pub took: Duration,
    /// How many events more had been due.
    pub overdue: u64,
}

/// Where a stream comes from and goes to.
pub(super) struct Source {
    pub traffic: Traffic,
    pub sink: KafkaSink,
    pub rate: u64,
    pub duration: Duration,
}

impl Source {
    /// Makes events until the stream ends, its time is over, or `stop` is wished;
    /// then waits until the broker has them all.
    pub fn run(mut self, shared: &Shared, stop: &Shutdown) -> Result<Made, KafkaSinkError> {
        let pace = Pace::new(self.rate, jiff::Timestamp::now().as_millisecond());
        let begin = Instant::now();
        let mut record = Record::new();
        'all: while begin.elapsed() < self.duration && !stop.has_begun() {
            self.sink.poll(Duration::ZERO)?;
            if !shared.in_flight().has_room_for(CHUNK_BYTES) {
                self.hold_back(shared)?;
                continue;
            }
            let made = self.traffic.made();
            for index in made..made + pace.due(made).min(CHUNK) {
                if !self.traffic.next_at(pace.due_at_ms(index), &mut record) {
                    break 'all;
                }
                let bytes = record.key().len() + record.payload().len();
                let partition = record.partition(self.sink.partitions());
                // Before it is sent, so that no cut can hold it unknown.
                shared
                    .in_flight()
                    .sent(partition, bytes, pace.due_at(index));
                while !self.sink.try_send(&record)? {
                    self.sink.poll(Duration::from_millis(5))?;
                }
            }
        }
        let elapsed = begin.elapsed().min(self.duration);
        self.sink.flush(Some(FLUSH_PATIENCE))?;
        let due = (elapsed.as_secs_f64() * self.rate as f64) as u64;
        Ok(Made {
            overdue: due.saturating_sub(self.traffic.made()),
            expected: self.traffic.expected(),
            took: begin.elapsed(),
        })
    }

    /// Waits a moment for readers.
    fn hold_back(&self, shared: &Shared) -> Result<(), KafkaSinkError> {
        let since = Instant::now();
        self.sink.poll(Duration::from_millis(2))?;
        // Polling comes back at once when there is something to take in.
        std::thread::sleep(Duration::from_millis(1));
        let waited_us = since.elapsed().as_micros() as u64;
        shared.held_back_us.fetch_add(waited_us, Ordering::Relaxed);
        Ok(())
    }
}
