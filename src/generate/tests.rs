//! The stream against what a reader of its bytes finds, with serde_json and
//! plain maps: nothing here knows how the stream was made.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::expected::{CAMPAIGN_DONORS_MAX, Expected, ExpectedCampaign};
use crate::money::Currency;

mod kafka;
mod run;

const DAY_MS: i64 = 86_400_000;

fn settings(seed: u64, records: u64) -> Settings {
    Settings::new(seed, records)
}

fn all(settings: &Settings) -> (Vec<Record>, Expected) {
    let mut traffic = Traffic::new(settings).unwrap();
    let mut records = Vec::new();
    let mut record = Record::new();
    while traffic.next(&mut record) {
        records.push(record.clone());
    }
    assert_eq!(traffic.made(), records.len() as u64);
    (records, traffic.expected())
}

/// An event by the rules of design.md, or `None` for a dead letter.
struct Parsed {
    id: String,
    kind: String,
    campaign: String,
    donor: Option<String>,
    amount: i64,
    currency: Option<Currency>,
    at: i64,
    refund_of: Option<String>,
}

fn parse(record: &Record) -> Option<Parsed> {
    let json: Value = serde_json::from_slice(record.payload()).ok()?;
    let text = |name: &str, max: usize| match json.get(name) {
        Some(Value::String(text)) if (1..=max).contains(&text.len()) => Some(text.clone()),
        _ => None,
    };
    let kind = match json.get("kind") {
        None => "donation".to_owned(),
        Some(kind) => kind.as_str()?.to_owned(),
    };
    if !["donation", "refund", "match", "flower"].contains(&kind.as_str()) {
        return None;
    }
    let currency = match (kind.as_str(), json.get("currency")) {
        ("flower", None) => None,
        ("flower", Some(_)) => return None,
        (_, currency) => Some(Currency::parse(currency?.as_str()?)?),
    };
    let at = match json.get("at")? {
        Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
        number => number.as_i64()?,
    };
    if !(946_684_800_000..4_102_444_800_000).contains(&at) {
        return None;
    }
    Some(Parsed {
        id: text("id", 64)?,
        kind,
        campaign: text("campaign", 64)?,
        donor: text("donor", 64),
        amount: json.get("amount")?.as_i64().filter(|amount| *amount > 0)?,
        currency,
        at,
        refund_of: text("refund_of", 64),
    })
}

