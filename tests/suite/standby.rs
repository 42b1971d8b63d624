//! `run --standby`: it waits beside the process at work, and takes over from one
//! that is gone, on brokers that let an empty group wait, as brokers do.

use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rustix::process::Signal;
use serde_json::Value;

use crate::day::{DEADLINE, Day};
use crate::kafka::{Kafka, Record};
use crate::place::Place;
use crate::process::{self, Running};
use crate::trouble::{AT, assert_fails, donation};
use crate::wait::{SOON, holds_within, wait_until};

/// What a busy machine has from the kill to the first fresh totals, the session timeout
/// of 6 s included. One that has nothing else to do takes less than 10 s.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(30);

fn standby_command(day: &Day) -> Command {
    let mut command = day.command("run");
    command.arg("--standby");
    command
}

/// One that waits for whoever is at work.
fn waiting(mut command: Command) -> Running {
    let mut standby = Running::start(&mut command);
    standby.wait_for_output(DEADLINE, "standing by in group");
    standby
}

fn standby(day: &Day) -> Running {
    waiting(standby_command(day))
}

fn is_complete(cut: &Value) -> bool {
    cut["state"] == "complete"
}

/// Waits until all that was written is published, and ends whoever publishes.
fn finish(day: &Day, mut last: Running) {
    last.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
    last.signal(Signal::TERM);
    last.wait(SOON).succeeded();
}

/// How long it took from now until another publisher than that of the newest cut
/// completed a cut with more events in it.
fn takeover(kafka: &Kafka, day: &Day, newest: &Value) -> Duration {
    let since = Instant::now();
    kafka.wait_for_next(&day.topic("cuts"), DEADLINE, |record| {
        let cut = record.json();
        is_complete(&cut)
            && cut["publisher"] != newest["publisher"]
            && cut["events"].as_u64() > newest["events"].as_u64()
    });
    since.elapsed()
}

fn newest_complete(kafka: &Kafka, day: &Day) -> Value {
    let mut cuts = day.cuts(kafka).into_iter();
    cuts.rfind(is_complete).expect("a complete cut")
}

/// The one at work is killed, then the standby that took over from it: each time
/// one of the standbys goes on in time, and the other one waits.
#[test]
fn of_two_standbys_one_takes_over_after_a_kill() {
    let kafka = Kafka::patient();
    let day = Day::on(kafka, "standbys");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let traffic = day.traffic(5_000);
    // Each restores what the one before it has kept.
    let place = Place::folder();
    let standby = || {
        let mut command = place.command(&day, "run");
        command.arg("--standby");
        waiting(command)
    };
    let mut active = place.run(&day);
    active.wait_for_output(DEADLINE, "publishing");
    let mut standbys = vec![standby(), standby()];
    while !standbys.is_empty() {
        kafka.wait_for_next(&day.topic("cuts"), DEADLINE, |cut| is_complete(&cut.json()));
        let newest = newest_complete(kafka, &day);
        active.signal(Signal::KILL);
        let took = takeover(kafka, &day, &newest);
        eprintln!("fresh totals {took:.1?} after the kill");
        let at_work = |standby: &Running| standby.stderr().contains("taking over");
        let first = standbys.iter().position(at_work);
        active = standbys.remove(first.expect("one of them took over"));
        for waiting in &mut standbys {
            assert!(waiting.is_running() && !at_work(waiting), "{waiting}");
        }
        assert!(took <= TAKEOVER_WITHIN, "{took:?}: {active}");
        assert!(active.stderr().contains("restored at offset"), "{active}");
    }
    traffic.end();
    finish(&day, active);
    day.assert_nothing_fell(kafka);
}

