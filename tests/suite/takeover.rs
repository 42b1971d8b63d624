//! Crashes, replaced processes and brokers that go away: nothing that was
//! published ever falls, and the end is exact.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::process;
use crate::trouble::{AT, donation};
use crate::wait::{holds_within, wait_until};

#[test]
fn a_second_process_of_the_group_is_refused_and_names_the_first() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "second");
    day.write(1_000, &[]);
    let mut first = day.run();
    first.wait_for_output(DEADLINE, "publishing");
    let second = process::run(&mut day.command("run"), DEADLINE);
    assert_eq!(second.code(), 3, "{second}");
    assert!(
        second
            .stderr
            .contains("has live members of another process: tally99-"),
        "{second}"
    );
    assert!(second.stderr.contains("127.0.0.1"), "{second}");
    assert!(first.is_running(), "the first was disturbed");
    first.signal(Signal::INT);
    first.wait(DEADLINE).succeeded();
    day.compare().succeeded();
}

/// Killed at random moments, most of them between the upserts of a cut: as soon
/// as a cut is seen open, with thousands of upserts to come.
#[test]
fn it_is_killed_again_and_again_and_no_total_falls() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "killed");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let seed = std::env::var("CHAOS_SEED").map_or(7, |seed| seed.parse().expect("a number"));
    eprintln!("repeat it with CHAOS_SEED={seed}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let traffic = day.traffic(12_000);
    let (mut kills, mut left_open) = (0, 0);
    // Four at least, and on until one came between the upserts of a cut.
    while kills < 4 || left_open == 0 {
        assert!(kills < 20, "no kill came between the upserts of a cut");
        kills += 1;
        let mut run = day.run();
        run.wait_for_output(DEADLINE, "publishing");
        if random.random_bool(0.75) {
            wait_for_an_open_cut(kafka, &day);
        } else {
            let later = Instant::now() + Duration::from_millis(random.random_range(0..1_500));
            holds_within(DEADLINE, || Instant::now() >= later);
        }
        run.signal(Signal::KILL);
        drop(run);
        left_open += usize::from(last_state(kafka, &day) == "open");
    }
    eprintln!("{left_open} of {kills} kills left a cut open");
    traffic.end();
    day.run_until_end();
    day.compare().succeeded();
    day.assert_nothing_fell(kafka);
}

/// Returns within milliseconds of a cut's first record, well before its last.
fn wait_for_an_open_cut(kafka: &Kafka, day: &Day) {
    kafka.wait_for_next(&day.topic("cuts"), DEADLINE, |cut| {
        cut.json()["state"] == "open"
    });
}

fn last_state(kafka: &Kafka, day: &Day) -> String {
    let last = day.cuts(kafka).pop().expect("there are cuts");
    last["state"].as_str().expect("a state").to_owned()
}

/// A process is stopped for longer than the session, another takes over, and the
/// first wakes up in the middle of its cut: what it writes late is healed.
#[test]
fn a_process_that_wakes_up_replaced_changes_nothing() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "zombie");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let traffic = day.traffic(5_000);
    let mut first = day.run();
    first.wait_for_output(DEADLINE, "publishing");
    // In the middle of a cut: some of its upserts are written, some are not.
    let began = Instant::now();
    loop {
        wait_for_an_open_cut(kafka, &day);
        first.signal(Signal::STOP);
        if last_state(kafka, &day) == "open" {
            break;
        }
        assert!(
            began.elapsed() < DEADLINE,
            "it was never stopped in the middle of a cut"
        );
        first.signal(Signal::CONT);
    }

    let mut second = day.run();
    second.wait_for_output(DEADLINE, "publishing");
    first.signal(Signal::CONT);
    let first = first.wait(DEADLINE);
    assert_eq!(first.code(), 3, "{first}");
    assert!(first.stderr.contains("others have taken over"), "{first}");

    traffic.end();
    let expected = day.expectation();
    let events = expected["events"].as_u64().expect("a count");
    second.wait_until(DEADLINE, "all is published", |_| {
        day.has_counted(kafka, events)
    });
    // The second one is left alone, so that what it emits is all that heals.
    second.wait_until(DEADLINE, "the totals are right", |_| {
        day.compare().code() == 0
    });
    second.signal(Signal::TERM);
    second.wait(DEADLINE).succeeded();

    // The topic as compaction leaves it, the last of each key, not the highest
    // version: exactly what the generator expects.
    for (campaign, total) in day.totals(kafka) {
        let expected = &expected["campaigns"][&campaign];
        assert_eq!(total["version"], expected["events"], "{campaign}");
        assert_eq!(total["gifts"], expected["gifts"], "{campaign}");
        assert_eq!(total["money"], expected["money"], "{campaign}");
    }
}

