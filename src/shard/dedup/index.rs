//! Where each id stands in the log: hash tables that grow one at a time.

use wide::u8x16;

use super::log::IdLog;
use crate::event::Id;
use crate::native::prefetch;

/// By the hash of an id, the last 32 bits of its place in the log.
///
/// A table doubles when it is full. If all were of one size, all would double at
/// about the same moment, and the set would be at its largest for its content.
/// So the last gets twice as many ids as the first, those between by degrees:
/// they double one after the other, and the set is always half way. While many
/// ids are to come, tables grow in steps of four to what they will hold then.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
    /// How many more ids there will be, as far as is known.
    to_come: u64,
}

/// With fewer and larger tables, what one leaves behind when it doubles is large enough for
/// the allocator to use it for something else; with 256, it was lost in pieces.
const TABLES: usize = 32;
/// Into how many parts ids fall, to be shared out between the tables.
const PARTS: usize = 4_096;
/// The shares of all tables: table `t` has `TABLES + t`.
const SHARES: usize = TABLES * TABLES + (TABLES - 1) * TABLES / 2;

/// Which table a part belongs to.
const TABLE_OF: [u8; PARTS] = {
    let mut table_of = [0; PARTS];
    let (mut table, mut part) = (0, 0);
    while part < PARTS {
        // The shares of the tables up to this one.
        let shares = (table + 1) * TABLES + table * (table + 1) / 2;
        if part * SHARES >= shares * PARTS {
            table += 1;
        } else {
            table_of[part] = table as u8;
            part += 1;
        }
    }
    table_of
};

/// How many of so many ids belong to the table of this number, if they fall as they should.
fn share(ids: u64, number: usize) -> usize {
    (ids * (TABLES + number) as u64).div_ceil(SHARES as u64) as usize
}

/// For how many ids a table is made that will have about so many: a little more, since they
/// do not fall evenly, and not the same part more for all tables, or all would be full at the
/// same moment.
fn with_spare(ids: usize, number: usize) -> usize {
    ids + ids * (2 + number) / 128
}

impl Index {
    /// An empty index with room for so many ids.
    pub fn with_room_for(ids: u64) -> Index {
        let table = |number| Table {
            buckets: empty(buckets_for(with_spare(share(ids, number), number))),
            len: 0,
        };
        Index {
            tables: (0..TABLES).map(table).collect(),
            to_come: 0,
        }
    }

    /// Says that about so many more ids will be put in, so that tables grow to what they
    /// will hold in fewer steps.
    pub fn expect(&mut self, ids: u64) {
        self.to_come = ids.min(1 << 32); // The log holds no more.
    }

    /// Asks memory for what tells whether an id is known.
    #[inline]
    pub fn prefetch(&self, id: Id) {
        let hash = mix(id);
        let table = &self.tables[table_of(hash)];
        if let Some(bucket) = table.buckets.get(table.home(hash)) {
            prefetch(bucket);
        }
    }

    /// What stands for an id.
    #[inline]
    pub fn find(&self, id: Id, log: &IdLog) -> Option<u32> {
        let hash = mix(id);
        let table = &self.tables[table_of(hash)];
        let (bucket, slot) = table.find(hash, |place| log.id(log.place(place)) == id)?;
        Some(table.buckets[bucket].places[slot])
    }

    /// What stands for an id, to put another in its place.
    #[inline]
    pub fn find_mut(&mut self, id: Id, log: &IdLog) -> Option<&mut u32> {
        let hash = mix(id);
        let table = &mut self.tables[table_of(hash)];
        let (bucket, slot) = table.find(hash, |place| log.id(log.place(place)) == id)?;
        Some(&mut table.buckets[bucket].places[slot])
    }

    /// Puts in what stands for an id for which nothing stands.
    #[inline]
    pub fn add(&mut self, id: Id, place: u32, log: &IdLog) {
        let hash = mix(id);
        let number = table_of(hash);
        let table = &mut self.tables[number];
        if table.is_full() {
            let to_come = share(self.to_come, number);
            table.grow(larger(table.buckets.len(), to_come, number), log);
        }
        table.put(hash, place);
    }

    /// Takes an id out, if that is what stands for it.
    pub fn remove(&mut self, id: Id, place: u32) {
        let hash = mix(id);
        self.tables[table_of(hash)].remove(hash, place);
    }
}

/// By bits of the hash that tables do not look at.
#[inline]
fn table_of(hash: u64) -> usize {
    TABLE_OF[(hash >> 44) as usize % PARTS].into()
}

