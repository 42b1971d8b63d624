//! The JSON that readers of our topics see: the values of `campaign-totals`,
//! `cuts` and `campaign-windows`.
//!
//! Amounts are whole minor units. Sums over shards have 128 bits, so a reader
//! must not assume that they fit 64.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::money::MoneyTotal;

use crate::money::Currency;
use crate::offset::{Offset, Partition};

/// The value of an upsert in `campaign-totals`; the key is the campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignTotal {
    /// The campaign; the same as the record's key.
    pub campaign: String,
    /// Rises when somebody orders the fold to be made anew.
    pub epoch: u32,
    /// How many events are counted in this total; it only rises within an epoch.
    pub version: u64,
    /// The cut at which this total is exact.
    pub cut: u64,
    /// Counted donations.
    pub gifts: u64,
    /// Counted flowers.
    pub flowers: i128,
    /// Distinct donors, estimated.
    pub donors: u64,
    /// Money by currency.
    pub money: BTreeMap<Currency, MoneyTotal>,
    /// The earliest `at` that is counted, RFC 3339 in UTC.
    pub first_at: String,
    /// The latest `at` that is counted, RFC 3339 in UTC.
    pub last_at: String,
}

/// The value of a record in `cuts`. All records of one cut have its number as
/// their key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum CutRecord {
    /// Written and acknowledged before the first upsert of the cut.
    Open(OpenCut),
    /// Written when all upserts of the cut are acknowledged.
    Complete(CompleteCut),
    /// Written by a publisher that found itself evicted in the middle of this
    /// cut: upserts of it may have come late, so others emit everything again.
    Abandoned(OpenCut),
}

/// What names a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCut {
    /// Its number; numbers rise through restarts.
    pub cut: u64,
    /// The fold's epoch.
    pub epoch: u32,
    /// Which process wrote it.
    pub publisher: String,
    /// Where the cut lies in each partition: the next offset to apply.
    pub offsets: BTreeMap<Partition, Offset>,
}

/// A cut whose upserts are all acknowledged, with the sums over all campaigns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteCut {
    /// Number, epoch, publisher and offsets.
    #[serde(flatten)]
    pub id: OpenCut,
    /// The newest event time in it, RFC 3339 in UTC; absent before the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// Records seen: counted + duplicates + dead letters.
    pub events: u64,
    /// Repeats, counted once only.
    pub duplicates: u64,
    /// Records that could not be counted.
    pub dead_letters: u64,
    /// `dead_letters` by reason; reasons without any are left out.
    pub dead_letters_by_reason: BTreeMap<String, u64>,
    /// Counted events that were too old for every window.
    pub late: u64,
    /// Distinct donors over all campaigns, estimated.
    pub donors: u64,
    /// How many campaigns have a total.
    pub campaigns: u64,
    /// Counted donations.
    pub gifts: u64,
    /// Counted flowers.
    pub flowers: i128,
    /// Money by currency.
    pub money: BTreeMap<Currency, MoneyTotal>,
    /// Sum modulo 2^128 of the campaigns' hashes, 32 hexadecimal digits.
    pub digest: String,
}
