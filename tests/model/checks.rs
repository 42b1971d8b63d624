//! What is emitted, held against the oracle.

use std::collections::BTreeMap;

use tally99::event::Reason;
use tally99::merge::{Cut, Digest, Sums, Total};

use crate::oracle::{ExpectedTotal, Oracle};

/// Every figure of a cut against the oracle at its offsets.
pub fn check_cut(cut: &Cut, oracle: &Oracle) {
    let tally = &cut.tally;
    assert_eq!(
        tally.seen,
        tally.counted + tally.duplicates + tally.dead(),
        "{tally:?}"
    );
    let found = (tally.seen, tally.duplicates, tally.late);
    assert_eq!(found, (oracle.seen, oracle.duplicates, oracle.late));
    let reasons = Reason::ALL.iter().zip(tally.dead_letters);
    let reasons = reasons.filter(|(_, count)| *count > 0);
    let dead: BTreeMap<_, _> = reasons
        .map(|(reason, count)| (reason.code(), count))
        .collect();
    assert_eq!(dead, oracle.dead);
    assert_eq!(cut.as_of.unwrap_or(0), oracle.watermark);
    assert_eq!(cut.campaigns as usize, oracle.totals().count());
    assert_eq!(cut.digest, Digest(oracle.digest()));

    let (mut gifts, mut flowers, mut money) = (0, 0, BTreeMap::<_, [i128; 3]>::new());
    for (_, total) in oracle.totals() {
        gifts += total.gifts;
        flowers += total.flowers;
        for (currency, sums) in &total.money {
            let all = money.entry(currency.clone()).or_default();
            all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        }
    }
    assert_eq!((cut.sums.gifts, cut.sums.flowers), (gifts, flowers));
    assert_eq!(columns(&cut.sums), money);
    for total in &cut.changed {
        let (name, counts) = (&total.campaign, &total.counts);
        let expected = &oracle.campaigns[&**name];
        check_total(total, expected);
        let found = (counts.seen, counts.duplicates, counts.dead_letters);
        let expected = (expected.seen, expected.duplicates, expected.dead);
        assert_eq!(found, expected, "outcomes of {name}");
        assert_eq!(
            counts.seen,
            counts.counted + counts.duplicates + counts.dead_letters
        );
    }
}

pub fn check_total(total: &Total, expected: &ExpectedTotal) {
    let (name, counts) = (&total.campaign, &total.counts);
    assert_eq!(counts.counted, expected.version(), "version of {name}");
    assert_eq!(total.sums.gifts, expected.gifts, "gifts of {name}");
    assert_eq!(total.sums.flowers, expected.flowers, "flowers of {name}");
    assert_eq!(
        (counts.first_at, counts.last_at),
        expected.span(),
        "span of {name}"
    );
    assert_eq!(columns(&total.sums), expected.money, "money of {name}");
    assert_eq!(counts.late, expected.late, "late of {name}");
}

/// The sums by currency; net must be what it says.
fn columns(sums: &Sums) -> BTreeMap<String, [i128; 3]> {
    let money = sums.money.iter().map(|(currency, sums)| {
        assert_eq!(sums.net, sums.gross - sums.refunded);
        (
            currency.to_string(),
            [sums.gross, sums.refunded, sums.matched],
        )
    });
    money.collect()
}

pub fn check_estimate(of: &str, estimate: u64, exact: usize, error: f64) {
    let off = (estimate as f64 - exact as f64).abs();
    assert!(
        off <= error * exact as f64,
        "donors of {of}: {estimate} of {exact}"
    );
}
