//! Which events arrived when: every event is accounted for, and none is sampled.
//!
//! The generator is the only writer of its topic, and writes each partition once and in
//! order, so the offset of an event is how many came before it in its partition.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use hdrhistogram::Histogram;

use super::ahead::Plan;
use crate::bench::latency::{histogram, histogram_of_second, us};
use crate::bench::message::CutAt;
use crate::offset::{Offset, Partition};

/// What happens, in order.
pub(super) enum Event {
    /// These are about to be sent.
    Sent(Arc<Plan>),
    /// A complete cut was read from its topic.
    Readable(CutAt),
    /// A complete cut is to be seen in the process that counts.
    Visible(CutAt),
}

/// All events of a run.
pub(super) struct Account {
    pub readable: Arrivals,
    pub visible: Arrivals,
    /// How many were due in each second.
    pub due: Vec<u64>,
}

impl Account {
    /// `start_ns`: when the first is due. `warmup_ns`: how long events are warm-up.
    pub fn new(partitions: i32, start_ns: u64, warmup_ns: u64) -> Account {
        Account {
            readable: Arrivals::new(partitions, start_ns, warmup_ns),
            visible: Arrivals::new(partitions, start_ns, warmup_ns),
            due: Vec::new(),
        }
    }

    /// Takes in all that happens, until nobody is left to tell. `arrived` is how many are
    /// readable.
    pub fn keep(mut self, events: &Receiver<Event>, arrived: &AtomicU64) -> Account {
        for event in events {
            match event {
                Event::Sent(plan) => {
                    self.readable.expect(&plan);
                    self.visible.expect(&plan);
                    for due_ns in &plan.due_ns {
                        *at_second(&mut self.due, *due_ns, || 0) += 1;
                    }
                }
                Event::Readable(cut) => {
                    self.readable.arrive(&cut.offsets, cut.at_ns);
                    arrived.store(self.readable.arrived, Ordering::Relaxed);
                }
                Event::Visible(cut) => self.visible.arrive(&cut.offsets, cut.at_ns),
            }
        }
        self
    }
}

/// How long events took to one place.
pub(super) struct Arrivals {
    start_ns: u64,
    warmup_ns: u64,
    lanes: Vec<Lane>,
    pub arrived: u64,
    pub warmup: Histogram<u64>,
    pub all: Histogram<u64>,
    /// By the second in which they were due.
    pub by_second: Vec<Histogram<u64>>,
    /// When how many had arrived, all together.
    pub arrivals: Vec<(u64, u64)>,
}

/// A partition: when the events on their way were due, the next one at offset `next`.
#[derive(Default)]
struct Lane {
    next: i64,
    waiting: VecDeque<u64>,
}

impl Arrivals {
    fn new(partitions: i32, start_ns: u64, warmup_ns: u64) -> Arrivals {
        Arrivals {
            start_ns,
            warmup_ns,
            lanes: (0..partitions).map(|_| Lane::default()).collect(),
            arrived: 0,
            warmup: histogram(),
            all: histogram(),
            by_second: Vec::new(),
            arrivals: Vec::new(),
        }
    }

    fn expect(&mut self, plan: &Plan) {
        for (partition, due_ns) in plan.partitions.iter().zip(&plan.due_ns) {
            self.lanes[*partition as usize].waiting.push_back(*due_ns);
        }
    }

    /// All before these offsets have arrived.
    fn arrive(&mut self, offsets: &BTreeMap<Partition, Offset>, at_ns: u64) {
        let at_ns = at_ns.saturating_sub(self.start_ns);
        for (&partition, offset) in offsets {
            let Some(lane) = self.lanes.get_mut(partition as usize) else {
                continue;
            };
            while lane.next < offset.0
                && let Some(due_ns) = lane.waiting.pop_front()
            {
                lane.next += 1;
                self.arrived += 1;
                let took = us(at_ns.saturating_sub(due_ns));
                match due_ns < self.warmup_ns {
                    true => self.warmup.saturating_record(took),
                    false => self.all.saturating_record(took),
                }
                let second = at_second(&mut self.by_second, due_ns, histogram_of_second);
                // It grows to what is recorded; to saturate is for those that do not.
                let _ = second.record(took);
            }
        }
        self.arrivals.push((at_ns, self.arrived));
    }

    /// How many had arrived by then.
    pub fn arrived_by(&self, at_ns: u64) -> u64 {
        let after = self.arrivals.partition_point(|(at, _)| *at <= at_ns);
        after.checked_sub(1).map_or(0, |last| self.arrivals[last].1)
    }
}

/// What is kept of the second that this lies in.
fn at_second<T>(seconds: &mut Vec<T>, at_ns: u64, new: impl FnMut() -> T) -> &mut T {
    let second = (at_ns / 1_000_000_000) as usize;
    if seconds.len() <= second {
        seconds.resize_with(second + 1, new);
    }
    &mut seconds[second]
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const MS: u64 = 1_000_000;

    fn cut(at_ms: u64, offsets: [i64; 2]) -> CutAt {
        CutAt {
            at_ns: 5_000 * MS + at_ms * MS,
            events: offsets.iter().sum::<i64>() as u64,
            offsets: (0..).zip(offsets.map(Offset)).collect(),
        }
    }

    #[test]
    fn latency_is_from_due_to_the_first_cut_that_holds_the_event_and_none_is_left_out() {
        let (tell, events) = channel();
        // An event each 100 ms, in turn in two partitions; a second of warm-up.
        let plan = Plan {
            partitions: (0..20).map(|number| number % 2).collect(),
            due_ns: (0..20).map(|number| number * 100 * MS).collect(),
        };
        tell.send(Event::Sent(Arc::new(plan))).unwrap();
        // The reader stands still for most of it: all that were due meanwhile waited.
        tell.send(Event::Readable(cut(150, [1, 1]))).unwrap();
        tell.send(Event::Visible(cut(140, [1, 1]))).unwrap();
        tell.send(Event::Readable(cut(1_950, [10, 10]))).unwrap();
        // Cuts that come again change nothing.
        tell.send(Event::Readable(cut(3_000, [10, 10]))).unwrap();
        drop(tell);
        let arrived = AtomicU64::new(0);
        let account = Account::new(2, 5_000 * MS, 1_000 * MS).keep(&events, &arrived);
        assert_eq!(arrived.into_inner(), 20);
        assert_eq!(account.due, [10, 10]);
        let readable = &account.readable;
        assert_eq!((readable.warmup.len(), readable.all.len()), (10, 10));
        let is = |histogram: &Histogram<u64>, quantile, ms: u64| {
            let us = histogram.value_at_quantile(quantile);
            us.abs_diff(ms * 1_000) <= ms + 1
        };
        // Due at 200 … 900 and 1,000 … 1,900, read at 1,950.
        assert!(is(&readable.warmup, 1.0, 1_750) && is(&readable.warmup, 0.01, 50));
        assert!(is(&readable.all, 1.0, 950) && is(&readable.all, 0.01, 50));
        assert_eq!(readable.by_second.len(), 2);
        let longest = readable.by_second[0].max();
        assert!(longest.abs_diff(1_750_000) < 20_000, "{longest}");
        assert_eq!(readable.arrived_by(100 * MS), 0);
        assert_eq!(readable.arrived_by(150 * MS), 2);
        assert_eq!(readable.arrived_by(9_000 * MS), 20);
        assert_eq!(account.visible.arrived, 2);
    }
}
