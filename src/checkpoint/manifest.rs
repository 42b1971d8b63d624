//! What a checkpoint consists of.

use std::ops::Range;

use object_store::PutPayload;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::object::{self, Checksum, Kind};
use crate::event::Millis;
use crate::offset::{Offset, Partition};
use crate::shard::Record;

/// A checkpoint: which shard it is, what log it was folded from and by which
/// rules, and the objects that hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The donations topic.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// The epoch of the totals.
    pub epoch: u32,
    /// What shapes the fold, as [`Rules`](crate::shard::Rules) are displayed.
    pub rules: String,
    /// What the shard is exact at.
    pub offset: Offset,
    /// The log's fingerprint: the last record before the offset. `None` if there
    /// is none: all before it are markers of transactions.
    pub last_record: Option<RecordId>,
    /// When it was written, in milliseconds since the epoch.
    pub written_at: Millis,
    /// The process that wrote it.
    pub writer: String,
    /// The counters: a whole one, then what changed since.
    pub counters: Vec<Named>,
    /// The ids: segments that follow each other.
    pub ids: Vec<IdSegment>,
}

/// An object of this partition that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name within the partition's folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The checksum that it ends with.
    pub checksum: Checksum,
}

/// A segment of ids that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdSegment {
    /// The place of its first id.
    pub first: u64,
    /// The place after its last id.
    pub end: u64,
    /// The object that holds it.
    #[serde(flatten)]
    pub object: Named,
}

impl IdSegment {
    /// The places of its ids.
    pub fn places(&self) -> Range<u64> {
        self.first..self.end
    }
}

/// What tells a record from any other that could stand in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordId {
    /// Where it stands.
    pub offset: i64,
    /// Its own timestamp.
    pub timestamp: Option<Millis>,
    /// XXH3 at 128 bits of its key and value.
    pub hash: Checksum,
}

impl RecordId {
    /// The identity of a record with a key.
    pub fn of(record: &Record<'_>, key: Option<&[u8]>) -> RecordId {
        let mut hash = Xxh3::new();
        for part in [key, record.payload] {
            // Nothing and an empty text differ; and no two pairs run together.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(&length.to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        RecordId {
            offset: record.offset,
            timestamp: record.timestamp,
            hash: Checksum(hash.digest128()),
        }
    }
}

impl Manifest {
    /// All objects that it names.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, &Named)> {
        let counters = self.counters.iter().map(|object| (Kind::Counters, object));
        let ids = self.ids.iter();
        counters.chain(ids.map(|segment| (Kind::Ids, &segment.object)))
    }

    /// The object with this number among all that it names.
    pub(super) fn object(&self, number: usize) -> Option<(Kind, Named)> {
        let found = self.objects().nth(number);
        found.map(|(kind, object)| (kind, object.clone()))
    }

    /// How many bytes its objects have.
    pub fn bytes(&self) -> u64 {
        self.objects().map(|(_, object)| object.bytes).sum()
    }

    /// How many ids it holds.
    pub fn id_count(&self) -> u64 {
        let counts = self.ids.iter().map(|segment| segment.end - segment.first);
        counts.sum()
    }

    pub(super) fn to_object(&self) -> PutPayload {
        let json = serde_json::to_vec_pretty(self).expect("a manifest is JSON");
        object::pack(Kind::Manifest, json).0.into_iter().collect()
    }

    pub(super) fn from_object(bytes: &[u8]) -> Result<Manifest, String> {
        let (json, _) = object::unpack(Kind::Manifest, bytes)?;
        serde_json::from_slice(json).map_err(|error| format!("it is no manifest: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_record_covers_all_of_it() {
        let record = Record {
            offset: 7,
            timestamp: Some(1),
            payload: Some(b"ab"),
        };
        let same = |record: Record<'_>, key: Option<&[u8]>| {
            RecordId::of(&record, key)
                == RecordId::of(
                    &Record {
                        payload: Some(b"ab"),
                        offset: 7,
                        timestamp: Some(1),
                    },
                    Some(b"k"),
                )
        };
        assert!(same(record, Some(b"k")));
        assert!(!same(record, None));
        assert!(!same(record, Some(b"")));
        assert!(!same(
            Record {
                offset: 8,
                ..record
            },
            Some(b"k")
        ));
        assert!(!same(
            Record {
                timestamp: None,
                ..record
            },
            Some(b"k")
        ));
        assert!(!same(
            Record {
                payload: None,
                ..record
            },
            Some(b"k")
        ));
        assert!(!same(
            Record {
                payload: Some(b"b"),
                ..record
            },
            Some(b"ka")
        ));
    }
}
