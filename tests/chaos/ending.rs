//! The end: production stops, all is published, and everything that was written
//! is compared with the oracle, to the fen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::observer::{CUTS, Seen, TOTALS, compare};
use crate::truth::Truth;
use crate::wait::SOON;
use crate::world::{DONATIONS, World};

const DEAD_LETTERS: &str = "donations.dead-letters";

/// How long the last of it may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long folding the log once more may take.
const VERIFIED: Duration = Duration::from_secs(600);
/// How long nothing may come while the log is read back.
const SILENCE: Duration = Duration::from_secs(30);

/// Ends all of it; what was seen, and what it had to be.
pub fn end(world: &mut World) -> (Seen, Truth) {
    world.producer.take().expect("it writes").finish();
    world.look();
    let ends = world.log.ends();
    check_log(world, &ends);
    world.wait_until(DEADLINE, "everything is published", |world| {
        let seen = world.seen();
        seen.reader
            .complete
            .last()
            .is_some_and(|cut| cut.offsets == ends)
    });
    world.settle();
    world.processes.end(DEADLINE);
    let kafka = &world.cluster.kafka;
    let written = (kafka.end_offsets(TOTALS), kafka.end_offsets(CUTS)[0]);
    let begun = Instant::now();
    loop {
        let seen = world.seen();
        assert!(seen.broken.is_none(), "{seen:?}", seen = seen.broken);
        if (&seen.totals_read, seen.cuts_read) == (&written.0, written.1) {
            break;
        }
        drop(seen);
        assert!(begun.elapsed() < SOON, "the observer stands still");
        std::thread::sleep(Duration::from_millis(20));
    }

    let (seen, mut truth) = world.end_observer();
    truth.count_to(&ends);
    expect(check_totals(&seen, &truth));
    expect(check_dead_letters(world, &truth));
    check_sample(&seen);
    check_checkpoints(world);
    (seen, truth)
}

type Checked = Result<(), String>;

#[track_caller]
fn expect(checked: Checked) {
    checked.unwrap_or_else(|wrong| panic!("{wrong}"));
}

fn check_totals(seen: &Seen, truth: &Truth) -> Checked {
    compare("the last cut", &seen.newest, &truth.cut())?;
    let reader = &seen.reader;
    for (campaign, expected) in truth.totals() {
        // What compaction keeps, and what a reader keeps that goes by versions.
        let last = reader.last.get(&campaign);
        compare(&format!("the last of {campaign}"), &last, &Some(expected))?;
        let highest = reader.highest.get(&campaign).map(|(_, total)| total);
        let what = format!("the highest of {campaign}");
        compare(&what, &highest, &Some(expected))?;
    }
    let campaigns = truth.totals().count();
    compare("the number of campaigns", &reader.last.len(), &campaigns)?;
    let of_others = reader.late_upserts_of.difference(&reader.replaced_at);
    let of_others: Vec<_> = of_others.collect();
    compare(
        "late upserts of whom nobody replaced",
        &of_others,
        &Vec::new(),
    )
}

/// Cuts were recomputed all along, not only at the end.
fn check_sample(seen: &Seen) {
    let (checked, complete) = (seen.checked.0, seen.reader.figures.complete);
    assert!(
        checked * 10 >= complete,
        "only {checked} of {complete} cuts were recomputed"
    );
}

/// The last checkpoints are the fold, too.
fn check_checkpoints(world: &World) {
    let verified = world.processes.verify(VERIFIED).succeeded();
    assert!(verified.stdout.contains("to the byte"), "{verified}");
}

/// Every record that cannot be counted has its letter, and no other has.
fn check_dead_letters(world: &World, truth: &Truth) -> Checked {
    let mut letters = BTreeMap::new();
    for letter in world.cluster.kafka.read_all(DEAD_LETTERS) {
        let key = String::from_utf8(letter.key.unwrap_or_default()).expect("keys are text");
        let header = letter
            .headers
            .into_iter()
            .find(|(name, _)| name == "reason");
        let reason = header.and_then(|(_, value)| String::from_utf8(value?).ok());
        letters.insert(key, (reason, letter.value.unwrap_or_default()));
    }
    for (&(partition, offset), &reason) in &truth.dead {
        let key = format!("{DONATIONS}/{partition}/{offset}");
        let number = world.log.places().sent[partition][offset];
        let bytes = world.traffic.payload(world.traffic.record(number.into()));
        let expected = Some((Some(reason.to_owned()), bytes));
        compare(
            &format!("the letter of {key}"),
            &letters.remove(&key),
            &expected,
        )?;
    }
    let others: Vec<_> = letters.keys().collect();
    compare("letters of records that are counted", &others, &Vec::new())
}

/// The log is what was acknowledged, to the byte, and nothing else: otherwise all
/// that is compared with it proves nothing.
fn check_log(world: &World, ends: &[i64]) {
    assert_eq!(world.cluster.kafka.end_offsets(DONATIONS), ends);
    let mut settings = world.cluster.kafka.client();
    let consumer: BaseConsumer = settings
        .set("group.id", "none: it commits nothing and joins no group")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .create()
        .expect("valid settings");
    let mut list = TopicPartitionList::new();
    for partition in 0..ends.len() as i32 {
        let start = Offset::Offset(0);
        let added = list.add_partition_offset(DONATIONS, partition, start);
        added.expect("a valid offset");
    }
    consumer.assign(&list).expect("valid partitions");
    let (mut next, mut heard) = (vec![0; ends.len()], Instant::now());
    while next != ends {
        assert!(heard.elapsed() < SILENCE, "read up to {next:?} of {ends:?}");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        heard = Instant::now();
        let (partition, offset) = (message.partition() as usize, message.offset());
        assert_eq!(offset, next[partition], "the log has a gap");
        next[partition] += 1;
        let number = world.log.places().sent[partition][offset as usize];
        let record = world.traffic.record(number.into());
        let timestamp = message.timestamp().to_millis();
        let place = format!("{partition}/{offset}");
        assert_eq!(record.partition, partition, "{place}");
        assert_eq!(timestamp, Some(record.timestamp), "{place}");
        let expected = world.traffic.payload(record);
        assert!(
            message.payload() == Some(&expected),
            "{place} holds other bytes"
        );
    }
}
