//! Checkpoints that do not fit: of another log, of one that has lost its beginning
//! or its end, and by other rules. Nothing is counted in place of what is missing.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;

use super::{PARTITIONS, assert_says, kept};
use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::place::Place;
use crate::process::Running;
use crate::trouble::{AT, assert_fails, donation};

/// So that nothing but checkpoints knows of the log as it was.
fn forget_what_was_published(kafka: &Kafka, day: &Day) {
    kafka.delete_topic(&day.topic("totals"));
    kafka.delete_topic(&day.topic("cuts"));
}

/// What the totals say of every campaign, but for what may come later: estimates, and
/// the cut in which they were emitted last.
fn counted(kafka: &Kafka, day: &Day) -> BTreeMap<String, Value> {
    let mut totals = day.totals(kafka);
    for total in totals.values_mut() {
        let total = total.as_object_mut().expect("an object");
        for later in ["donors", "cut"] {
            total.remove(later).expect("it has it");
        }
    }
    totals
}

#[test]
fn a_topic_made_anew_and_filled_is_no_log_of_the_checkpoints() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "refilled");
    let topic = day.topic("donations");
    let (cuts, totals) = (day.cuts(kafka).len(), day.totals(kafka));
    let ends = kafka.end_offsets(&topic);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, PARTITIONS as i32, &[]);
    day.write(30_000, &["--seed", "7"]);
    assert!(
        ends.iter()
            .zip(kafka.end_offsets(&topic))
            .all(|(was, is)| *was < is)
    );
    let ended = place.until_end(&day);
    let words = [
        &*format!("{topic}/"),
        "was folded from another log",
        "made anew",
        "goes from 0 to",
    ];
    assert_fails(&ended, &words);
    let kept_at = |(partition, end): (usize, &i64)| {
        let place = format!("{topic}/{partition}: the shard at offset {end} ");
        ended.stderr.contains(&place)
    };
    assert!(ends.iter().enumerate().any(kept_at), "{ended}");
    assert_eq!(day.cuts(kafka).len(), cuts, "something was published");
    assert_eq!(day.totals(kafka), totals, "something was published");
    let verify = place.checkpoints(&day, "verify", &["--partition", "3"]);
    assert_says(&verify, 1, &["partition 3: differs at offset"]);
}

/// The member finds the topic there, and librdkafka reads on in the new one where it
/// was in the old one, without a word.
#[test]
fn a_topic_made_anew_while_nobody_looks_is_another_log() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "asleep");
    let topic = day.topic("donations");
    let mut run = place.run(&day);
    run.wait_for_output(DEADLINE, "publishing");
    let (cuts, totals) = (day.cuts(kafka).len(), counted(kafka, &day));
    run.signal(Signal::STOP);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, PARTITIONS as i32, &[]);
    day.write(30_000, &["--seed", "7"]);
    run.signal(Signal::CONT);
    let ended = run.wait(DEADLINE);
    let words = [&*format!("{topic}/"), "was folded from another log"];
    assert_fails(&ended, &words);
    let events = |cut: &Value| cut["events"].as_u64();
    let all = day.cuts(kafka);
    let newer = all[cuts..]
        .iter()
        .filter(|cut| events(cut) > events(&all[cuts - 1]));
    assert_eq!(newer.count(), 0, "something was counted");
    assert_eq!(counted(kafka, &day), totals);
}

/// librdkafka takes all that brokers say of a topic for outdated that had fewer
/// elections than the one before it.
#[test]
fn a_topic_made_anew_with_fewer_elections_ends_it() {
    let kafka = Kafka::own(1);
    let place = Place::folder();
    let day = Day::on(&kafka, "elected");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, PARTITIONS as i32, &[]);
    kafka.kill_broker(1);
    kafka.start_broker(1);
    day.write(10_000, &[]);
    let mut run = place.run(&day);
    run.wait_until(DEADLINE, "all is counted", |_| {
        day.has_counted(&kafka, 10_000)
    });
    let totals = counted(&kafka, &day);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, PARTITIONS as i32, &[]);
    day.write(30_000, &["--seed", "7"]);
    let ended = run.wait(DEADLINE);
    assert_fails(&ended, &[&*format!("{topic}/"), "made anew"]);
    assert_eq!(counted(&kafka, &day), totals, "something was counted");
    let again = place.until_end(&day);
    assert_fails(&again, &["was folded from another log"]);
}

#[test]
fn a_topic_made_anew_that_is_shorter_ends_it() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "shorter");
    let topic = day.topic("donations");
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, PARTITIONS as i32, &[]);
    day.write(1_000, &["--seed", "7"]);
    let refused = place.until_end(&day);
    assert_fails(&refused, &[&*format!("{topic}/"), "made anew"]);
    let verify = place.checkpoints(&day, "verify", &["--partition", "3"]);
    assert_says(&verify, 1, &["partition 3: differs", "the log ends at"]);

    forget_what_was_published(kafka, &day);
    let ended = place.until_end(&day);
    assert_fails(
        &ended,
        &[&*format!("{topic}/"), "The last ", " are gone", "made anew"],
    );
    let counts = |cut: &Value| cut["events"].as_u64() > Some(0);
    assert!(!kafka.has_topic(&day.topic("cuts")) || !day.cuts(kafka).iter().any(counts));
}

