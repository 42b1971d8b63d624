//! What can go wrong around `tally99 run`: each gives a message that says what
//! happens and what to do, and it goes on by itself where it can.

use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::{Kafka, STRANGER};
use crate::process::{self, Finished, Running};
use crate::wait::SOON;

fn run(day: &Day, more: &[&str]) -> Finished {
    process::run(day.command("run").args(more), DEADLINE)
}

#[track_caller]
pub fn assert_fails(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), 3, "{finished}");
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{word:?} is not in: {finished}"
        );
    }
}

/// One donation of 1 fen.
pub fn donation(id: &str, at: i64) -> String {
    format!(r#"{{"id":"{id}","campaign":"c","amount":1,"currency":"CNY","at":{at}}}"#)
}

pub const AT: i64 = 1_662_688_800_000;

#[test]
fn no_broker_is_said_and_waited_for() {
    for address in ["127.0.0.1:1", "no-such-host.invalid:9092"] {
        let day = Day::at(address, "nobody");
        let mut run = day.run();
        run.wait_for_output(DEADLINE, "no Kafka broker answers");
        let host = address.split(':').next().unwrap();
        assert!(run.stderr().contains(host), "{run}");
        assert!(run.is_running(), "{run}");
        run.signal(Signal::TERM);
        run.wait(SOON).succeeded();
    }
    let day = Day::at("127.0.0.1:1", "nobody");
    let mut run = Running::start(day.command("run").arg("--until-end"));
    run.wait_for_output(DEADLINE, "no Kafka broker answers");
    run.signal(Signal::TERM);
    assert_fails(&run.wait(SOON), &["ended before counting began"]);
}

#[test]
fn a_broker_that_comes_later_is_found() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "later");
    day.write(10_000, &[]);
    kafka.kill_broker(1);
    let mut run = Running::start(day.command("run").arg("--until-end"));
    run.wait_for_output(DEADLINE, "no Kafka broker answers");
    kafka.start_broker(1);
    run.wait(DEADLINE).succeeded();
    day.compare().succeeded();
}

#[test]
fn a_missing_topic_ends_it_or_is_waited_for() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "missing");
    let refused = run(&day, &[]);
    assert_fails(
        &refused,
        &[&day.topic("donations"), "is not there", "--wait-for-topic"],
    );
    assert!(
        !kafka.has_topic(&day.topic("donations")),
        "run made the donations topic"
    );

    let mut waiting = Running::start(day.command("run").args(["--wait-for-topic", "--until-end"]));
    waiting.wait_for_output(DEADLINE, "waiting for topic");
    kafka.create_topic(&day.topic("donations"), 3, &[]);
    waiting.wait(DEADLINE).succeeded();
    assert_eq!(day.cuts(kafka).pop().unwrap()["state"], "complete");
}

#[test]
fn an_empty_topic_makes_one_cut_of_nothing() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "empty");
    kafka.create_topic(&day.topic("donations"), 3, &[]);
    run(&day, &["--until-end"]).succeeded();
    let cut = day.cuts(kafka).pop().unwrap();
    assert_eq!(
        (&cut["state"], cut["events"].as_u64()),
        (&"complete".into(), Some(0))
    );
    assert_eq!(
        cut["offsets"].as_object().map(|offsets| offsets.len()),
        Some(3)
    );
}

#[test]
fn its_own_topics_are_made_as_they_must_be_or_not_at_all() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "own");
    kafka.create_topic(&day.topic("donations"), 3, &[]);
    let forbidden = process::run(
        day.command("run")
            .arg("--until-end")
            .env("TALLY99_TOPICS_CREATE", "false"),
        DEADLINE,
    );
    assert_fails(&forbidden, &["topics.create is false", &day.topic("cuts")]);
    assert!(!kafka.has_topic(&day.topic("cuts")));

    run(&day, &["--until-end"]).succeeded();
    let policy = |which: &str| kafka.settings(&day.topic(which))["cleanup.policy"].clone();
    let policies = ["totals", "windows", "dead-letters", "cuts"].map(policy);
    assert_eq!(policies, ["compact", "compact", "compact", "delete"]);
    let thirty_days_ms = 30 * 86_400_000u64;
    let retention = &kafka.settings(&day.topic("cuts"))["retention.ms"];
    assert_eq!(*retention, thirty_days_ms.to_string());
    assert_eq!(
        kafka.end_offsets(&day.topic("cuts")).len(),
        1,
        "cuts have an order"
    );
}

