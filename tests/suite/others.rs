//! What other processes, groups and topics may do to a run, and it to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::{Kafka, Record};
use crate::process::{self, Running};
use crate::trouble::{AT, assert_fails, donation};
use crate::wait::SOON;

/// Totals that are there, and cuts that are not: the next cut is above all that
/// totals say, and nothing is published before the log's end is reached.
#[test]
fn deleted_cuts_make_no_total_step_back() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "no-cuts");
    day.write(50_000, &[]);
    day.run_until_end();
    let newest = day.cuts(kafka).pop().unwrap()["cut"].as_u64();
    kafka.delete_topic(&day.topic("cuts"));
    day.run_until_end();
    day.assert_nothing_fell(kafka);
    assert!(day.cuts(kafka)[0]["cut"].as_u64() > newest);
    day.compare().succeeded();
}

#[test]
fn what_others_write_into_cuts_is_no_cut() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "garbage");
    day.write(10_000, &[]);
    day.run_until_end();
    let garbage = [
        "",
        "hello",
        "{}",
        r#"{"state":"open"}"#,
        r#"{"state":"open","cut":18446744073709551615,"epoch":1,"publisher":"x","offsets":{}}"#,
    ];
    let cuts = day.topic("cuts");
    kafka.produce(&cuts, garbage.map(|value| (0, "x", value)));
    let newest = kafka.read_all(&cuts).len();
    day.run_until_end();
    let records = kafka.read_all(&cuts);
    let later: Vec<_> = records[newest..].iter().map(Record::json).collect();
    assert!(
        later.iter().all(|cut| cut["cut"].as_u64() < Some(1_000)),
        "{later:?}"
    );
    let last = later.last().unwrap();
    assert_eq!(last["state"], "complete");
    assert_eq!(last["events"], 10_000);
}

/// Totals of another topic, other rules, or an older epoch stay as they are.
#[test]
fn totals_of_others_are_not_replaced() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "others");
    day.write(10_000, &[]);
    process::run(
        day.command("run")
            .arg("--until-end")
            .env("TALLY99_RUN_EPOCH", "2"),
        DEADLINE,
    )
    .succeeded();
    let cuts = day.cuts(kafka).len();

    let (donations, other_topic) = (day.topic("donations"), day.topic("other"));
    kafka.create_topic(&other_topic, 1, &[]);
    let epoch_2 = ("TALLY99_RUN_EPOCH", "2");
    let refused = |topic: &str, variables: &[(&str, &str)], words: &[&str]| {
        let mut command = day.command_of("run", day.group(), topic);
        command.arg("--until-end").envs(variables.iter().copied());
        assert_fails(&process::run(&mut command, DEADLINE), words);
    };
    refused(
        &other_topic,
        &[epoch_2],
        &["are those of topic", &donations, "topics.totals"],
    );
    refused(&donations, &[], &["cuts of epoch 2", "Set run.epoch to 2"]);
    refused(
        &donations,
        &[epoch_2, ("TALLY99_COUNTING_MAX_AHEAD_MS", "1000")],
        &[
            "by other rules",
            "at most 300000 ms ahead",
            "at most 1000 ms",
            "raise run.epoch",
        ],
    );
    assert_eq!(day.cuts(kafka).len(), cuts, "something was published");

    // As it says: a higher epoch counts the whole log anew, by the other rules.
    let mut anew = day.command("run");
    anew.arg("--until-end").env("TALLY99_RUN_EPOCH", "3");
    anew.env("TALLY99_COUNTING_MAX_AHEAD_MS", "1000");
    process::run(&mut anew, DEADLINE).succeeded();
    assert_eq!(day.cuts(kafka).pop().unwrap()["epoch"], 3);
    day.compare().succeeded();
}

#[test]
fn another_group_that_publishes_to_the_same_topics_is_named() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "groups");
    day.write(1_000, &[]);
    let mut first = day.run();
    first.wait_for_output(DEADLINE, "publishing");
    let group = format!("{}-2", day.topic("group"));
    let mut second = day.command_of("run", &group, &day.topic("donations"));
    let refused = process::run(&mut second, DEADLINE);
    assert_fails(
        &refused,
        &[
            "has a live member, tally99-",
            "that publishes to the same topics",
        ],
    );
    assert!(first.is_running(), "the first was disturbed");
    first.signal(Signal::TERM);
    first.wait(SOON).succeeded();
    // Nobody publishes now, so the other group may.
    process::run(second.arg("--until-end"), DEADLINE).succeeded();
    day.compare().succeeded();
}

