//! What is printed: a line a fault, and a summary.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::faults::Fault;
use crate::world::{Outage, World};

pub struct Report {
    begun: Instant,
    outages: BTreeMap<Fault, Vec<Outage>>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            begun: Instant::now(),
            outages: BTreeMap::new(),
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn faults(&self) -> usize {
        self.outages.values().map(Vec::len).sum()
    }

    /// A fault is over.
    pub fn add(&mut self, fault: Fault, outage: Outage, world: &World) {
        self.outages.entry(fault).or_default().push(outage);
        let records: i64 = world.log.ends().iter().sum();
        let seen = world.seen();
        eprintln!(
            "{:6.0} s, from {}  {:32} fresh after {:5.1} s, longest gap {:5.1} s; {records} records, \
             {} cuts, {} recomputed",
            self.begun.elapsed().as_secs_f32(),
            outage.from.strftime("%T"),
            fault.name(),
            outage.fresh.as_secs_f32(),
            outage.gap.as_secs_f32(),
            seen.reader.figures.complete,
            seen.checked.0,
        );
    }

    /// Median and worst of each kind.
    pub fn print_faults(&self) {
        eprintln!("\n                                        first fresh cut    longest gap");
        eprintln!("fault                            count  median   worst   median   worst");
        for (fault, outages) in &self.outages {
            let fresh = median_and_worst(outages.iter().map(|outage| outage.fresh));
            let gap = median_and_worst(outages.iter().map(|outage| outage.gap));
            eprintln!(
                "{:32} {:5} {:5.1} s {:5.1} s  {:5.1} s {:5.1} s",
                fault.name(),
                outages.len(),
                fresh.0,
                fresh.1,
                gap.0,
                gap.1
            );
        }
    }
}

/// In seconds; of an even number the upper one of the two in the middle.
fn median_and_worst(times: impl Iterator<Item = Duration>) -> (f32, f32) {
    let mut times: Vec<_> = times.map(|time| time.as_secs_f32()).collect();
    times.sort_by(f32::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}
