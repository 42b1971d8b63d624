//! What is written: records in an endless row, of which each is a pure function
//! of the seed, the start and its number. So nothing need be kept of what was
//! written but the numbers, and the oracle knows each event before it is bytes.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::json;

/// How many partitions the donations have.
pub const PARTITIONS: usize = 12;
/// How far `at` may be ahead of a record's timestamp; `counting.max_ahead_ms`.
pub const MAX_AHEAD_MS: i64 = 300_000;

const HOUR_MS: i64 = 3_600_000;
/// Campaigns of all day; those of a moment come after them.
const CAMPAIGNS: u64 = 900;
/// For how long a campaign of a moment gets something. Then it is silent, and a
/// wrong last value in the compacted topic would stay.
const MOMENT_MS: i64 = 10_000;
/// A campaign of gifts so large that sums overflow.
const HUGE: u64 = CAMPAIGNS - 1;

/// The traffic of one run.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub seed: u64,
    /// When the first record is due, milliseconds since 1970.
    pub start_ms: i64,
    /// Records a second.
    pub rate: u64,
}

/// A record, before it is bytes.
pub struct Record {
    /// Where it goes.
    pub partition: usize,
    /// The timestamp that it is written with.
    pub timestamp: i64,
    pub content: Content,
}

pub enum Content {
    Event(Event),
    /// Bytes that cannot be counted, for this reason.
    Damaged(Vec<u8>, &'static str),
}

/// An event, before it is JSON.
#[derive(Clone, Debug)]
pub struct Event {
    /// The number of the record that it came with first: its identity.
    pub number: u64,
    pub kind: Kind,
    /// Its campaign's number.
    pub campaign: u64,
    pub currency: &'static str,
    pub amount: i64,
    pub at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Donation,
    Refund,
    Match,
    Flower,
}

impl Traffic {
    /// Record `number` of the row.
    pub fn record(&self, number: u64) -> Record {
        let original = self.original(number);
        let mut random = self.random(original);
        let partition = random.random_range(0..PARTITIONS);
        let content = match self.is_damaged(original) {
            true => damaged(original, &mut random),
            false => Content::Event(self.event(original, &mut random)),
        };
        Record {
            partition,
            timestamp: self.due_ms(number),
            content,
        }
    }

    /// The same record as bytes; equal events are equal bytes.
    pub fn payload(&self, record: Record) -> Vec<u8> {
        match record.content {
            Content::Damaged(bytes, _) => bytes,
            Content::Event(event) => self.json(&event).to_string().into_bytes(),
        }
    }

    fn due_ms(&self, number: u64) -> i64 {
        self.start_ms + (number * 1_000 / self.rate) as i64
    }

    fn random(&self, number: u64) -> Xoshiro256PlusPlus {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Xoshiro256PlusPlus::seed_from_u64(self.seed ^ scattered)
    }

    /// Another draw, so that what a record is does not depend on what is in it.
    fn lot(&self, number: u64) -> (u32, Xoshiro256PlusPlus) {
        let mut random = self.random(!number);
        (random.random_range(0..1_000), random)
    }

    fn is_damaged(&self, number: u64) -> bool {
        self.lot(number).0 < 5
    }

    /// The record whose event comes with record `number`: itself, but for one in
    /// twenty-five, which brings an event again: at once for the most part, and
    /// some so late that its id is forgotten.
    fn original(&self, number: u64) -> u64 {
        let (lot, mut random) = self.lot(number);
        if !(5..45).contains(&lot) {
            return number;
        }
        let seconds = if random.random_bool(0.6) { 1 } else { 100 };
        let back = random.random_range(1..=seconds * self.rate);
        let is_first = |number: &u64| self.lot(*number).0 >= 45;
        let before = number.checked_sub(back).filter(is_first);
        before.unwrap_or(number)
    }

