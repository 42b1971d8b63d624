//! A shard as bytes, and back: what a checkpoint keeps of it.
//!
//! The same shard makes the same bytes, wherever and however often it was
//! restored on the way, so two folds of the same prefix can be compared byte by
//! byte. Nothing that is read back is trusted: bytes that no shard can have
//! made are [`Damaged`], never a panic.
//!
//! The counters come whole, or as what changed since the snapshot before: the
//! values of those campaigns, absolute, as in a flush. The ids come as what they
//! are kept in, shared, so that taking a snapshot copies no more than the last
//! piece of them.
//!
//! A snapshot need not stop the fold until all of it is encoded. Once it is begun,
//! the shard is folded on, and a campaign that is about to change is encoded
//! before it does; the others are encoded a few at a time.

mod difference;

use std::collections::HashSet;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use super::{Campaign, Donors, IdSet, Ids, Ledger, Rules, Shard, Tally, Values};
use crate::event::Millis;
use crate::offset::{Offset, Partition};

/// A shard at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose it is.
    pub partition: Partition,
    /// What must be restored before; [`Offset::START`]: nothing, it is whole.
    pub from: Offset,
    /// What the shard is exact at.
    pub offset: Offset,
    /// The counters that changed in `(from, offset]`, encoded.
    pub counters: Vec<u8>,
    /// All ids that are held.
    pub ids: Ids,
}

/// Bytes that no shard has made; why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Damaged(pub &'static str);

#[derive(Serialize, Deserialize)]
struct Head {
    partition: Partition,
    from: Offset,
    offset: Offset,
    watermark: Option<Millis>,
    tally: Tally,
    donors: Vec<u8>,
    /// How many entries follow.
    campaigns: usize,
}

/// A campaign, by its place among all of the shard.
#[derive(Serialize)]
struct Entry<'a> {
    place: usize,
    name: &'a str,
    values: &'a Values,
    /// `None`: as in the snapshot before.
    donors: Option<Bytes>,
}

/// Bytes in one go; serde takes a vector's one by one.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

#[derive(Deserialize)]
struct OwnedEntry<'a> {
    place: usize,
    name: &'a str,
    values: Values,
    donors: Option<&'a [u8]>,
}

/// A snapshot that is begun.
#[derive(Debug)]
pub(super) struct Begun {
    snapshot: Snapshot,
    watermark: Option<Millis>,
    /// Whether it has all sketches, and not only those that changed.
    whole: bool,
    /// How long its bytes are before the first campaign.
    head: usize,
    /// The places that are in it; all before `next` are encoded.
    places: Vec<usize>,
    next: usize,
    /// By place, which are still to be encoded. A campaign that came later has none.
    due: Vec<bool>,
}

impl Shard {
    /// The shard as it is now: what changed since the last snapshot was begun, or
    /// everything if there was none.
    pub fn snapshot(&mut self) -> Snapshot {
        self.begin_snapshot(false);
        self.finish_snapshot()
    }

    /// The shard as it is now, whole.
    pub fn full_snapshot(&mut self) -> Snapshot {
        self.begin_snapshot(true);
        self.finish_snapshot()
    }

    /// Whether a snapshot would bring anything.
    pub fn has_changed_since_snapshot(&self) -> bool {
        self.kept < self.offset
    }

    /// Begins a snapshot of the shard as it is now, whole or what changed since the
    /// last one was begun.
    ///
    /// # Panics
    /// If one is begun already.
    pub fn begin_snapshot(&mut self, whole: bool) {
        assert!(self.begun.is_none(), "one snapshot after the other");
        self.post();
        let mut places = std::mem::take(&mut self.kept_changed);
        let mut from = self.kept;
        if whole {
            places = (0..self.campaigns.len()).collect();
            from = Offset::START;
        }
        let mut due = vec![false; self.campaigns.len()];
        for &place in &places {
            due[place] = true;
        }
        self.next_snapshot += 1;
        let head = Head {
            partition: self.partition,
            from,
            offset: self.offset,
            watermark: self.watermark,
            tally: self.tally.clone(),
            donors: self.donors.to_bytes(),
            campaigns: places.len(),
        };
        // A quarter more bytes a campaign than the last time: a buffer that grows is copied,
        // all at once.
        let room = (places.len() + 64) * (self.kept_bytes_each * 5 / 4 + 256);
        let counters = to_bytes(&head, Vec::with_capacity(room));
        self.kept = self.offset;
        self.begun = Some(Begun {
            head: counters.len(),
            snapshot: Snapshot {
                partition: self.partition,
                from,
                offset: self.offset,
                counters,
                ids: self.ids.ids(),
            },
            watermark: self.watermark,
            whole,
            places,
            next: 0,
            due,
        });
    }

