//! Static members (`kafka.group_instance_id`): a restart moves nothing, and of two
//! of one id the older one ends.

use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::process::Running;
use crate::trouble::{AT, assert_fails, donation};
use crate::wait::SOON;

fn of_instance(day: &Day, id: &str) -> Command {
    let mut command = day.command("run");
    command.env("TALLY99_KAFKA_GROUP_INSTANCE_ID", id);
    command
}

/// Ended in order, and killed: within the session timeout it has its place again,
/// in the same generation, and is not taken for another one, also as a standby.
#[test]
fn a_restart_within_the_session_moves_nothing() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "static");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, 2, &[]);
    kafka.produce(
        &topic,
        [0, 1].map(|p| (p, "a", donation(&format!("a{p}"), AT))),
    );
    let publishes = |mut command: Command| {
        // However slow the machine is to start one.
        command.env("TALLY99_KAFKA_SESSION_TIMEOUT_MS", "60000");
        let mut run = Running::start(&mut command);
        run.wait_for_output(DEADLINE, "publishing");
        run
    };
    let first = publishes(of_instance(&day, "one"));
    let generations = kafka.generations(day.group());
    first.signal(Signal::TERM);
    first.wait(SOON).succeeded();
    let second = publishes(of_instance(&day, "one"));
    second.signal(Signal::KILL);
    second.wait(SOON);
    let mut standby = of_instance(&day, "one");
    standby.arg("--standby");
    let mut third = publishes(standby);
    assert_eq!(kafka.generations(day.group()), generations, "{third}");
    assert!(!third.stderr().contains("standing by"), "{third}");

    // It has the leader's duties again, too: partitions that are added are found.
    kafka.add_partitions(&topic, 4);
    kafka.produce(
        &topic,
        [2, 3].map(|p| (p, "b", donation(&format!("b{p}"), AT))),
    );
    third.wait_until(DEADLINE, "four are counted", |_| {
        let cuts = day.cuts(kafka);
        cuts.iter().any(|cut| cut["events"].as_u64() == Some(4))
    });
    third.signal(Signal::TERM);
    third.wait(SOON).succeeded();
    day.assert_nothing_fell(kafka);
}

/// A live one of the same id on this host is no restart.
#[test]
fn a_second_process_of_the_same_id_is_refused() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "static-twice");
    day.write(1_000, &[]);
    let mut first = Running::start(&mut of_instance(&day, "one"));
    first.wait_for_output(DEADLINE, "publishing");
    let second = Running::start(&mut of_instance(&day, "one"));
    assert_fails(
        &second.wait(DEADLINE),
        &["has live members of another process: tally99-"],
    );
    assert!(first.is_running(), "{first}");
    first.signal(Signal::TERM);
    first.wait(SOON).succeeded();
    day.compare().succeeded();
}

/// Somebody who asks nobody comes with the same id.
#[test]
fn of_two_of_one_id_the_older_ends_and_says_why() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "fenced");
    day.write(10_000, &[]);
    let mut run = Running::start(&mut of_instance(&day, "one"));
    run.wait_for_output(DEADLINE, "publishing");
    let newer = kafka.stranger(day.group(), ("group.instance.id", "one"));
    newer
        .subscribe(&[&day.topic("donations")])
        .expect("it subscribes");
    let mut is_running = true;
    let ended = crate::wait::holds_within(DEADLINE, || {
        newer.poll(Duration::from_millis(20));
        is_running = run.is_running();
        !is_running
    });
    assert!(ended, "it goes on: {run}");
    assert_fails(
        &run.wait(SOON),
        &["the same kafka.group_instance_id, one", "an id of its own"],
    );
    day.assert_nothing_fell(kafka);
}

/// Stopped for longer than the session, and nobody else came: it is thrown out,
/// comes back, and goes on from where it was.
#[test]
fn a_member_that_was_thrown_out_comes_back() {
    let kafka = Kafka::shared();
    for id in ["", "one"] {
        let day = Day::on(kafka, "thrown-out");
        day.write(10_000, &[]);
        let mut run = Running::start(&mut of_instance(&day, id));
        run.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
        run.signal(Signal::STOP);
        kafka.wait_for_empty_group(day.group(), DEADLINE);
        run.signal(Signal::CONT);
        run.wait_for_output(DEADLINE, "the group has given partitions");
        kafka.produce(&day.topic("donations"), [(0, "last", donation("last", AT))]);
        run.wait_until(DEADLINE, "the last one is published", |_| {
            let cuts = day.cuts(kafka);
            cuts.iter()
                .any(|cut| cut["events"].as_u64() == Some(10_001))
        });
        run.signal(Signal::TERM);
        run.wait(SOON).succeeded();
        day.assert_nothing_fell(kafka);
    }
}