    fn event(&self, number: u64, random: &mut impl Rng) -> Event {
        let due = self.due_ms(number);
        let (kind, usual) = match random.random_range(0..100) {
            0..17 => (Kind::Flower, 1..=9),
            17..22 => (Kind::Refund, 1..=100_000),
            22..25 => (Kind::Match, 1..=1_000_000),
            _ => (Kind::Donation, 1..=1_000_000),
        };
        let mut event = Event {
            number,
            kind,
            // Few get much, most get little.
            campaign: (random.random::<f64>().powi(4) * HUGE as f64) as u64,
            currency: match random.random_range(0..20) {
                0 => "USD",
                1 => "HKD",
                2 => "JPY",
                _ => "CNY",
            },
            amount: random.random_range(usual),
            at: due - random.random_range(0..2_000),
        };
        match random.random_range(0..1_000) {
            0..100 => event.campaign = 0,
            100..140 => event.campaign = CAMPAIGNS + (due / MOMENT_MS) as u64,
            140..142 => (event.campaign, event.amount) = (HUGE, 1 << 60),
            _ => {}
        }
        match random.random_range(0..1_000) {
            0..10 => event.at = due - random.random_range(23 * HOUR_MS..30 * HOUR_MS),
            10..30 => event.at = due - random.random_range(0..HOUR_MS),
            30..32 => event.at = due + random.random_range(0..=MAX_AHEAD_MS),
            32..35 => event.at = due + MAX_AHEAD_MS + random.random_range(1..HOUR_MS),
            _ => {}
        }
        event
    }

    fn json(&self, event: &Event) -> serde_json::Value {
        let mut random = self.random(event.number.rotate_left(32));
        let mut json = json!({
            "id": id(event.number),
            "campaign": campaign(event.campaign),
            "amount": event.amount,
            "at": event.at,
        });
        match event.kind {
            Kind::Donation => {}
            Kind::Refund => json["kind"] = "refund".into(),
            Kind::Match => json["kind"] = "match".into(),
            Kind::Flower => json["kind"] = "flower".into(),
        }
        if event.kind == Kind::Refund {
            json["refund_of"] = id(event.number / 2).into();
        }
        if event.kind != Kind::Flower {
            json["currency"] = event.currency.into();
        }
        if random.random_bool(0.8) {
            json["donor"] = format!("d{}", random.random_range(0..1_000_000)).into();
        }
        if random.random_bool(0.1) {
            let at = jiff::Timestamp::from_millisecond(event.at).expect("a time");
            json["at"] = at.to_string().into();
        }
        json
    }
}

/// As text, or as a UUID: both forms that ids are kept in.
fn id(number: u64) -> String {
    match number % 2 {
        0 => format!("order-{number}"),
        _ => format!("01831f00-0000-7000-8000-{number:012x}"),
    }
}

/// A campaign's name; some have what JSON must escape, some more than ASCII.
pub fn campaign(number: u64) -> String {
    match number % 3 {
        0 => format!("乡村小学 {number}"),
        1 => format!("\"clean\" water {number}"),
        _ => format!("campaign-{number}"),
    }
}

/// Records as no producer should write them, each of its own bytes.
fn damaged(number: u64, random: &mut impl Rng) -> Content {
    let rest = r#""campaign":"c","amount":990,"currency":"CNY","at":1662688800000"#;
    let with = |more: &str| format!(r#"{{"id":"damaged-{number}",{more}}}"#).into_bytes();
    let (bytes, reason) = match random.random_range(0..1_200) {
        0..100 => (format!("{number} yuan").into_bytes(), "not_json"),
        100..200 => (Vec::new(), "empty"),
        200..300 => ([&[0xff], with(rest).as_slice()].concat(), "not_utf8"),
        300..400 => (format!("{{{rest}}}").into_bytes(), "missing_field"),
        400..500 => (with(&rest.replace("990", "\"9.9\"")), "bad_amount"),
        500..600 => (with(&rest.replace("CNY", "RMB")), "bad_currency"),
        600..700 => (with(&format!(r#"{rest},"kind":"lottery""#)), "bad_kind"),
        700..800 => (with(&rest.replace("1662688800000", "9")), "bad_at"),
        800..900 => (with(&rest.replace("\"c\"", "\"\"")), "bad_campaign"),
        900..1_000 => (with(&format!("{rest},{rest}")), "duplicate_field"),
        1_000..1_100 => (with(&format!(r#"{rest},"refund_of":"x""#)), "bad_refund_of"),
        1_100..1_190 => (with(&format!(r#"{rest},"channel":7"#)), "bad_channel"),
        _ => (vec![b'x'; 70_000], "too_large"),
    };
    Content::Damaged(bytes, reason)
}
