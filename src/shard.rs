//! A shard: the pure fold of one partition's prefix.
//!
//! `Shard(p, o) = fold(apply, records 0..o of partition p)`. [`Shard::apply`]
//! looks at nothing but the shard and the record: no clock, no randomness, no
//! iteration order. So the same prefix makes the same shard on any machine.
//!
//! Every record has exactly one [`Outcome`], and the numbers explain it:
//! `seen = counted + duplicates + dead letters`, for the shard and for each
//! campaign.
//!
//! What the shard has counted leaves it as a [`Flush`]: the values that changed
//! in `(from, to]`, absolute, exact at `to`. Adding shards up is left to
//! [`crate::merge`].

mod calendar;
mod dedup;
mod donors;
mod flush;
mod journal;
mod ledger;
mod names;
mod panes;
mod rules;
mod snapshot;
mod values;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

pub use calendar::{Calendar, Day};
pub use dedup::{IdSet, Ids, Segment};
pub use donors::{Donor, Donors, DonorsUnion};
pub use flush::{CampaignDonors, Change, Changes, DonorsFlush, Flush};
pub use ledger::{Figures, Ledger, Row};
pub use names::Names;
pub use panes::{Pane, Panes, Window};
pub use rules::Rules;
pub use snapshot::{Damaged, Snapshot};
pub use values::{Counts, Values};

use serde::{Deserialize, Serialize};

use crate::event::{self, Event, Gift, Id, Millis, Reason, Rejected};
use crate::money::Money;
use crate::native::prefetch;
use crate::offset::{Offset, Partition};
use flush::NewDonors;
use journal::{Entry, Journal, What};

/// A record of the partition, as the fold sees it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it stands.
    pub offset: i64,
    /// Its own timestamp, set by the producer or the broker.
    pub timestamp: Option<Millis>,
    /// Its value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// How many records are decoded before they are counted: enough for memory to answer, and
/// not so many that what it brings pushes out what it brought before.
const AT_ONCE: usize = 32;

/// No place.
const UNKNOWN: u32 = u32::MAX;

/// What a record on its way through [`Shard::apply_all`] gives.
struct Decoded<'a> {
    given: Result<Given, Box<Rejected>>,
    campaign: Cow<'a, str>,
    /// The hash, and then the number, of its campaign's name.
    hash: names::Hash,
    name: u32,
}

/// An event as it is counted.
#[derive(Clone, Copy, Debug)]
struct Given {
    id: Id,
    gift: Gift,
    donor: Option<Donor>,
    at: Millis,
    /// The place of its campaign, once it is known.
    place: usize,
}

impl Given {
    #[inline]
    fn of(event: &Event<'_>) -> Given {
        Given {
            id: event.id,
            gift: event.gift,
            donor: event.donor.as_deref().map(Donor::of),
            at: event.at,
            place: 0,
        }
    }
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the totals.
    Counted,
    /// Its id was seen before; it changed no total.
    Duplicate,
    /// It cannot be counted. Whoever applies it keeps it with the reason.
    DeadLetter(Box<Rejected>),
}

/// How many records of a shard had which outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub seen: u64,
    /// In the totals.
    pub counted: u64,
    /// Seen before.
    pub duplicates: u64,
    /// Counted, but too old for every window.
    pub late: u64,
    /// Not countable, by the place of the reason in [`Reason::ALL`].
    pub dead_letters: [u64; Reason::ALL.len()],
}

impl Tally {
    /// Records that could not be counted, for whatever reason.
    pub fn dead(&self) -> u64 {
        self.dead_letters.iter().sum()
    }
}

/// All counters that come from one source partition.
#[derive(Debug)]
pub struct Shard {
    partition: Partition,
    rules: Rules,
    offset: Offset,
    watermark: Option<Millis>,
    tally: Tally,
    ids: IdSet,
    donors: Donors,
    /// All amounts that were counted, whatever they are, as one sum; 2^64 - 1 at most.
    sum_of_all: u64,
    /// What the campaigns are still to get.
    journal: Journal,
    /// The places of campaigns by the [numbers](Names) of their names.
    places: Vec<u32>,
    /// How many campaigns are in `places`; after a restore the others are not, yet.
    numbered: usize,
    /// By place.
    names: Vec<Arc<str>>,
    campaigns: Vec<Campaign>,
    /// How many campaigns merge has been told the names of.
    names_flushed: usize,
    /// Up to where it has been told, and what changed since.
    flushed: Offset,
    changed: Vec<usize>,
    /// The same of the sketches.
    donors_flushed: Offset,
    new_donors: NewDonors,
    /// The same of snapshots, and the number of the next.
    kept: Offset,
    kept_changed: Vec<usize>,
    next_snapshot: u32,
    /// How many bytes a campaign took in the last snapshot.
    kept_bytes_each: usize,
    /// The snapshot that is being taken.
    begun: Option<snapshot::Begun>,
}