#[test]
fn a_compacted_log_is_refused() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "compacted");
    kafka.create_topic(&day.topic("donations"), 1, &[("cleanup.policy", "compact")]);
    assert_fails(&run(&day, &[]), &["is compacted", "cleanup.policy=delete"]);
    assert!(!kafka.has_topic(&day.topic("cuts")));
}

#[test]
fn a_log_whose_head_has_expired_is_not_counted() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "expired");
    day.write(10_000, &[]);
    let end = kafka.end_offsets(&day.topic("donations"))[3];
    kafka.expire(&day.topic("donations"), 3, 100);
    let refused = run(&day, &[]);
    let place = format!("{}/3: the fold is at offset 0", day.topic("donations"));
    let range = format!("goes from 100 to {end}");
    assert_fails(
        &refused,
        &[&place, &range, "100 offsets have expired", "retention.ms"],
    );
    let counted = |cut: &serde_json::Value| cut["offsets"]["3"].as_u64() > Some(0);
    assert!(
        !day.cuts(kafka).iter().any(counted),
        "a gap was counted as nothing"
    );
}

#[test]
fn a_log_made_anew_makes_no_total_step_back() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "anew");
    day.write(10_000, &[]);
    day.run_until_end();
    let cuts = day.cuts(kafka).len();
    kafka.delete_topic(&day.topic("donations"));
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    assert_fails(
        &run(&day, &[]),
        &["have been published", "made anew", "step back"],
    );
    assert_eq!(day.cuts(kafka).len(), cuts, "something was published");
}

#[test]
fn a_log_made_anew_with_fewer_partitions_is_another() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "fewer");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, 6, &[]);
    day.run_until_end();
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 3, &[]);
    let ended = run(&day, &["--until-end"]);
    let place = format!("{topic}/3: ");
    assert_fails(
        &ended,
        &[&place, "the topic has no such partition", "made anew"],
    );
}

#[test]
fn a_topic_that_is_deleted_under_way_ends_it() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "deleted");
    day.write(10_000, &[]);
    let mut run = day.run();
    run.wait_for_output(DEADLINE, "publishing");
    kafka.delete_topic(&day.topic("donations"));
    run.wait_for_output(DEADLINE, "is gone; if it is not back in 30 s");
    assert_fails(&run.wait(DEADLINE), &["it was deleted"]);
}

/// Cuts that have expired are no reason to begin again below what they said.
#[test]
fn expired_cuts_make_no_total_step_back() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "forgotten");
    day.write(50_000, &[]);
    day.run_until_end();
    let newest = day.cuts(kafka).pop().unwrap()["cut"].as_u64();
    let end = kafka.end_offsets(&day.topic("cuts"))[0];
    kafka.expire(&day.topic("cuts"), 0, end);
    day.run_until_end();
    day.assert_nothing_fell(kafka);
    assert!(day.cuts(kafka).pop().unwrap()["cut"].as_u64() > newest);
    day.compare().succeeded();
}

#[test]
fn partitions_that_are_added_are_counted() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "added");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, 2, &[]);
    kafka.produce(
        &topic,
        [(0, "a", donation("a", AT)), (1, "b", donation("b", AT))],
    );
    let mut run = day.run();
    run.wait_until(DEADLINE, "two are counted", |_| {
        kafka.has_topic(&day.topic("cuts"))
            && day
                .cuts(kafka)
                .iter()
                .any(|cut| cut["events"].as_u64() == Some(2))
    });
    kafka.add_partitions(&topic, 4);
    run.wait_for_output(DEADLINE, "has 4 partitions now, not 2");
    kafka.produce(
        &topic,
        [(2, "c", donation("c", AT)), (3, "d", donation("d", AT))],
    );
    run.wait_until(DEADLINE, "four are counted", |_| day.has_counted(kafka, 4));
    run.signal(Signal::TERM);
    run.wait(SOON).succeeded();
    day.assert_nothing_fell(kafka);
    let last = day.cuts(kafka).pop().unwrap();
    assert_eq!(
        last["offsets"].as_object().map(|offsets| offsets.len()),
        Some(4)
    );
}

