//! The set of ids: exact, and forgetful by the watermark only.

mod index;
mod log;

use crate::event::{Id, Millis, seconds};
use index::Index;
use log::IdLog;
pub use log::{Ids, Segment};

/// The ids of one partition with the watermark, in whole seconds, at which each
/// was first seen. An id is forgotten when the watermark has moved on by the
/// horizon since then.
///
/// The ids themselves stand in a log, in the order in which they came. Since
/// watermarks only rise, what is to be forgotten is always the oldest part of
/// it, and what a checkpoint has not got yet is always the newest. An index
/// says where in the log an id stands.
///
/// Whether an id is known depends on the stamps alone. One that is too old
/// means "never seen" whether the log still holds it or not, so the log may be
/// cut off in pieces of any size.
#[derive(Debug)]
pub struct IdSet {
    horizon_s: u32,
    log: IdLog,
    index: Index,
}

impl IdSet {
    /// An empty set that forgets ids once the watermark has moved on by
    /// `horizon_s` seconds.
    pub fn new(horizon_s: u32) -> IdSet {
        IdSet::of(horizon_s, IdLog::default())
    }

    /// The set that was kept as `ids`.
    pub(super) fn restore(horizon_s: u32, ids: Ids) -> IdSet {
        let mut set = IdSet::of(horizon_s, IdLog::from(ids));
        for place in set.log.places() {
            let id = set.log.id(place);
            match set.index.find_mut(id, &set.log) {
                // One that came again after it was forgotten stands at the later place.
                Some(earlier) => *earlier = place as u32,
                None => set.index.add(id, place as u32, &set.log),
            }
        }
        set
    }

    /// With room for the places of all ids in the log, and none of them yet.
    fn of(horizon_s: u32, log: IdLog) -> IdSet {
        let places = log.places();
        IdSet {
            horizon_s,
            log,
            index: Index::with_room_for(places.end - places.start),
        }
    }

    /// Says that about so many ids will be put in, as far as is known: it makes room for
    /// them sooner.
    pub fn expect(&mut self, ids: u64) {
        self.index.expect(ids);
    }

    /// Puts `id` in; `false` if it is known. The watermark must not fall from
    /// one call to the next.
    pub fn insert(&mut self, id: Id, watermark: Millis) -> bool {
        let (now_s, place) = (seconds(watermark), self.log.end() as u32);
        match self.index.find_mut(id, &self.log) {
            Some(known) if self.log.came_within(*known, self.horizon_s, now_s) => return false,
            Some(forgotten) => *forgotten = place,
            None => self.index.add(id, place, &self.log),
        }
        self.log.push(id, now_s);
        if self.log.is_expired(now_s, self.horizon_s) {
            self.forget();
        }
        true
    }

    /// Asks memory for what tells whether `id` is known.
    #[inline]
    pub(super) fn prefetch(&self, id: Id) {
        self.index.prefetch(id);
    }

    /// Whether `id` is known.
    pub fn contains(&self, id: Id, watermark: Millis) -> bool {
        let place = self.index.find(id, &self.log);
        place.is_some_and(|place| {
            let now_s = seconds(watermark);
            self.log.came_within(place, self.horizon_s, now_s)
        })
    }

