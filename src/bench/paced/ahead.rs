//! Events made before they are due, in a thread of their own, so that the sender has nothing
//! to do but send.
//!
//! The schedule is known beforehand, so all of an event is, too: of a live stream, its `at` is
//! the moment at which it will be due. What is made waits in memory, up to a bound; for most runs
//! that is all of it before the first one is sent.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::bench::cpu::kilobytes;
use crate::expected::Expected;
use crate::generate::{Record, Settings, SettingsError, Traffic};
use crate::offset::Partition;

/// How many events a block has.
const BLOCK: usize = 4_096;
/// What a block takes in memory, about.
const BLOCK_BYTES: u64 = BLOCK as u64 * 230;
/// What all blocks that wait may take at most.
const AHEAD_MAX_BYTES: u64 = 6 << 30;
/// The same where nobody says how much memory is free.
const AHEAD_BYTES: u64 = 1 << 30;
/// How many events are made to find out how long one takes.
const TRIED: u64 = 50_000;

/// When events are due.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) enum Schedule {
    /// So many a second, and they happen when they are due.
    Steady { rate: u64 },
    /// As in the simulated day, so many times faster; they happen when they did.
    Day { faster: u32 },
}

/// Events of one after the other, ready to be sent.
pub(in crate::bench) struct Block {
    /// Key and value of each, one behind the other.
    bytes: Vec<u8>,
    /// Where key and value of each end in it.
    ends: Vec<(u32, u32)>,
    pub plan: Arc<Plan>,
}

/// Where and when the events of a block are sent.
#[derive(Default)]
pub(in crate::bench) struct Plan {
    pub partitions: Vec<Partition>,
    /// Nanoseconds after the start.
    pub due_ns: Vec<u64>,
}

impl Block {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Key and value of an event.
    pub fn event(&self, place: usize) -> (&[u8], &[u8]) {
        let start = match place {
            0 => 0,
            _ => self.ends[place - 1].1 as usize,
        };
        let (key, value) = self.ends[place];
        (
            &self.bytes[start..key as usize],
            &self.bytes[key as usize..value as usize],
        )
    }
}

/// Makes a stream, block by block.
pub(in crate::bench) struct Ahead {
    traffic: Traffic,
    schedule: Schedule,
    partitions: i32,
    /// The wall clock at the start, in milliseconds.
    start_ms: i64,
    /// Where the simulated day starts.
    day_ms: i64,
}

impl Ahead {
    /// The stream of these settings; it starts at `start_ms`.
    pub fn new(
        settings: &Settings,
        schedule: Schedule,
        partitions: i32,
        start_ms: i64,
    ) -> Result<Ahead, SettingsError> {
        Ok(Ahead {
            traffic: Traffic::new(settings)?,
            schedule,
            partitions,
            start_ms,
            day_ms: settings.start,
        })
    }

    /// Makes all of it, waiting where `blocks` is full. What it adds up to; less, if nobody
    /// takes the blocks any more.
    pub fn make(mut self, blocks: &SyncSender<Block>) -> Expected {
        while let Some(block) = self.block() {
            if blocks.send(block).is_err() {
                break;
            }
        }
        self.traffic.expected()
    }

    fn block(&mut self) -> Option<Block> {
        let (mut bytes, mut ends) = (Vec::with_capacity(BLOCK_BYTES as usize), Vec::new());
        let mut plan = Plan::default();
        let mut record = Record::new();
        while ends.len() < BLOCK {
            let Some(due_ns) = self.next(&mut record) else {
                break;
            };
            bytes.extend_from_slice(record.key());
            let key = bytes.len() as u32;
            bytes.extend_from_slice(record.payload());
            ends.push((key, bytes.len() as u32));
            plan.partitions.push(record.partition(self.partitions));
            plan.due_ns.push(due_ns);
        }
        bytes.shrink_to_fit();
        (!ends.is_empty()).then(|| Block {
            bytes,
            ends,
            plan: Arc::new(plan),
        })
    }

