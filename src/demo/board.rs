//! What is shown, computed from the cuts alone: pure but for the moments that it
//! is given.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::merge::{Cut, Total};
use crate::money::Currency;

/// What "the last minute" is.
const MINUTE: Duration = Duration::from_secs(60);
/// How often the charts get a new point, at most.
const POINT_EVERY: Duration = Duration::from_secs(1);
/// How many points they keep.
const POINTS: usize = 300;
/// How many campaigns are kept in order, which is more than any screen shows.
pub(super) const ROWS: usize = 200;

/// One campaign on the board. Amounts are in fen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub campaign: Arc<str>,
    pub net: i128,
    pub last_minute: i128,
    pub gifts: u64,
    pub donors: u64,
}

/// The newest cut in figures. Amounts are in fen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub cut: u64,
    pub net: i128,
    pub matched: i128,
    pub gifts: u64,
    pub flowers: i128,
    pub donors: u64,
    pub campaigns: u64,
    pub events: u64,
    pub repeats: u64,
    pub dead_letters: u64,
    pub late: u64,
}

/// A point of the charts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Fen a second, as far as above zero.
    pub money: u64,
    /// Events a second.
    pub events: u64,
    /// The latency that one event in a hundred had of late.
    pub p99_ms: u64,
}

/// All that is shown of the totals.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub figures: Figures,
    /// The top campaigns by total, largest first.
    pub rows: Vec<Row>,
    pub points: VecDeque<Point>,
    campaigns: HashMap<Arc<str>, Standing>,
    /// What changed in the last minute, oldest first.
    changes: VecDeque<(Instant, Changes)>,
    /// The figures a minute ago or, before that, at the start.
    minute: VecDeque<(Instant, Figures)>,
    last_point: Option<(Instant, Figures)>,
}

/// By how much campaigns changed.
type Changes = Vec<(Arc<str>, i128)>;

#[derive(Debug, Default)]
struct Standing {
    net: i128,
    last_minute: i128,
}

/// The one currency of the demo's events.
pub(super) fn cny() -> Currency {
    Currency::parse("CNY").expect("a currency of ISO 4217")
}

impl Board {
    /// Takes in a complete cut: the sums over all campaigns.
    pub fn take(&mut self, number: u64, cut: &Cut, at: Instant, p99_ms: u64) {
        let money = cut.sums.money.get(cny()).copied().unwrap_or_default();
        self.figures = Figures {
            cut: number,
            net: money.net,
            matched: money.matched,
            gifts: cut.sums.gifts,
            flowers: cut.sums.flowers,
            donors: cut.donors,
            campaigns: cut.campaigns,
            events: cut.tally.seen,
            repeats: cut.tally.duplicates,
            dead_letters: cut.tally.dead(),
            late: cut.tally.late,
        };
        self.minute.push_back((at, self.figures.clone()));
        // The newest of those that are a minute old stays, to compare with.
        while let Some((then, _)) = self.minute.get(1)
            && at.saturating_duration_since(*then) >= MINUTE
        {
            self.minute.pop_front();
        }
        self.add_point(at, p99_ms);
    }

    /// Takes in every campaign's total at some cut, which was complete `at`.
    pub fn take_totals(&mut self, totals: &[Total], at: Instant) {
        while let Some((then, _)) = self.changes.front()
            && at.saturating_duration_since(*then) >= MINUTE
        {
            for (campaign, change) in self.changes.pop_front().map_or(Vec::new(), |(_, c)| c) {
                if let Some(standing) = self.campaigns.get_mut(&campaign) {
                    standing.last_minute -= change;
                }
            }
        }
        let mut changes = Vec::new();
        let mut rows = Vec::with_capacity(totals.len());
        for total in totals {
            let net = total.sums.money.get(cny()).map_or(0, |money| money.net);
            let standing = self.campaigns.entry(total.campaign.clone()).or_default();
            let change = net - standing.net;
            if change != 0 {
                changes.push((total.campaign.clone(), change));
            }
            standing.net = net;
            standing.last_minute += change;
            rows.push((net, standing.last_minute, total));
        }
        self.changes.push_back((at, changes));
        // Equal totals stand in the order of their names, so that none jumps.
        let order = |a: &(i128, i128, &Total), b: &(i128, i128, &Total)| {
            (b.0.cmp(&a.0)).then_with(|| a.2.campaign.cmp(&b.2.campaign))
        };
        if rows.len() > ROWS {
            rows.select_nth_unstable_by(ROWS, order);
            rows.truncate(ROWS);
        }
        rows.sort_unstable_by(order);
        let row = |(net, last_minute, total): (i128, i128, &Total)| Row {
            campaign: total.campaign.clone(),
            net,
            last_minute,
            gifts: total.sums.gifts,
            donors: total.donors,
        };
        self.rows = rows.into_iter().map(row).collect();
    }

