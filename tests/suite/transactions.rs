//! Logs that were written in transactions: what was aborted never happened, and the end
//! of the log may be behind no record.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::place::Place;
use crate::trouble::{AT, assert_fails, donation};
use crate::wait::SOON;

/// Writes to the only partition of a topic.
struct Transactions {
    topic: String,
    producer: BaseProducer,
}

impl Transactions {
    /// To a topic that is made for it.
    fn new(kafka: &Kafka, topic: &str) -> Transactions {
        kafka.create_topic(topic, 1, &[]);
        let producer: BaseProducer = kafka
            .client()
            .set("transactional.id", topic)
            .create()
            .expect("valid settings");
        producer
            .init_transactions(SOON)
            .expect("the broker answers");
        Transactions {
            topic: topic.to_owned(),
            producer,
        }
    }

    /// One donation, which is committed or aborted.
    fn write(&self, id: &str, commit: bool) {
        self.producer.begin_transaction().expect("no other is open");
        send(&self.producer, &self.topic, id);
        let ended = match commit {
            true => self.producer.commit_transaction(SOON),
            false => self.producer.abort_transaction(SOON),
        };
        ended.expect("the broker answers");
    }
}

/// Writes a donation, which is the same record each time.
fn send(producer: &BaseProducer, topic: &str, id: &str) {
    let value = donation(id, AT);
    let record = BaseRecord::to(topic).partition(0).timestamp(AT);
    producer
        .send(record.key(id).payload(&value))
        .map_err(|(error, _)| error)
        .expect("the queue has room");
    producer.flush(SOON).expect("it is acknowledged");
}

#[test]
fn what_was_aborted_is_not_counted() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "transactions");
    let topic = day.topic("donations");
    let log = Transactions::new(kafka, &topic);
    for (id, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        log.write(id, commit);
    }
    day.run_until_end();
    let last = day.cuts(kafka).pop().unwrap();
    let end = kafka.end_offsets(&topic)[0];
    assert_eq!(last["events"], 2);
    assert_eq!(last["offsets"]["0"].as_i64(), Some(end));

    // So far another one has to come, and no record will bring it there.
    let mut run = day.run();
    let reaches = |end| {
        let last = day.cuts(kafka).pop();
        last.is_some_and(|it| it["offsets"]["0"].as_i64() == Some(end))
    };
    run.wait_for_output(DEADLINE, "publishing");
    // What comes at the end while nothing else does is skipped as well.
    log.write("e", false);
    // All of it expires, and nothing was missed.
    let end = kafka.end_offsets(&topic)[0];
    run.wait_until(DEADLINE, "the end is reached", |_| reaches(end));
    kafka.expire(&topic, 0, end);
    let line = format!("{topic}/0: the log begins at {end} now");
    run.wait_for_output(DEADLINE, &line);
    // So does what follows when all before has expired.
    log.write("f", false);
    let end = kafka.end_offsets(&topic)[0];
    run.wait_until(DEADLINE, "the end is reached", |_| reaches(end));
    log.write("g", true);
    run.wait_until(DEADLINE, "the next one is counted", |_| {
        day.has_counted(kafka, 3)
    });
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
}

/// The end of a log was lost, and others have written there. What stands now where
/// something was skipped was not counted, so it is told.
#[test]
fn a_record_in_place_of_what_was_aborted_is_another_log() {
    let behind = "Its last record stood at 0; none followed before 4, and the log holds one at 1";
    let alone = "No record stood before 2, and the log holds one at 0";
    for (name, first, end, words) in [
        ("replaced", Some("a"), 4, behind),
        ("replaced-all", None, 2, alone),
    ] {
        let kafka = Kafka::shared();
        let place = Place::folder();
        let day = Day::on(kafka, name);
        let topic = day.topic("donations");
        let log = Transactions::new(kafka, &topic);
        first.iter().for_each(|id| log.write(id, true));
        log.write("b", false);
        place.until_end(&day).succeeded();
        assert_eq!(kafka.end_offsets(&topic), [end], "records and markers");

        kafka.delete_topic(&topic);
        kafka.create_topic(&topic, 1, &[]);
        let producer: BaseProducer = kafka.client().create().expect("valid settings");
        for id in first.into_iter().chain(["v", "x", "y", "z"]) {
            send(&producer, &topic, id);
        }
        let shard = format!("{topic}/0: the shard at offset {end} was folded from another log");
        assert_fails(&place.until_end(&day), &[&shard, words]);
    }
}
