//! Which segments of ids a checkpoint consists of.
//!
//! Ids seen since the last checkpoint go into one new segment, so a checkpoint
//! writes what is new. A piece (see [`Ids::SEGMENT`]) that has become full is
//! written once more as one segment; one that has come in too many parts is put
//! together, which costs at most a sixteenth of a piece, 64 KiB, a checkpoint.
//! So a partition has one object for each 65,536 ids and a few more.

use std::ops::Range;

use crate::shard::Ids;

/// Of how many segments the newest piece may consist.
const PARTS: usize = 16;

/// The segments that hold the ids at `held`, in order, given that those at
/// `stored` are in the store; what is not among them is to be written.
pub fn plan(stored: &[Range<u64>], held: Range<u64>) -> Vec<Range<u64>> {
    let mut planned = Vec::new();
    let mut start = held.start;
    while start < held.end {
        let end = (start + Ids::SEGMENT).min(held.end);
        let mut parts = follow(stored, start, end);
        let reached = parts.last().map_or(start, |part| part.end);
        if reached < end {
            parts.push(reached..end);
        }
        let is_full = end - start == Ids::SEGMENT;
        if (is_full && parts.len() > 1) || parts.len() > PARTS {
            parts.clear();
            parts.push(start..end);
        }
        planned.extend(parts);
        start = end;
    }
    planned
}

/// Stored segments from `start` on, each beginning where the one before ends,
/// none beyond `end`.
fn follow(stored: &[Range<u64>], start: u64, end: u64) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut next = start;
    while let Some(part) = stored
        .iter()
        .filter(|part| part.start == next && next < part.end && part.end <= end)
        .max_by_key(|part| part.end)
    {
        parts.push(part.clone());
        next = part.end;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_ids_are_covered_once(
            growth in prop::collection::vec((0u64..50_000, 0u32..8), 1..120),
        ) {
            let (mut stored, mut end, mut first) = (Vec::new(), 0, 0);
            for (more, fate) in growth {
                end += more;
                match fate {
                    // The oldest piece is cut off, or a segment is found missing.
                    0 if first + Ids::SEGMENT <= end => first += Ids::SEGMENT,
                    1 if !stored.is_empty() => drop(stored.remove(more as usize % stored.len())),
                    _ => {}
                }
                let planned = plan(&stored, first..end);
                let mut next = first;
                for part in &planned {
                    prop_assert_eq!(part.start, next);
                    prop_assert!(part.start < part.end);
                    prop_assert_eq!(part.start / Ids::SEGMENT, (part.end - 1) / Ids::SEGMENT);
                    next = part.end;
                }
                prop_assert_eq!(next, end);
                let pieces = (end - first).div_ceil(Ids::SEGMENT) as usize;
                prop_assert!(planned.len() <= pieces + PARTS);
                stored = planned;
            }
        }
    }

    #[test]
    fn what_is_written_follows_what_is_new() {
        for new in [1, 100, 10_000, 1_000_000] {
            let (mut stored, mut written) = (Vec::new(), 0);
            for checkpoint in 1..=1_000 {
                let planned = plan(&stored, 0..checkpoint * new);
                let ids = |part: &Range<u64>| part.end - part.start;
                let missing = planned.iter().filter(|part| !stored.contains(part));
                written += missing.map(ids).sum::<u64>();
                stored = planned;
            }
            assert!(
                written <= 1_000 * (2 * new + Ids::SEGMENT / 16),
                "{written}"
            );
        }
    }

    #[test]
    fn a_checkpoint_writes_what_is_new() {
        let full = Ids::SEGMENT;
        assert_eq!(plan(&[], 0..full + 5), [0..full, full..full + 5]);
        assert_eq!(plan(&[0..10, 10..20], 0..20), [0..10, 10..20]);
        assert_eq!(plan(&[0..10, 10..20], 0..25), [0..10, 10..20, 20..25]);
        assert_eq!(
            plan(&[0..10, 10..25], 0..full + 5),
            [0..full, full..full + 5]
        );
    }
}
