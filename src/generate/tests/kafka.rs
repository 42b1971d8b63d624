//! The Kafka sink against librdkafka's own mock cluster: the same client code
//! as with a real broker, over loopback.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::run::config;
use super::*;

const TOPIC: &str = "donations";
const PARTITIONS: i32 = 3;
const DEADLINE: Duration = Duration::from_secs(30);

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn open(cluster: &MockCluster<'_, DefaultProducerContext>) -> KafkaSink {
    KafkaSink::open(&config(&cluster.bootstrap_servers()), 12).unwrap()
}

/// Hands all records over, as long as the brokers report no failure.
fn send(sink: &KafkaSink, records: &[Record]) -> Result<(), KafkaSinkError> {
    for record in records {
        while !sink.try_send(record)? {
            sink.poll(Duration::from_millis(5))?;
        }
    }
    sink.flush(Some(DEADLINE))
}

/// Reads so many records: key and value by partition, in the order of offsets.
fn read(bootstrap_servers: &str, count: usize) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "test")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions
            .add_partition_offset(TOPIC, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut read = vec![Vec::new(); PARTITIONS as usize];
    let deadline = Instant::now() + DEADLINE;
    while read.iter().map(Vec::len).sum::<usize>() < count && Instant::now() < deadline {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.unwrap();
            let key = message.key().unwrap_or_default().to_vec();
            let value = message.payload().unwrap_or_default().to_vec();
            read[message.partition() as usize].push((key, value));
        }
    }
    read
}

#[test]
fn every_record_is_in_its_partition_once_and_in_order() {
    let cluster = cluster();
    let (records, _) = all(&settings(20, 20_000));
    let sink = open(&cluster);
    assert_eq!(sink.partitions(), PARTITIONS);
    send(&sink, &records).unwrap();
    assert_eq!(sink.in_flight(), 0);

    let mut sent = vec![Vec::new(); PARTITIONS as usize];
    for record in &records {
        let partition = record.partition(PARTITIONS) as usize;
        sent[partition].push((record.key().to_vec(), record.payload().to_vec()));
    }
    assert!(read(&cluster.bootstrap_servers(), records.len()) == sent);
}

#[test]
fn a_record_that_is_not_written_is_an_error_with_its_place() {
    let cluster = cluster();
    let sink = open(&cluster);
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal; 100]);
    let (records, _) = all(&settings(21, 1_000));
    match send(&sink, &records) {
        Err(KafkaSinkError::Delivery {
            records,
            topic,
            partition,
            ..
        }) => {
            assert!((1..=1_000).contains(&records));
            assert_eq!(topic, TOPIC);
            assert!((0..PARTITIONS).contains(&partition));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_survive_errors_that_pass() {
    let cluster = cluster();
    let sink = open(&cluster);
    let passing = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    cluster.request_errors(RDKafkaApiKey::Produce, &[passing; 3]);
    let (records, _) = all(&settings(22, 1_000));
    send(&sink, &records).unwrap();
    let read = read(&cluster.bootstrap_servers(), records.len());
    assert_eq!(read.iter().map(Vec::len).sum::<usize>(), 1_000);
}

#[test]
fn missing_acknowledgements_are_an_error_once_nobody_waits_any_longer() {
    let cluster = cluster();
    let sink = open(&cluster);
    let (records, _) = all(&settings(23, 100));
    cluster.broker_down(1).unwrap();
    for record in &records {
        assert!(sink.try_send(record).unwrap());
    }
    let error = sink.flush(Some(Duration::from_secs(1))).unwrap_err();
    assert!(
        matches!(error, KafkaSinkError::Unacknowledged { records: 100, .. }),
        "{error}"
    );
    cluster.broker_up(1).unwrap();
    sink.flush(Some(DEADLINE)).unwrap();
}

#[test]
fn a_property_that_does_not_exist_is_named() {
    let cluster = cluster();
    let mut config = config(&cluster.bootstrap_servers());
    let properties = &mut config.kafka.properties;
    properties.insert("linger.hours".into(), "1".into());
    let error = KafkaSink::open(&config, 12).err().expect("refused");
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("linger.hours"), "{cause}");
}

#[test]
fn brokers_that_refuse_are_not_taken_for_missing_ones() {
    use RDKafkaRespErr as Code;
    let refused = |code| {
        let cluster = cluster();
        cluster.topic_error(TOPIC, code).unwrap();
        let error = KafkaSink::open(&config(&cluster.bootstrap_servers()), 12).err();
        error.expect("refused").to_string()
    };
    let error = refused(Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert!(error.contains("grant DESCRIBE, WRITE"), "{error}");
    let error = refused(Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION);
    assert_eq!(error, "cannot look up topic donations");
}
