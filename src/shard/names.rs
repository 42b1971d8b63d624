//! Numbers for the names of campaigns.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// The names that the shards of one worker have met, each with a number.
///
/// Every shard has campaigns of its own, in an order of its own. If each looked names up
/// by itself, no cache would hold so many tables and names; these are looked up once, and
/// a shard goes by the number. A shard must meet only one of these in its life.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashTable<u32>,
    /// All names, one behind the other, and where each ends.
    text: String,
    ends: Vec<usize>,
}

impl Names {
    /// The number of a name, from 0 on; a new name is given the next.
    #[inline]
    pub fn number(&mut self, name: &str) -> u32 {
        let hash = xxh3_64(name.as_bytes());
        let (text, ends) = (&self.text, &self.ends);
        let is_it = |&number: &u32| of(text, ends, number) == name.as_bytes();
        match self.numbers.find(hash, is_it) {
            Some(&number) => number,
            None => self.add(name, hash),
        }
    }

    #[cold]
    fn add(&mut self, name: &str, hash: u64) -> u32 {
        let number = self.ends.len() as u32;
        self.text.push_str(name);
        self.ends.push(self.text.len());
        let (text, ends) = (&self.text, &self.ends);
        let hash_of = |&number: &u32| xxh3_64(of(text, ends, number));
        self.numbers.insert_unique(hash, number, hash_of);
        number
    }
}

#[inline]
fn of<'a>(text: &'a str, ends: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    &text.as_bytes()[start..ends[number]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let mut names = Names::default();
        for _ in 0..2 {
            for number in 0..5_000 {
                assert_eq!(names.number(&format!("campaign {number}")), number);
            }
        }
        // The borders between names are no part of them.
        assert_eq!(names.number("campaign 0campaign 1"), 5_000);
        assert_eq!(names.number(""), 5_001);
        assert_eq!(names.number(""), 5_001);
    }
}
