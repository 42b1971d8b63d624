//! The shard as a whole.

use crate::event::Reason;
use crate::generate::{GIVING_DAY_2022, Record as Made, Settings, Shares, Traffic};

use super::*;

fn rules() -> Rules {
    Rules {
        calendar: Calendar::of_zone("Asia/Shanghai").unwrap(),
        dedup_horizon_s: 72 * 3_600,
        max_ahead_ms: 300_000,
    }
}

/// The values of some thousands of records of every kind.
fn payloads(records: u64) -> Vec<Vec<u8>> {
    let shares = Shares {
        repeats: 0.1,
        malformed: 0.02,
        late: 0.02,
        out_of_order: 0.1,
        ..Shares::default()
    };
    let settings = Settings {
        shares,
        campaigns: 300,
        ..Settings::new(99, records)
    };
    let (mut traffic, mut made) = (Traffic::new(&settings).unwrap(), Made::new());
    let mut payloads = Vec::new();
    while traffic.next(&mut made) {
        payloads.push(made.payload().to_vec());
    }
    payloads
}

/// Every way of taking records in makes the same shard, and the same outcomes: one by one,
/// each posted at once, or many at once, and many or all of them posted together.
#[test]
fn all_at_once_or_one_by_one_is_the_same() {
    let payloads = payloads(75_000);
    let span_ms = 24 * 3_600_000 / payloads.len() as i64;
    let records: Vec<_> = (0..)
        .zip(&payloads)
        .map(|(offset, payload)| Record {
            offset,
            // Some have none, and some come before their time.
            timestamp: (offset % 501 != 0).then_some(GIVING_DAY_2022 + offset * span_ms),
            payload: (offset % 997 != 0).then_some(payload),
        })
        .collect();

    let (mut one_by_one, mut names) = (Shard::new(0, rules()), Names::default());
    one_by_one.set_journal_room(0);
    let mut expected = Vec::new();
    for (place, record) in records.iter().enumerate() {
        if let Outcome::DeadLetter(rejected) = one_by_one.apply(*record, &mut names) {
            expected.push((place, *rejected));
        }
    }
    let dead = |reason| one_by_one.tally().dead_letters[reason as usize];
    assert!(dead(Reason::Ahead) > 0 && dead(Reason::NoTimestamp) > 0 && dead(Reason::Empty) > 0);
    assert!(one_by_one.tally().duplicates > 0 && one_by_one.tally().late > 0);
    let expected_flush = one_by_one.full_flush();
    let expected_snapshot = one_by_one.snapshot();

    for at_once in [1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 512, records.len()] {
        let mut shard = Shard::new(0, rules());
        shard.set_journal_room(1_000 * at_once);
        let (mut names, mut found) = (Names::default(), Vec::new());
        for (number, some) in records.chunks(at_once).enumerate() {
            shard.apply_all(some.iter().copied(), &mut names, |place, rejected| {
                found.push((number * at_once + place, rejected));
            });
        }
        assert_eq!(found, expected, "{at_once}");
        assert_eq!(shard.full_flush(), expected_flush, "{at_once}");
        assert_eq!(shard.snapshot(), expected_snapshot, "{at_once}");
    }
}

