//! Lines in the log about how far the fold is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::merge::{Cut, Gate, Merge};
use crate::money::group_thousands;
use crate::offset::{Offset, Partition};

/// How often a line is written.
const EVERY: Duration = Duration::from_secs(5);
/// How often it is said again why nothing is published.
const AGAIN: Duration = Duration::from_secs(30);

/// Says every few seconds what is going on.
pub struct Progress {
    said: Instant,
    /// What was held when it was said last.
    held: BTreeMap<Partition, Offset>,
    said_why_not: Option<(String, Instant)>,
    published: Option<String>,
}

impl Progress {
    /// Nothing is said yet.
    pub fn new() -> Progress {
        Progress {
            said: Instant::now(),
            held: BTreeMap::new(),
            said_why_not: None,
            published: None,
        }
    }

    /// A cut is complete.
    pub fn published(&mut self, number: u64, cut: &Cut) {
        let tally = &cut.tally;
        let money = cut.sums.money.iter();
        let money: Vec<_> = money
            .map(|(currency, money)| currency.format(money.net))
            .collect();
        let line = format!(
            "cut {number}: {} events ({} repeats, {} dead letters) in {} campaigns, {}",
            group_thousands(tally.seen.into()),
            group_thousands(tally.duplicates.into()),
            group_thousands(tally.dead().into()),
            group_thousands(cut.campaigns.into()),
            if money.is_empty() {
                "no money yet".to_owned()
            } else {
                money.join(" + ")
            },
        );
        if self.published.is_none() {
            tracing::info!("publishing; {line}");
        }
        self.published = Some(line);
    }

    /// All that was folded is published.
    pub fn finish(&self) {
        if let Some(line) = &self.published {
            tracing::info!("all is published; {line}");
        }
    }

    /// Writes a line if it is time. `end`: where the log ended at the start.
    pub fn log(&mut self, merge: &Merge, gate: &Gate, end: &Gate, why_not: Option<String>) {
        let elapsed = self.said.elapsed();
        if elapsed < EVERY {
            return;
        }
        self.said = Instant::now();
        let held = merge.offsets();
        // What came from checkpoints was not folded now.
        let before = std::mem::replace(&mut self.held, held.clone());
        let folded = held.iter().filter_map(|(partition, offset)| {
            let before = before.get(partition)?;
            Some(offset.0 - before.0)
        });
        let per_second = folded.sum::<i64>() as f64 / elapsed.as_secs_f64();
        let moved = held != before;
        if let Some(why_not) = why_not {
            let said = self.said_why_not.as_ref();
            let is_news = said.is_none_or(|(said, at)| *said != why_not || at.elapsed() >= AGAIN);
            if is_news {
                tracing::warn!("nothing is published: {why_not}");
                self.said_why_not = Some((why_not, Instant::now()));
            }
            if let Some(left) = left(&held, gate, end, per_second).filter(|_| moved) {
                tracing::info!("{left}");
            }
            return;
        }
        if self.said_why_not.take().is_some() {
            tracing::info!("publishing goes on");
        }
        if let Some(left) = left(&held, gate, end, per_second) {
            tracing::info!("{left}");
        } else if moved && let Some(line) = &self.published {
            tracing::info!("{}/s; {line}", group_thousands(per_second as u128));
        }
    }
}

/// How far it is to where the log ended at the start, if it is not reached. How much
/// is left of what is still being restored is not known.
fn left(
    held: &BTreeMap<Partition, Offset>,
    gate: &Gate,
    end: &Gate,
    per_second: f64,
) -> Option<String> {
    let (all, gate, end) = (end.partitions(), gate.within(held), end.within(held));
    let to_gate = gate.records_left(held);
    let to_end = end.records_left(held).max(to_gate);
    if to_end == 0 {
        return None;
    }
    let to_go = if per_second > 0.0 {
        let rate = group_thousands(per_second as u128);
        format!(", {rate}/s, {:.0} s to go", to_end as f64 / per_second)
    } else {
        String::new()
    };
    let publishing = match to_gate {
        0 => String::new(),
        _ => format!(
            "; publishing goes on after {}, where published totals end",
            group_thousands(to_gate.into())
        ),
    };
    let to_end = group_thousands(to_end.into());
    let of_some = match end.partitions() {
        some if some < all => format!(" in {some} of {all} partitions"),
        _ => String::new(),
    };
    Some(format!(
        "{to_end} offsets left{of_some} to where the log ended at the start{to_go}{publishing}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_until_the_end_of_the_start_is_reached() {
        let at = |first, second| BTreeMap::from([(0, Offset(first)), (1, Offset(second))]);
        let (gate, end) = (Gate::at(at(1_000, 500)), Gate::at(at(3_000, 2_000)));
        let said = |held: &BTreeMap<_, _>, per_second| left(held, &gate, &end, per_second);
        assert_eq!(said(&BTreeMap::new(), 0.0), None);
        let one = "3,000 offsets left in 1 of 2 partitions to where the log ended at the start; \
                   publishing goes on after 1,000, where published totals end";
        let held = BTreeMap::from([(0, Offset(0))]);
        assert_eq!(said(&held, 0.0).as_deref(), Some(one));
        let some = "4,000 offsets left to where the log ended at the start, 2,000/s, 2 s to go; \
                    publishing goes on after 500, where published totals end";
        assert_eq!(said(&at(1_000, 0), 2_000.0).as_deref(), Some(some));
        let more = "2,500 offsets left to where the log ended at the start, 500/s, 5 s to go";
        assert_eq!(said(&at(1_500, 1_000), 500.0).as_deref(), Some(more));
        assert_eq!(said(&at(3_000, 2_001), 500.0), None);
    }
}
