//! The harness itself: a test that leans on it may trust it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rustix::process::Signal;

use crate::kafka::{Kafka, SCRIPT, STRANGER, unique};
use crate::process::{self, Running, tally99};
use crate::wait::{SOON, holds_within, wait_until};

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// `count` records over 3 partitions: what was written where, in order.
fn numbered(count: usize) -> Vec<(i32, String, String)> {
    (0..count)
        .map(|i| ((i % 3) as i32, format!("key-{i}"), format!("value {i}")))
        .collect()
}

#[track_caller]
fn assert_holds(kafka: &Kafka, topic: &str, written: &[(i32, String, String)]) {
    let read: Vec<_> = kafka
        .read_all(topic)
        .into_iter()
        .map(|r| {
            (
                r.partition,
                r.key.expect("a key"),
                r.value.expect("a value"),
            )
        })
        .collect();
    let mut expected = written.to_vec();
    expected.sort_by_key(|(partition, ..)| *partition); // stable: order within stays
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(p, key, value)| (p, key.into_bytes(), value.into_bytes()))
        .collect();
    assert!(
        read == expected,
        "{} of {} read",
        read.len(),
        expected.len()
    );
}

#[test]
fn what_is_written_is_read_back_in_order() {
    let kafka = Kafka::shared();
    let topic = kafka.new_topic("harness", 3);
    let written = numbered(1000);
    kafka.produce(&topic, written.iter().cloned());
    assert_eq!(kafka.end_offsets(&topic), [334, 333, 333]);
    assert_holds(kafka, &topic, &written);
}