    /// Goes on with the snapshot that is begun, by so many campaigns; the snapshot
    /// once it is done. `None` also if none is begun.
    pub fn continue_snapshot(&mut self, campaigns: usize) -> Option<Snapshot> {
        let begun = self.begun.as_mut()?;
        let end = begun.next.saturating_add(campaigns).min(begun.places.len());
        let part = begun.next..end;
        begun.next = end;
        for at in part {
            let begun = self.begun.as_mut()?;
            let place = begun.places[at];
            begun.encode(place, &self.names[place], &mut self.campaigns[place]);
        }
        let is_done = |begun: &mut Begun| begun.next == begun.places.len();
        let begun = self.begun.take_if(is_done)?;
        let of_campaigns = begun.snapshot.counters.len() - begun.head;
        self.kept_bytes_each = of_campaigns / begun.places.len().max(1);
        Some(begun.snapshot)
    }

    fn finish_snapshot(&mut self) -> Snapshot {
        let snapshot = self.continue_snapshot(usize::MAX);
        snapshot.expect("a snapshot is begun, and all of it is done")
    }

    /// The shard that was kept in snapshots: their counters, the whole one first and
    /// then each that follows it, and the ids of the last.
    pub fn restore<'a>(
        partition: Partition,
        rules: Rules,
        counters: impl IntoIterator<Item = &'a [u8]>,
        ids: Ids,
    ) -> Result<Shard, Damaged> {
        let mut shard = Shard::new(partition, rules);
        for bytes in counters {
            shard.take_in(bytes)?;
        }
        if shard.kept == Offset::START {
            return Err(Damaged("there are no counters"));
        }
        let distinct: HashSet<_> = shard.names.iter().collect();
        if distinct.len() < shard.names.len() {
            return Err(Damaged("a campaign has two places"));
        }
        shard.ids = IdSet::restore(shard.rules.dedup_horizon_s, ids);
        let ledgers = shard.campaigns.iter().map(|it| &it.values.ledger);
        let sums = ledgers.map(Ledger::sum_of_all);
        shard.sum_of_all = sums.fold(0, u64::saturating_add);
        Ok(shard)
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), Damaged> {
        let head: Head = from_bytes(&mut bytes)?;
        if head.partition != self.partition {
            return Err(Damaged("the counters are those of another partition"));
        }
        if head.from != self.kept || head.offset <= self.kept {
            return Err(Damaged("the counters do not follow those before"));
        }
        let mut entries = Vec::new();
        for _ in 0..head.campaigns {
            entries.push(from_bytes::<OwnedEntry<'_>>(&mut bytes)?);
        }
        // Those that were about to change come first.
        entries.sort_by_key(|entry| entry.place);
        for entry in entries {
            self.take_campaign(entry)?;
        }
        if !bytes.is_empty() {
            return Err(Damaged("the counters are longer than they say"));
        }
        (self.offset, self.kept) = (head.offset, head.offset);
        (self.watermark, self.tally) = (head.watermark, head.tally);
        self.donors = donors(Donors::overall_from(&head.donors))?;
        Ok(())
    }

    fn take_campaign(&mut self, entry: OwnedEntry<'_>) -> Result<(), Damaged> {
        let values = entry.values;
        if !values.ledger.is_in_order() || !values.panes.is_in_order() {
            return Err(Damaged("the values of a campaign are out of order"));
        }
        let donors = entry
            .donors
            .map(|bytes| donors(Donors::campaign_from(bytes)));
        let Some(known) = self.campaigns.get_mut(entry.place) else {
            let is_next = entry.place == self.campaigns.len();
            let (true, Some(donors)) = (is_next, donors) else {
                return Err(Damaged("a campaign is not in its place"));
            };
            self.names.push(entry.name.into());
            self.campaigns.push(Campaign {
                values,
                donors: donors?,
                kept_donors_changed: false,
                ..Campaign::new()
            });
            return Ok(());
        };
        if *self.names[entry.place] != *entry.name {
            return Err(Damaged("a campaign is not in its place"));
        }
        known.values = values;
        if let Some(donors) = donors {
            known.donors = donors?;
        }
        Ok(())
    }
}

