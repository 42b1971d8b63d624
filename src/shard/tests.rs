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

/// Every way of taking records in makes the same shard, and the same outcomes.
#[test]
fn all_at_once_or_one_by_one_is_the_same() {
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
        ..Settings::new(99, 30_000)
    };
    let (mut traffic, mut made) = (Traffic::new(&settings).unwrap(), Made::new());
    let mut payloads = Vec::new();
    while traffic.next(&mut made) {
        payloads.push(made.payload().to_vec());
    }
    let records: Vec<_> = (0..)
        .zip(&payloads)
        .map(|(offset, payload)| Record {
            offset,
            // Some have none, and some come before their time.
            timestamp: (offset % 501 != 0).then_some(GIVING_DAY_2022 + offset * 2_400),
            payload: (offset % 997 != 0).then_some(payload),
        })
        .collect();

    let mut one_by_one = Shard::new(0, rules());
    let mut expected = Vec::new();
    for (place, record) in records.iter().enumerate() {
        if let Outcome::DeadLetter(rejected) = one_by_one.apply(*record) {
            expected.push((place, rejected));
        }
    }
    let dead = |reason| one_by_one.tally().dead_letters[reason as usize];
    assert!(dead(Reason::Ahead) > 0 && dead(Reason::NoTimestamp) > 0 && dead(Reason::Empty) > 0);
    let expected_flush = one_by_one.full_flush();
    let expected_snapshot = one_by_one.snapshot();

    for at_once in [1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 512, records.len()] {
        let mut shard = Shard::new(0, rules());
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