/// What events change of a campaign. It begins and ends with lines of the caches.
#[derive(Debug)]
#[repr(align(64))]
struct Campaign {
    values: Values,
    donors: Donors,
    changed: bool,
    /// The last snapshot that it is, or will be, in because it changed.
    in_snapshot: u32,
    kept_donors_changed: bool,
}

impl Campaign {
    fn new() -> Campaign {
        Campaign {
            values: Values::default(),
            donors: Donors::campaign(),
            changed: false,
            in_snapshot: 0,
            // The first snapshot has the sketch of nobody, too.
            kept_donors_changed: true,
        }
    }
}

impl Shard {
    /// The shard of an empty prefix.
    pub fn new(partition: Partition, rules: Rules) -> Shard {
        Shard {
            partition,
            ids: IdSet::new(rules.dedup_horizon_s),
            rules,
            offset: Offset::START,
            watermark: None,
            tally: Tally::default(),
            donors: Donors::overall(),
            sum_of_all: 0,
            journal: Journal::default(),
            places: Vec::new(),
            numbered: 0,
            names: Vec::new(),
            campaigns: Vec::new(),
            names_flushed: 0,
            flushed: Offset::START,
            changed: Vec::new(),
            donors_flushed: Offset::START,
            new_donors: NewDonors::Uncounted,
            kept: Offset::START,
            kept_changed: Vec::new(),
            next_snapshot: 1,
            kept_bytes_each: 512,
            begun: None,
        }
    }

    /// The prefix's end: the next offset to apply.
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The highest `at` seen.
    pub fn watermark(&self) -> Option<Millis> {
        self.watermark
    }

    /// How many campaigns were named so far.
    pub fn campaign_count(&self) -> usize {
        self.campaigns.len()
    }

    /// How many records had which outcome.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Folds in the next record.
    ///
    /// Offsets may leave gaps (transaction markers, compaction) but never go
    /// back: a record before the shard's offset is in it already, and applying
    /// it would count it twice.
    ///
    /// # Panics
    /// If `record.offset` lies before the shard's offset.
    pub fn apply(&mut self, record: Record<'_>, names: &mut Names) -> Outcome {
        self.number_campaigns(names);
        let given = event::decode(record.payload).map_err(Box::new);
        let given = given.map(|event| {
            let name = names.number(&event.campaign);
            let place = self.place(name, names);
            Given {
                place,
                ..Given::of(&event)
            }
        });
        self.fold(record.offset, record.timestamp, &given)
    }

