//! An event: one record of the donations topic, and how its bytes are read.
//!
//! Decoding is pure and strict. A record is either an [`Event`] whose every
//! field is within its bounds, or it is [`Rejected`] with a [`Reason`] and the
//! field and value at fault; there is nothing in between, and no input panics.
//! `docs/events.md` states the outcome of every kind of odd input.
//!
//! What is accepted is part of what the totals mean: a change of these rules is
//! a change of the fold.

mod decode;
mod id;

use std::borrow::Cow;
use std::fmt;

pub use decode::decode;
pub use id::Id;

use crate::money::{Currency, Money};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
pub type Millis = i64;

/// Whole seconds since the epoch; every `at` that is counted lies in 2000..2100,
/// so they fit.
pub(crate) fn seconds(at: Millis) -> u32 {
    (at / 1000) as u32
}

/// The largest value that is read, in bytes. An event has about 190.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// The earliest `at` that is counted: 2000-01-01T00:00:00Z.
pub const AT_MIN: Millis = 946_684_800_000;

/// The latest `at` that is counted, exclusive: 2100-01-01T00:00:00Z.
pub const AT_END: Millis = 4_102_444_800_000;

/// A payment that succeeded, or something counted like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The idempotency key.
    pub id: Id,
    /// What it is, with its amount.
    pub gift: Gift,
    /// What is given to: 1 to 64 bytes.
    pub campaign: Cow<'a, str>,
    /// Who gives; `None` for an anonymous gift.
    pub donor: Option<Cow<'a, str>>,
    /// When the payment succeeded, in `AT_MIN..AT_END`.
    pub at: Millis,
}

/// What was given, taken back, or laid down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gift {
    /// Money from a donor.
    Donation(Money, Currency),
    /// Money back to a donor: lowers net, not gross.
    Refund(Money, Currency),
    /// Money that a sponsor adds.
    Match(Money, Currency),
    /// Flowers, by number.
    Flowers(i64),
}

impl Gift {
    /// How much it is: minor units, or flowers.
    pub fn amount(self) -> i64 {
        match self {
            Gift::Donation(money, _) | Gift::Refund(money, _) | Gift::Match(money, _) => money.0,
            Gift::Flowers(number) => number,
        }
    }
}

/// Why a record cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The reason's kind; each is counted on its own.
    pub reason: Reason,
    /// The field and the value at fault, for people; a short text.
    pub detail: String,
}

/// The longest [`Rejected::detail`], in bytes: it travels in a header, and what
/// it quotes may be as long as an event.
const DETAIL_MAX_BYTES: usize = 300;

impl Rejected {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Rejected {
        let mut detail = detail.into();
        if detail.len() > DETAIL_MAX_BYTES {
            detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
            detail.push('…');
        }
        Rejected { reason, detail }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The kinds of reason for which a record is not counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of their declaration.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The name that stands in the dead letter's `reason` header and in `cuts`.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// No value, or one of no bytes.
    Empty = "empty",
    /// More than [`MAX_EVENT_BYTES`].
    TooLarge = "too_large",
    /// Not UTF-8.
    NotUtf8 = "not_utf8",
    /// Not one JSON object.
    NotJson = "not_json",
    /// A field of ours stands twice.
    DuplicateField = "duplicate_field",
    /// A field that must be there is not.
    MissingField = "missing_field",
    /// `id` is not a string of 1 to 64 bytes without control characters.
    BadId = "bad_id",
    /// `kind` is none of the four.
    BadKind = "bad_kind",
    /// `campaign` is not a string of 1 to 64 bytes without control characters.
    BadCampaign = "bad_campaign",
    /// `donor` is not a string of at most 64 bytes without control characters.
    BadDonor = "bad_donor",
    /// `amount` is not a whole number from 1 to 2^63 - 1.
    BadAmount = "bad_amount",
    /// `currency` is not an ISO 4217 code in upper case, or stands on a flower.
    BadCurrency = "bad_currency",
    /// `at` is no time, or one before 2000 or after 2099.
    BadAt = "bad_at",
    /// `channel` is not a string of at most 32 bytes without control characters.
    BadChannel = "bad_channel",
    /// `refund_of` is no id, or stands on something that is not a refund.
    BadRefundOf = "bad_refund_of",
    /// The record has no Kafka timestamp, so `at` cannot be checked.
    NoTimestamp = "no_timestamp",
    /// `at` is further ahead of the record's timestamp than allowed.
    Ahead = "ahead",
    /// The sum that it belongs to would pass [`Money::SUM_MAX`].
    Overflow = "overflow",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
