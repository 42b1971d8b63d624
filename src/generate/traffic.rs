//! The stream itself: pure, and the same to the byte for the same settings.

use xxhash_rust::xxh3::xxh3_64;

use super::amounts::{Amounts, Purse};
use super::campaigns::Campaigns;
use super::damage::Damage;
use super::day::Day;
use super::draft::{CHANNELS, CNY, CURRENCIES, Draft, Kind};
use super::history::{Refundable, Refundables, Sent};
use super::oracle::Oracle;
use super::random::{Random, threshold};
use super::settings::{Counts, Millis, Settings, SettingsError, Volume};
use super::ulid::{IdText, Ulids};
use crate::expected::Expected;
use crate::offset::Partition;

/// How much earlier than the newest `at` a late event's is: 25 to 49 h, so that
/// it is late for a partition that lags behind the others too.
const LATE_MS: (u64, u64) = (25 * 3_600_000, 24 * 3_600_000);
/// How much earlier an event out of order is, at most.
const OUT_OF_ORDER_MS: u64 = 5 * 60_000;
/// Of three gifts, two are a donor's first.
const NEW_DONORS: f64 = 2.0 / 3.0;
/// How many times more often a match is drawn while matching money is handed out.
const MATCHING_FACTOR: u64 = 6;

/// What goes into the topic: a key and a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    key: IdText,
    payload: Vec<u8>,
}

impl Record {
    /// An empty one, to be filled again and again.
    pub fn new() -> Record {
        Record {
            key: [0; 26],
            payload: Vec::with_capacity(512),
        }
    }

    /// The record's key: the event's id, so that repeats meet in one partition.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The record's value: the event's JSON. It has no newline in it; that of a
    /// malformed record may be empty or no UTF-8.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Which of so many partitions the record belongs to, by its key alone and
    /// the same everywhere.
    pub fn partition(&self, partitions: i32) -> Partition {
        let partitions = u64::from(partitions.max(1).unsigned_abs());
        (xxh3_64(&self.key) % partitions) as Partition
    }
}

/// A giving day's traffic, one record after the other.
///
/// ```
/// use tally99::generate::{Record, Settings, Traffic};
/// let mut traffic = Traffic::new(&Settings::new(1, 1_000))?;
/// let mut record = Record::new();
/// let mut records = 0;
/// while traffic.next(&mut record) {
///     records += 1;
/// }
/// assert_eq!(records, 1_000);
/// assert_eq!(traffic.expected().events, 1_000);
/// # Ok::<(), tally99::generate::SettingsError>(())
/// ```
pub struct Traffic {
    random: Random,
    ulids: Ulids,
    day: Day,
    campaigns: Campaigns,
    amounts: Amounts,
    /// Where the donations' sum is given.
    purse: Option<Purse>,
    counts: Counts,
    left: Counts,
    late_below: u64,
    out_of_order_below: u64,
    other_currency_below: u64,
    new_donor_below: u64,
    sent: Sent,
    refundables: Refundables,
    /// Records made so far.
    made: u64,
    /// Malformed ones among them.
    damaged: u64,
    /// Donors that have appeared.
    donors: u64,
    /// The clock of the last record; it never goes back.
    now: Millis,
    /// The newest `at` of all.
    newest_at: Option<Millis>,
    oracle: Oracle,
}

/// What the next record is.
#[derive(Clone, Copy)]
enum Draw {
    Fresh(Kind),
    Repeat,
    Malformed,
}

impl Traffic {
    /// The beginning of the stream that these settings describe.
    pub fn new(settings: &Settings) -> Result<Traffic, SettingsError> {
        let counts = settings.counts()?;
        let shares = &settings.shares;
        let campaigns = Campaigns::new(settings.campaigns);
        Ok(Traffic {
            random: Random::new(settings.seed),
            ulids: Ulids::new(settings.seed),
            day: Day::new(settings.start, counts.total()),
            amounts: Amounts::new(),
            purse: match settings.volume {
                Volume::Records(_) => None,
                Volume::Donations { count, amount } => Some(Purse::new(count, amount.0)),
            },
            counts,
            left: counts,
            late_below: threshold(shares.late),
            out_of_order_below: threshold(shares.late + shares.out_of_order),
            other_currency_below: threshold(shares.other_currencies),
            new_donor_below: threshold(NEW_DONORS),
            sent: Sent::new(),
            refundables: Refundables::new(),
            made: 0,
            damaged: 0,
            donors: 0,
            now: Millis::MIN,
            newest_at: None,
            oracle: Oracle::new(campaigns.len()),
            campaigns,
        })
    }