#[test]
fn a_user_without_rights_is_told_what_to_grant() {
    let kafka = Kafka::guarded();
    let day = Day::at(&kafka.guarded_address(), "stranger");
    kafka.create_topic(&day.topic("donations"), 1, &[]);
    let mut command = day.command("run");
    for (key, value) in STRANGER {
        let variable = format!(
            "TALLY99_KAFKA_PROPERTIES_{}",
            key.replace('.', "_").to_uppercase()
        );
        command.env(variable, value);
    }
    let refused = process::run(&mut command, DEADLINE);
    assert_fails(
        &refused,
        &[
            "no permission for topic",
            &day.topic("donations"),
            "grant READ",
        ],
    );
}

#[test]
fn of_two_that_start_at_once_one_goes_on() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "twins");
    day.write(20_000, &[]);
    let mut twins = [day.run(), day.run()];
    let published = |twins: &mut [Running; 2]| {
        twins
            .iter()
            .filter(|twin| twin.stderr().contains("publishing"))
            .count()
            > 0
    };
    crate::wait::wait_until(DEADLINE, "one has ended and one publishes", || {
        let running = twins
            .iter_mut()
            .filter_map(|twin| twin.is_running().then_some(()))
            .count();
        assert!(running > 0, "both have ended: {} {}", twins[0], twins[1]);
        running == 1 && published(&mut twins)
    });
    let [first, second] = twins;
    let (mut winner, loser) = if first.stderr().contains("has live members") {
        (second, first)
    } else {
        (first, second)
    };
    assert_fails(&loser.wait(SOON), &["has live members of another process"]);
    winner.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
    winner.signal(Signal::TERM);
    winner.wait(SOON).succeeded();
    day.assert_nothing_fell(kafka);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "at-once");
    day.write(10_000, &[]);
    let mut run = day.run();
    run.wait_for_output(DEADLINE, "publishing");
    let _traffic = day.traffic(5_000);
    run.wait_until(DEADLINE, "it publishes", |_| day.cuts(&kafka).len() > 6);
    // With a broker that does not answer, what is counted cannot be published,
    // and the first signal takes long.
    kafka.signal_broker(1, "STOP");
    run.signal(Signal::TERM);
    run.wait_for_output(DEADLINE, "a second signal ends it at once");
    run.signal(Signal::TERM);
    let ended = run.wait(SOON);
    assert_eq!(ended.code(), 130, "{ended}");
}

#[test]
fn an_end_that_is_not_reached_is_no_success() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "early");
    // More than is read before the signal comes, however slow it is to come.
    day.write(1_500_000, &[]);
    let mut run = Running::start(day.command("run").arg("--until-end"));
    run.wait_for_output(DEADLINE, "workers for");
    kafka.signal_broker(1, "STOP");
    run.signal(Signal::INT);
    run.wait_for_output(DEADLINE, "a second signal");
    kafka.signal_broker(1, "CONT");
    let ended = run.wait(DEADLINE);
    assert_eq!(ended.code(), 3, "{ended}");
    // Or the broker was too slow to come back for the last cut.
    let words = ["offsets are left", "the last cut is not complete"];
    let says = |words: &&str| ended.stderr.contains(words);
    assert!(words.iter().any(says), "{ended}");
    day.run_until_end();
    day.compare().succeeded();
}

/// One byte of a batch has changed on the broker's disk, which brokers do not
/// notice: nothing of it is counted, and nothing behind it.
#[test]
fn a_damaged_batch_ends_it_and_is_named() {
    let kafka = Kafka::own(1);
    let day = Day::on(&kafka, "damaged");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, 2, &[]);
    for id in ["a", "b", "c"] {
        kafka.produce(&topic, [0, 1].map(|p| (p, id, donation(id, AT))));
    }
    kafka.signal_broker(1, "TERM");
    let log = kafka.log_of(1, &topic, 1);
    let mut bytes = std::fs::read(&log).expect("the log of a partition");
    // In the second of three batches of one record each.
    let place = bytes.len() / 2;
    bytes[place] ^= 0x40;
    std::fs::write(&log, bytes).expect("it can be written");
    kafka.start_broker(1);

    let ended = run(&day, &["--until-end", "--workers", "2"]);
    let words = [
        "cannot be read, after 5 tries",
        "these offsets: 1/1.",
        "disks",
    ];
    assert_fails(&ended, &words);
    let counted: Vec<_> = day
        .cuts(&kafka)
        .into_iter()
        .map(|cut| cut["offsets"].clone())
        .collect();
    let beyond = |offsets: &serde_json::Value| offsets["1"].as_u64() > Some(1);
    assert!(!counted.iter().any(beyond), "it was counted: {counted:?}");
}