    /// How many ids are held, those not yet cut off included.
    pub fn len(&self) -> usize {
        let places = self.log.places();
        (places.end - places.start) as usize
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that is held, for a checkpoint: shared but for what may still change.
    pub(super) fn ids(&self) -> Ids {
        self.log.ids()
    }

    /// Cuts the oldest piece off. One at a time, so that the fold never stops
    /// for long; the next id takes the next one.
    #[cold]
    fn forget(&mut self) {
        let places = self.log.oldest();
        for place in places {
            self.index.remove(self.log.id(place), place as u32);
        }
        self.log.cut_off();
    }
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

    /// As it comes back from a checkpoint.
    fn restored(ids: &IdSet) -> IdSet {
        let kept = ids.ids();
        let bytes: Vec<_> = kept.segments().map(|segment| segment.to_bytes()).collect();
        let again = Ids::from_segments(bytes.iter().map(|bytes| &bytes[..])).unwrap();
        IdSet::restore(ids.horizon_s, again)
    }

    proptest::proptest! {
        #[test]
        fn equals_the_rule(
            steps in proptest::collection::vec((0u128..300, 0u32..3), 0..3_000),
            horizon_s in 1u32..200,
            restore_at in 0usize..3_000,
        ) {
            let (mut ids, mut model) = (IdSet::new(horizon_s), Model(HashMap::new()));
            let mut now_s = START_S;
            for (step, (id, later_s)) in steps.into_iter().enumerate() {
                now_s += later_s;
                let now = Millis::from(now_s) * 1000 + 999;
                let known = model.0.get(&id).is_some_and(|&s| now_s < s + horizon_s);
                proptest::prop_assert_eq!(ids.contains(Id(id), now), known);
                let new = model.insert(id, now_s, horizon_s);
                proptest::prop_assert_eq!(ids.insert(Id(id), now), new);
                if step == restore_at {
                    let again = restored(&ids);
                    proptest::prop_assert_eq!(again.ids(), ids.ids());
                    ids = again;
                }
            }
        }
    }

    #[test]
    fn forgotten_ids_make_room() {
        let mut ids = IdSet::new(10);
        for i in 0..1_000_000u32 {
            let now = Millis::from(START_S + i / 1_000) * 1000;
            assert!(ids.insert(Id(u128::from(i) << 64), now));
            if i % 100_003 == 0 {
                ids = restored(&ids);
            }
        }
        // 10 s hold 10,000 ids; what is cut off are pieces of 65,536.
        assert!(ids.len() < 80_000, "{} ids are held", ids.len());
        assert_eq!(ids.index.len(), ids.len());
    }

    /// However much tables grow, all that is in them stays.
    #[test]
    fn what_is_expected_changes_nothing_that_is_known() {
        const HORIZON_S: u32 = 150_000;
        let mut ids = IdSet::new(HORIZON_S);
        let id = |number: u32| Id(u128::from(number) << 64 | 7);
        // One a second, in three pieces.
        let now = |second: u32| Millis::from(START_S + second) * 1_000;
        let count = 2 * Ids::SEGMENT as u32 + 30_000;
        for second in 0..count {
            ids.expect(if second % 3 == 0 { u64::MAX } else { 0 });
            assert!(ids.insert(id(second), now(second)));
        }
        let end = now(count - 1);
        let oldest_known = count - HORIZON_S;
        for set in [&ids, &restored(&ids)] {
            assert_eq!(set.index.len(), set.len());
            for number in 0..count {
                assert_eq!(set.contains(id(number), end), number >= oldest_known);
            }
        }
        for number in 0..count {
            assert_eq!(ids.insert(id(number), end), number < oldest_known);
        }
    }

    /// Bytes of the index for some numbers of ids, as if a table was growing: both the old and
    /// the new one are there, of one in 32. `to_come` says how many are, after so many.
    fn index_bytes(to_come: impl Fn(u64) -> u64) -> Vec<(u64, f64)> {
        let mut ids = IdSet::new(u32::MAX);
        let mut bytes = Vec::new();
        for i in 0..IDS {
            if i % 5_000 == 0 {
                ids.expect(to_come(i));
                bytes.push((i, ids.index.bytes_at_most() as f64));
            }
            let id = u128::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            ids.insert(Id(id), Millis::from(START_S) * 1_000);
        }
        bytes
    }
    const IDS: u64 = 3_000_000;
    /// Of an id in the log.
    const LOGGED: f64 = 16.0;

    #[test]
    fn an_id_costs_27_bytes() {
        let worst = |to_come| {
            let bytes = index_bytes(|_| to_come).into_iter();
            let each = bytes.filter(|(ids, _)| *ids >= IDS / 4);
            each.fold(0.0, |most, (ids, bytes)| {
                f64::max(most, LOGGED + bytes / ids as f64)
            })
        };
        let (usual, behind) = (worst(0), worst(u64::MAX));
        assert!(usual < 27.0, "{usual:.1} bytes an id");
        // There is room for four times as many.
        assert!(
            behind < 42.0,
            "{behind:.1} bytes an id, of which more are to come"
        );
    }

    #[test]
    fn an_id_costs_24_bytes_if_it_was_expected() {
        let bytes = index_bytes(|ids| IDS - ids).into_iter();
        let most = LOGGED + bytes.fold(0.0, |most, (_, bytes)| f64::max(most, bytes)) / IDS as f64;
        assert!(most < 24.0, "{most:.1} bytes an id");
    }
}