    /// How many records of each sort the whole stream has.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many records were made so far.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// When the last record happened: the clock of the stream. Before the first one it has
    /// none.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Makes the next record at its place in the simulated day; false, and
    /// nothing made, when the stream is at its end.
    pub fn next(&mut self, record: &mut Record) -> bool {
        if self.made == self.counts.total() {
            return false;
        }
        let now = self.day.at(self.made);
        self.make(now, self.day.is_matching(), record);
        true
    }

    /// The same, but it happens at `now` instead of in the simulated day. A
    /// clock that goes back is taken for one that stands.
    pub fn next_at(&mut self, now: Millis, record: &mut Record) -> bool {
        if self.made == self.counts.total() {
            return false;
        }
        self.make(now.max(self.now), false, record);
        true
    }

    /// What the records made so far must add up to.
    pub fn expected(&self) -> Expected {
        self.oracle.expected(&self.campaigns)
    }

    fn make(&mut self, now: Millis, is_matching: bool, record: &mut Record) {
        self.now = now;
        match self.draw(is_matching) {
            Draw::Fresh(Kind::Refund) => self.refund(record),
            Draw::Fresh(kind) => self.fresh(kind, record),
            Draw::Repeat => self.repeat(record),
            Draw::Malformed => self.malformed(record),
        }
        self.made += 1;
    }

    /// Takes one record out of the urn.
    fn draw(&mut self, is_matching: bool) -> Draw {
        let left = &mut self.left;
        let matches = if is_matching {
            left.matches * MATCHING_FACTOR
        } else {
            left.matches
        };
        let mut number = self.random.below(left.total() - left.matches + matches);
        let sorts = [
            (
                left.donations,
                &mut left.donations,
                Draw::Fresh(Kind::Donation),
            ),
            (left.flowers, &mut left.flowers, Draw::Fresh(Kind::Flower)),
            (matches, &mut left.matches, Draw::Fresh(Kind::Match)),
            (left.repeats, &mut left.repeats, Draw::Repeat),
            (left.refunds, &mut left.refunds, Draw::Fresh(Kind::Refund)),
        ];
        for (weight, left, draw) in sorts {
            if number < weight {
                *left -= 1;
                return draw;
            }
            number -= weight;
        }
        left.malformed -= 1;
        Draw::Malformed
    }

    /// A donation, match or flower.
    fn fresh(&mut self, kind: Kind, record: &mut Record) {
        let bits = self.random.bits();
        let is_other_currency = kind != Kind::Flower && bits >> 32 < self.other_currency_below;
        let amount = match (kind, &mut self.purse) {
            (Kind::Flower, _) => flowers(bits),
            (Kind::Donation, Some(purse)) => purse.next(&self.amounts, &mut self.random),
            _ => self.amounts.draw(&mut self.random),
        };
        let draft = Draft {
            kind,
            campaign: self.campaigns.draw(&mut self.random),
            // A sponsor is no participant, and one gift of 32 is anonymous.
            donor: match kind {
                Kind::Match => None,
                _ if bits & 31 == 0 => None,
                _ => Some(self.donor()),
            },
            amount,
            currency: if is_other_currency {
                other_currency(bits)
            } else {
                CNY
            },
            at: self.event_time(),
            is_at_text: bits >> 8 & 63 == 0,
            is_kind_left_out: bits >> 14 & 15 == 0,
            channel: (kind != Kind::Match).then_some((bits >> 18) as u8 % CHANNELS.len() as u8),
            ..self.blank()
        };
        if kind == Kind::Donation && self.counts.refunds > 0 {
            let Draft {
                id,
                campaign,
                donor,
                amount,
                currency,
                channel,
                ..
            } = draft;
            let donation = Refundable {
                id,
                campaign,
                donor,
                amount,
                currency,
                channel,
            };
            self.refundables.push(donation, bits >> 21 & 0xffff);
        }
        self.send(&draft, bits, record);
    }