    /// Makes the next event; when it is due.
    fn next(&mut self, record: &mut Record) -> Option<u64> {
        match self.schedule {
            Schedule::Steady { rate } => {
                let due_ns = steady_ns(self.traffic.made(), rate);
                let at = self.start_ms + (due_ns / 1_000_000) as i64;
                self.traffic.next_at(at, record).then_some(due_ns)
            }
            Schedule::Day { faster } => {
                let is_made = self.traffic.next(record);
                let into_ms = (self.traffic.now() - self.day_ms).unsigned_abs();
                is_made.then_some(into_ms * 1_000_000 / u64::from(faster))
            }
        }
    }
}

/// When the event of this number is due at a steady rate.
pub(in crate::bench) fn steady_ns(index: u64, rate: u64) -> u64 {
    (u128::from(index) * 1_000_000_000 / u128::from(rate.max(1))) as u64
}

/// How many blocks may wait: what a quarter of the free memory holds.
pub(in crate::bench) fn blocks_ahead() -> usize {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = kilobytes(&memory, "MemAvailable:").map(|kilobytes| kilobytes << 10);
    let bytes = free
        .map_or(AHEAD_BYTES, |free| free / 4)
        .min(AHEAD_MAX_BYTES);
    (bytes / BLOCK_BYTES).max(4) as usize
}

/// How long making what is made ahead will take, about: longer rather than shorter.
pub(in crate::bench) fn time_ahead(
    settings: &Settings,
    blocks: usize,
) -> Result<Duration, SettingsError> {
    let mut traffic = Traffic::new(settings)?;
    let (total, begin) = (traffic.counts().total(), Instant::now());
    let mut record = Record::new();
    while traffic.made() < TRIED && traffic.next(&mut record) {}
    let ahead = total.min((blocks * BLOCK) as u64) as f64 / traffic.made().max(1) as f64;
    Ok(begin.elapsed().mul_f64(1.5 * ahead))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn make(schedule: Schedule) -> (Vec<Block>, Expected) {
        let ahead = Ahead::new(&Settings::new(1, 10_000), schedule, 3, 1_000).unwrap();
        let (blocks, made) = sync_channel(3);
        let expected = std::thread::spawn(move || ahead.make(&blocks));
        (made.iter().collect(), expected.join().unwrap())
    }

    #[test]
    fn events_are_those_of_the_stream_each_with_its_time_and_place() {
        let (blocks, expected) = make(Schedule::Steady { rate: 2_000 });
        let lengths: Vec<_> = blocks.iter().map(Block::len).collect();
        assert_eq!(lengths, [4_096, 4_096, 1_808]);
        let mut traffic = Traffic::new(&Settings::new(1, 10_000)).unwrap();
        let mut record = Record::new();
        for block in &blocks {
            for place in 0..block.len() {
                let due_ns = traffic.made() * 500_000;
                assert!(traffic.next_at(1_000 + due_ns as i64 / 1_000_000, &mut record));
                assert_eq!(block.event(place), (record.key(), record.payload()));
                assert_eq!(block.plan.due_ns[place], due_ns);
                assert_eq!(block.plan.partitions[place], record.partition(3));
            }
        }
        assert_eq!(traffic.expected(), expected);
    }

    #[test]
    fn a_day_is_compressed_and_keeps_its_shape() {
        let (blocks, _) = make(Schedule::Day { faster: 1_440 });
        let due: Vec<u64> = blocks
            .iter()
            .flat_map(|block| block.plan.due_ns.clone())
            .collect();
        assert!(due.is_sorted() && due.last() < Some(&60_000_000_000));
        // The minute of 10:00 takes a 24th of a second.
        let busiest = |from: u64| due.iter().filter(|&&it| it / 41_666_667 == from).count();
        assert!(
            busiest(600) > 4 * busiest(599),
            "{} {}",
            busiest(600),
            busiest(599)
        );
    }

    #[test]
    fn a_steady_rate_has_no_rounding_that_adds_up() {
        assert_eq!(steady_ns(583_000 * 3_600, 583_000), 3_600_000_000_000);
        assert_eq!(steady_ns(1, 3), 333_333_333);
    }
}
