//! Numbers for the names of campaigns.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::native::prefetch;

/// The names that the shards of one worker have met, each with a number.
///
/// Every shard has campaigns of its own, in an order of its own. If each looked names up
/// by itself, no cache would hold so many tables and names; these are looked up once, and
/// a shard goes by the number. A shard must meet only one of these in its life.
///
/// Open addressing, half full at most. A name stands in the first slot from its home on that
/// was free, so one look into memory finds it, and one that can be asked for ahead.
#[derive(Debug, Default)]
pub struct Names {
    /// A power of two of them, or none.
    slots: Vec<Slot>,
    /// By number.
    names: Vec<Arc<str>>,
}

/// The longest name that stands in its slot, in bytes.
const SHORT: usize = 27;

#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Slot {
    number: u32,
    /// How many bytes of `name` are the name; [`LONG`]: it does not fit.
    len: u8,
    name: [u8; SHORT],
}

const LONG: u8 = u8::MAX;

/// The number of a slot in which nothing stands.
const FREE: u32 = u32::MAX;

const EMPTY: Slot = Slot {
    number: FREE,
    len: 0,
    name: [0; SHORT],
};

/// What a name is found by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hash(u64);

impl Names {
    /// The name that has a number.
    pub(super) fn name(&self, number: u32) -> &Arc<str> {
        &self.names[number as usize]
    }

    /// The number of a name, from 0 on; a new name is given the next.
    pub fn number(&mut self, name: &str) -> u32 {
        let hash = self.look_ahead(name);
        self.find_or_add(name, hash)
    }

    /// Asks memory for what tells the number of a name.
    #[inline]
    pub(super) fn look_ahead(&self, name: &str) -> Hash {
        let hash = Hash(xxh3_64(name.as_bytes()));
        if let Some(slot) = self.slots.get(self.home(hash)) {
            prefetch(slot);
        }
        hash
    }

    /// The number of a name by its hash.
    #[inline]
    pub(super) fn find_or_add(&mut self, name: &str, hash: Hash) -> u32 {
        let mut at = self.home(hash);
        while let Some(slot) = self.slots.get(at).filter(|slot| slot.number != FREE) {
            if is_same(self.name_in(slot), name.as_bytes()) {
                return slot.number;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.add(name, hash)
    }

    #[inline]
    fn home(&self, hash: Hash) -> usize {
        hash.0 as usize & self.slots.len().wrapping_sub(1)
    }

    #[inline]
    fn name_in<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        match slot.len {
            LONG => self.name(slot.number).as_bytes(),
            len => &slot.name[..usize::from(len)],
        }
    }

    #[cold]
    fn add(&mut self, name: &str, hash: Hash) -> u32 {
        if self.slots.len() <= 2 * self.names.len() {
            self.grow();
        }
        let mut slot = Slot {
            number: self.names.len() as u32,
            len: LONG,
            name: [0; SHORT],
        };
        if name.len() <= SHORT {
            slot.len = name.len() as u8;
            slot.name[..name.len()].copy_from_slice(name.as_bytes());
        }
        self.names.push(name.into());
        self.put(slot, hash);
        slot.number
    }

    fn put(&mut self, slot: Slot, hash: Hash) {
        let mut at = self.home(hash);
        while self.slots[at].number != FREE {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; (2 * self.slots.len()).max(1_024)];
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if slot.number != FREE {
                let hash = Hash(xxh3_64(self.name_in(&slot)));
                self.put(slot, hash);
            }
        }
    }
}

/// Most names have 16 to 32 bytes: their first 16 and their last 16 are all of them.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    const HALF: usize = 16;
    let ends = |name: &[u8]| {
        let (first, last) = (name.first_chunk::<HALF>()?, name.last_chunk::<HALF>()?);
        Some((u128::from_le_bytes(*first), u128::from_le_bytes(*last)))
    };
    match (ends(one), ends(other)) {
        (Some(one_ends), Some(other_ends)) if one.len() <= 2 * HALF => {
            one.len() == other.len() && one_ends == other_ends
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let mut names = Names::default();
        for _ in 0..2 {
            for number in 0..5_000 {
                // Short ones and long ones, and one that is the beginning of another.
                let name = format!("campaign {number}{}", "-".repeat(number % 40));
                assert_eq!(names.number(&name), number as u32);
            }
        }
        assert_eq!(names.number(""), 5_000);
        assert_eq!(names.number("campaign"), 5_001);
        assert_eq!(names.number(""), 5_000);
    }
}
