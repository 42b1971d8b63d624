//! What the topics `cuts` and `campaign-totals` say, read with structures of our
//! own: a test that borrows the program's would not see what the program drops.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::traffic::PARTITIONS;

/// Money of one currency, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    pub gross: i128,
    pub refunded: i128,
    pub net: i128,
    pub matched: i128,
}

/// A campaign's figures, estimates left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub version: u64,
    pub gifts: u64,
    pub flowers: i128,
    pub money: BTreeMap<String, Money>,
    /// The earliest and the latest event time, milliseconds since 1970.
    pub span: Option<(i64, i64)>,
}

/// An upsert of `campaign-totals`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upsert {
    pub campaign: String,
    pub epoch: u32,
    pub version: u64,
    pub cut: u64,
    gifts: u64,
    flowers: i128,
    #[serde(rename = "donors")]
    _donors: u64,
    money: BTreeMap<String, Money>,
    #[serde(deserialize_with = "millis")]
    first_at: i64,
    #[serde(deserialize_with = "millis")]
    last_at: i64,
}

impl Upsert {
    pub fn total(&self) -> Total {
        Total {
            version: self.version,
            gifts: self.gifts,
            flowers: self.flowers,
            money: self.money.clone(),
            span: Some((self.first_at, self.last_at)),
        }
    }
}

/// What names a record of `cuts`.
#[derive(Clone, Debug, Deserialize)]
pub struct CutName {
    pub state: String,
    pub cut: u64,
    pub epoch: u32,
    pub publisher: String,
    #[serde(deserialize_with = "by_partition")]
    pub offsets: Vec<i64>,
}

/// What a complete cut says, estimates left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Cut {
    #[serde(default, deserialize_with = "some_millis")]
    pub as_of: Option<i64>,
    pub events: u64,
    pub duplicates: u64,
    pub dead_letters: u64,
    pub dead_letters_by_reason: BTreeMap<String, u64>,
    pub late: u64,
    pub campaigns: u64,
    pub gifts: u64,
    pub flowers: i128,
    pub money: BTreeMap<String, Money>,
    pub digest: String,
}

fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let time: jiff::Timestamp = String::deserialize(from)?
        .parse()
        .map_err(D::Error::custom)?;
    Ok(time.as_millisecond())
}

fn some_millis<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    millis(from).map(Some)
}

/// All partitions, in order.
fn by_partition<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i64>, D::Error> {
    let by_partition = BTreeMap::<usize, i64>::deserialize(from)?;
    if !by_partition.keys().copied().eq(0..PARTITIONS) {
        return Err(D::Error::custom("not every partition has an offset"));
    }
    Ok(by_partition.into_values().collect())
}