    /// What the figures were a minute ago, or at the start.
    pub fn minute_ago(&self) -> Figures {
        let oldest = self.minute.front();
        oldest
            .map(|(_, figures)| figures.clone())
            .unwrap_or_default()
    }

    /// Events a second of late.
    pub fn rate(&self) -> Option<u64> {
        let newest = self.points.iter().rev().take(5);
        let (sum, count) = newest.fold((0, 0), |(sum, count), point| {
            (sum + point.events, count + 1)
        });
        (count > 0).then(|| sum / count)
    }

    fn add_point(&mut self, at: Instant, p99_ms: u64) {
        let (then, before) = self
            .last_point
            .get_or_insert_with(|| (at, self.figures.clone()));
        let span = at.saturating_duration_since(*then);
        if span < POINT_EVERY {
            return;
        }
        let a_second = |change: f64| (change / span.as_secs_f64()).max(0.0).round() as u64;
        let point = Point {
            money: a_second((self.figures.net - before.net) as f64),
            events: a_second(self.figures.events.saturating_sub(before.events) as f64),
            p99_ms,
        };
        self.last_point = Some((at, self.figures.clone()));
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::{Digest, Sums};
    use crate::money::MoneyTotal;
    use crate::shard::{Counts, Tally};

    fn sums(net: i128) -> Sums {
        let money = MoneyTotal {
            gross: net,
            net,
            ..MoneyTotal::default()
        };
        Sums {
            gifts: 1,
            flowers: 0,
            money: [(cny(), money)].into_iter().collect(),
        }
    }

    fn total(campaign: &str, net: i128) -> Total {
        Total {
            campaign: campaign.into(),
            counts: Counts::default(),
            sums: sums(net),
            donors: 1,
        }
    }

    fn cut(seen: u64, net: i128) -> Cut {
        Cut {
            offsets: Default::default(),
            as_of: None,
            tally: Tally {
                seen,
                ..Tally::default()
            },
            sums: sums(net),
            donors: 0,
            campaigns: 1,
            digest: Digest::default(),
            changed: Vec::new(),
        }
    }

    fn names(board: &Board) -> Vec<(&str, i128, i128)> {
        let row = |row: &'_ Row| (row.net, row.last_minute);
        board
            .rows
            .iter()
            .map(|r| (&*r.campaign, row(r).0, row(r).1))
            .collect()
    }

    #[test]
    fn campaigns_stand_by_total_with_their_change_over_the_last_minute() {
        let mut board = Board::default();
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        board.take_totals(&[total("a", 100), total("b", 300), total("c", 100)], at(0));
        assert_eq!(
            names(&board),
            [("b", 300, 300), ("a", 100, 100), ("c", 100, 100)]
        );
        board.take_totals(&[total("a", 100), total("b", 250), total("c", 500)], at(30));
        assert_eq!(
            names(&board),
            [("c", 500, 500), ("b", 250, 250), ("a", 100, 100)]
        );
        // What came at 0 is over a minute old, what came at 30 is not.
        board.take_totals(&[total("a", 101), total("b", 250), total("c", 500)], at(61));
        assert_eq!(
            names(&board),
            [("c", 500, 400), ("b", 250, -50), ("a", 101, 1)]
        );
        board.take_totals(
            &[total("a", 101), total("b", 250), total("c", 500)],
            at(200),
        );
        assert_eq!(names(&board), [("c", 500, 0), ("b", 250, 0), ("a", 101, 0)]);
    }

    #[test]
    fn only_the_top_is_kept_in_order() {
        let mut board = Board::default();
        let totals: Vec<Total> = (0..1_000)
            .map(|i| total(&format!("c{i:04}"), (i * 7_919) % 1_000))
            .collect();
        board.take_totals(&totals, Instant::now());
        let nets: Vec<i128> = board.rows.iter().map(|row| row.net).collect();
        let top: Vec<i128> = (0..1_000).rev().take(ROWS).collect();
        assert_eq!(nets, top);
    }

    #[test]
    fn points_are_changes_a_second_and_the_minute_slides() {
        let mut board = Board::default();
        let start = Instant::now();
        for half in 0..200u64 {
            let at = start + Duration::from_millis(500 * half);
            board.take(half, &cut(half * 1_000, i128::from(half) * 50), at, 7);
        }
        assert_eq!(board.points.len(), 99);
        let flat = Point {
            money: 100,
            events: 2_000,
            p99_ms: 7,
        };
        assert!(board.points.iter().all(|point| *point == flat));
        assert_eq!(board.rate(), Some(2_000));
        let minute = board.figures.events - board.minute_ago().events;
        assert_eq!(minute, 120_000);
    }
}