/// Adds the records up the plain way.
fn recount(records: &[Record]) -> Expected {
    let mut expected = Expected {
        events: records.len() as u64,
        ..Expected::default()
    };
    let (mut ids, mut donors) = (HashSet::new(), HashSet::new());
    let mut donors_of: HashMap<String, HashSet<String>> = HashMap::new();
    for record in records {
        let Some(event) = parse(record) else {
            expected.dead_letters += 1;
            continue;
        };
        if !ids.insert(event.id.clone()) {
            expected.duplicates += 1;
            continue;
        }
        donors.extend(event.donor.clone());
        donors_of
            .entry(event.campaign.clone())
            .or_default()
            .extend(event.donor.clone());
        let campaign = expected
            .campaigns
            .entry(event.campaign.clone())
            .or_insert_with(|| ExpectedCampaign {
                first_at_ms: i64::MAX,
                last_at_ms: i64::MIN,
                ..Default::default()
            });
        campaign.events += 1;
        campaign.first_at_ms = campaign.first_at_ms.min(event.at);
        campaign.last_at_ms = campaign.last_at_ms.max(event.at);
        let amount = i128::from(event.amount);
        let Some(currency) = event.currency else {
            campaign.flowers += amount;
            expected.flowers += amount;
            continue;
        };
        if event.kind == "donation" {
            campaign.gifts += 1;
            expected.gifts += 1;
        }
        for money in [&mut campaign.money, &mut expected.money] {
            let money = money.entry(currency).or_default();
            match event.kind.as_str() {
                "donation" => money.gross += amount,
                "refund" => money.refunded += amount,
                _ => money.matched += amount,
            }
            money.net = money.gross - money.refunded;
        }
    }
    for (name, campaign) in &mut expected.campaigns {
        let donors = donors_of[name].len();
        campaign.donors = (donors <= CAMPAIGN_DONORS_MAX).then_some(donors as u64);
    }
    expected.donors = donors.len() as u64;
    expected
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let shares = prop::array::uniform8(prop_oneof![Just(0.0), 0.0..0.15f64]);
    (
        any::<u64>(),
        1u64..3_000,
        shares,
        prop_oneof![1u32..20, Just(20_000)],
    )
        .prop_map(|(seed, records, shares, campaigns)| {
            let [
                repeats,
                refunds,
                matches,
                flowers,
                malformed,
                late,
                out_of_order,
                others,
            ] = shares;
            let shares = Shares {
                repeats,
                refunds,
                matches,
                flowers,
                malformed,
                late,
                out_of_order,
                other_currencies: others,
            };
            Settings {
                shares,
                campaigns,
                ..settings(seed, records)
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_sums_are_those_that_a_reader_finds(settings in any_settings()) {
        prop_assume!(settings.counts().is_ok());
        let counts = settings.counts().unwrap();
        let (records, expected) = all(&settings);
        prop_assert_eq!(records.len() as u64, counts.total());
        prop_assert_eq!(expected.dead_letters, counts.malformed);
        prop_assert_eq!(recount(&records), expected);
    }

    #[test]
    fn the_same_settings_make_the_same_bytes(settings in any_settings()) {
        prop_assume!(settings.counts().is_ok());
        prop_assert!(all(&settings).0 == all(&settings).0);
    }
}

/// Holds the bytes themselves, so that a change of them is a decision, and so
/// that two platforms or two versions of a dependency cannot differ unseen.
#[test]
fn the_bytes_are_those_of_the_last_release() {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for settings in [
        settings(99, 50_000),
        Settings::giving_day_2022(7, 0.0002).unwrap(),
    ] {
        for record in all(&settings).0 {
            hash.update(record.key());
            hash.update(record.payload());
        }
    }
    assert_eq!(format!("{:016x}", hash.digest()), "e5c510d674c676e9");
}

#[test]
fn another_seed_makes_other_records() {
    let ids = |seed| -> HashSet<Vec<u8>> {
        all(&settings(seed, 5_000))
            .0
            .iter()
            .map(|r| r.key().to_vec())
            .collect()
    };
    assert!(ids(1).is_disjoint(&ids(2)));
}

#[test]
fn the_preset_adds_up_to_the_fen_at_every_scale() {
    let cases: [(f64, u64, i128); 5] = [
        (0.001, 58_160, 330_000_000),
        (0.0001, 5_816, 33_000_000),
        (0.00001, 582, 3_300_000),
        (0.000001, 58, 330_000),
        (0.0000001, 6, 33_000),
    ];
    for (scale, donations, fen) in cases {
        for seed in 0..if scale < 0.001 { 20 } else { 2 } {
            let (records, expected) = all(&Settings::giving_day_2022(seed, scale).unwrap());
            assert_eq!(expected, recount(&records), "scale {scale}, seed {seed}");
            assert_eq!(expected.gifts, donations);
            let cny = expected.money[&Currency::parse("CNY").unwrap()];
            assert_eq!(cny.gross, fen, "scale {scale}, seed {seed}");
        }
    }
    let whole = Settings::giving_day_2022(1, 1.0).unwrap().counts().unwrap();
    assert_eq!(whole.donations, 58_160_000);
    assert!(
        (155_000_000..165_000_000).contains(&whole.total()),
        "{}",
        whole.total()
    );
    let hundredth = Settings::giving_day_2022(1, 0.01).unwrap();
    assert_eq!(
        hundredth.volume,
        Volume::Donations {
            count: 581_600,
            amount: crate::money::Money(3_300_000_000)
        }
    );
}

#[test]
fn the_preset_has_the_participants_of_the_report() {
    let (_, expected) = all(&Settings::giving_day_2022(1, 0.002).unwrap());
    // More than 100 million at full scale.
    assert!(
        (200_001..215_000).contains(&expected.donors),
        "{}",
        expected.donors
    );
}

#[test]
fn a_repeat_has_the_bytes_and_the_partition_of_its_original() {
    let mut settings = settings(3, 100_000);
    settings.shares.repeats = 0.05;
    let (records, expected) = all(&settings);
    let mut first = HashMap::new();
    let mut repeats = 0;
    for record in &records {
        let Some(event) = parse(record) else { continue };
        assert_eq!(event.id.as_bytes(), record.key());
        match first.get(&event.id) {
            None => drop(first.insert(event.id, record)),
            Some(original) => {
                assert_eq!(*original, record);
                assert_eq!(original.partition(12), record.partition(12));
                repeats += 1;
            }
        }
    }
    assert_eq!(repeats, expected.duplicates);
    assert_eq!(repeats, 5_000);
}

#[test]
fn a_refund_gives_back_an_earlier_donation_once_and_in_full() {
    let mut settings = settings(4, 100_000);
    settings.shares.refunds = 0.2;
    let mut donations = HashMap::new();
    let (mut refunds, mut seen) = (0, HashSet::new());
    for record in &all(&settings).0 {
        let Some(event) = parse(record) else { continue };
        if !seen.insert(event.id.clone()) {
            continue;
        }
        if event.kind == "donation" {
            donations.insert(event.id.clone(), event);
        } else if event.kind == "refund" {
            let original = donations
                .remove(&event.refund_of.unwrap())
                .expect("not refunded yet");
            assert_eq!(event.campaign, original.campaign);
            assert_eq!(event.amount, original.amount);
            assert_eq!(event.currency, original.currency);
            assert_eq!(event.donor, original.donor);
            refunds += 1;
        } else {
            assert_eq!(event.refund_of, None);
        }
    }
    assert_eq!(refunds, 20_000);
}

#[test]
fn events_are_late_and_out_of_order_as_often_as_asked() {
    let mut settings = settings(5, 200_000);
    settings.shares.late = 0.01;
    settings.shares.out_of_order = 0.05;
    let (mut newest, mut seen) = (i64::MIN, HashSet::new());
    let (mut late, mut out_of_order) = (0, 0);
    for event in all(&settings).0.iter().filter_map(parse) {
        if !seen.insert(event.id) {
            continue;
        }
        if event.at < newest {
            if event.at < newest - DAY_MS {
                late += 1;
            } else {
                assert!(event.at >= newest - 300_000);
                out_of_order += 1;
            }
        }
        newest = newest.max(event.at);
    }
    assert!((1_800..2_200).contains(&late), "{late}");
    assert!((9_300..10_500).contains(&out_of_order), "{out_of_order}");
    assert!((GIVING_DAY_2022..GIVING_DAY_2022 + DAY_MS).contains(&newest));
}

#[test]
fn every_malformed_record_is_a_dead_letter_and_one_line() {
    let mut settings = settings(6, 20_000);
    settings.shares.malformed = 0.5;
    settings.shares.repeats = 0.0;
    let (records, expected) = all(&settings);
    let dead: Vec<&Record> = records
        .iter()
        .filter(|record| parse(record).is_none())
        .collect();
    assert_eq!(dead.len(), 10_000);
    assert_eq!(expected.dead_letters, 10_000);
    assert!(
        records
            .iter()
            .all(|record| !record.payload().contains(&b'\n'))
    );
    assert!(dead.iter().any(|record| record.payload().is_empty()));
    assert!(
        dead.iter()
            .any(|record| std::str::from_utf8(record.payload()).is_err())
    );
    let keys: HashSet<&[u8]> = records.iter().map(Record::key).collect();
    assert_eq!(keys.len(), 20_000);
}

/// The one place where the fold's own decoder is asked: what the oracle calls
/// malformed, and that alone, must be a dead letter to it.
#[test]
fn the_decoder_of_the_fold_rejects_the_malformed_ones_only() {
    let mut settings = settings(7, 20_000);
    settings.shares.malformed = 0.2;
    settings.shares.other_currencies = 0.1;
    let mut reasons = HashSet::new();
    for record in &all(&settings).0 {
        let decoded = crate::event::decode(Some(record.payload()));
        assert_eq!(decoded.is_ok(), parse(record).is_some(), "{decoded:?}");
        reasons.extend(decoded.err().map(|rejected| rejected.reason.code()));
    }
    assert_eq!(reasons.len(), 8, "{reasons:?}");
}

#[test]
fn the_events_look_like_a_giving_day() {
    let (records, expected) = all(&settings(8, 200_000));
    let bytes: usize = records.iter().map(|record| record.payload().len()).sum();
    let average = bytes / records.len();
    assert!((170..200).contains(&average), "{average} bytes");

    let busiest = expected
        .campaigns
        .values()
        .map(|campaign| campaign.events)
        .max()
        .unwrap();
    let share = busiest * 1_000 / (200_000 - expected.duplicates - expected.dead_letters);
    assert!((95..106).contains(&share), "{share} of 1,000");

    let (mut channels, mut by_donor) = (BTreeMap::new(), HashMap::new());
    let mut texts = 0;
    for record in &records {
        let Ok(json) = serde_json::from_slice::<Value>(record.payload()) else {
            continue;
        };
        if let Some(channel) = json.get("channel").and_then(Value::as_str) {
            *channels.entry(channel.to_owned()).or_insert(0) += 1;
        }
        if let Some(donor) = json.get("donor").and_then(Value::as_str) {
            assert!(donor.len() == 14 && donor.starts_with('d'), "{donor}");
            *by_donor.entry(donor.to_owned()).or_insert(0) += 1;
        }
        texts += usize::from(json.get("at").is_some_and(Value::is_string));
    }
    assert!(
        channels.len() >= 4 && channels["wechat_pay"] > 100_000,
        "{channels:?}"
    );
    assert!(by_donor.values().filter(|gifts| **gifts > 1).count() > 20_000);
    assert!((2_000..5_000).contains(&texts), "{texts}");
}

#[test]
fn partitions_get_even_shares() {
    let mut records = [0u32; 12];
    for record in &all(&settings(9, 120_000)).0 {
        records[record.partition(12) as usize] += 1;
    }
    assert!(
        records
            .iter()
            .all(|records| (9_300..10_700).contains(records)),
        "{records:?}"
    );
}

#[test]
fn a_live_stream_follows_the_clock_that_it_is_given() {
    let mut settings = settings(10, 1_000);
    settings.shares = Shares {
        late: 0.0,
        out_of_order: 0.0,
        repeats: 0.0,
        ..settings.shares
    };
    let mut traffic = Traffic::new(&settings).unwrap();
    let (mut record, mut records, mut newest) = (Record::new(), Vec::new(), 0);
    for tick in 0.. {
        // A clock that steps back now and then.
        let now = 1_700_000_000_000 + tick - if tick % 10 == 0 { 500 } else { 0 };
        if !traffic.next_at(now, &mut record) {
            break;
        }
        newest = now.max(newest);
        if let Some(event) = parse(&record) {
            assert_eq!(event.at, newest);
        }
        records.push(record.clone());
    }
    assert_eq!(records.len(), 1_000);
    assert_eq!(recount(&records), traffic.expected());
}

#[test]
fn nonsense_is_refused_with_the_flag_at_fault() {
    let base = settings(1, 1_000);
    let refused = |change: fn(&mut Settings)| {
        let mut settings = base.clone();
        change(&mut settings);
        settings.counts().unwrap_err().to_string()
    };
    assert!(refused(|s| s.shares.late = 1.5).contains("--late is 1.5"));
    assert!(refused(|s| s.shares.repeats = f64::NAN).contains("--repeats"));
    assert!(refused(|s| s.shares.flowers = 0.99).contains("add up to 1.0"));
    assert!(refused(|s| s.shares.refunds = 0.5).contains("--refunds"));
    assert!(refused(|s| s.campaigns = 0).contains("--campaigns is 0"));
    assert!(refused(|s| s.volume = Volume::Records(0)).contains("0 records"));
    assert!(refused(|s| s.volume = Volume::Records(u64::MAX)).contains("records are asked for"));
    assert!(refused(|s| s.start = 0).contains("--start"));
    let mut preset = Settings::giving_day_2022(1, 0.01).unwrap();
    preset.shares.other_currencies = 0.1;
    assert!(
        preset
            .counts()
            .unwrap_err()
            .to_string()
            .contains("--other-currencies")
    );
    assert!(Settings::giving_day_2022(1, 0.0).is_err());
    assert!(Settings::giving_day_2022(1, f64::NAN).is_err());
}