    /// Gives back all of an earlier donation.
    fn refund(&mut self, record: &mut Record) {
        let Some(donation) = self.refundables.take(&mut self.random) else {
            return self.something_else(|left| &mut left.refunds, record);
        };
        let draft = Draft {
            kind: Kind::Refund,
            campaign: donation.campaign,
            donor: donation.donor,
            amount: donation.amount,
            currency: donation.currency,
            at: self.event_time(),
            channel: donation.channel,
            refund_of: Some(donation.id),
            ..self.blank()
        };
        let bits = self.random.bits();
        self.send(&draft, bits, record);
    }

    /// Sends an earlier event again.
    fn repeat(&mut self, record: &mut Record) {
        match self.sent.any(&mut self.random) {
            Some(earlier) => record.clone_from(earlier),
            None => return self.something_else(|left| &mut left.repeats, record),
        }
        self.oracle.count_repeat();
    }

    /// A donation that cannot be read. It touches no donor and no purse.
    fn malformed(&mut self, record: &mut Record) {
        let bits = self.random.bits();
        let draft = Draft {
            campaign: self.campaigns.draw(&mut self.random),
            donor: Some(bits >> 40),
            amount: self.amounts.draw(&mut self.random),
            channel: Some(0),
            ..self.blank()
        };
        let damage = Damage::ALL[(self.damaged % Damage::ALL.len() as u64) as usize];
        self.damaged += 1;
        record.key = draft.id;
        damage.write(
            &draft,
            self.campaigns.name(draft.campaign),
            bits,
            &mut record.payload,
        );
        self.oracle.count_malformed();
    }

    /// Early in the stream there may be nothing yet to repeat or refund. What
    /// was drawn then goes back into the urn (`of` names its place in it), and
    /// a donation comes instead; or a flower where none is left, which needs no
    /// exact count and disturbs no sum.
    fn something_else(&mut self, of: fn(&mut Counts) -> &mut u64, record: &mut Record) {
        if self.left.donations > 0 {
            self.left.donations -= 1;
            *of(&mut self.left) += 1;
            self.fresh(Kind::Donation, record);
        } else {
            self.fresh(Kind::Flower, record);
        }
    }

    fn send(&mut self, draft: &Draft, bits: u64, record: &mut Record) {
        record.key = draft.id;
        draft.write(self.campaigns.name(draft.campaign), &mut record.payload);
        self.oracle.count(draft);
        if self.counts.repeats > 0 {
            self.sent.push(record, bits >> 37 & 0xffff);
        }
    }

    /// A donation of nothing, with the next id.
    fn blank(&self) -> Draft {
        Draft {
            id: self.ulids.make(self.now, self.made),
            kind: Kind::Donation,
            campaign: 0,
            donor: None,
            amount: 0,
            currency: CNY,
            at: self.now,
            is_at_text: false,
            is_kind_left_out: false,
            channel: None,
            refund_of: None,
        }
    }

    /// A donor: somebody new, or anybody who has given before.
    fn donor(&mut self) -> u64 {
        let bits = self.random.bits();
        if self.donors == 0 || bits >> 32 < self.new_donor_below {
            self.donors += 1;
            return self.donors - 1;
        }
        ((bits & 0xffff_ffff) * self.donors) >> 32
    }

    /// Now for most events, some time before the newest for a few.
    fn event_time(&mut self) -> Millis {
        let bits = self.random.bits();
        if let Some(newest) = self.newest_at {
            let back = bits & 0xffff_ffff;
            if bits >> 32 < self.late_below {
                return newest - (LATE_MS.0 + ((back * LATE_MS.1) >> 32)) as i64;
            }
            if bits >> 32 < self.out_of_order_below {
                return newest - 1 - ((back * (OUT_OF_ORDER_MS - 1)) >> 32) as i64;
            }
        }
        self.newest_at = Some(self.now);
        self.now
    }
}

/// Any currency but the first.
fn other_currency(bits: u64) -> u8 {
    1 + (bits >> 5 & 0xffff) as u8 % (CURRENCIES.len() - 1) as u8
}

/// Flowers cost nothing: mostly one, now and then nine or a bunch.
fn flowers(bits: u64) -> i64 {
    match bits >> 25 & 63 {
        0 => 99,
        1..=4 => 9,
        5..=12 => 3,
        _ => 1,
    }
}