#[test]
fn a_broker_goes_away_and_comes_back() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "broker");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let traffic = day.traffic(8_000);
    let mut run = day.run();
    run.wait_for_output(DEADLINE, "publishing");
    run.wait_until(DEADLINE, "it has published events", |_| {
        day.cuts(&kafka)
            .iter()
            .any(|cut| cut["events"].as_u64() > Some(20_000))
    });
    kafka.kill_broker(1);
    run.wait_for_output(DEADLINE, "no Kafka broker answers");
    kafka.start_broker(1);
    run.wait_for_output(DEADLINE, "Kafka answers again");
    traffic.end();
    run.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
    day.compare().succeeded();
    day.assert_nothing_fell(&kafka);
}

/// Brokers that stand still for longer than a session: the process loses its
/// partitions, gets them back, and goes on from where it was.
#[test]
fn a_pause_of_the_brokers_longer_than_the_session_is_survived() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "pause");
    day.write(50_000, &[]);
    let mut run = day.run();
    run.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
    kafka.signal_broker(1, "STOP");
    run.wait_for_output(DEADLINE, "the group has given partitions");
    kafka.signal_broker(1, "CONT");
    day.write(60_000, &[]); // The same 50,000, which are repeats now, and more.
    run.wait_until(DEADLINE, "all of it is published", |_| {
        let cuts = day.cuts(&kafka);
        cuts.iter()
            .any(|cut| cut["events"].as_u64() == Some(110_000))
    });
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
    // What is folded again sends its dead letters again.
    let letters = kafka.read_all(&day.topic("dead-letters"));
    let places: BTreeSet<_> = letters.iter().map(|letter| &letter.key).collect();
    let counts = (letters.len(), places.len());
    assert!(
        counts.0 > 50 && counts.0 == counts.1,
        "folded again: {counts:?}"
    );
    day.assert_nothing_fell(&kafka);
}

/// The same, and another process comes in meanwhile: one of the two goes on.
#[test]
fn a_pause_of_the_brokers_leaves_one_of_two_processes() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "pause-two");
    day.write(50_000, &[]);
    let mut first = day.run();
    first.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
    kafka.signal_broker(1, "STOP");
    first.wait_for_output(DEADLINE, "the group has given partitions");
    let mut second = day.run();
    second.wait_for_output(DEADLINE, "no Kafka broker answers");
    kafka.signal_broker(1, "CONT");
    let left = || first.is_running() != second.is_running();
    wait_until(DEADLINE, "one of the two has ended", left);
    let (mut left, ended) = match first.is_running() {
        true => (first, second),
        false => (second, first),
    };
    let ended = ended.wait(DEADLINE);
    assert_eq!(ended.code(), 3, "{ended}");
    assert!(
        ended.stderr.contains("of another process: tally99-")
            || ended.stderr.contains("have taken over"),
        "{ended}"
    );
    kafka.produce(&day.topic("donations"), [(0, "last", donation("last", AT))]);
    left.wait_until(DEADLINE, "all is published", |_| {
        let cuts = day.cuts(&kafka);
        cuts.iter()
            .any(|cut| cut["events"].as_u64() == Some(50_001))
    });
    left.signal(Signal::TERM);
    left.wait(DEADLINE).succeeded();
    day.assert_nothing_fell(&kafka);
}
