//! `tally99 generate` as a whole, into files and into the mock cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;

use super::*;
use crate::config::{self, Config};
use crate::shutdown::Shutdown;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: GenerateArgs,
}

fn args(line: &str) -> GenerateArgs {
    Cli::parse_from(format!("generate {line}").split_whitespace()).args
}

pub(super) fn config(bootstrap_servers: &str) -> Config {
    let flags = config::Flags {
        settings: [("kafka.bootstrap_servers", bootstrap_servers.to_owned())].into(),
        properties: Vec::new(),
    };
    let environment: [(std::ffi::OsString, std::ffi::OsString); 0] = [];
    config::load(None, environment, &flags).unwrap().config
}

fn expected(path: &Path) -> Expected {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_file_holds_the_stream_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let (out, expect) = (
        folder.path().join("events"),
        folder.path().join("expected.json"),
    );
    let flags = format!("--events 30000 --seed 5 --out {}", out.display());
    let mut args = args(&flags);
    args.expect = Some(expect.clone());
    run(&config("unused:1"), &args, &Shutdown::default()).unwrap();

    let (records, sums) = all(&settings(5, 30_000));
    let text = std::fs::read(&out).unwrap();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 30_001);
    assert!(
        lines
            .iter()
            .zip(&records)
            .all(|(line, record)| *line == record.payload())
    );
    assert_eq!(expected(&expect), sums);

    // The same at a rate.
    args.rate = Some(1_000_000);
    args.out = Some(folder.path().join("paced"));
    run(&config("unused:1"), &args, &Shutdown::default()).unwrap();
    assert!(std::fs::read(folder.path().join("paced")).unwrap() == text);
}

#[test]
fn a_stopped_run_expects_what_it_has_written() {
    let folder = tempfile::tempdir().unwrap();
    let (out, expect) = (
        folder.path().join("events"),
        folder.path().join("expected.json"),
    );
    let mut args = args("--events 1000000 --rate 2000 --repeats 0.1");
    (args.out, args.expect) = (Some(out.clone()), Some(expect.clone()));
    let stop = Shutdown::default();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&config("unused:1"), &args, &stop));
        // At whatever moment it comes, once the run has begun.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !out.exists() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        stop.begin();
        running.join().unwrap().unwrap();
    });
    let lines = std::fs::read(&out)
        .unwrap()
        .iter()
        .filter(|byte| **byte == b'\n')
        .count();
    assert!(lines < 1_000_000);
    assert_eq!(expected(&expect).events, lines as u64);
}

#[test]
fn a_topic_gets_what_a_file_gets() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("donations", 3, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let expect = folder.path().join("expected.json");
    let mut args = args("--preset 99-giving-day-2022 --scale 0.00005 --partitions 12");
    args.expect = Some(expect.clone());
    run(
        &config(&cluster.bootstrap_servers()),
        &args,
        &Shutdown::default(),
    )
    .unwrap();
    let expected = expected(&expect);
    assert_eq!(expected.gifts, 2_908);
    assert_eq!(
        expected.money[&Currency::parse("CNY").unwrap()].gross,
        16_500_000
    );
    assert_eq!(
        expected,
        all(&Settings::giving_day_2022(1, 0.00005).unwrap()).1
    );
}

#[test]
fn a_failed_run_leaves_the_sums_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let expect = folder.path().join("expected.json");
    std::fs::write(&expect, "{}").unwrap();
    let mut args = args("--events 10");
    args.out = Some(folder.path().join("missing").join("events"));
    args.expect = Some(expect.clone());
    let error = run(&config("unused:1"), &args, &Shutdown::default()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(!error.is_usage());
    assert_eq!(std::fs::read(&expect).unwrap(), b"{}");

    args.out = Some(folder.path().join("events"));
    run(&config("unused:1"), &args, &Shutdown::default()).unwrap();
    assert_eq!(expected(&expect).events, 10);
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["events", "expected.json"]);
}

#[test]
fn sums_that_cannot_be_written_end_a_run_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("events");
    std::fs::write(&out, "of an earlier run").unwrap();
    let mut args = args("--events 10");
    args.out = Some(out.clone());
    for expect in [
        folder.path().join("missing").join("e"),
        folder.path().into(),
    ] {
        args.expect = Some(expect.clone());
        let error = run(&config("unused:1"), &args, &Shutdown::default()).unwrap_err();
        assert!(
            error.to_string().contains(expect.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(std::fs::read(&out).unwrap(), b"of an earlier run");
    }
}

#[test]
fn events_and_sums_do_not_go_into_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("events");
    let other_name = folder.path().join("link");
    std::os::unix::fs::symlink(&out, &other_name).unwrap();
    let mut args = args("--events 10");
    args.out = Some(out.clone());
    for expect in [out.clone(), folder.path().join(".").join("events")] {
        args.expect = Some(expect);
        let error = run(&config("unused:1"), &args, &Shutdown::default()).unwrap_err();
        assert!(error.is_usage(), "{error}");
        assert!(!out.exists());
    }
    std::fs::write(&out, "of an earlier run").unwrap();
    args.expect = Some(other_name);
    let error = run(&config("unused:1"), &args, &Shutdown::default()).unwrap_err();
    assert!(error.is_usage(), "{error}");
    assert_eq!(std::fs::read(&out).unwrap(), b"of an earlier run");
}

/// The device would be gone if the sums took its place.
#[test]
fn sums_go_into_a_device_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut args = args("--events 10 --expect /dev/null");
    args.out = Some(folder.path().join("events"));
    run(&config("unused:1"), &args, &Shutdown::default()).unwrap();
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn what_is_stopped_with_a_full_queue_is_sent_as_it_was_counted() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("donations", 1, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut args = args("--events 10000000");
    args.expect = Some(folder.path().join("expected.json"));
    let mut config = config(&cluster.bootstrap_servers());
    let queue = ("queue.buffering.max.messages".into(), "100".into());
    config.kafka.properties.extend([queue]);
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .unwrap();
    let written = || {
        let marks = reader.fetch_watermarks("donations", 0, Duration::from_secs(30));
        marks.unwrap().1 as u64
    };
    let stop = Shutdown::default();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&config, &args, &stop));
        let deadline = Instant::now() + Duration::from_secs(30);
        while written() == 0 && Instant::now() < deadline {}
        // The broker hangs, and the queue fills within milliseconds.
        let second = Duration::from_secs(1);
        cluster.broker_round_trip_time(1, second).unwrap();
        std::thread::sleep(second / 2);
        stop.begin();
        std::thread::sleep(second / 2);
        cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
        running.join().unwrap().unwrap();
    });
    let expected = expected(&args.expect.unwrap());
    assert!(expected.events > 100);
    assert_eq!(expected.events, written());
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    for line in [
        "--preset 99-giving-day-2022 --events 5",
        "--scale 0.1",
        "--out - --partitions 3",
        "--live --start 2022-09-09T00:00:00+08:00",
        "--start yesterday",
        "--rate 0",
        "--partitions 0",
        "--preset 2021",
    ] {
        let parsed = Cli::try_parse_from(format!("generate {line}").split_whitespace());
        assert!(parsed.is_err(), "{line}");
    }
    for line in [
        "--preset 99-giving-day-2022 --other-currencies 0.1",
        "--preset 99-giving-day-2022 --scale 0",
        "--repeats 1",
        "--events 0",
        "--start 2098-12-31T00:00:00Z",
    ] {
        let error = run(&config("127.0.0.1:1"), &args(line), &Shutdown::default()).unwrap_err();
        assert!(error.is_usage(), "{line}: {error}");
    }
}