impl Begun {
    /// Encodes a campaign as it is, if it is still to be.
    #[inline]
    pub(super) fn encode(&mut self, place: usize, name: &str, campaign: &mut Campaign) {
        let due = self.due.get_mut(place);
        if due.is_some_and(std::mem::take) {
            self.encode_now(place, name, campaign);
        }
    }

    #[cold]
    fn encode_now(&mut self, place: usize, name: &str, campaign: &mut Campaign) {
        // So that equal shards have equal panes, whenever they were tidied last.
        if let Some(watermark) = self.watermark {
            campaign.values.panes.tidy(watermark);
        }
        let with_donors = std::mem::take(&mut campaign.kept_donors_changed) | self.whole;
        let entry = Entry {
            place,
            name,
            values: &campaign.values,
            donors: with_donors.then(|| Bytes(campaign.donors.to_bytes())),
        };
        let counters = std::mem::take(&mut self.snapshot.counters);
        self.snapshot.counters = to_bytes(&entry, counters);
    }
}

fn donors(decoded: Option<Donors>) -> Result<Donors, Damaged> {
    decoded.ok_or(Damaged("a sketch of donors cannot be read"))
}

/// Where encoded bytes go: behind others.
struct Onto(Vec<u8>);

impl Flavor for Onto {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

fn to_bytes(value: &impl Serialize, onto: Vec<u8>) -> Vec<u8> {
    let done = postcard::serialize_with_flavor(value, Onto(onto));
    done.expect("memory takes all that is written")
}

fn from_bytes<'a, T: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Result<T, Damaged> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|_| Damaged("the counters cannot be read"))?;
    *bytes = rest;
    Ok(value)
}

