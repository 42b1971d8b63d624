//! The oracle: the rules of counting, as plainly as they can be written. It
//! shares no code with the fold, and looks at the whole prefix each time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tally99::offset::{Offset, Partition};
use tally99::shard::Window;
use xxhash_rust::xxh3::xxh3_128;

use crate::log::{Event, Logged};

pub const HORIZON_S: i64 = 3_600;
/// The largest sum of a row.
pub const SUM_MAX: i128 = (1 << 62) - 1;

/// Gross, refunded, matched.
type Sums = [i128; 3];

/// Gifts, flowers, and net by currency, of one window.
pub type WindowFigures = (u64, i128, BTreeMap<String, i128>);

/// What a log's prefixes add up to.
#[derive(Default)]
pub struct Oracle {
    pub seen: u64,
    pub duplicates: u64,
    pub dead: BTreeMap<&'static str, u64>,
    pub late: u64,
    pub watermark: i64,
    pub donors: BTreeSet<u64>,
    pub campaigns: BTreeMap<&'static str, ExpectedTotal>,
}

/// What one campaign must add up to.
#[derive(Default)]
pub struct ExpectedTotal {
    pub seen: u64,
    pub duplicates: u64,
    pub dead: u64,
    pub late: u64,
    pub gifts: u64,
    pub flowers: i128,
    pub money: BTreeMap<String, Sums>,
    /// By business day and currency; flowers have none.
    pub rows: BTreeMap<(i64, Option<&'static str>), Sums>,
    pub donors: BTreeSet<u64>,
    pub counted: Vec<Event>,
}

impl Oracle {
    pub fn at(logs: &[Vec<Logged>], offsets: &BTreeMap<Partition, Offset>) -> Oracle {
        let mut oracle = Oracle::default();
        for (&partition, &offset) in offsets {
            let prefix = &logs[partition as usize][..offset.0 as usize];
            oracle.count_partition(prefix);
        }
        oracle
    }

    fn count_partition(&mut self, prefix: &[Logged]) {
        let (mut first_seen, mut watermark) = (HashMap::new(), 0);
        // Overflow is a matter of one partition's sum.
        let mut sums: HashMap<_, i128> = HashMap::new();
        for logged in prefix {
            let event = match logged {
                Logged::Marker => continue,
                Logged::Damaged(reason) => {
                    self.seen += 1;
                    *self.dead.entry(reason.code()).or_default() += 1;
                    continue;
                }
                Logged::Event(event) => event,
            };
            self.seen += 1;
            let total = self.campaigns.entry(event.campaign).or_default();
            total.seen += 1;
            if event.is_ahead() {
                total.dead += 1;
                *self.dead.entry("ahead").or_default() += 1;
                continue;
            }
            let now = event.at.max(watermark);
            let now_s = now / 1000;
            let known = |seen_s: &i64| now_s - seen_s < HORIZON_S;
            if first_seen.get(&event.id).is_some_and(known) {
                watermark = now;
                total.duplicates += 1;
                self.duplicates += 1;
                continue;
            }
            let sum = sums
                .entry((event.campaign, event.row(), event.column()))
                .or_default();
            if *sum + i128::from(event.amount) > SUM_MAX {
                total.dead += 1;
                *self.dead.entry("overflow").or_default() += 1;
                continue;
            }
            *sum += i128::from(event.amount);
            watermark = now;
            first_seen.insert(event.id, now_s);
            // 24 h up to the half hour that the watermark lies in.
            let late = u64::from(event.at / 1000 < (now_s / 1800 + 1) * 1800 - 86_400);
            self.late += late;
            total.late += late;
            self.donors.extend(event.donor);
            total.count(event);
        }
        self.watermark = self.watermark.max(watermark);
    }

    /// The campaigns that have a total.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, &ExpectedTotal)> {
        let all = self.campaigns.iter().map(|(name, total)| (*name, total));
        all.filter(|(_, total)| total.version() > 0)
    }

    /// The digest that `docs/topics.md` defines.
    pub fn digest(&self) -> u128 {
        let digests = self.totals().map(|(name, total)| total.digest(name));
        digests.fold(0, u128::wrapping_add)
    }
}

impl ExpectedTotal {
    fn count(&mut self, event: &Event) {
        self.counted.push(event.clone());
        self.donors.extend(event.donor);
        let amount = i128::from(event.amount);
        self.rows.entry(event.row()).or_default()[event.column()] += amount;
        if event.kind == "flower" {
            self.flowers += amount;
            return;
        }
        self.gifts += u64::from(event.kind == "donation");
        self.money.entry(event.currency.to_owned()).or_default()[event.column()] += amount;
    }

    pub fn version(&self) -> u64 {
        self.counted.len() as u64
    }

    /// The earliest and the latest event counted.
    pub fn span(&self) -> (i64, i64) {
        let times = || self.counted.iter().map(|event| event.at);
        (
            times().min().expect("counted"),
            times().max().expect("counted"),
        )
    }

    fn digest(&self, campaign: &str) -> u128 {
        let (first_at, last_at) = self.span();
        let (version, gifts, flowers) = (self.version(), self.gifts, self.flowers);
        let mut text =
            format!("{campaign}\n{version}\n{gifts}\n{flowers}\n{first_at}\n{last_at}\n");
        for (currency, [gross, refunded, matched]) in &self.money {
            text += &format!("{currency} {gross} {refunded} {matched}\n");
        }
        xxh3_128(text.as_bytes())
    }

    pub fn window(&self, window: Window, watermark: i64) -> WindowFigures {
        let (length_s, step_s) = match window {
            Window::Minute => (60, 5),
            Window::FiveMinutes => (300, 5),
            Window::Hour => (3_600, 60),
            Window::Day => (86_400, 1_800),
        };
        let end_s = (watermark / 1000 / step_s + 1) * step_s;
        let net = self
            .money
            .keys()
            .map(|currency| (currency.clone(), 0))
            .collect();
        let mut figures: WindowFigures = (0, 0, net);
        let inside = |event: &&Event| (end_s - length_s..end_s).contains(&(event.at / 1000));
        for event in self.counted.iter().filter(inside) {
            let amount = i128::from(event.amount);
            match event.kind {
                "flower" => figures.1 += amount,
                "donation" => {
                    figures.0 += 1;
                    *figures.2.get_mut(event.currency).expect("it got some") += amount;
                }
                "refund" => *figures.2.get_mut(event.currency).expect("it got some") -= amount,
                _ => {}
            }
        }
        figures
    }
}
