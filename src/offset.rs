//! Places in the log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a partition of the donations topic.
pub type Partition = i32;

/// The **next** offset to apply, everywhere in this program.
///
/// A shard at `Offset(o)` holds the fold of the records `0..o`; the record at
/// `o` itself is not in it. So a shard that has read nothing is at
/// [`Offset::START`], and a partition is read to its end when its offset equals
/// Kafka's high watermark.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// Nothing read yet.
    pub const START: Offset = Offset(0);

    /// The offset after the record that stands at `record`.
    pub fn after(record: i64) -> Offset {
        Offset(record + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
