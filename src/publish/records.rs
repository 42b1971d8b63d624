//! The JSON that readers of our topics see: the values of `campaign-totals`,
//! `cuts` and `campaign-windows`.
//!
//! Amounts are whole minor units. Sums over shards have 128 bits, so a reader
//! must not assume that they fit 64.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{Millis, Reason};
use crate::merge::{self, Sums, Total};
use crate::money::Currency;
pub use crate::money::MoneyTotal;
use crate::offset::{Offset, Partition};
use crate::shard::Window;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum CutRecord {
    /// Written and acknowledged before the first upsert of the cut.
    Open(CutId),
    /// Written when all upserts of the cut are acknowledged.
    Complete(CompleteCut),
    /// Written by a publisher that found itself evicted in the middle of this
    /// cut: upserts of it may have come late, so others emit everything again.
    Abandoned(CutId),
}

impl CutRecord {
    /// Reads a record's value.
    ///
    /// In two steps, because serde's own way of reading tagged and flattened
    /// structures knows neither 128-bit numbers nor maps with numbers as keys.
    pub fn parse(value: &[u8]) -> serde_json::Result<CutRecord> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum State {
            Open,
            Complete,
            Abandoned,
        }
        #[derive(Deserialize)]
        struct Head {
            state: State,
        }
        let id: CutId = serde_json::from_slice(value)?;
        Ok(match serde_json::from_slice::<Head>(value)?.state {
            State::Open => CutRecord::Open(id),
            State::Abandoned => CutRecord::Abandoned(id),
            State::Complete => {
                let sums = serde_json::from_slice::<CompleteCut>(value)?;
                CutRecord::Complete(CompleteCut { id, ..sums })
            }
        })
    }

    /// What names the cut, whatever its state.
    pub fn id(&self) -> &CutId {
        match self {
            CutRecord::Open(id) | CutRecord::Abandoned(id) => id,
            CutRecord::Complete(cut) => &cut.id,
        }
    }
}

/// What names a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutId {
    /// Its number; numbers rise through restarts.
    pub cut: u64,
    /// The fold's epoch.
    pub epoch: u32,
    /// Which process wrote it.
    pub publisher: String,
    /// The topic whose records are counted.
    pub topic: String,
    /// The consumer group that counts them.
    pub group: String,
    /// What shapes the fold: cuts of one epoch have the same rules.
    pub rules: String,
    /// Where the cut lies in each partition: the next offset to apply.
    pub offsets: BTreeMap<Partition, Offset>,
}

/// A cut whose upserts are all acknowledged, with the sums over all campaigns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteCut {
    /// Number, epoch, publisher and offsets.
    #[serde(flatten, skip_deserializing)]
    pub id: CutId,
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

/// The value of an upsert in `campaign-windows`; the key is the campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignWindows {
    /// The campaign; the same as the record's key.
    pub campaign: String,
    /// The cut at which these windows are exact.
    pub cut: u64,
    /// The newest event time in the cut, RFC 3339 in UTC; each window ends with
    /// the step that it lies in.
    pub as_of: String,
    /// By length: `1m`, `5m`, `1h`, `24h`.
    pub windows: BTreeMap<String, WindowFigures>,
    /// Counted events of the campaign that were too old for every window.
    pub late: u64,
}

/// What a campaign got within a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowFigures {
    /// Donations.
    pub gifts: u64,
    /// Flowers.
    pub flowers: i128,
    /// Money by currency.
    pub money: BTreeMap<Currency, WindowMoney>,
}

/// The money of one currency within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowMoney {
    /// Donations less refunds, by the time of each.
    pub net: i128,
}

/// An instant as RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(at: Millis) -> String {
    let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

fn by_currency(sums: &Sums) -> BTreeMap<Currency, MoneyTotal> {
    let money = sums.money.iter();
    money.map(|(currency, money)| (currency, *money)).collect()
}

/// The upsert of a campaign's total.
pub fn campaign_total(total: &Total, cut: u64, epoch: u32) -> CampaignTotal {
    CampaignTotal {
        campaign: total.campaign.to_string(),
        epoch,
        version: total.counts.counted,
        cut,
        gifts: total.sums.gifts,
        flowers: total.sums.flowers,
        donors: total.donors,
        money: by_currency(&total.sums),
        first_at: rfc3339(total.counts.first_at),
        last_at: rfc3339(total.counts.last_at),
    }
}

/// The upsert of a campaign's windows.
pub fn campaign_windows(
    campaign: &merge::CampaignWindows,
    cut: u64,
    as_of: Option<Millis>,
) -> CampaignWindows {
    let windows = Window::ALL
        .into_iter()
        .zip(&campaign.windows)
        .map(|(window, sums)| {
            let net = sums.net.iter();
            let money = net.map(|(currency, &net)| (currency, WindowMoney { net }));
            let figures = WindowFigures {
                gifts: sums.gifts,
                flowers: sums.flowers,
                money: money.collect(),
            };
            (window.name().to_owned(), figures)
        });
    CampaignWindows {
        campaign: campaign.campaign.to_string(),
        cut,
        as_of: as_of.map(rfc3339).unwrap_or_default(),
        windows: windows.collect(),
        late: campaign.late,
    }
}

/// The record that completes a cut.
pub fn complete_cut(id: CutId, cut: &merge::Cut) -> CompleteCut {
    let tally = &cut.tally;
    let by_reason = Reason::ALL
        .iter()
        .zip(tally.dead_letters)
        .filter(|(_, count)| *count > 0);
    CompleteCut {
        id,
        as_of: cut.as_of.map(rfc3339),
        events: tally.seen,
        duplicates: tally.duplicates,
        dead_letters: tally.dead(),
        dead_letters_by_reason: by_reason
            .map(|(reason, count)| (reason.code().to_owned(), count))
            .collect(),
        late: tally.late,
        donors: cut.donors,
        campaigns: cut.campaigns,
        gifts: cut.sums.gifts,
        flowers: cut.sums.flowers,
        money: by_currency(&cut.sums),
        digest: cut.digest.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_reads_back_as_it_was_written() {
        let id = CutId {
            cut: 7,
            epoch: 1,
            publisher: "here-1".into(),
            topic: "donations".into(),
            group: "tally99".into(),
            rules: "v1".into(),
            offsets: BTreeMap::from([(0, Offset(48_211)), (11, Offset(3))]),
        };
        let cny = Currency::parse("CNY").unwrap();
        let gross = i128::from(i64::MAX) * 64;
        let money = MoneyTotal {
            gross,
            refunded: 1,
            net: gross - 1,
            matched: 0,
        };
        let complete = CutRecord::Complete(CompleteCut {
            id: id.clone(),
            as_of: Some("2022-09-09T02:00:00.000Z".into()),
            events: 3,
            duplicates: 1,
            dead_letters: 1,
            dead_letters_by_reason: BTreeMap::from([("not_json".into(), 1)]),
            late: 0,
            donors: 1,
            campaigns: 1,
            gifts: 1,
            flowers: 0,
            money: BTreeMap::from([(cny, money)]),
            digest: "00".into(),
        });
        for record in [
            CutRecord::Open(id.clone()),
            CutRecord::Abandoned(id),
            complete,
        ] {
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(CutRecord::parse(json.as_bytes()).unwrap(), record, "{json}");
        }
    }
}
