//! Events between the generator and the first complete cut that holds them: how
//! long each is on its way, and how many bytes of them the broker must hold.
//!
//! The demo is the only writer of its topic, and its producer writes each
//! partition once and in order, so an event's offset is how many came before it
//! in its partition: nobody has to be asked. Every event is measured, none is
//! sampled, from when it was due and not from when it was sent: where the
//! generator itself must wait, that counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::offset::{Offset, Partition};

/// How many bytes of a partition may be on their way. The embedded broker forgets
/// what lies more than 5 MiB back; a quarter of that is for batch headers.
pub(super) const BACKLOG_MAX_BYTES: usize = 15 << 18;

/// What a record takes beside its key and value; it may be a batch of its own.
const RECORD_BYTES: usize = 32;

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// How long "recently" is, at least; twice that at most.
const RECENT: Duration = Duration::from_secs(5);

/// The events on their way, and how long those took that have arrived.
pub(super) struct InFlight {
    partitions: Vec<Lane>,
    all: Histogram<u64>,
    recent: [Histogram<u64>; 2],
    turned_at: Option<Instant>,
}

#[derive(Default)]
struct Lane {
    /// The offset of the next event that is sent.
    next: i64,
    /// When each was due, and its bytes; the last one has offset `next - 1`.
    waiting: VecDeque<(Instant, usize)>,
    bytes: usize,
}

/// How long events took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Latency {
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub max_ms: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        (!histogram.is_empty()).then(|| Latency {
            p50_ms: histogram.value_at_quantile(0.5),
            p99_ms: histogram.value_at_quantile(0.99),
            max_ms: histogram.max(),
        })
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_MS, 3).expect("bounds that hdrhistogram takes")
}

impl InFlight {
    pub fn new(partitions: i32) -> InFlight {
        InFlight {
            partitions: (0..partitions).map(|_| Lane::default()).collect(),
            all: histogram(),
            recent: [histogram(), histogram()],
            turned_at: None,
        }
    }

    /// An event of so many bytes is about to be sent, the next of its partition.
    pub fn sent(&mut self, partition: Partition, bytes: usize, due: Instant) {
        let lane = &mut self.partitions[partition as usize];
        let bytes = bytes + RECORD_BYTES;
        lane.next += 1;
        lane.bytes += bytes;
        lane.waiting.push_back((due, bytes));
    }

    /// A cut was complete `at`: all before its offsets have arrived.
    pub fn arrived(&mut self, offsets: &BTreeMap<Partition, Offset>, at: Instant) {
        let turned_at = *self.turned_at.get_or_insert(at);
        if at.saturating_duration_since(turned_at) >= RECENT {
            self.turned_at = Some(at);
            self.recent.swap(0, 1);
            self.recent[0].reset();
        }
        for (&partition, offset) in offsets {
            let Some(lane) = self.partitions.get_mut(partition as usize) else {
                continue;
            };
            while lane.next - (lane.waiting.len() as i64) < offset.0
                && let Some((due, bytes)) = lane.waiting.pop_front()
            {
                lane.bytes -= bytes;
                let took = at.saturating_duration_since(due).as_millis() as u64;
                self.all.saturating_record(took);
                self.recent[0].saturating_record(took);
            }
        }
    }

    /// Whether every partition can take so many bytes more.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let fullest = self.partitions.iter().map(|lane| lane.bytes).max();
        fullest.unwrap_or(0) + bytes <= BACKLOG_MAX_BYTES
    }

    /// How many events are on their way.
    pub fn count(&self) -> u64 {
        self.partitions
            .iter()
            .map(|lane| lane.waiting.len() as u64)
            .sum()
    }

    /// How long all that have arrived took.
    pub fn latency(&self) -> Option<Latency> {
        Latency::of(&self.all)
    }

    /// How long those took that arrived in the last seconds.
    pub fn recent_latency(&self) -> Option<Latency> {
        let mut both = self.recent[0].clone();
        both.add(&self.recent[1]).ok()?;
        Latency::of(&both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(offsets: &[i64]) -> BTreeMap<Partition, Offset> {
        (0..).zip(offsets.iter().map(|&o| Offset(o))).collect()
    }

    #[test]
    fn latency_is_from_due_to_the_first_cut_that_holds_the_event() {
        let mut in_flight = InFlight::new(2);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(in_flight.latency(), None);
        in_flight.sent(0, 200, at(0));
        in_flight.sent(1, 200, at(10));
        in_flight.sent(0, 200, at(20));
        in_flight.arrived(&offsets(&[0, 0]), at(50));
        assert_eq!(in_flight.count(), 3);
        in_flight.arrived(&offsets(&[1, 0]), at(100));
        assert_eq!(in_flight.count(), 2);
        // The same cut again changes nothing, nor does an older one.
        in_flight.arrived(&offsets(&[1, 0]), at(200));
        in_flight.arrived(&offsets(&[0, 0]), at(300));
        let all = |ms| Latency {
            p50_ms: ms,
            p99_ms: ms,
            max_ms: ms,
        };
        assert_eq!(in_flight.latency(), Some(all(100)));
        in_flight.arrived(&offsets(&[2, 1]), at(420));
        assert_eq!(in_flight.count(), 0);
        let latency = in_flight.latency().unwrap();
        assert_eq!((latency.p50_ms, latency.max_ms), (400, 410));
    }

    #[test]
    fn recent_latency_forgets_and_the_whole_one_does_not() {
        let mut in_flight = InFlight::new(1);
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        in_flight.sent(0, 1, at(0));
        in_flight.arrived(&offsets(&[1]), at(3));
        for s in 4..20 {
            in_flight.sent(0, 1, at(s));
            in_flight.arrived(&offsets(&[s as i64 - 2]), at(s + 1));
        }
        assert_eq!(in_flight.recent_latency().unwrap().max_ms / 10, 100);
        assert_eq!(in_flight.latency().unwrap().max_ms / 10, 300);
    }

    #[test]
    fn the_fullest_partition_decides_whether_there_is_room() {
        let mut in_flight = InFlight::new(2);
        let start = Instant::now();
        let mut sent = 0;
        while in_flight.has_room_for(1_000) {
            in_flight.sent(1, 1_000 - RECORD_BYTES, start);
            sent += 1;
        }
        assert_eq!(sent, BACKLOG_MAX_BYTES as i64 / 1_000);
        in_flight.arrived(&offsets(&[0, 1]), start);
        assert!(in_flight.has_room_for(1_000));
        assert!(!in_flight.has_room_for(2_000));
        in_flight.arrived(&offsets(&[0, sent]), start);
        assert!(in_flight.has_room_for(BACKLOG_MAX_BYTES));
    }
}
