//! Partitions that are taken away while others go on: kept first, and taken back from
//! whoever has made more of them.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::stop;
use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::place::{Place, offset};
use crate::process::Running;
use crate::s3::S3;
use crate::trouble::{AT, donation};

const PARTITIONS: i32 = 4;

#[test]
fn what_is_given_up_is_kept_in_a_folder() {
    what_is_given_up_is_kept_before_others_have_it(&Place::folder());
}

#[test]
fn what_is_given_up_is_kept_in_a_bucket() {
    what_is_given_up_is_kept_before_others_have_it(&Place::bucket(S3::shared()));
}

/// The interval never comes round here: what is kept is kept because it is given up.
fn what_is_given_up_is_kept_before_others_have_it(place: &Place) {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "given-up");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, PARTITIONS, &[]);
    let one_each = |id: &'static str| {
        (0..PARTITIONS).map(move |partition| {
            let event = donation(&format!("{id}{partition}"), AT);
            (partition, id, event)
        })
    };
    kafka.produce(&topic, one_each("a"));
    let mut command = place.command(&day, "run");
    command.env("TALLY99_CHECKPOINTS_INTERVAL_MS", "3600000");
    let mut run = Running::start(&mut command);
    run.wait_until(DEADLINE, "four are counted", |_| day.has_counted(kafka, 4));
    assert_eq!(place.names("/manifests/"), []);

    let stranger = kafka.stranger(day.group(), ("client.id", "somebody-else"));
    stranger.subscribe(&[&topic]).expect("it subscribes");
    let mut moved = Vec::new();
    run.wait_until(DEADLINE, "some have moved", |_| {
        stranger.poll(Duration::from_millis(20));
        let list = stranger.assignment().expect("it is a member");
        moved = list.elements().iter().map(|it| it.partition()).collect();
        !moved.is_empty()
    });
    assert!(moved.len() < PARTITIONS as usize, "{moved:?}");
    // A disk that takes longer than the group waits is told of, and no fault of ours.
    let is_slow = run.stderr().contains("are given up before the workers");
    for partition in 0..PARTITIONS {
        let kept: Vec<_> = place.manifests(partition).iter().map(offset).collect();
        let expected = if moved.contains(&partition) {
            &[1][..]
        } else {
            &[]
        };
        assert!(
            kept == expected || is_slow,
            "partition {partition} at {kept:?} of {run}"
        );
    }

    drop(stranger);
    kafka.produce(&topic, one_each("b"));
    run.wait_until(DEADLINE, "eight are counted", |_| day.has_counted(kafka, 8));
    stop(run);
    for partition in 0..PARTITIONS {
        let newest = place.manifests(partition).pop().expect("kept at the end");
        assert_eq!(offset(&newest), 2);
    }
    day.assert_nothing_fell(kafka);
}