#[test]
fn values_are_read_as_json() {
    let kafka = Kafka::shared();
    let topic = kafka.new_topic("harness", 1);
    kafka.produce(&topic, [(0, "key", r#"{"gifts":3}"#)]);
    assert_eq!(kafka.read_all(&topic)[0].json()["gifts"], 3);
}

#[test]
fn a_deleted_topic_is_gone() {
    let kafka = Kafka::shared();
    let topic = unique("harness");
    kafka.create_topic(&topic, 1, &[("cleanup.policy", "compact")]);
    assert!(kafka.has_topic(&topic));
    kafka.delete_topic(&topic);
    assert!(!kafka.has_topic(&topic));
}

#[test]
fn a_killed_broker_comes_back_with_its_data() {
    let kafka = Kafka::own(1);
    let topic = kafka.new_topic("harness", 3);
    let written = numbered(1000);
    kafka.produce(&topic, written.iter().cloned());
    kafka.kill_broker(1);
    kafka.start_broker(1);
    assert_holds(&kafka, &topic, &written);
}

#[test]
fn a_stopped_broker_does_not_answer_until_it_goes_on() {
    let kafka = Kafka::own(1);
    let topic = kafka.new_topic("harness", 3);
    kafka.signal_broker(1, "STOP");
    assert!(!kafka_status(&kafka).contains("answers"));
    kafka.signal_broker(1, "CONT");
    wait_until(SOON, "the broker answers again", || {
        kafka_status(&kafka).contains("answers")
    });
    kafka.produce(&topic, numbered(10));
    assert_holds(&kafka, &topic, &numbered(10));
}

fn kafka_status(kafka: &Kafka) -> String {
    let mut command = Command::new(SCRIPT);
    command.args(["status", "--dir"]).arg(kafka.dir());
    process::run(&mut command, SOON).stdout
}

#[test]
fn three_brokers_lose_one_and_nothing_else() {
    let kafka = Kafka::own(3);
    assert_eq!(kafka.bootstrap().split(',').count(), 3);
    let topic = kafka.new_topic("harness", 3);
    let written = numbered(1000);
    let (before, after) = written.split_at(500);
    kafka.produce(&topic, before.iter().cloned());
    kafka.kill_broker(2);
    kafka.produce(&topic, after.iter().cloned());
    assert_holds(&kafka, &topic, &written);
    kafka.start_broker(2);
    assert_holds(&kafka, &topic, &written);
}

#[test]
fn a_stranger_may_do_nothing() {
    let kafka = Kafka::guarded();
    let topic = kafka.new_topic("harness", 1);
    kafka.produce(&topic, [(0, "key", "value")]); // others may
    let mut client = kafka.client();
    client.set("bootstrap.servers", kafka.guarded_address());
    for (key, value) in STRANGER {
        client.set(key, value);
    }
    let consumer: BaseConsumer = client.create().expect("valid settings");
    let metadata = consumer.fetch_metadata(Some(&topic), SOON);
    let error = metadata.expect("logged in").topics()[0].error();
    let refused = RDKafkaErrorCode::TopicAuthorizationFailed;
    assert_eq!(error.map(RDKafkaErrorCode::from), Some(refused));
}

/// The brokers of the cluster in this directory that still run.
fn brokers_in(dir: &Path) -> usize {
    let mut list = Command::new("ps");
    list.args(["-ww", "-e", "-o", "args="]);
    let dir = dir.to_str().expect("a path in UTF-8");
    let listed = process::run(&mut list, SOON).succeeded().stdout;
    let is_broker = |line: &&str| line.contains(dir) && line.contains("kafka.Kafka");
    listed.lines().filter(is_broker).count()
}

#[track_caller]
fn assert_no_trace_of(dir: &Path) {
    wait_until(SOON, "the brokers are gone", || brokers_in(dir) == 0);
    wait_until(SOON, "their data is gone", || !dir.exists());
}

#[test]
fn a_dropped_cluster_leaves_nothing_behind() {
    let kafka = Kafka::own(1);
    let dir = kafka.dir().to_owned();
    assert_eq!(brokers_in(&dir), 1);
    kafka.signal_broker(1, "STOP"); // not even one that cannot react
    drop(kafka);
    assert_no_trace_of(&dir);
}

#[test]
fn a_broker_does_not_outlive_a_killed_parent() {
    // A shell in the place of a test process: it holds the script's standard
    // input, and its own children do not.
    let hold = r#"exec 9> >(exec "$0" attach); while :; do sleep 0.1 9>&-; done"#;
    let mut parent = Command::new("bash");
    parent.args(["-c", hold, SCRIPT]);
    let mut parent = Running::start(&mut parent);
    parent.wait_for_output(3 * SOON, "READY ");
    let stdout = parent.stdout();
    let dir = stdout.split_whitespace().nth(2);
    let dir = Path::new(dir.expect("READY address directory"));
    assert_eq!(brokers_in(dir), 1);
    parent.signal(Signal::KILL);
    assert_no_trace_of(dir);
}

/// A broker directory for `scripts/kafka start`; dropped, its brokers are stopped.
struct Directory(tempfile::TempDir);

impl Directory {
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command.arg(subcommand).arg("--dir").arg(self.0.path());
        command
    }

    fn start(&self) -> Running {
        Running::start(self.command("start").args(["--port", "0"]))
    }

    fn holds(&self, beginning: &str) -> bool {
        let names = std::fs::read_dir(self.0.path()).expect("a directory");
        let mut names = names.map(|entry| entry.expect("an entry").file_name());
        names.any(|name| name.to_string_lossy().starts_with(beginning))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        process::run(&mut self.command("stop"), SOON);
    }
}

#[test]
fn a_killed_start_can_be_repeated_even_twice_at_once() {
    let directory = Directory(tempfile::tempdir().expect("a temporary folder"));
    let mut killed = directory.start();
    killed.wait_until(SOON, "data folders are being formatted", |_| {
        directory.holds("layout.")
    });
    killed.signal(Signal::KILL);
    drop(killed.wait(SOON));
    // What an attach leaves behind when it is killed with its watcher.
    std::fs::write(directory.0.path().join("attached"), "").expect("a file");

    let starts = [directory.start(), directory.start()];
    let mut ended = starts.map(|start| start.wait(3 * SOON));
    ended.sort_by_key(|finished| finished.code());
    let [started, refused] = ended;
    assert_eq!(
        (started.code(), refused.code()),
        (0, 1),
        "{started}{refused}"
    );
    assert!(refused.stderr.contains("already running"), "{refused}");
    let status = process::run(&mut directory.command("status"), SOON).succeeded();
    assert!(status.stdout.contains("answers"), "{status}");
    for left in ["layout.", "lock", "attached"] {
        assert!(!directory.holds(left), "{left}");
    }
}

#[test]
fn a_failed_wait_shows_what_was_printed_last() {
    let failure = std::panic::catch_unwind(|| {
        let mut it = Running::start(&mut shell("echo one; echo two >&2; exec sleep 600"));
        it.wait_for_output(SOON, "one");
        it.wait_for_output(SOON, "two");
        it.wait_for_output(Duration::from_millis(50), "three");
    });
    let message = *failure.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("it prints \"three\""), "{message}");
    assert!(message.contains("standard output\none"), "{message}");
    assert!(message.contains("standard error\ntwo"), "{message}");
}

#[test]
fn a_wait_ends_with_the_command() {
    let failure = std::panic::catch_unwind(|| {
        let mut it = Running::start(&mut shell("echo last words; exit 3"));
        it.wait_for_output(SOON, "never");
    });
    let message = *failure.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("it ended before"), "{message}");
    assert!(message.contains("last words"), "{message}");
}

#[test]
fn signals_reach_a_command_and_dropping_kills_it() {
    let mut it = Running::start(&mut shell(
        "trap 'echo got it; exit 7' TERM; echo up; while :; do sleep 0.01; done",
    ));
    it.wait_for_output(SOON, "up");
    it.signal(Signal::TERM);
    let finished = it.wait(SOON);
    assert_eq!(
        (finished.code(), finished.stdout.as_str()),
        (7, "up\ngot it\n")
    );

    let mut it = Running::start(&mut shell("echo $$; exec sleep 600"));
    it.wait_for_output(SOON, "\n");
    let pid = it.stdout().trim().to_owned();
    let alive = || {
        process::run(Command::new("kill").args(["-0", &pid]), SOON)
            .status
            .success()
    };
    assert!(alive());
    drop(it);
    assert!(holds_within(SOON, || !alive()));
}

#[test]
fn tally99_runs() {
    process::run(&mut tally99(["--version"]), SOON).succeeded();
}
