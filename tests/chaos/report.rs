//! What is printed: a line a fault, and a summary.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::faults::Fault;
use crate::world::{Outage, World};

pub struct Report {
    begun: Instant,
    /// Of faults that came alone.
    outages: BTreeMap<Fault, Vec<Outage>>,
    /// How many of a kind came with others.
    with_others: BTreeMap<Fault, usize>,
    /// Of several, each of which came before the one before it was over.
    together: Vec<Outage>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            begun: Instant::now(),
            outages: BTreeMap::new(),
            with_others: BTreeMap::new(),
            together: Vec::new(),
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn faults(&self) -> usize {
        let alone: usize = self.outages.values().map(Vec::len).sum();
        alone + self.with_others.values().sum::<usize>()
    }

    /// A fault is over, or several at once.
    pub fn add(&mut self, faults: &[Fault], outage: Outage, world: &World) {
        if let &[fault] = faults {
            self.outages.entry(fault).or_default().push(outage);
        } else {
            for &fault in faults {
                *self.with_others.entry(fault).or_default() += 1;
            }
            self.together.push(outage);
        }
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        let fresh = match faults {
            [_] => format!("fresh after {:5.1} s, ", outage.fresh.as_secs_f32()),
            _ => String::new(), // Perhaps before the last of them.
        };
        let records: i64 = world.log.ends().iter().sum();
        let seen = world.seen();
        eprintln!(
            "{:6.0} s, from {}  {:32} {fresh}longest gap {:5.1} s; {records} records, {} cuts, {} \
             recomputed",
            self.begun.elapsed().as_secs_f32(),
            outage.from.strftime("%T"),
            names.join(" + "),
            outage.gap.as_secs_f32(),
            seen.reader.figures.complete,
            seen.checked.0,
        );
    }

    /// Median and worst of each kind that came alone, and of those that came together.
    pub fn print_faults(&self) {
        eprintln!(
            "\n                                                first fresh cut    longest gap"
        );
        eprintln!(
            "fault                            alone  others  median   worst   median   worst"
        );
        let kinds = self.outages.keys().chain(self.with_others.keys());
        let kinds: BTreeSet<_> = kinds.copied().collect();
        for fault in kinds {
            let outages = self.outages.get(&fault).map_or(&[][..], Vec::as_slice);
            let with_others = self.with_others.get(&fault).copied().unwrap_or_default();
            let fresh = median_and_worst(outages.iter().map(|outage| outage.fresh));
            print_row(fault.name(), outages, with_others, &fresh);
        }
        print_row("one upon another", &self.together, 0, "");
    }
}

fn print_row(name: &str, outages: &[Outage], with_others: usize, fresh: &str) {
    let gap = median_and_worst(outages.iter().map(|outage| outage.gap));
    let count = outages.len();
    eprintln!("{name:32} {count:6} {with_others:7} {fresh:16} {gap}");
}

/// In seconds; of an even number the upper one of the two in the middle.
fn median_and_worst(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<_> = times.map(|time| time.as_secs_f32()).collect();
    times.sort_by(f32::total_cmp);
    let both = times.get(times.len() / 2).zip(times.last());
    both.map_or(String::new(), |(median, worst)| {
        format!("{median:5.1} s {worst:5.1} s")
    })
}
