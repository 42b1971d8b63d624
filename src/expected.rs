//! The oracle's file: what the totals of a generated log must be.
//!
//! `tally99 generate --expect FILE` writes it, computed by the generator as it
//! goes, with no code of the fold; `tally99 totals --compare FILE` checks it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::money::{Currency, MoneyTotal};

/// What a log must add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Records in the log: counted + duplicates + dead letters.
    pub events: u64,
    /// Repeats among them.
    pub duplicates: u64,
    /// Records among them that cannot be counted.
    pub dead_letters: u64,
    /// Distinct donors over all campaigns, exact.
    pub donors: u64,
    /// Counted donations.
    pub gifts: u64,
    /// Counted flowers.
    pub flowers: i128,
    /// Money by currency.
    pub money: BTreeMap<Currency, MoneyTotal>,
    /// By campaign; campaigns without a counted event are absent.
    pub campaigns: BTreeMap<String, ExpectedCampaign>,
}

/// Up to so many distinct donors of one campaign are counted exactly; to know
/// each donor of every campaign would take gigabytes on a giving day.
pub const CAMPAIGN_DONORS_MAX: usize = 256;

/// What one campaign must add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedCampaign {
    /// Counted events of any kind: the total's `version`.
    pub events: u64,
    /// Counted donations.
    pub gifts: u64,
    /// Counted flowers.
    pub flowers: i128,
    /// Distinct donors, exact; `None` (`null`, or left out) if they are more than
    /// [`CAMPAIGN_DONORS_MAX`], or not known.
    pub donors: Option<u64>,
    /// Money by currency.
    pub money: BTreeMap<Currency, MoneyTotal>,
    /// The earliest counted `at`, milliseconds since the epoch.
    pub first_at_ms: i64,
    /// The latest counted `at`, milliseconds since the epoch.
    pub last_at_ms: i64,
}