#[test]
fn a_head_that_expired_beyond_the_checkpoint_ends_it() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "gap");
    let topic = day.topic("donations");
    let end = kafka.end_offsets(&topic)[3];
    let more = |i| (3, format!("k{i}"), donation(&format!("more-{i}"), AT));
    kafka.produce(&topic, (0..20).map(more));
    kafka.expire(&topic, 3, end + 10);
    let ended = place.until_end(&day);
    let place_of = format!("{topic}/3: the fold is at offset {end}");
    let range = format!("goes from {} to {}", end + 10, end + 20);
    assert_fails(&ended, &[&place_of, &range, "10 offsets have expired"]);
}

#[test]
fn a_head_that_expired_up_to_the_checkpoint_is_not_missed() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "headless");
    let topic = day.topic("donations");
    let end = kafka.end_offsets(&topic)[3];
    kafka.expire(&topic, 3, end);
    let verify = place.checkpoints(&day, "verify", &[]);
    let why = format!("{topic}/3 (begins at offset {end})");
    assert_says(
        &verify,
        3,
        &["cannot be verified", &why, "partition 4: equal"],
    );

    let run = place.counts_all(&day);
    let line = format!("{topic}/3: the log begins at {end} now");
    assert!(run.stderr.contains(&line), "{line:?} is not in {run}");
    kafka.produce(&topic, [(3, "k", donation("one-more", AT))]);
    place.until_end(&day).succeeded();
    assert_eq!(day.cuts(kafka).pop().expect("cuts")["events"], 10_001);
    day.assert_nothing_fell(kafka);
}

/// Brokers are asked where the log of each begins; with so many partitions that takes
/// longer than a worker may be away.
#[test]
fn many_partitions_of_which_all_has_expired_are_read_on() {
    const MANY: i32 = 64;
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "all-expired");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, MANY, &[]);
    let one_each = |name: &'static str| {
        (0..MANY).map(move |it| (it, format!("k{it}"), donation(&format!("{name}-{it}"), AT)))
    };
    kafka.produce(&topic, one_each("a"));
    let mut run = Running::start(day.command("run").args(["--workers", "1"]));
    run.wait_until(DEADLINE, "all is counted", |_| day.has_counted(kafka, 64));
    (0..MANY).for_each(|partition| kafka.expire(&topic, partition, 1));
    for partition in 0..MANY {
        let line = format!("{topic}/{partition}: the log begins at 1 now");
        run.wait_for_output(DEADLINE, &line);
    }
    // One at a time: a reader that is never idle would answer at once.
    for (counted, one) in (65..).zip(one_each("b").skip(7).step_by(19)) {
        kafka.produce(&topic, [one]);
        run.wait_until(DEADLINE, "the next one is counted", |_| {
            day.has_counted(kafka, counted)
        });
    }
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
}

#[test]
fn other_rules_need_another_epoch() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "rules");
    let run = |epoch: &str| {
        let mut command = place.command(&day, "run");
        command.arg("--until-end");
        command.env("TALLY99_COUNTING_DEDUP_HORIZON_S", "259201");
        command.env("TALLY99_RUN_EPOCH", epoch);
        crate::process::run(&mut command, DEADLINE)
    };
    let cuts = day.cuts(kafka).len();
    let refused = run("1");
    assert_fails(&refused, &["rules", "run.epoch"]);
    assert_eq!(day.cuts(kafka).len(), cuts, "something was published");
    let anew = run("2").succeeded();
    assert!(!anew.stderr.contains("restored at offset"), "{anew}");
    day.compare().succeeded();

    forget_what_was_published(kafka, &day);
    let refused = run("1");
    let words = [
        "by other rules",
        "[counting]",
        "raise run.epoch",
        "259200",
        "259201",
        "the log goes from 0 to ",
    ];
    assert_fails(&refused, &words);
    assert!(
        refused.stderr.contains(&day.topic("donations")),
        "{refused}"
    );

    let older = |more: &[&str]| {
        let mut command = place.command(&day, "checkpoints prune");
        command.env("TALLY99_RUN_EPOCH", "2").arg("--older-epochs");
        crate::process::run(command.args(more), DEADLINE).succeeded()
    };
    let would = older(&["--dry-run"]);
    assert_says(
        &would,
        0,
        &["epoch-1", "of an older epoch", "would be deleted"],
    );
    assert!(!place.names("/epoch-1/").is_empty());
    older(&[]);
    assert!(place.names("/epoch-1/").is_empty());
    assert!(!place.names("/epoch-2/").is_empty());
    let list = place.checkpoints(&day, "list", &[]);
    assert_says(&list, 0, &["no checkpoints of topic", "of epochs [2]"]);
}