/// A sum that would grow too far is found out wherever its events are: in the journal, in
/// the campaign, or in a checkpoint.
#[test]
fn a_sum_that_is_nearly_full_is_looked_at() {
    use Outcome::{Counted, DeadLetter, Duplicate};
    let half = Money::SUM_MAX.0 / 2 + 1;
    let too_much = |campaign: &str| {
        let detail = format!("the sum of {campaign} on 2022-09-09 would pass 4611686018427387903");
        DeadLetter(Box::new(Rejected::new(Reason::Overflow, detail)))
    };
    let events = [
        ("1", "a", "donation", half, Counted),
        ("2", "a", "refund", half, Counted),
        ("3", "b", "donation", half, Counted),
        ("4", "a", "donation", half, too_much("a")),
        ("5", "a", "donation", half - 1, Counted),
        ("6", "a", "donation", 1, too_much("a")),
        ("7", "a", "refund", half - 1, Counted),
        ("8", "b", "flower", half, Counted),
        ("9", "b", "match", 1, Counted),
        ("10", "b", "donation", half, too_much("b")),
        ("11", "b", "flower", half, too_much("b")),
        ("1", "a", "donation", half, Duplicate),
        ("6", "c", "donation", 1, Counted), // It was not counted the first time.
    ];
    for (post, restore) in [(false, false), (true, false), (true, true)] {
        let (mut shard, mut names) = (Shard::new(0, rules()), Names::default());
        for (offset, (id, campaign, kind, amount, expected)) in (0..).zip(&events) {
            let currency = match *kind {
                "flower" => "",
                _ => r#","currency":"CNY""#,
            };
            let payload = format!(
                r#"{{"id":"{id}","campaign":"{campaign}","kind":"{kind}","amount":{amount},"at":{GIVING_DAY_2022}{currency}}}"#
            );
            let record = Record {
                offset,
                timestamp: Some(GIVING_DAY_2022),
                payload: Some(payload.as_bytes()),
            };
            let outcome = shard.apply(record, &mut names);
            assert_eq!(outcome, *expected, "{payload}");
            if post {
                shard.post();
            }
            if restore {
                let snapshot = shard.full_snapshot();
                shard = Shard::restore(0, rules(), [&snapshot.counters[..]], snapshot.ids).unwrap();
            }
        }
    }
}

/// Merge must be told of all that was restored, and not only of what came since.
#[test]
fn the_first_flush_of_what_was_restored_is_whole() {
    let payloads = payloads(2_000);
    let timestamp = Some(GIVING_DAY_2022 + 24 * 3_600_000);
    let records = (0..).zip(&payloads).map(|(offset, payload)| Record {
        offset,
        timestamp,
        payload: Some(payload),
    });
    let records: Vec<_> = records.collect();
    let (mut shard, mut names) = (Shard::new(0, rules()), Names::default());
    shard.apply_all(records[..1_900].iter().copied(), &mut names, |_, _| ());
    let kept = shard.full_snapshot();
    let mut again = Shard::restore(0, rules(), [&kept.counters[..]], kept.ids).unwrap();
    for shard in [&mut shard, &mut again] {
        shard.apply_all(records[1_900..].iter().copied(), &mut names, |_, _| ());
    }
    let flush = again.flush();
    assert_eq!(flush, shard.full_flush());
    assert_eq!(flush.from, Offset::START);
    assert!(flush.changes.len() == shard.campaign_count() && shard.campaign_count() > 100);
}

/// Whether all sketches come or the new donors alone, the union is that of all.
#[test]
fn donors_that_are_flushed_are_all_that_came() {
    let payloads = payloads(30_000);
    let (mut shard, mut names) = (Shard::new(0, rules()), Names::default());
    let mut unions: Vec<DonorsUnion> = Vec::new();
    let take_in = |unions: &mut Vec<DonorsUnion>, flush: DonorsFlush| {
        for of_one in &flush.campaigns {
            while unions.len() <= of_one.place {
                unions.push(DonorsUnion::campaign());
            }
            unions[of_one.place].merge(&of_one.donors);
        }
        flush.campaigns.len()
    };
    let mut flushed = Vec::new();
    for (offset, payload) in payloads.iter().enumerate() {
        let record = Record {
            offset: offset as i64,
            timestamp: Some(GIVING_DAY_2022 + 24 * 3_600_000),
            payload: Some(payload),
        };
        shard.apply(record, &mut names);
        // Often, but for a stretch with more donors than are told one by one.
        if offset % 100 == 99 && !(5_000..20_000).contains(&offset) {
            let flush = shard.flush_donors().unwrap();
            flushed.push(take_in(&mut unions, flush));
        }
    }
    let (some, all) = (flushed[1], shard.campaign_count());
    assert!(some < all && flushed.contains(&all), "{flushed:?}");

    shard.full_flush();
    let mut whole = Vec::new();
    shard.flush_donors().map(|flush| take_in(&mut whole, flush));
    let estimates =
        |unions: &[DonorsUnion]| -> Vec<u64> { unions.iter().map(DonorsUnion::estimate).collect() };
    assert_eq!(estimates(&unions), estimates(&whole));
}
