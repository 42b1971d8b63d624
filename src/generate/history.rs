//! What was sent before: for repeats its bytes, for refunds its donation.
//!
//! Both are bounded and reach back some ten thousand records of a long stream,
//! as a payment provider's repeated notice and a donor's change of mind do.

use super::random::Random;
use super::traffic::Record;
use super::ulid::IdText;

/// Records that may be sent again.
pub(super) struct Sent {
    slots: Vec<Record>,
    next: usize,
}

impl Sent {
    const SLOTS: usize = 2_048;
    /// Once full, one record of this many takes the oldest one's place, which
    /// stretches the memory and spares the copying.
    const KEEP_ONE_OF: u64 = 16;

    pub(super) fn new() -> Sent {
        Sent {
            slots: Vec::new(),
            next: 0,
        }
    }

    /// Remembers a record; `bits` decides whether.
    pub(super) fn push(&mut self, record: &Record, bits: u64) {
        if self.slots.len() < Self::SLOTS {
            self.slots.push(record.clone());
        } else if bits.is_multiple_of(Self::KEEP_ONE_OF) {
            self.slots[self.next].clone_from(record);
            self.next = (self.next + 1) % Self::SLOTS;
        }
    }

    /// One of those remembered; it may come again.
    pub(super) fn any(&self, random: &mut Random) -> Option<&Record> {
        let slots = self.slots.len() as u64;
        (slots > 0).then(|| &self.slots[random.below(slots) as usize])
    }
}

/// A donation that was not refunded yet.
#[derive(Clone, Copy)]
pub(super) struct Refundable {
    pub(super) id: IdText,
    pub(super) campaign: u32,
    pub(super) donor: Option<u64>,
    pub(super) amount: i64,
    pub(super) currency: u8,
    pub(super) channel: Option<u8>,
}

/// Donations that may be refunded.
pub(super) struct Refundables {
    slots: Vec<Refundable>,
}

impl Refundables {
    const SLOTS: usize = 1_024;
    const KEEP_ONE_OF: u64 = 64;

    pub(super) fn new() -> Refundables {
        Refundables { slots: Vec::new() }
    }

    /// Remembers a donation; `bits` decides whether, and in whose place.
    pub(super) fn push(&mut self, donation: Refundable, bits: u64) {
        if self.slots.len() < Self::SLOTS {
            self.slots.push(donation);
        } else if bits.is_multiple_of(Self::KEEP_ONE_OF) {
            let place = (bits / Self::KEEP_ONE_OF) as usize % Self::SLOTS;
            self.slots[place] = donation;
        }
    }

    /// Takes one out, so that no donation is refunded twice.
    pub(super) fn take(&mut self, random: &mut Random) -> Option<Refundable> {
        let slots = self.slots.len() as u64;
        (slots > 0).then(|| self.slots.swap_remove(random.below(slots) as usize))
    }
}