/// They come to an empty group at the same moment.
#[test]
fn standbys_that_start_at_once_end_with_one_at_work() {
    let kafka = Kafka::patient();
    let day = Day::on(kafka, "standbys-first");
    day.write(20_000, &[]);
    let mut standbys = [
        Running::start(&mut standby_command(&day)),
        Running::start(&mut standby_command(&day)),
    ];
    wait_until(DEADLINE, "one is at work, and one waits", || {
        let count = |text: &str| {
            let has = |standby: &&Running| standby.stderr().contains(text);
            standbys.iter().filter(has).count()
        };
        count("publishing") == 1 && count("standing by in group") >= 1
    });
    assert!(standbys.iter_mut().all(Running::is_running));
    let [first, second] = standbys;
    let (at_work, waiting) = match first.stderr().contains("publishing") {
        true => (first, second),
        false => (second, first),
    };
    waiting.signal(Signal::TERM);
    waiting.wait(SOON).succeeded();
    finish(&day, at_work);
    day.assert_nothing_fell(kafka);
}

/// It was stopped for longer than its session, and finds the standby at work.
#[test]
fn one_that_wakes_up_after_a_standby_took_over_ends() {
    let kafka = Kafka::patient();
    let day = Day::on(kafka, "standby-zombie");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let traffic = day.traffic(5_000);
    let mut zombie = day.run();
    zombie.wait_for_output(DEADLINE, "publishing");
    let mut standby = standby(&day);
    zombie.signal(Signal::STOP);
    let newest = newest_complete(kafka, &day);
    let took = takeover(kafka, &day, &newest);
    eprintln!("fresh totals {took:.1?} after the stop");
    zombie.signal(Signal::CONT);
    assert_fails(&zombie.wait(DEADLINE), &["others have taken over"]);
    // Whoever started it starts it anew, as a standby.
    let again = self::standby(&day);
    assert!(standby.is_running(), "{standby}");
    traffic.end();
    finish(&day, standby);
    drop(again);
    day.assert_nothing_fell(kafka);
}

/// Standbys that come, go in order, and die are nothing to the one at work.
#[test]
fn standbys_that_come_and_go_disturb_nobody() {
    let kafka = Kafka::patient();
    let day = Day::on(kafka, "standby-quiet");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let traffic = day.traffic(5_000);
    let mut active = day.run();
    active.wait_for_output(DEADLINE, "publishing");
    let cut = |count| {
        for _ in 0..count {
            kafka.wait_for_next(&day.topic("cuts"), DEADLINE, |cut| is_complete(&cut.json()));
        }
    };
    let records = || kafka.read_all(&day.topic("cuts"));
    cut(2);
    let alone = records().len();
    cut(10);
    let from = records().len();
    for how in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let standby = standby(&day);
        cut(4);
        standby.signal(how);
        let asked = Instant::now();
        let ended = standby.wait(SOON);
        if how == Signal::TERM {
            eprintln!("a standby ends {:.1?} after the signal", asked.elapsed());
            ended.succeeded();
        }
        cut(4);
    }
    let cuts = records();
    let (gap, before) = (longest_gap(&cuts[from..]), longest_gap(&cuts[alone..from]));
    eprintln!("the longest time between two cuts: {gap} ms, and {before} ms before");
    // No session ran out, on a machine that is as busy as it was before.
    let most = 6_000 + 4 * before;
    assert!(gap < most, "publishing stopped for {gap} ms: {active}");
    let abandoned = |cut: &Record| cut.json()["state"] == "abandoned";
    assert!(!cuts.iter().any(abandoned), "{active}");
    traffic.end();
    finish(&day, active);
    day.assert_nothing_fell(kafka);
}

/// In milliseconds, between complete cuts.
fn longest_gap(cuts: &[Record]) -> i64 {
    let complete = cuts.iter().filter(|cut| is_complete(&cut.json()));
    let at: Vec<i64> = complete.filter_map(|cut| cut.timestamp).collect();
    let gaps = at.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().expect("several cuts")
}

