//! After a start nothing is published until the fold has reached what was
//! published before.

use std::collections::BTreeMap;

use crate::offset::{Offset, Partition};

/// The offsets that must be reached in every partition before the first cut of
/// a process may be published: those of the newest cut in the topic, open or
/// complete. An open one counts because any of its upserts may have been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    offsets: BTreeMap<Partition, Offset>,
}

impl Gate {
    /// A gate at the offsets of a cut.
    pub fn at(offsets: BTreeMap<Partition, Offset>) -> Gate {
        Gate { offsets }
    }

    /// Whether `held` has reached the gate in every partition.
    pub fn is_reached(&self, held: &BTreeMap<Partition, Offset>) -> bool {
        self.records_left(held) == 0
            && self
                .offsets
                .keys()
                .all(|partition| held.contains_key(partition))
    }

    /// The part of the gate that lies in the partitions that are held.
    pub fn within(&self, held: &BTreeMap<Partition, Offset>) -> Gate {
        let mut offsets = self.offsets.clone();
        offsets.retain(|partition, _| held.contains_key(partition));
        Gate { offsets }
    }

    /// How many partitions it is in.
    pub fn partitions(&self) -> usize {
        self.offsets.len()
    }

    /// How many offsets are left to read before the gate is reached.
    pub fn records_left(&self, held: &BTreeMap<Partition, Offset>) -> u64 {
        let left = |(partition, wanted): (&Partition, &Offset)| {
            let reached = held.get(partition).copied().unwrap_or_default();
            wanted.0.saturating_sub(reached.0).max(0) as u64
        };
        self.offsets.iter().map(left).sum()
    }
}
