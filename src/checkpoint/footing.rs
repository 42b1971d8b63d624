//! Whether a log is the one that a shard was folded from.
//!
//! Nobody tells when a topic is made anew under its name, or when an unclean
//! election replaces the end of a partition. So whoever reads on for a shard
//! begins with the last record that the shard holds: it must be the one that was
//! folded. That costs one record, and no other client.

use super::RecordId;
use crate::offset::Offset;
use crate::shard::Record;

/// What a shard knows of the log that it stands on.
#[derive(Clone, Copy, Debug)]
pub struct Footing {
    /// The last record that was folded; `None`: none was.
    last_record: Option<RecordId>,
    /// Whether the log that is read now has been seen to hold that record.
    is_verified: bool,
    /// Whether that record has expired, or if there is none, all before the shard's offset.
    is_expired: bool,
}

impl Footing {
    /// That of a shard whose last record was this one; not yet verified.
    pub fn of(last_record: Option<RecordId>) -> Footing {
        Footing {
            last_record,
            is_verified: last_record.is_none(),
            is_expired: false,
        }
    }

    /// The last record that was folded.
    pub fn last_record(&self) -> Option<RecordId> {
        self.last_record
    }

    /// Whether what is read now may be folded.
    pub fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Whether all has expired that the log could be known by, so that no reader can bring
    /// it.
    pub fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// Where to read from: the last record, so that it can be verified, or the beginning,
    /// so that it is seen that there is none. `next` is the shard's own offset.
    pub fn read_from(&self, next: Offset) -> Offset {
        match self.last_record {
            _ if self.is_expired => next,
            Some(last) => Offset(last.offset),
            None => Offset::START,
        }
    }

    /// The log is read from [`read_from`](Footing::read_from) again, and may be
    /// another one.
    pub fn doubt(&mut self) {
        *self = Footing::of(self.last_record);
    }

    /// Takes the first record that is read: whether it is the last one that was
    /// folded. If it is not, the log is another one, and nothing may be folded.
    pub fn verify(&mut self, record: &Record<'_>, key: Option<&[u8]>) -> bool {
        self.is_verified = self.last_record == Some(RecordId::of(record, key));
        self.is_verified
    }

    /// A record was folded.
    pub fn step(&mut self, record: &Record<'_>, key: Option<&[u8]>) {
        self.last_record = Some(RecordId::of(record, key));
        self.is_expired = false;
    }

    /// The log begins behind the last record, and no later than at the shard's offset: it
    /// is the same one, since a new one begins at 0. It is read from the offset on.
    pub fn has_expired(&mut self) {
        (self.is_verified, self.is_expired) = (true, true);
    }
}