/// Spreads an id over 64 bits: ULIDs of one moment differ in few of theirs.
#[inline]
fn mix(id: Id) -> u64 {
    let (high, low) = ((id.0 >> 64) as u64, id.0 as u64);
    let product =
        u128::from(high ^ 0x9e37_79b9_7f4a_7c15) * u128::from(low ^ 0xd1b5_4a32_d192_ed03);
    (product >> 64) as u64 ^ product as u64
}

/// Open addressing by buckets, each a line of the caches: whether an id is known costs one
/// look into memory, and one that can be asked for ahead.
///
/// An id stands in the first bucket from its home on that had room.
#[derive(Debug)]
struct Table {
    buckets: Vec<Bucket>,
    len: usize,
}

const SLOTS: usize = 12;
/// How many ids there are at most for each bucket: of buckets that are fuller, too many ids
/// go on.
const FULL: usize = 10;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    /// A part of the hash for each slot, none of which is [`FREE`]. Four more, so that they
    /// can be compared at once.
    tags: [u8; 16],
    places: [u32; SLOTS],
}

/// The tag of a slot in which nothing stands.
const FREE: u8 = 0;

/// Where among its tags a bucket has how many ids went on to the next, since it was full.
const PASSED: std::ops::Range<usize> = SLOTS..16;

impl Bucket {
    const EMPTY: Bucket = Bucket {
        tags: [FREE; 16],
        places: [0; SLOTS],
    };

    /// Marks the slots that have a tag by bits.
    #[inline]
    fn slots(&self, tag: u8) -> u32 {
        let equal = u8x16::new(self.tags).simd_eq(u8x16::splat(tag));
        equal.to_bitmask() & ((1 << SLOTS) - 1)
    }

    #[inline]
    fn passed(&self) -> u32 {
        let [.., a, b, c, d] = self.tags;
        u32::from_le_bytes([a, b, c, d])
    }

    fn set_passed(&mut self, passed: u32) {
        self.tags[PASSED].copy_from_slice(&passed.to_le_bytes());
    }
}

fn empty(buckets: usize) -> Vec<Bucket> {
    vec![Bucket::EMPTY; buckets]
}

/// How many buckets hold so many ids, and are not full.
fn buckets_for(ids: usize) -> usize {
    match ids {
        0 => 0,
        _ => ids / FULL + 1,
    }
}

/// How many buckets a table gets that has so many and is full: twice as many; or, if more
/// than a quarter more ids are to come, as many as it will need then, or a fourth of that, or
/// a fourth of that again and so on: not more than four times as many as it has, since those
/// ids may have been seen before, or come when others are forgotten.
fn larger(buckets: usize, to_come: usize, number: usize) -> usize {
    let least = buckets.max(1);
    if to_come <= buckets * FULL / 4 {
        return 2 * least;
    }
    let mut larger = buckets_for(with_spare(buckets * FULL + to_come, number));
    while larger > 4 * least {
        larger = larger.div_ceil(4);
    }
    larger
}

/// Goes through the slots that are marked.
fn marked(mut slots: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = (slots != 0).then(|| slots.trailing_zeros() as usize);
        slots &= slots.wrapping_sub(1);
        slot
    })
}

/// The highest bits, as no bucket goes by them.
#[inline]
fn tag(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(FREE + 1)
}

impl Table {
    /// Where an id belongs: as far among the buckets as the half of its hash is among the
    /// numbers of 32 bits.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The buckets in which an id may stand, from its home on.
    #[inline]
    fn in_turn(&self, hash: u64) -> impl Iterator<Item = usize> {
        let home = self.home(hash);
        std::iter::successors(Some(home), |&at| Some(self.next(at))).take(self.buckets.len())
    }

    /// The bucket behind one.
    #[inline]
    fn next(&self, at: usize) -> usize {
        match at + 1 {
            next if next < self.buckets.len() => next,
            _ => 0,
        }
    }

