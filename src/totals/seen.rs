//! What was read from the two topics: pure, so that it can be tested without
//! Kafka.
//!
//! Invariant: of a campaign the highest (epoch, version) is kept, whatever the
//! order of the records, so an evicted publisher's old upserts change nothing.

use std::collections::HashMap;

use crate::money::grouped;
use crate::publish::records::{CampaignTotal, CompleteCut, CutId, CutRecord};

/// Everything read so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The newest total of each campaign.
    pub totals: HashMap<String, CampaignTotal>,
    /// The newest record of `cuts`.
    pub newest: Option<SeenCut<CutRecord>>,
    /// The newest complete cut.
    pub complete: Option<SeenCut<CompleteCut>>,
    /// Records that are not what they should be.
    pub unreadable: u64,
    /// What is wrong with the first of them.
    pub first_unreadable: Option<String>,
}

/// A record of `cuts`, and when it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenCut<T> {
    pub record: T,
    /// The record's Kafka timestamp, milliseconds since the epoch, if it has one.
    pub written_ms: Option<i64>,
}

/// A record's place, for messages.
pub(super) struct Place<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

impl Seen {
    /// Takes a record of `campaign-totals`.
    pub fn total(&mut self, place: Place<'_>, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(value) = value else {
            // A tombstone: somebody removed the campaign by hand.
            if let Some(campaign) = key.and_then(|key| std::str::from_utf8(key).ok()) {
                self.totals.remove(campaign);
            }
            return;
        };
        let total = match serde_json::from_slice::<CampaignTotal>(value) {
            Ok(total) => total,
            Err(error) => return self.refuse(place, error.to_string()),
        };
        if key != Some(total.campaign.as_bytes()) {
            return self.refuse(place, "its key is not its campaign".into());
        }
        match self.totals.get_mut(&total.campaign) {
            Some(kept) => {
                if (total.epoch, total.version) >= (kept.epoch, kept.version) {
                    *kept = total;
                }
            }
            None => {
                self.totals.insert(total.campaign.clone(), total);
            }
        }
    }

    /// Takes a record of `cuts`.
    pub fn cut(&mut self, place: Place<'_>, value: Option<&[u8]>, written_ms: Option<i64>) {
        let record = match CutRecord::parse(value.unwrap_or_default()) {
            Ok(record) => record,
            Err(error) => return self.refuse(place, error.to_string()),
        };
        let newer = |than: &CutId| number(record.id()) >= number(than);
        if let CutRecord::Complete(cut) = &record
            && self
                .complete
                .as_ref()
                .is_none_or(|kept| newer(&kept.record.id))
        {
            self.complete = Some(SeenCut {
                record: cut.clone(),
                written_ms,
            });
        }
        if self
            .newest
            .as_ref()
            .is_none_or(|kept| newer(kept.record.id()))
        {
            self.newest = Some(SeenCut { record, written_ms });
        }
    }

    fn refuse(&mut self, place: Place<'_>, why: String) {
        self.unreadable += 1;
        self.first_unreadable.get_or_insert_with(|| {
            let Place {
                topic,
                partition,
                offset,
            } = place;
            format!("topic {topic}, partition {partition}, offset {offset}: {why}")
        });
    }

    /// Which records were left out, if any were.
    pub fn left_out(&self) -> Option<String> {
        let first = self.first_unreadable.as_ref()?;
        let count = grouped(self.unreadable);
        Some(format!(
            "{count} records are not what tally99 writes and are left out; the first: {first}"
        ))
    }
}

