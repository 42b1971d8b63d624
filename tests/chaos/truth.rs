//! The oracle: what the log adds up to at any cut, by the rules of counting as
//! plainly as they can be written. It shares no code with the fold.
//!
//! `tests/model/oracle.rs` says the same of a simulated log that it reads whole
//! each time. This one goes on from where it was, as an hour of events is long;
//! asked for an earlier cut, it begins again from nothing.

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::xxh3_128;

use crate::producer::Log;
use crate::totals::{Cut, Money, Total};
use crate::traffic::{Content, Event, Kind, MAX_AHEAD_MS, PARTITIONS, Traffic, campaign};

/// The largest sum of a row: one campaign, day and currency of a partition.
const SUM_MAX: i128 = (1 << 62) - 1;
const DAY_S: i64 = 86_400;

/// The sums of the log up to a cut.
pub struct Truth {
    traffic: Traffic,
    log: Log,
    horizon_s: i64,
    partitions: [Partition; PARTITIONS],
    sums: Sums,
    campaigns: BTreeMap<u64, Total>,
    /// What cannot be counted: reason by partition and offset.
    pub dead: BTreeMap<(usize, usize), &'static str>,
}

/// What a partition's order decides.
#[derive(Default)]
struct Partition {
    offset: usize,
    watermark: i64,
    /// By event: the watermark, in seconds, that it was counted at first.
    first_seen: HashMap<u64, i64>,
    forgot_at_s: i64,
    /// Overflow is a matter of one partition's sum.
    rows: HashMap<(u64, i64, Option<&'static str>, usize), i128>,
}

#[derive(Default)]
struct Sums {
    duplicates: u64,
    late: u64,
    dead: BTreeMap<String, u64>,
}

impl Truth {
    /// `horizon_s`: for how long ids are known.
    pub fn new(traffic: Traffic, log: Log, horizon_s: i64) -> Truth {
        Truth {
            traffic,
            log,
            horizon_s,
            partitions: Default::default(),
            sums: Sums::default(),
            campaigns: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }

    /// Counts up to a cut, which must be acknowledged.
    pub fn count_to(&mut self, offsets: &[i64]) {
        let is_behind = |(partition, &to): (&Partition, &i64)| partition.offset > to as usize;
        if self.partitions.iter().zip(offsets).any(is_behind) {
            *self = Truth::new(self.traffic, self.log.clone(), self.horizon_s);
        }
        for (partition, &to) in offsets.iter().enumerate() {
            let from = self.partitions[partition].offset;
            let numbers = self.log.places().sent[partition][from..to as usize].to_vec();
            for (offset, number) in (from..).zip(numbers) {
                self.count(partition, offset, number.into());
            }
            self.partitions[partition].offset = to as usize;
        }
    }

    fn count(&mut self, partition: usize, offset: usize, number: u64) {
        let record = self.traffic.record(number);
        let dead = match record.content {
            Content::Damaged(_, reason) => Some(reason),
            Content::Event(event) => self.count_event(partition, &event, record.timestamp),
        };
        if let Some(reason) = dead {
            *self.sums.dead.entry(reason.to_owned()).or_default() += 1;
            self.dead.insert((partition, offset), reason);
        }
    }

    /// Counts an event, or says why it cannot be counted.
    fn count_event(&mut self, partition: usize, event: &Event, ts: i64) -> Option<&'static str> {
        let partition = &mut self.partitions[partition];
        if event.at - ts > MAX_AHEAD_MS {
            return Some("ahead");
        }
        let now = event.at.max(partition.watermark);
        let now_s = now / 1000;
        let first_seen = partition.first_seen.get(&event.number);
        if first_seen.is_some_and(|seen_s| now_s - seen_s < self.horizon_s) {
            partition.watermark = now;
            self.sums.duplicates += 1;
            return None;
        }
        // The business day in Shanghai, which has no summer time.
        let day = (event.at / 1000 + 8 * 3_600) / DAY_S;
        let currency = (event.kind != Kind::Flower).then_some(event.currency);
        let column = match event.kind {
            Kind::Donation | Kind::Flower => 0,
            Kind::Refund => 1,
            Kind::Match => 2,
        };
        let row = (event.campaign, day, currency, column);
        let row = partition.rows.entry(row).or_default();
        let amount = i128::from(event.amount);
        if *row + amount > SUM_MAX {
            return Some("overflow");
        }
        *row += amount;
        partition.watermark = now;
        partition.first_seen.insert(event.number, now_s);
        if now_s - partition.forgot_at_s > self.horizon_s {
            // Only to save memory: what goes here is known no more.
            partition.forgot_at_s = now_s;
            let known = |_: &u64, seen_s: &mut i64| now_s - *seen_s < self.horizon_s;
            partition.first_seen.retain(known);
        }
        // 24 h up to the half hour that the watermark lies in.
        let is_late = event.at / 1000 < (now_s / 1_800 + 1) * 1_800 - DAY_S;
        self.sums.late += u64::from(is_late);

        let total = self.campaigns.entry(event.campaign).or_default();
        total.version += 1;
        let span = total.span.get_or_insert((event.at, event.at));
        *span = (span.0.min(event.at), span.1.max(event.at));
        if event.kind == Kind::Flower {
            total.flowers += amount;
            return None;
        }
        let money = total.money.entry(event.currency.to_owned()).or_default();
        match event.kind {
            Kind::Refund => money.refunded += amount,
            Kind::Match => money.matched += amount,
            _ => {
                total.gifts += 1;
                money.gross += amount;
            }
        }
        money.net = money.gross - money.refunded;
        None
    }

    /// The totals of the campaigns that have any, by name.
    pub fn totals(&self) -> impl Iterator<Item = (String, &Total)> {
        let all = self.campaigns.iter();
        all.map(|(&number, total)| (campaign(number), total))
    }

    /// What the cut's record must say.
    pub fn cut(&self) -> Cut {
        let records: usize = self.partitions.iter().map(|p| p.offset).sum();
        let watermark = self.partitions.iter().map(|p| p.watermark).max();
        let mut cut = Cut {
            events: records as u64,
            duplicates: self.sums.duplicates,
            dead_letters: self.sums.dead.values().sum(),
            dead_letters_by_reason: self.sums.dead.clone(),
            late: self.sums.late,
            campaigns: self.campaigns.len() as u64,
            as_of: watermark.filter(|&at| at > 0),
            ..Cut::default()
        };
        let mut digest = 0u128;
        for (name, total) in self.totals() {
            cut.gifts += total.gifts;
            cut.flowers += total.flowers;
            for (currency, money) in &total.money {
                let sum = cut.money.entry(currency.clone()).or_default();
                *sum = Money {
                    gross: sum.gross + money.gross,
                    refunded: sum.refunded + money.refunded,
                    net: sum.net + money.net,
                    matched: sum.matched + money.matched,
                };
            }
            digest = digest.wrapping_add(hash(&name, total));
        }
        cut.digest = format!("{digest:032x}");
        cut
    }
}

/// A campaign's part of the digest, as `docs/topics.md` defines it.
fn hash(name: &str, total: &Total) -> u128 {
    let (first_at, last_at) = total.span.expect("something is counted");
    let (version, gifts, flowers) = (total.version, total.gifts, total.flowers);
    let mut text = format!("{name}\n{version}\n{gifts}\n{flowers}\n{first_at}\n{last_at}\n");
    for (currency, money) in &total.money {
        let (gross, refunded, matched) = (money.gross, money.refunded, money.matched);
        text += &format!("{currency} {gross} {refunded} {matched}\n");
    }
    xxh3_128(text.as_bytes())
}