/// A mere standby does nothing, so it is no reason to refuse a start; and once
/// somebody is at work, both kinds of start know it.
#[test]
fn a_plain_run_starts_beside_a_mere_standby() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "standby-plain");
    day.write(10_000, &[]);
    let elsewhere = kafka.new_topic("elsewhere", 1);
    let named = ("client.id", "tally99-elsewhere-1-0-standby");
    let mere = kafka.stranger(day.group(), named);
    mere.subscribe(&[&elsewhere]).expect("it subscribes");
    let is_in = holds_within(SOON, || {
        mere.poll(Duration::from_millis(20));
        mere.assignment().is_ok_and(|list| list.count() > 0)
    });
    assert!(is_in, "it did not join");
    let mut run = day.run();
    run.wait_until(DEADLINE, "it publishes", |run| {
        mere.poll(Duration::from_millis(20));
        run.stderr().contains("publishing")
    });
    assert!(!run.stderr().contains("has a member"), "{run}");
    drop(mere);
    let mut standby = standby(&day);
    standby.wait_for_output(DEADLINE, "at work");
    assert_fails(
        &process::run(&mut day.command("run"), DEADLINE),
        &["has live members of another process"],
    );
    // It goes in order, and the standby need not wait for its session to end.
    run.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);
    run.signal(Signal::TERM);
    run.wait(SOON).succeeded();
    standby.wait_for_output(DEADLINE, "taking over");
    kafka.produce(&day.topic("donations"), [(0, "last", donation("last", AT))]);
    standby.wait_until(DEADLINE, "the last one is published", |_| {
        newest_complete(kafka, &day)["events"].as_u64() == Some(10_001)
    });
    standby.signal(Signal::TERM);
    standby.wait(SOON).succeeded();
    day.assert_nothing_fell(kafka);
}

/// Both see the group free at the same moment.
#[test]
fn a_standby_and_a_plain_run_at_once_end_with_one_at_work() {
    let kafka = Kafka::patient();
    let day = Day::on(kafka, "standby-and-run");
    day.write(20_000, &[]);
    let mut both = [
        Running::start(&mut standby_command(&day)),
        Running::start(&mut day.command("run")),
    ];
    wait_until(DEADLINE, "one publishes, and the other does not", || {
        let publishes = |it: &&Running| it.stderr().contains("publishing");
        let [standby, plain] = &mut both;
        let stands_back = !plain.is_running() || standby.stderr().contains("standing by in group");
        both.iter().filter(publishes).count() == 1 && stands_back
    });
    let [mut standby, mut plain] = both;
    assert!(standby.is_running(), "a standby never gives up: {standby}");
    if plain.is_running() {
        plain.signal(Signal::KILL);
        plain.wait(SOON);
        standby.wait_for_output(DEADLINE, "publishing");
    } else {
        assert_fails(&plain.wait(SOON), &["has live members of another process"]);
    }
    finish(&day, standby);
    day.assert_nothing_fell(kafka);
}

/// Somebody else comes in while it takes over, so that it has some partitions
/// only: it stands back, and takes over when the other one has gone.
#[test]
fn a_standby_that_loses_the_race_goes_back_to_waiting() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "standby-race");
    day.write(10_000, &[]);
    // So slow to publish that the other one comes before the first cut.
    let mut command = standby_command(&day);
    command.env("TALLY99_RUN_PUBLISH_INTERVAL_MS", "15000");
    let mut standby = Running::start(&mut command);
    let faster = kafka.stranger(day.group(), ("client.id", "a-name-that-comes-first"));
    standby.wait_for_output(DEADLINE, "taking over");
    faster
        .subscribe(&[&day.topic("donations")])
        .expect("it subscribes");
    standby.wait_until(DEADLINE, "it stands back", |standby| {
        faster.poll(Duration::from_millis(20));
        standby.stderr().contains("Standing by again")
    });
    assert!(!standby.stderr().contains("publishing;"), "{standby}");
    standby.wait_until(DEADLINE, "it waits", |standby| {
        faster.poll(Duration::from_millis(20));
        standby
            .stderr()
            .contains("a-name-that-comes-first at 127.0.0.1 is at work")
    });
    drop(faster);
    finish(&day, standby);
    day.assert_nothing_fell(kafka);
}

#[test]
fn standing_by_has_no_end_of_the_log() {
    let both = process::run(
        &mut process::tally99(["run", "--standby", "--until-end"]),
        SOON,
    );
    assert_eq!(both.code(), 2, "{both}");
    assert!(both.stderr.contains("--until-end"), "{both}");
}
