//! Checkpoints: shards in an object store, so that a restart need not fold the log
//! from its beginning.
//!
//! A checkpoint is a cache of the fold, and no more: a damaged one is skipped,
//! and with none at all a restart is only slow, never wrong. So nothing here is
//! locked, nobody is fenced off, and every process may write checkpoints of every
//! partition: whatever they hold is true at the offset that they name.
//!
//! ```text
//! <url>/<topic>/epoch-<n>/<partition>/
//!     manifests/<offset>.<writer>         written last; names the others
//!     counters/<from>-<offset>.<writer>   whole (from 0), or what changed in between
//!     ids/<first>-<end>.<writer>          up to 65,536 ids
//! ```
//!
//! Every object is immutable, has a name that is never given again, and ends with
//! a checksum ([`object`]). [`Keeper`] writes, [`restore()`] reads, [`collect`]
//! deletes. There is no clock here: whoever calls says what time it is.

pub mod collect;
#[cfg(test)]
mod example;
mod footing;
mod inspect;
mod keeper;
mod manifest;
pub mod object;
mod restore;
mod segments;
mod store;

pub use footing::Footing;
pub use inspect::{Inspected, Inspector};
pub use keeper::{Keeper, SAVE_WITHIN_MS, Unsaved, Written};
pub use manifest::{IdSegment, Manifest, Named, RecordId};
pub use restore::{RestoreError, Restored, manifests, restore};
pub use store::{Folder, Found, LeftOver, OpenError, Store, StoreError};

use crate::offset::Offset;

/// What all checkpoints of a process have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The donations topic.
    pub topic: String,
    /// The epoch of the totals.
    pub epoch: u32,
    /// What shapes the fold, as [`Rules`](crate::shard::Rules) are displayed.
    pub rules: String,
}

const MANIFESTS: &str = "manifests";
const COUNTERS: &str = "counters";
const IDS: &str = "ids";

/// The offset in a manifest's name; `None` if it is no such name.
pub(crate) fn offset_of(name: &str) -> Option<Offset> {
    let name = name.strip_prefix(MANIFESTS)?.strip_prefix('/')?;
    let (offset, writer) = name.split_once('.')?;
    let is_name = offset.len() == 20 && offset.bytes().all(|b| b.is_ascii_digit());
    let offset = offset.parse().ok().map(Offset);
    offset.filter(|_| is_name && !writer.is_empty())
}