/// A consumer of somebody else in the group takes partitions away: no sum of the
/// others is published, and when it has gone, all goes on.
#[test]
fn with_some_of_the_partitions_nothing_is_published() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "partial");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, 4, &[]);
    let all = |id: &'static str| (0..4).map(move |p| (p, id, donation(&format!("{id}{p}"), AT)));
    kafka.produce(&topic, all("a"));
    let mut run = day.run();
    run.wait_until(DEADLINE, "four are counted", |_| day.has_counted(kafka, 4));

    let stranger = kafka.stranger(day.group(), ("client.id", "somebody-else"));
    stranger.subscribe(&[&topic]).expect("it subscribes");
    run.wait_until(DEADLINE, "it says so", |run| {
        stranger.poll(Duration::from_millis(50));
        run.stderr().contains("are not assigned to this process")
    });
    let cuts = day.cuts(kafka).len();
    kafka.produce(&topic, all("b"));
    // As long as many publish intervals take.
    let later = Instant::now() + Duration::from_secs(3);
    while Instant::now() < later {
        stranger.poll(Duration::from_millis(50));
    }
    assert_eq!(day.cuts(kafka).len(), cuts, "something was published");

    drop(stranger);
    run.wait_until(DEADLINE, "eight are counted", |_| day.has_counted(kafka, 8));
    run.signal(Signal::TERM);
    run.wait(SOON).succeeded();
    day.assert_nothing_fell(kafka);
}

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Somebody who should be dead writes old totals over new ones, while events go
/// on coming for another campaign, so that the publisher is never idle.
#[test]
fn what_a_zombie_writes_late_is_healed_by_a_busy_publisher() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "healed");
    kafka.create_topic(&day.topic("donations"), 12, &[]);
    let traffic = day.traffic(10_000);
    let mut command = day.command("run");
    command.env("TALLY99_RUN_PUBLISH_INTERVAL_MS", "20");
    let mut run = Running::start(&mut command);
    run.wait_until(DEADLINE, "totals have changed many times", |_| {
        let has_cuts = kafka.has_topic(&day.topic("cuts"));
        has_cuts
            && day
                .cuts(kafka)
                .iter()
                .any(|cut| cut["cut"].as_u64() > Some(20))
    });
    traffic.end();
    run.wait_until(DEADLINE, "all is published", |_| day.compare().code() == 0);

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this ends, the writer ends with it.
        let _over = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            // As slow as that they come one by one, as fast as that none waits.
            let busy = (0..).map_while(|number| {
                std::thread::sleep(Duration::from_millis(5));
                let event = (0, "busy", donation(&format!("busy-{number}"), AT));
                (!is_over.load(Ordering::Relaxed)).then_some(event)
            });
            kafka.produce(&day.topic("donations"), busy);
        });
        // The first upsert of each campaign, over all that came later.
        let totals = day.topic("totals");
        let mut written: Vec<Record> = kafka.read_all(&totals);
        written.retain(|record| record.json()["cut"].as_u64() < Some(10));
        let last = day.totals(kafka);
        let is_old = |record: &Record| {
            let old = record.json();
            let campaign = old["campaign"].as_str().expect("a campaign");
            old["version"].as_u64() < last[campaign]["version"].as_u64()
        };
        assert!(written.iter().any(is_old), "nothing is to be healed");
        let old = written.iter().map(|record| {
            let key = record.key.clone().expect("upserts have keys");
            (
                record.partition,
                key,
                record.value.clone().expect("and values"),
            )
        });
        kafka.produce(&totals, old);
        let mut open = kafka.read_all(&day.topic("cuts"))[0].json();
        open["publisher"] = "zombie".into();
        kafka.produce(&day.topic("cuts"), [(0, "1", open.to_string())]);

        let expected = day.expectation();
        run.wait_until(
            DEADLINE,
            "the last upsert of each campaign is right",
            |_| {
                let last = day.totals(kafka);
                let campaigns = expected["campaigns"].as_object().expect("campaigns");
                campaigns.iter().all(|(name, expected)| {
                    let same = |found: &str, wanted: &str| last[name][found] == expected[wanted];
                    same("version", "events") && same("gifts", "gifts") && same("money", "money")
                })
            },
        );
    });
    assert!(
        run.stderr()
            .contains("another publisher, zombie, wrote cut"),
        "{run}"
    );
    run.signal(Signal::TERM);
    run.wait(SOON).succeeded();
}
