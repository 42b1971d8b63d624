//! `tally99 run` counts exactly what the generator wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::process::Running;
use rustix::process::Signal;

#[test]
fn a_million_events_are_counted_to_the_fen() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "million");
    day.write(1_000_000, &["--seed", "99"]);
    day.run_until_end();

    let compared = day.compare().succeeded();
    assert!(compared.stdout.contains("equal"), "{compared}");
    day.assert_nothing_fell(kafka);
    let expected = day.expectation();
    check_dead_letters(kafka, &day, &expected);
    check_cuts(kafka, &day, &expected);
    check_windows(kafka, &day);
}

/// As many as were malformed, each with its place, its reason and its bytes.
fn check_dead_letters(kafka: &Kafka, day: &Day, expected: &Value) {
    let letters = kafka.read_all(&day.topic("dead-letters"));
    assert_eq!(
        Some(letters.len() as u64),
        expected["dead_letters"].as_u64()
    );
    assert!(
        letters.len() >= 900,
        "only {} records were malformed",
        letters.len()
    );

    let originals: HashMap<_, _> = kafka
        .read_all(&day.topic("donations"))
        .into_iter()
        .map(|record| ((record.partition, record.offset), record))
        .collect();
    let mut places = BTreeSet::new();
    for letter in &letters {
        let header = |name: &str| {
            let (_, value) = letter.headers.iter().find(|(key, _)| key == name)?;
            value
                .clone()
                .and_then(|value| String::from_utf8(value).ok())
        };
        assert_eq!(header("topic"), Some(day.topic("donations")));
        let partition: i32 = header("partition").unwrap().parse().unwrap();
        let offset: i64 = header("offset").unwrap().parse().unwrap();
        assert!(!header("reason").unwrap().is_empty() && !header("detail").unwrap().is_empty());
        let original = &originals[&(partition, offset)];
        assert_eq!(
            letter.value,
            Some(original.value.clone().unwrap_or_default())
        );
        assert_eq!(header("key").map(String::into_bytes), original.key);
        assert!(places.insert((partition, offset)), "twice: {letter:?}");
        let place = format!("{}/{partition}/{offset}", day.topic("donations"));
        assert_eq!(letter.key, Some(place.into_bytes()));
    }
}

/// Every cut is opened before it is complete, and the last one adds up: with the
/// generator's sums, with the totals topic, and with its own digest.
fn check_cuts(kafka: &Kafka, day: &Day, expected: &Value) {
    let cuts = day.cuts(kafka);
    let mut open = None;
    for cut in &cuts {
        match cut["state"].as_str() {
            Some("open") => open = Some(cut.clone()),
            Some("complete") => {
                let open = open.take().unwrap_or_else(|| panic!("never opened: {cut}"));
                for field in ["cut", "offsets", "publisher", "epoch"] {
                    assert_eq!(cut[field], open[field], "{field}");
                }
            }
            state => panic!("unexpected state {state:?}"),
        }
    }
    assert!(open.is_none(), "the last cut is not complete");
    let last = cuts.last().expect("there are cuts");
    for field in [
        "events",
        "duplicates",
        "dead_letters",
        "gifts",
        "flowers",
        "money",
    ] {
        assert_eq!(last[field], expected[field], "{field}");
    }
    let ends: BTreeMap<_, _> = (0..)
        .zip(kafka.end_offsets(&day.topic("donations")))
        .collect();
    for (partition, end) in ends {
        assert_eq!(last["offsets"][partition.to_string()].as_i64(), Some(end));
    }

    let totals = day.totals(kafka);
    assert_eq!(last["campaigns"].as_u64(), Some(totals.len() as u64));
    let sum = |pointer: &str| -> i64 {
        totals
            .values()
            .map(|total| total.pointer(pointer).and_then(Value::as_i64).unwrap_or(0))
            .sum()
    };
    assert_eq!(last["gifts"].as_i64(), Some(sum("/gifts")));
    assert_eq!(last["flowers"].as_i64(), Some(sum("/flowers")));
    for column in ["gross", "refunded", "net", "matched"] {
        let pointer = format!("/money/CNY/{column}");
        assert_eq!(
            last.pointer(&pointer).and_then(Value::as_i64),
            Some(sum(&pointer))
        );
    }
    let digest = totals
        .values()
        .fold(0u128, |sum, total| sum.wrapping_add(digest_of(total)));
    assert_eq!(last["digest"].as_str(), Some(&*format!("{digest:032x}")));
}

/// The digest as the documentation defines it, from what readers see.
fn digest_of(total: &Value) -> u128 {
    let milliseconds = |field: &str| {
        let time: jiff::Timestamp = total[field].as_str().unwrap().parse().unwrap();
        time.as_millisecond()
    };
    let mut text = format!(
        "{}\n{}\n{}\n{}\n{}\n{}\n",
        total["campaign"].as_str().unwrap(),
        total["version"],
        total["gifts"],
        total["flowers"],
        milliseconds("first_at"),
        milliseconds("last_at"),
    );
    for (currency, money) in total["money"].as_object().unwrap() {
        let (gross, refunded, matched) = (&money["gross"], &money["refunded"], &money["matched"]);
        text.push_str(&format!("{currency} {gross} {refunded} {matched}\n"));
    }
    xxh3_128(text.as_bytes())
}

/// The longest window of the last cut holds no more than the total.
fn check_windows(kafka: &Kafka, day: &Day) {
    let totals = day.totals(kafka);
    let mut windows = BTreeMap::new();
    for record in kafka.read_all(&day.topic("windows")) {
        windows.insert(
            record.json()["campaign"].as_str().unwrap().to_owned(),
            record.json(),
        );
    }
    assert_eq!(windows.len(), totals.len(), "every campaign has windows");
    let mut gifts_of_the_day = 0;
    for (campaign, windows) in &windows {
        let gifts = |length: &str| windows["windows"][length]["gifts"].as_u64().unwrap();
        assert!(gifts("1m") <= gifts("5m") && gifts("5m") <= gifts("1h"));
        assert!(gifts("1h") <= gifts("24h"));
        assert!(gifts("24h") <= totals[campaign]["gifts"].as_u64().unwrap());
        gifts_of_the_day += gifts("24h");
    }
    assert!(gifts_of_the_day > 0, "the day has no gifts");
}

/// A run that is stopped while events come in has published what it counted,
/// and the next one goes on from there.
#[test]
fn it_counts_while_events_come_and_ends_when_it_is_told() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "live");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let mut run = day.run();
    run.wait_for_output(DEADLINE, "publishing");
    let writing = Running::start(&mut day.generate(60_000, &["--rate", "10000"]));
    run.wait_until(DEADLINE, "it publishes totals", |_| {
        kafka.has_topic(&day.topic("cuts"))
            && day
                .cuts(kafka)
                .iter()
                .any(|cut| cut["events"].as_u64() > Some(10_000))
    });
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
    let last = day.cuts(kafka).pop().unwrap();
    assert_eq!(last["state"], "complete");

    writing.wait(DEADLINE).succeeded();
    day.run_until_end();
    day.compare().succeeded();
    day.assert_nothing_fell(kafka);
    let counted = day.cuts(kafka).pop().unwrap()["events"].as_u64().unwrap();
    assert_eq!(counted, 60_000);
}