    /// Folds in records one after the other, as [`apply`](Shard::apply) does each; those
    /// that cannot be counted are said to `dead`, by their place among the records.
    ///
    /// Ids and campaigns lie anywhere in memory, which answers slowly. So some records are
    /// decoded first, and what tells of theirs is asked for together. They are looked at
    /// twice: a clone of the iterator must give the same ones.
    ///
    /// # Panics
    /// As `apply`.
    pub fn apply_all<'a>(
        &mut self,
        records: impl IntoIterator<Item = Record<'a>, IntoIter: Clone>,
        names: &mut Names,
        mut dead: impl FnMut(usize, Rejected),
    ) {
        self.number_campaigns(names);
        let mut records = records.into_iter().enumerate();
        let mut decoded: Vec<Decoded<'_>> = Vec::with_capacity(AT_ONCE);
        loop {
            for (_, record) in records.clone().take(AT_ONCE) {
                let (given, campaign) = match event::decode(record.payload) {
                    Ok(event) => (Ok(Given::of(&event)), event.campaign),
                    Err(rejected) => (Err(Box::new(rejected)), Cow::Borrowed("")),
                };
                let mut hash = names::Hash::default();
                if given.is_ok() {
                    hash = names.look_ahead(&campaign);
                }
                decoded.push(Decoded {
                    given,
                    campaign,
                    hash,
                    name: UNKNOWN,
                });
            }
            if decoded.is_empty() {
                return;
            }
            // All at once: where an id lies, page tables tell, which no cache holds either.
            for given in decoded.iter().flat_map(|it| &it.given) {
                self.ids.prefetch(given.id);
            }
            for it in decoded.iter_mut().filter(|it| it.given.is_ok()) {
                it.name = names.find_or_add(&it.campaign, it.hash);
                self.places
                    .get(it.name as usize)
                    .inspect(|it| prefetch(*it));
            }
            for it in &mut decoded {
                if let Ok(given) = &mut it.given {
                    given.place = self.place(it.name, names);
                    self.journal.prefetch(given.place);
                }
            }
            // In this order: when no more were decoded, no record is taken.
            for (it, (number, record)) in decoded.iter().zip(&mut records) {
                let outcome = self.fold(record.offset, record.timestamp, &it.given);
                if let Outcome::DeadLetter(rejected) = outcome {
                    dead(number, *rejected);
                }
            }
            decoded.clear();
        }
    }

    /// Folds in the record at `offset` with what was given by it.
    fn fold(
        &mut self,
        offset: i64,
        timestamp: Option<Millis>,
        given: &Result<Given, Box<Rejected>>,
    ) -> Outcome {
        assert!(
            offset >= self.offset.0,
            "partition {}: record {offset} applied to a shard at {}",
            self.partition,
            self.offset
        );
        self.offset = Offset::after(offset);
        self.tally.seen += 1;
        let outcome = match given {
            Ok(given) => self.count(given, timestamp),
            Err(rejected) => Outcome::DeadLetter(rejected.clone()),
        };
        match &outcome {
            Outcome::Counted => self.tally.counted += 1,
            Outcome::Duplicate => self.tally.duplicates += 1,
            Outcome::DeadLetter(rejected) => {
                self.tally.dead_letters[rejected.reason as usize] += 1;
            }
        }
        outcome
    }

    /// Says that about so many records are to come, as far as is known: the set of ids makes
    /// room for them sooner.
    pub fn expect(&mut self, records: u64) {
        self.ids.expect(records);
    }

    /// Moves on to `offset` where the log has no records in between.
    pub fn skip_to(&mut self, offset: Offset) {
        self.offset = self.offset.max(offset);
    }

    /// Decides what becomes of an event, and enters it for its campaign.
    fn count(&mut self, given: &Given, timestamp: Option<Millis>) -> Outcome {
        let outcome = self.decide(given, timestamp);
        let what = match outcome {
            Outcome::Counted => {
                let watermark = self.watermark.unwrap_or(given.at);
                let late = panes::is_late(given.at, watermark);
                self.tally.late += u64::from(late);
                self.sum_of_all = self
                    .sum_of_all
                    .saturating_add(given.gift.amount().unsigned_abs());
                if let Some(donor) = given.donor {
                    self.donors.see(donor);
                }
                match late {
                    true => What::Late,
                    false => What::Counted,
                }
            }
            Outcome::Duplicate => What::Duplicate,
            Outcome::DeadLetter(_) => What::DeadLetter,
        };
        if self.journal.is_full() {
            self.post();
        }
        self.journal.enter(Entry {
            at: given.at,
            gift: given.gift,
            donor: given.donor,
            place: given.place as u32,
            what,
        });
        outcome
    }

    fn decide(&mut self, given: &Given, timestamp: Option<Millis>) -> Outcome {
        if let Err(rejected) = self.rules.check_clock(given.at, timestamp) {
            return Outcome::DeadLetter(Box::new(rejected));
        }
        let watermark = self.watermark.map_or(given.at, |it| it.max(given.at));
        if !self.has_room_for(given) {
            // Not in the set of ids, unless it was counted before the sum grew so far.
            if self.ids.contains(given.id, watermark) {
                self.watermark = Some(watermark);
                return Outcome::Duplicate;
            }
            let detail = format!(
                "the sum of {} on {} would pass {}",
                self.names[given.place],
                self.rules.calendar.day_of(given.at),
                Money::SUM_MAX.0
            );
            return Outcome::DeadLetter(Box::new(Rejected::new(Reason::Overflow, detail)));
        }
        self.watermark = Some(watermark);
        match self.ids.insert(given.id, watermark) {
            true => Outcome::Counted,
            false => Outcome::Duplicate,
        }
    }

    /// Whether what was given fits into the sums of its campaign. If all that was ever
    /// given to this shard makes one sum that it fits into, it need not be looked at.
    #[inline]
    fn has_room_for(&mut self, given: &Given) -> bool {
        let amount = given.gift.amount().unsigned_abs();
        let most = self.sum_of_all.saturating_add(amount);
        most <= Money::SUM_MAX.0.unsigned_abs() || self.looks_for_room(given)
    }

    #[cold]
    fn looks_for_room(&mut self, given: &Given) -> bool {
        self.post();
        let day = self.rules.calendar.day_of(given.at);
        let ledger = &self.campaigns[given.place].values.ledger;
        ledger.has_room_for(day, given.gift)
    }

    /// The place of a campaign by the number of its name; a new one is given a place.
    #[inline]
    fn place(&mut self, name: u32, names: &Names) -> usize {
        match self.places.get(name as usize) {
            Some(&place) if place != UNKNOWN => place as usize,
            _ => self.add(name, names),
        }
    }

    #[cold]
    fn add(&mut self, name: u32, names: &Names) -> usize {
        let place = self.campaigns.len();
        self.names.push(names.name(name).clone());
        self.campaigns.push(Campaign::new());
        self.set_place(name, place);
        place
    }

    fn set_place(&mut self, name: u32, place: usize) {
        let name = name as usize;
        if self.places.len() <= name {
            self.places.resize(name + 1, UNKNOWN);
        }
        self.places[name] = place as u32;
        self.numbered = place + 1;
    }

    /// Numbers the campaigns that came out of a checkpoint.
    fn number_campaigns(&mut self, names: &mut Names) {
        for place in self.numbered..self.names.len() {
            let name = names.number(&self.names[place]);
            self.names[place] = names.name(name).clone(); // One text for all shards.
            self.set_place(name, place);
        }
    }
}