    #[inline]
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        for at in self.in_turn(hash) {
            let bucket = &self.buckets[at];
            for slot in marked(bucket.slots(tag(hash))) {
                if is_it(bucket.places[slot]) {
                    return Some((at, slot));
                }
            }
            if bucket.passed() == 0 {
                break;
            }
        }
        None
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.len >= self.buckets.len() * FULL
    }

    /// Puts in an id that is not there, for which there is room.
    #[inline]
    fn put(&mut self, hash: u64, place: u32) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(slot) = marked(bucket.slots(FREE)).next() {
                bucket.tags[slot] = tag(hash);
                bucket.places[slot] = place;
                self.len += 1;
                return;
            }
            bucket.set_passed(bucket.passed() + 1);
            at = self.next(at);
        }
    }

    fn remove(&mut self, hash: u64, place: u32) {
        let Some((found, slot)) = self.find(hash, |it| it == place) else {
            return;
        };
        self.buckets[found].tags[slot] = FREE;
        self.len -= 1;
        let passed: Vec<_> = self.in_turn(hash).take_while(|&at| at != found).collect();
        for at in passed {
            let bucket = &mut self.buckets[at];
            bucket.set_passed(bucket.passed() - 1);
        }
    }

    /// Gives it so many buckets instead of those that it has.
    ///
    /// The hashes are those of the ids in the log, which lie anywhere: those of some buckets
    /// are asked for ahead.
    #[cold]
    fn grow(&mut self, larger: usize, log: &IdLog) {
        const AHEAD: usize = 4;
        let old = std::mem::replace(&mut self.buckets, empty(larger));
        let places = |bucket: &Bucket| {
            let places = bucket.places;
            let free = bucket.slots(FREE);
            marked(!free & ((1 << SLOTS) - 1)).map(move |slot| places[slot])
        };
        self.len = 0;
        for (at, bucket) in old.iter().enumerate() {
            if let Some(ahead) = old.get(at + AHEAD) {
                places(ahead).for_each(|place| log.prefetch(log.place(place)));
            }
            for place in places(bucket) {
                self.put(mix(log.id(log.place(place))), place);
            }
        }
    }
}

#[cfg(test)]
impl Index {
    /// How many ids are in it.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.len).sum()
    }

    /// What it takes when the largest table grows, and the old one is still there.
    pub fn bytes_at_most(&self) -> usize {
        let tables = || {
            self.tables
                .iter()
                .map(|table| size_of_val(&table.buckets[..]))
        };
        tables().sum::<usize>() + tables().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_get_their_share() {
        let mut parts = [0; TABLES];
        TABLE_OF
            .iter()
            .for_each(|&table| parts[table as usize] += 1);
        assert!((85..=87).contains(&parts[0]), "{}", parts[0]);
        assert!(
            (169..=171).contains(&parts[TABLES - 1]),
            "{}",
            parts[TABLES - 1]
        );
    }

    #[test]
    fn a_table_grows_to_what_is_to_come() {
        for number in 0..TABLES {
            assert_eq!(larger(0, 0, number), 2);
            assert_eq!(larger(1_000, 0, number), 2_000);
            assert_eq!(larger(1_000, 2_500, number), 2_000);
            for ids in [12_501, 20_000, 39_999, 40_000, 1 << 20, 1 << 32] {
                for start in [0, 1, 7, 1_000] {
                    let mut buckets = start;
                    while buckets * FULL < ids {
                        let more = larger(buckets, ids - buckets * FULL, number);
                        assert!((buckets + 1..=4 * buckets.max(1)).contains(&more));
                        buckets = more;
                    }
                    let spare = (buckets * FULL) as f64 / ids as f64 - 1.0;
                    assert!(spare < 0.3, "{ids} from {start}, table {number}: {spare}");
                }
            }
        }
    }

    #[test]
    fn there_is_room_for_what_it_is_made_for() {
        for ids in 1..1_000 {
            let mut table = Table {
                buckets: empty(buckets_for(ids)),
                len: ids,
            };
            assert!(!table.is_full(), "{ids}");
            table.len = buckets_for(ids) * FULL;
            assert!(table.is_full());
        }
    }

    proptest::proptest! {
        /// Few homes, so that ids go on to other buckets, all around and back.
        #[test]
        fn a_table_is_a_map(
            buckets in 1..8usize,
            steps in proptest::collection::vec((0u64..4, 0u32..30, proptest::bool::ANY), 0..400),
        ) {
            let mut table = Table {
                buckets: empty(buckets),
                len: 0,
            };
            // The first bucket, the last, and some between.
            let hash = |home: u64, number: u32| (home * 0x5555_5555) | u64::from(number) << 55;
            proptest::prop_assert_eq!(table.home(hash(0, 0)), 0);
            proptest::prop_assert_eq!(table.home(hash(3, 0)), buckets - 1);
            let mut known = std::collections::BTreeSet::new();
            for (home, number, put) in steps {
                let (hash, place) = (hash(home, number), number * 4 + home as u32);
                let found = table.find(hash, |it| it == place).is_some();
                proptest::prop_assert_eq!(found, known.contains(&place));
                if !put {
                    table.remove(hash, place);
                    known.remove(&place);
                } else if !found && !table.is_full() {
                    table.put(hash, place);
                    known.insert(place);
                }
                proptest::prop_assert_eq!(table.len, known.len());
            }
            for &place in &known {
                let hash = hash(u64::from(place % 4), place / 4);
                proptest::prop_assert!(table.find(hash, |it| it == place).is_some());
                table.remove(hash, place);
            }
            for bucket in &table.buckets {
                proptest::prop_assert_eq!(bucket.tags, Bucket::EMPTY.tags);
            }
        }
    }
}