/// Numbers in little-endian order, one after the other.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (number, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(*number)
    }

    pub fn u32(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn u128(&mut self) -> Result<u128, Damaged> {
        self.take().map(u128::from_le_bytes)
    }

    pub fn end(self) -> Result<(), Damaged> {
        let is_end = self.0.is_empty();
        is_end
            .then_some(())
            .ok_or(Damaged("it is longer than it says"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shard::{Calendar, Names, Outcome, Record};

    const START_MS: Millis = 1_662_652_800_000;

    fn rules() -> Rules {
        Rules {
            calendar: Calendar::of_zone("Asia/Shanghai").unwrap(),
            dedup_horizon_s: 3_600,
            max_ahead_ms: 300_000,
        }
    }

    /// Event `number`: few campaigns, so that all forms of sketches are met.
    fn apply(shard: &mut Shard, names: &mut Names, number: i64) {
        let hash = xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        let (campaign, id) = (
            (hash % 40).min(hash / 40 % 40),
            number - (hash % 97) as i64 / 90,
        );
        let kind = ["donation", "refund", "match", "flower"][(hash >> 8) as usize % 4];
        let currency = ["CNY", "USD"][(hash >> 10) as usize % 2];
        let at = START_MS + number * 2_000 - (hash >> 12) as i64 % 100_000;
        let donor = match (hash >> 40) % 8 {
            0 => String::new(), // Some campaigns have anonymous gifts first.
            _ => format!(r#""donor":"d{}","#, (hash >> 20) % 5_000),
        };
        let currency = match kind {
            "flower" => String::new(),
            _ => format!(r#""currency":"{currency}","#),
        };
        let payload = format!(
            r#"{{"id":"i{id}","kind":"{kind}","campaign":"c{campaign}",{donor}{currency}"amount":1,"at":{at}}}"#
        );
        let record = Record {
            offset: number,
            timestamp: Some(at),
            payload: Some(payload.as_bytes()),
        };
        let outcome = shard.apply(record, names);
        assert!(!matches!(outcome, Outcome::DeadLetter(_)), "{outcome:?}");
    }

    fn ids_of(snapshot: &Snapshot) -> Ids {
        let segments = snapshot.ids.segments();
        let bytes: Vec<_> = segments.map(|segment| segment.to_bytes()).collect();
        Ids::from_segments(bytes.iter().map(|bytes| &bytes[..])).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// However often a shard is kept and restored, it is the fold of the log.
        #[test]
        fn what_is_restored_is_the_fold(steps in prop::collection::vec((1i64..1_500, 0..4), 1..12)) {
            let (mut straight, mut shard) = (Shard::new(3, rules()), Shard::new(3, rules()));
            let (mut kept, mut next) = (Vec::<Snapshot>::new(), 0);
            let mut names = Names::default();
            for (events, what) in steps {
                for number in next..next + events {
                    apply(&mut straight, &mut names, number);
                    apply(&mut shard, &mut names, number);
                }
                next += events;
                if what == 0 {
                    drop(shard.flush()); // It tidies panes, and no more.
                    continue;
                }
                shard.begin_snapshot(kept.is_empty() || what == 1);
                // It is folded on meanwhile, and flushed.
                let mut number = next;
                let snapshot = loop {
                    if let Some(snapshot) = shard.continue_snapshot(3) {
                        break snapshot;
                    }
                    apply(&mut shard, &mut names, number);
                    number += 1;
                    match number % 50 {
                        0 => drop(shard.full_flush()),
                        10 => drop(shard.flush()),
                        _ => {}
                    }
                };
                if snapshot.from == Offset::START {
                    kept.clear();
                }
                kept.push(snapshot);
                if what == 2 {
                    (next..number).for_each(|number| apply(&mut straight, &mut names, number));
                    next = number;
                    continue;
                }
                // What came meanwhile is forgotten.
                let last = kept.last().unwrap();
                let counters = kept.iter().map(|snapshot| &snapshot.counters[..]);
                shard = Shard::restore(3, rules(), counters, ids_of(last)).unwrap();
                prop_assert_eq!(shard.offset(), straight.offset());
            }
            let (straight, shard) = (straight.full_snapshot(), shard.full_snapshot());
            prop_assert!(straight.counters == shard.counters, "the counters differ");
            prop_assert_eq!(straight.ids, shard.ids);
        }

        /// Rot that slips through a checksum is an error, or another shard; no panic.
        #[test]
        fn no_bytes_make_it_panic(at in 0.0..1.0, by in 1u8.., cut in any::<bool>()) {
            let (mut shard, mut names) = (Shard::new(3, rules()), Names::default());
            (0..3_000).for_each(|number| apply(&mut shard, &mut names, number));
            let snapshot = shard.full_snapshot();
            let mut counters = snapshot.counters.clone();
            let mut segment = snapshot.ids.segments().next().unwrap().to_bytes();
            for bytes in [&mut counters, &mut segment] {
                let at = (at * bytes.len() as f64) as usize;
                bytes[at] ^= by;
                if cut {
                    bytes.truncate(at);
                }
            }
            let ids = Ids::from_segments([&segment[..]]);
            prop_assert!(!cut || ids.is_err());
            let ids = ids.unwrap_or(snapshot.ids);
            let restored = Shard::restore(3, rules(), [&counters[..]], ids);
            prop_assert!(!cut || restored.is_err());
        }
    }

    #[test]
    fn a_difference_is_named() {
        let folded = |numbers: &[i64]| {
            let (mut shard, mut names) = (Shard::new(3, rules()), Names::default());
            numbers
                .iter()
                .for_each(|&number| apply(&mut shard, &mut names, number));
            shard.full_snapshot()
        };
        let all: Vec<i64> = (0..500).collect();
        let whole = folded(&all);
        assert_eq!(whole.difference(&folded(&all)), None);
        let differ = |numbers: &[i64]| folded(numbers).difference(&whole).unwrap();
        assert!(differ(&all[..400]).contains("at offset 400, and the fold at 500"));
        assert!(differ(&all[1..]).contains("ids"), "{}", differ(&all[1..]));

        let (mut other, mut names) = (Shard::new(3, rules()), Names::default());
        all.iter()
            .for_each(|&number| apply(&mut other, &mut names, number));
        other.campaigns[7].values.counts.late += 1;
        let name = other.names[7].clone();
        let difference = other.full_snapshot().difference(&whole).unwrap();
        let expected = format!("the numbers of events of campaign {name:?} differ");
        assert_eq!(difference, expected);
    }

    #[test]
    fn snapshots_that_do_not_follow_each_other_are_refused() {
        let (mut shard, mut names) = (Shard::new(3, rules()), Names::default());
        let mut snapshots = Vec::new();
        for number in 0..3 {
            apply(&mut shard, &mut names, number);
            snapshots.push(shard.snapshot());
        }
        let ids = shard.snapshot().ids;
        let restore = |partition, which: &[usize]| {
            let counters = which.iter().map(|&which| &snapshots[which].counters[..]);
            Shard::restore(partition, rules(), counters, ids.clone()).is_ok()
        };
        assert!(restore(3, &[0, 1, 2]));
        for which in [&[][..], &[1], &[0, 2], &[0, 0], &[1, 0], &[0, 1, 2, 0]] {
            assert!(!restore(3, which), "{which:?}");
        }
        assert!(!restore(4, &[0]));
    }
}
