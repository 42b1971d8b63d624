//! Against librdkafka's own mock brokers.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;
use crate::kafka::client::Context;
use crate::kafka::reader::Reader;

const PARTITIONS: Partition = 3;
const STARTS: [Offset; PARTITIONS as usize] = [Offset::START; PARTITIONS as usize];

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("donations", PARTITIONS, 1).unwrap();
    cluster
}

fn producer(cluster: &MockCluster<'_, DefaultProducerContext>) -> BaseProducer {
    let mut settings = rdkafka::ClientConfig::new();
    settings.set("bootstrap.servers", cluster.bootstrap_servers());
    settings.create().unwrap()
}

/// A reader of all partitions, each from where it is said.
fn reader(
    cluster: &MockCluster<'_, DefaultProducerContext>,
    starts: [Offset; PARTITIONS as usize],
) -> (Reader, Queue<Context>) {
    let mut settings = rdkafka::ClientConfig::new();
    settings
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("group.id", "batches");
    let mut reader = Reader::new(&settings, "donations", Arc::default()).unwrap();
    let queue = Queue::of(reader.consumer());
    reader.read_from((0..).zip(starts)).unwrap();
    (reader, queue)
}

/// Takes batches until `is_enough`; a queue that stays empty fails.
fn take_until(
    queue: &Queue<Context>,
    max: usize,
    mut is_enough: impl FnMut(&Batch<Context>) -> bool,
) -> Vec<Batch<Context>> {
    let (mut batches, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    loop {
        let batch = queue.take(max);
        assert!(batch.len() <= max && Instant::now() < deadline);
        if is_enough(&batch) {
            batches.push(batch);
            return batches;
        }
        batches.push(batch);
        std::thread::yield_now();
    }
}

#[test]
fn every_record_comes_once_and_in_order_and_stays_until_its_batch_is_dropped() {
    const RECORDS: i32 = 3_000;
    let cluster = cluster();
    let producer = producer(&cluster);
    for number in 0..RECORDS {
        let (key, value) = (format!("k{number}"), format!("value {number}"));
        let record = BaseRecord::to("donations").partition(number % PARTITIONS);
        let record = record.key(&key).payload(&value);
        producer
            .send(record.timestamp(i64::from(number + 1)))
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();

    let (reader, queue) = reader(&cluster, STARTS);
    assert_eq!(queue.last_known_end(c"donations", 0), None);
    let mut ends = 0;
    let batches = take_until(&queue, 100, |batch| {
        let is_end = |&place: &usize| match batch.get(place) {
            Err(NoRecord::End {
                partition: 0..PARTITIONS,
                at,
            }) => {
                assert_eq!(at.0, i64::from(RECORDS / PARTITIONS));
                true
            }
            _ => false,
        };
        ends += (0..batch.len()).filter(is_end).count();
        ends >= PARTITIONS as usize
    });
    for partition in 0..PARTITIONS {
        let end = queue.last_known_end(c"donations", partition);
        assert_eq!(end, Some(Offset(i64::from(RECORDS / PARTITIONS))));
    }
    // Nothing else holds librdkafka's handle now.
    drop((reader, queue));
    let mut next = [0; PARTITIONS as usize];
    let places = |batch: &Batch<_>| 0..batch.len();
    for (batch, place) in batches
        .iter()
        .flat_map(|it| places(it).map(move |at| (it, at)))
    {
        let Ok(taken) = batch.get(place) else {
            continue;
        };
        let offset = &mut next[taken.partition as usize];
        assert_eq!(taken.record.offset, i64::from(*offset));
        let number = *offset * PARTITIONS + taken.partition;
        assert_eq!(taken.key, Some(format!("k{number}").as_bytes()));
        assert_eq!(taken.record.timestamp, Some(i64::from(number + 1)));
        let value = format!("value {number}");
        assert_eq!(taken.record.payload, Some(value.as_bytes()));
        *offset += 1;
    }
    assert_eq!(next, [RECORDS / PARTITIONS; PARTITIONS as usize]);
}

#[test]
fn no_value_and_an_empty_one_are_told_apart() {
    let cluster = cluster();
    let producer = producer(&cluster);
    let record: BaseRecord<'_, (), [u8]> = BaseRecord::to("donations").partition(0);
    producer.send(record).unwrap();
    let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("donations").partition(0);
    producer.send(record.key(&[]).payload(&[])).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();

    let (_reader, queue) = reader(&cluster, STARTS);
    let mut taken = Vec::new();
    take_until(&queue, 8, |batch| {
        let records = (0..batch.len()).filter_map(|place| batch.get(place).ok());
        taken.extend(
            records.map(|it| (it.key.map(<[u8]>::len), it.record.payload.map(<[u8]>::len))),
        );
        taken.len() >= 2
    });
    assert_eq!(taken, [(None, None), (Some(0), Some(0))]);
}

/// What a producer may send.
#[derive(Clone, Debug)]
struct Sent {
    partition: Partition,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
}

prop_compose! {
    fn sent()(
        partition in 0..PARTITIONS,
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..2_000)),
        timestamp in 1..4_000_000_000_000i64,
    ) -> Sent {
        Sent { partition, key, value, timestamp }
    }
}

