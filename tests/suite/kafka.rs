//! A real Apache Kafka for the tests, and its topics.
//!
//! Brokers come from `scripts/kafka attach` and live no longer than this
//! process, however it ends: the script stops them when the pipe that is its
//! standard input closes, and the system closes that for us.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::process;
use crate::wait::{SOON, wait_until};

/// What starts and stops the brokers.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka");

/// What a client sets to come as the user who may do nothing.
pub const STRANGER: [(&str, &str); 4] = [
    ("security.protocol", "sasl_plaintext"),
    ("sasl.mechanism", "PLAIN"),
    ("sasl.username", "stranger"),
    ("sasl.password", "stranger"),
];

/// A name that no other test has: for topics and groups.
pub fn unique(hint: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{hint}-{}-{number}", std::process::id())
}

/// One or three brokers. Dropped, they are stopped and their data is deleted.
pub struct Kafka {
    attached: Child,
    bootstrap: String,
    dir: PathBuf,
}

/// One record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its own offset.
    pub offset: i64,
    /// When it was written, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The value as JSON; fails the test if it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().unwrap_or_default();
        serde_json::from_slice(value).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(value);
            panic!("record {self:?} is not JSON ({error}): {text}")
        })
    }
}

impl Kafka {
    /// The broker that the tests of this process share: topics and groups of
    /// your own, and never stop it.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| Kafka::own(1))
    }

    /// One or three brokers of your own, to stop and start.
    pub fn own(brokers: u32) -> Kafka {
        Kafka::attach(&["--brokers", &brokers.to_string()])
    }

    /// A broker that the tests of this process share, too, and that lets an empty
    /// group wait for more members, as brokers do unless told otherwise.
    pub fn patient() -> &'static Kafka {
        static PATIENT: OnceLock<Kafka> = OnceLock::new();
        PATIENT.get_or_init(|| Kafka::attach(&["--rebalance-delay", "3000"]))
    }

    /// A broker of your own that also lets a user in who has no right at all:
    /// [`STRANGER`] at [`Kafka::guarded_address`].
    pub fn guarded() -> Kafka {
        Kafka::attach(&["--guarded"])
    }

    /// Brokers of your own with these options of `scripts/kafka attach`.
    pub fn attach(options: &[&str]) -> Kafka {
        let mut command = script(["attach", "--port", "0"]);
        command.args(options);
        let mut attached = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/kafka runs");
        let mut ready = String::new();
        // The script has its own deadline, and closes its output when it fails.
        BufReader::new(attached.stdout.take().expect("piped"))
            .read_line(&mut ready)
            .expect("the script's output is text");
        let mut words = ready.trim_end().splitn(3, ' ');
        let (Some("READY"), Some(bootstrap), Some(dir)) =
            (words.next(), words.next(), words.next())
        else {
            panic!("Kafka did not start: see the output of scripts/kafka attach above");
        };
        Kafka {
            bootstrap: bootstrap.to_owned(),
            dir: PathBuf::from(dir),
            attached,
        }
    }

    /// `host:port[,host:port…]`
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where a guarded broker lets [`STRANGER`] in.
    pub fn guarded_address(&self) -> String {
        let port = std::fs::read_to_string(self.dir.join("guarded-port-1"));
        format!("127.0.0.1:{}", port.expect("a guarded broker").trim())
    }

    /// Where the brokers keep data and logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends broker `number` (from 1) as a power cut would.
    pub fn kill_broker(&self, number: u32) {
        self.script(["kill-broker", &number.to_string()]);
    }

    /// Sends broker `number` a signal: `STOP`, `CONT`, or `TERM`, whose end it
    /// waits for; the broker then trusts its data at the next start.
    pub fn signal_broker(&self, number: u32, signal: &str) {
        self.script(["kill-broker", &number.to_string(), signal]);
    }

    /// The file that holds the first records of a partition on broker `number`.
    pub fn log_of(&self, number: u32, topic: &str, partition: i32) -> PathBuf {
        let data = self.dir.join(format!("data-{number}"));
        let log = data.join(format!("{topic}-{partition}/00000000000000000000.log"));
        assert!(log.exists(), "no {}", log.display());
        log
    }

    /// Starts broker `number` again, with the port and the data that it had, and
    /// waits until it answers: seconds, since the controller first has to give up
    /// the one that was killed.
    pub fn start_broker(&self, number: u32) {
        self.script(["start-broker", &number.to_string()]);
    }

    fn script<const N: usize>(&self, args: [&str; N]) {
        let mut command = script(args);
        command.arg("--dir").arg(&self.dir);
        process::run(&mut command, 3 * SOON).succeeded();
    }

    /// A topic of a name of its own, with as many copies as there are brokers.
    pub fn new_topic(&self, hint: &str, partitions: i32) -> String {
        let name = unique(hint);
        self.create_topic(&name, partitions, &[]);
        name
    }

    /// Makes a topic and waits until all its partitions have a leader.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        // Records are of 2022: brokers look every five minutes what is older than a week.
        if !settings.iter().any(|it| it.0 == "retention.ms") {
            topic = topic.set("retention.ms", "-1");
        }
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = block_on(self.admin().create_topics([&topic], &admin_options()));
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(name, error)| panic!("topic {name} not created: {error}"));
        }
        let consumer = self.consumer();
        wait_until(SOON, &format!("topic {name} has leaders"), || {
            let metadata = consumer.fetch_metadata(Some(name), SOON);
            metadata.is_ok_and(|metadata| {
                let led = |p: &rdkafka::metadata::MetadataPartition| p.leader() >= 0;
                let all = metadata.topics()[0].partitions();
                all.len() == partitions as usize && all.iter().all(led)
            })
        });
    }

    /// Deletes a topic and waits until the broker knows it no more.
    pub fn delete_topic(&self, name: &str) {
        let results = block_on(self.admin().delete_topics(&[name], &admin_options()));
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(name, error)| panic!("topic {name} not deleted: {error}"));
        }
        wait_until(SOON, &format!("topic {name} is gone"), || {
            !self.has_topic(name)
        });
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, name: &str) -> bool {
        let metadata = self.consumer().fetch_metadata(None, SOON);
        metadata.is_ok_and(|metadata| metadata.topics().iter().any(|t| t.name() == name))
    }

    /// The topics whose names begin like this.
    pub fn topics_of(&self, prefix: &str) -> Vec<String> {
        let metadata = self.consumer().fetch_metadata(None, SOON);
        let metadata = metadata.expect("the broker answers");
        let names = metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// The groups whose names begin like this.
    pub fn groups_of(&self, prefix: &str) -> Vec<String> {
        let groups = self.consumer().fetch_group_list(None, SOON);
        let groups = groups.expect("the broker answers");
        let names = groups.groups().iter().map(|group| group.name().to_owned());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// Writes records (partition, key, value) and waits until all of them are
    /// acknowledged by every copy in sync.
    pub fn produce<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (i32, K, V)>,
    ) {
        let producer: BaseProducer = self
            .client()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .create()
            .expect("valid settings");
        for (partition, key, value) in records {
            let mut record = BaseRecord::to(topic)
                .partition(partition)
                .key(key.as_ref())
                .payload(value.as_ref());
            while let Err((error, refused)) = producer.send(record) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                assert!(full, "cannot write to {topic}: {error}");
                producer.poll(Duration::from_millis(100));
                record = refused;
            }
        }
        producer.flush(SOON).expect("all records acknowledged");
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        let results = block_on(self.admin().create_partitions([&more], &admin_options()));
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(name, error)| panic!("{name} not extended: {error}"));
        }
    }

    /// Deletes the records of a partition before an offset, as retention does.
    pub fn expire(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(before))
            .expect("a valid offset");
        let result = block_on(self.admin().delete_records(&list, &admin_options()));
        for element in result.expect("the broker answers").elements() {
            element.error().expect("the records are deleted");
        }
    }

    /// A topic's settings.
    pub fn settings(&self, topic: &str) -> HashMap<String, String> {
        let resource = ResourceSpecifier::Topic(topic);
        let described = block_on(self.admin().describe_configs([&resource], &admin_options()));
        let mut resources = described.expect("the broker answers");
        let resource = resources.remove(0).expect("there is such a topic");
        let entries = resource.entries.into_iter();
        entries
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect()
    }

    /// The offset after the last record of every partition.
    pub fn end_offsets(&self, topic: &str) -> Vec<i64> {
        let consumer = self.consumer();
        (0..partition_count(&consumer, topic))
            .map(|partition| {
                let mut end = None;
                wait_until(SOON, &format!("{topic}/{partition} has an end"), || {
                    match consumer.fetch_watermarks(topic, partition, SOON) {
                        Ok((_, high)) => end = Some(high),
                        // A broker that has just made it may not lead it yet.
                        Err(error) => assert!(is_passing(&error), "{topic}: {error}"),
                    }
                    end.is_some()
                });
                end.expect("waited for")
            })
            .collect()
    }

    /// Every record of a topic up to its present end, by partition and offset.
    #[track_caller]
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer();
        let ends = self.end_offsets(topic);
        let mut places = TopicPartitionList::new();
        for partition in 0..ends.len() as i32 {
            let start = rdkafka::Offset::Beginning;
            places
                .add_partition_offset(topic, partition, start)
                .expect("a valid offset");
        }
        consumer.assign(&places).expect("valid partitions");
        let mut records = Vec::new();
        let mut ended = HashSet::new();
        let mut heard = Instant::now();
        while ended.len() < places.count() {
            assert!(
                heard.elapsed() < SOON,
                "{topic} brings nothing for {SOON:?}"
            );
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, next) = (message.partition(), message.offset() + 1);
                    let end = ends[partition as usize];
                    if next <= end {
                        records.push(to_record(&message));
                    }
                    // It may go on growing, and then never reports its end.
                    if next >= end {
                        ended.insert(partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => panic!("cannot read {topic}: {error}"),
                None => {}
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Waits for a record that is written from now on, within milliseconds of it.
    #[track_caller]
    pub fn wait_for_next(
        &self,
        topic: &str,
        deadline: Duration,
        wanted: impl Fn(&Record) -> bool,
    ) -> Record {
        let mut settings = self.client();
        let consumer: BaseConsumer = settings
            .set("group.id", "none: it commits nothing and joins no group")
            .set("fetch.wait.max.ms", "5")
            .create()
            .expect("valid settings");
        let mut places = TopicPartitionList::new();
        for (partition, end) in (0..).zip(self.end_offsets(topic)) {
            let end = rdkafka::Offset::Offset(end);
            places
                .add_partition_offset(topic, partition, end)
                .expect("a valid offset");
        }
        consumer.assign(&places).expect("valid partitions");
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < deadline,
                "not in {topic} after {deadline:?}"
            );
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let record = to_record(&message);
                    if wanted(&record) {
                        return record;
                    }
                }
                Some(Err(error)) if !is_passing(&error) => panic!("cannot read {topic}: {error}"),
                _ => {}
            }
        }
    }

    /// How often the members of a group came to share its partitions anew, as the
    /// log of a lone broker tells.
    pub fn generations(&self, group: &str) -> usize {
        let log = std::fs::read_to_string(self.dir.join("broker-1.log")).expect("its log");
        let stabilized = format!("Stabilized group {group} generation ");
        let generations = log.matches(&stabilized).count();
        assert!(generations > 0, "the broker tells nothing of group {group}");
        generations
    }

    /// Waits until a group has no members.
    pub fn wait_for_empty_group(&self, group: &str, deadline: Duration) {
        let consumer = self.consumer();
        wait_until(deadline, &format!("group {group} is empty"), || {
            let groups = consumer.fetch_group_list(Some(group), SOON);
            groups.is_ok_and(|groups| groups.groups().iter().all(|it| it.members().is_empty()))
        });
    }

    /// Somebody else in a group, by the name of a setting and its value; in it once it
    /// has subscribed, and is polled.
    pub fn stranger(&self, group: &str, named: (&str, &str)) -> BaseConsumer {
        self.client()
            .set("group.id", group)
            .set(named.0, named.1)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .create()
            .expect("valid settings")
    }

    /// Settings of a client of this Kafka.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    fn consumer(&self) -> BaseConsumer {
        self.client()
            .set("group.id", "none: it commits nothing and joins no group")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .create()
            .expect("valid settings")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("valid settings")
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.attached.stdin.take());
        let _ = self.attached.wait();
    }
}

fn script<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(SCRIPT);
    command.args(args);
    command
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(SOON))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without any driver")
        .block_on(future)
}

fn partition_count(consumer: &BaseConsumer, topic: &str) -> i32 {
    let metadata = consumer
        .fetch_metadata(Some(topic), SOON)
        .expect("the broker answers");
    let count = metadata.topics()[0].partitions().len();
    assert!(count > 0, "there is no topic {topic}");
    count as i32
}

/// Whether the client goes on by itself after this error.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::NotLeaderForPartition
        )
    )
}

fn to_record(message: &impl Message) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let owned = |h: rdkafka::message::Header<'_, &[u8]>| {
            (h.key.to_owned(), h.value.map(<[u8]>::to_vec))
        };
        headers.iter().map(owned).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