fn number(cut: &CutId) -> (u32, u64) {
    (cut.epoch, cut.cut)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::money::{Currency, MoneyTotal};
    use crate::offset::Offset;

    pub const HERE: Place<'static> = Place {
        topic: "t",
        partition: 3,
        offset: 7,
    };

    pub fn cny(net: i128) -> (Currency, MoneyTotal) {
        let money = MoneyTotal {
            gross: net + 5,
            refunded: 5,
            net,
            matched: 1,
        };
        (Currency::parse("CNY").unwrap(), money)
    }

    pub fn total(campaign: &str, version: u64, net: i128) -> CampaignTotal {
        CampaignTotal {
            campaign: campaign.into(),
            epoch: 1,
            version,
            cut: 4,
            gifts: version,
            flowers: 2,
            donors: version,
            money: BTreeMap::from([cny(net)]),
            first_at: "2022-09-09T00:00:00Z".into(),
            last_at: "2022-09-09T02:00:00.25Z".into(),
        }
    }

    pub fn open(cut: u64) -> CutId {
        CutId {
            cut,
            epoch: 1,
            publisher: "host-1".into(),
            offsets: BTreeMap::from([(0, Offset(48_211)), (11, Offset(7))]),
            ..CutId::default()
        }
    }

    pub fn complete(cut: u64) -> CompleteCut {
        CompleteCut {
            id: open(cut),
            as_of: Some("2022-09-09T02:00:00.25Z".into()),
            events: 1_010,
            duplicates: 7,
            dead_letters: 3,
            dead_letters_by_reason: BTreeMap::from([("not_json".into(), 3)]),
            late: 1,
            donors: 900,
            campaigns: 2,
            gifts: 1_000,
            flowers: 4,
            money: BTreeMap::from([cny(330_000_000_000)]),
            digest: "00".repeat(16),
        }
    }

    impl Seen {
        pub fn with(totals: &[CampaignTotal], cuts: &[CutRecord]) -> Seen {
            let mut seen = Seen::default();
            for total in totals {
                let value = serde_json::to_vec(total).unwrap();
                seen.total(HERE, Some(total.campaign.as_bytes()), Some(&value));
            }
            for cut in cuts {
                seen.cut(HERE, Some(&serde_json::to_vec(cut).unwrap()), Some(1_000));
            }
            assert_eq!(seen.first_unreadable, None);
            seen
        }
    }

    #[test]
    fn the_highest_epoch_and_version_stay() {
        let mut newer_rules = total("a", 1, 50);
        newer_rules.epoch = 2;
        let mut again = total("b", 5, 60);
        again.cut = 9;
        let totals = [
            total("a", 9, 10),
            newer_rules.clone(),
            total("a", 8, 20),
            total("b", 5, 60),
            again.clone(),
        ];
        let seen = Seen::with(&totals, &[]);
        assert_eq!(seen.totals["a"], newer_rules);
        // Equal: the later one.
        assert_eq!(seen.totals["b"], again);
    }

    #[test]
    fn the_newest_cut_and_the_newest_complete_one_are_kept_apart() {
        let cuts = [
            CutRecord::Open(open(1)),
            CutRecord::Complete(complete(1)),
            CutRecord::Open(open(3)),
            // An evicted publisher wakes up.
            CutRecord::Complete(complete(2)),
            CutRecord::Abandoned(open(2)),
        ];
        let seen = Seen::with(&[], &cuts);
        assert_eq!(seen.newest.unwrap().record, CutRecord::Open(open(3)));
        assert_eq!(seen.complete.unwrap().record.id.cut, 2);
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_told() {
        let mut seen = Seen::default();
        seen.total(HERE, Some(b"a"), Some(b"{}"));
        seen.total(
            HERE,
            Some(b"b"),
            Some(&serde_json::to_vec(&total("a", 1, 1)).unwrap()),
        );
        seen.cut(HERE, None, None);
        assert_eq!(seen.unreadable, 3);
        assert!(
            seen.first_unreadable
                .unwrap()
                .starts_with("topic t, partition 3, offset 7: missing field")
        );
        assert!(seen.totals.is_empty());
    }

    #[test]
    fn a_tombstone_removes_a_campaign() {
        let mut seen = Seen::with(&[total("a", 1, 1)], &[]);
        seen.total(HERE, Some(b"a"), None);
        assert!(seen.totals.is_empty());
    }
}
