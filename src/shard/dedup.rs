//! The set of ids: exact, and forgetful by the watermark only.

use crate::event::{Id, Millis, seconds};

/// Small tables grow one at a time, so the set never doubles as a whole.
const TABLES: usize = 256;

/// The ids of one partition with the watermark, in whole seconds, at which each
/// was first seen. An id is forgotten when the watermark has moved on by the
/// horizon since then.
///
/// Whether an id is known depends on the stamps alone. A stamp that is too old
/// means "never seen" whether its slot has been cleared away or not, so the set
/// may clear up when it likes (it does when a table grows).
#[derive(Debug)]
pub struct IdSet {
    horizon_s: u32,
    tables: Vec<Table>,
}

/// Open addressing with linear probing. 20 bytes a slot.
#[derive(Debug, Default)]
struct Table {
    ids: Vec<u128>,
    /// When each id was first seen, in seconds since the epoch.
    stamps: Vec<u32>,
    filled: usize,
}

/// The slot of no id.
const FREE: u128 = 0;

/// What stands for the id 0: a number that no id is in practice.
const ZERO: u128 = 0xd1b5_4a32_d192_ed03_9e37_79b9_7f4a_7c15;

impl IdSet {
    /// An empty set that forgets ids once the watermark has moved on by
    /// `horizon_s` seconds.
    pub fn new(horizon_s: u32) -> IdSet {
        let tables = (0..TABLES).map(|_| Table::default()).collect();
        IdSet { horizon_s, tables }
    }

    /// Puts `id` in; `false` if it is known.
    pub fn insert(&mut self, id: Id, watermark: Millis) -> bool {
        let (id, hash, now_s) = (slot_id(id), mix(id), seconds(watermark));
        let horizon_s = self.horizon_s;
        let table = &mut self.tables[(hash >> 56) as usize];
        if table.filled * 4 >= table.ids.len() * 3 {
            table.grow(now_s, horizon_s);
        }
        let slot = table.slot_of(id, hash);
        if table.ids[slot] == FREE {
            table.ids[slot] = id;
            table.filled += 1;
        } else if now_s - table.stamps[slot] < horizon_s {
            return false;
        }
        table.stamps[slot] = now_s;
        true
    }

    /// Whether `id` is known.
    pub fn contains(&self, id: Id, watermark: Millis) -> bool {
        let (id, hash) = (slot_id(id), mix(id));
        let table = &self.tables[(hash >> 56) as usize];
        if table.ids.is_empty() {
            return false;
        }
        let slot = table.slot_of(id, hash);
        table.ids[slot] != FREE && seconds(watermark) - table.stamps[slot] < self.horizon_s
    }

    /// How many ids are held, those not yet cleared away included.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.filled).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// The slot that holds `id`, or the free one where it would go. There is
    /// always a free slot: a table grows at three quarters.
    #[inline]
    fn slot_of(&self, id: u128, hash: u64) -> usize {
        let length = self.ids.len();
        // The low 56 bits spread over the length, which is no power of two.
        let mut slot = ((u128::from(hash << 8) * length as u128) >> 64) as usize;
        while self.ids[slot] != FREE && self.ids[slot] != id {
            slot += 1;
            if slot == length {
                slot = 0;
            }
        }
        slot
    }

    /// Clears forgotten ids away, and takes half as many slots more if those
    /// that are left still need it.
    #[cold]
    fn grow(&mut self, now_s: u32, horizon_s: u32) {
        let old_ids = std::mem::take(&mut self.ids);
        let old_stamps = std::mem::take(&mut self.stamps);
        let kept = |id: u128, stamp: u32| id != FREE && now_s - stamp < horizon_s;
        let old = || old_ids.iter().copied().zip(old_stamps.iter().copied());

        self.filled = old().filter(|&(id, stamp)| kept(id, stamp)).count();
        let slots = (self.filled * 2).max(16);
        self.ids = vec![FREE; slots];
        self.stamps = vec![0; slots];
        for (id, stamp) in old().filter(|&(id, stamp)| kept(id, stamp)) {
            let slot = self.slot_of(id, mix(Id(id)));
            self.ids[slot] = id;
            self.stamps[slot] = stamp;
        }
    }
}

#[inline]
fn slot_id(id: Id) -> u128 {
    if id.0 == FREE { ZERO } else { id.0 }
}

/// Spreads an id over 64 bits: ULIDs of one moment differ in few of theirs.
#[inline]
fn mix(id: Id) -> u64 {
    let id = slot_id(id);
    let (high, low) = ((id >> 64) as u64, id as u64);
    let product =
        u128::from(high ^ 0x9e37_79b9_7f4a_7c15) * u128::from(low ^ 0xd1b5_4a32_d192_ed03);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const START_S: u32 = 1_662_652_800;

    /// The rule, word for word.
    struct Model(HashMap<u128, u32>);

    impl Model {
        fn insert(&mut self, id: u128, now_s: u32, horizon_s: u32) -> bool {
            match self.0.get(&id) {
                Some(&stamp) if now_s < stamp + horizon_s => false,
                _ => {
                    self.0.insert(id, now_s);
                    true
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn equals_the_rule(
            steps in proptest::collection::vec((0u128..300, 0u32..3), 0..3_000),
            horizon_s in 1u32..200,
        ) {
            let (mut ids, mut model) = (IdSet::new(horizon_s), Model(HashMap::new()));
            let mut now_s = START_S;
            for (id, later_s) in steps {
                now_s += later_s;
                let now = Millis::from(now_s) * 1000 + 999;
                let known = model.0.get(&id).is_some_and(|&s| now_s < s + horizon_s);
                proptest::prop_assert_eq!(ids.contains(Id(id), now), known);
                let new = model.insert(id, now_s, horizon_s);
                proptest::prop_assert_eq!(ids.insert(Id(id), now), new);
            }
        }
    }

    #[test]
    fn forgotten_ids_make_room() {
        let mut ids = IdSet::new(10);
        for i in 0..1_000_000u32 {
            let now = Millis::from(START_S + i / 1_000) * 1000;
            assert!(ids.insert(Id(u128::from(i) << 64), now));
        }
        // 10 s hold 10,000 ids; tables of that many would hold twice as many at most.
        assert!(ids.len() < 40_000, "{} ids are held", ids.len());
    }
}