/// How many are asked for at once, and which of the batches that are held is let go of
/// then, if any.
fn taking() -> impl Strategy<Value = (usize, Option<prop::sample::Index>)> {
    (
        1usize..70,
        proptest::option::of(any::<prop::sample::Index>()),
    )
}

/// Those of a batch are what was sent at their places in the log.
fn assert_are_as_sent(batch: &Batch<Context>, logs: &[Vec<Sent>]) -> usize {
    let records = (0..batch.len()).filter_map(|place| batch.get(place).ok());
    let checks = records.map(|taken| {
        let sent = &logs[taken.partition as usize][taken.record.offset as usize];
        assert_eq!(taken.key, sent.key.as_deref());
        assert_eq!(taken.record.payload, sent.value.as_deref());
        assert_eq!(taken.record.timestamp, Some(sent.timestamp));
    });
    checks.count()
}

#[test]
fn whatever_was_sent_is_lent_as_it_is_until_its_batch_is_let_go_of() {
    let cluster = cluster();
    let producer = producer(&cluster);
    // Of all cases together, by partition and offset.
    let logs = std::cell::RefCell::new([const { Vec::new() }; PARTITIONS as usize]);
    let cases = (
        proptest::collection::vec(sent(), 1..200),
        proptest::collection::vec(taking(), 1..20),
    );
    let config = ProptestConfig {
        source_file: Some(file!()), // Beside it, what failed is kept.
        ..ProptestConfig::with_cases(32)
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&cases, |(records, takings)| {
        let starts = logs.borrow().each_ref().map(|log| Offset(log.len() as i64));
        let count = records.len();
        for sent in records {
            let mut record = BaseRecord::<[u8], [u8]>::to("donations");
            record = record.partition(sent.partition).timestamp(sent.timestamp);
            record.key = sent.key.as_deref();
            record.payload = sent.value.as_deref();
            producer.send(record).unwrap();
            logs.borrow_mut()[sent.partition as usize].push(sent);
        }
        producer.flush(Duration::from_secs(30)).unwrap();

        let logs = logs.borrow();
        let (reader, queue) = reader(&cluster, starts);
        let (mut held, mut taken): (Vec<Batch<_>>, _) = (Vec::new(), 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        for (max, let_go) in takings.into_iter().cycle() {
            let batch = queue.take(max);
            prop_assert!(batch.len() <= max && Instant::now() < deadline);
            taken += assert_are_as_sent(&batch, &logs[..]);
            held.push(batch);
            if let Some(index) = let_go {
                held.swap_remove(index.index(held.len()));
            }
            if taken >= count {
                break;
            }
            std::thread::yield_now();
        }
        prop_assert_eq!(taken, count);
        // Nothing else holds librdkafka's handle now.
        drop((reader, queue));
        held.iter().for_each(|batch| {
            assert_are_as_sent(batch, &logs[..]);
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_is_not_there_is_not_waited_for() {
    let cluster = cluster();
    let (_reader, queue) = reader(&cluster, STARTS);
    let mut ends = 0;
    // Three ends of partitions come, and nothing else, however much is asked for.
    take_until(&queue, 512, |batch| {
        ends += batch.len();
        ends == PARTITIONS as usize
    });
    for _ in 0..100 {
        assert!(queue.take(512).is_empty());
    }
}
