//! The values of one campaign in one shard: what a flush carries and merge holds.

use serde::{Deserialize, Serialize};

use super::{Ledger, Panes};
use crate::event::Millis;

/// How many events of a campaign had which outcome, and from when to when.
///
/// `seen = counted + duplicates + dead_letters`. Records that cannot be decoded
/// belong to no campaign and stand in the shard's tally only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that name the campaign.
    pub seen: u64,
    /// In the totals.
    pub counted: u64,
    /// Seen before.
    pub duplicates: u64,
    /// Not countable: ahead of its clock, or past what a sum holds.
    pub dead_letters: u64,
    /// Counted, but too old for every window.
    pub late: u64,
    /// The earliest `at` counted; `Millis::MAX` before the first.
    pub first_at: Millis,
    /// The latest `at` counted; `Millis::MIN` before the first.
    pub last_at: Millis,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            seen: 0,
            counted: 0,
            duplicates: 0,
            dead_letters: 0,
            late: 0,
            first_at: Millis::MAX,
            last_at: Millis::MIN,
        }
    }
}

/// Everything exact that is kept of a campaign in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    /// Its outcomes.
    pub counts: Counts,
    /// Its sums by business day and currency.
    pub ledger: Ledger,
    /// Its recent past in small slices.
    pub panes: Panes,
}
