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
    until: Option<BTreeMap<Partition, Offset>>,
    said: Instant,
    /// What was held when it was said last.
    held: BTreeMap<Partition, Offset>,
    said_why_not: Option<(String, Instant)>,
    published: Option<String>,
}

impl Progress {
    /// `until`: where the run ends, if it does.
    pub fn new(until: Option<BTreeMap<Partition, Offset>>) -> Progress {
        Progress {
            until,
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

    /// Writes a line if it is time.
    pub fn log(&mut self, merge: &Merge, gate: &Gate, why_not: Option<String>) {
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
        let rate = group_thousands(per_second as u128);
        let to_end = self
            .until
            .as_ref()
            .map_or(0, |until| Gate::at(until.clone()).records_left(&held));
        let left = gate.records_left(&held).max(to_end);

        if let Some(why_not) = why_not {
            let said = self.said_why_not.as_ref();
            let is_news = said.is_none_or(|(said, at)| *said != why_not || at.elapsed() >= AGAIN);
            if is_news {
                tracing::warn!("nothing is published: {why_not}");
                self.said_why_not = Some((why_not, Instant::now()));
            }
            return;
        }
        if self.said_why_not.take().is_some() {
            tracing::info!("publishing goes on");
        }
        if left > 0 {
            let seconds = if per_second > 0.0 {
                left as f64 / per_second
            } else {
                f64::INFINITY
            };
            let left = group_thousands(left.into());
            let what = if gate.is_reached(&held) {
                "the end"
            } else {
                "where published totals end"
            };
            if seconds.is_finite() {
                tracing::info!("{left} offsets left to {what}, {rate}/s, {seconds:.0} s to go");
            } else {
                tracing::info!("{left} offsets left to {what}");
            }
        } else if moved && let Some(line) = &self.published {
            tracing::info!("{rate}/s; {line}");
        }
    }
}
