//! `tally99 bench` on the real binary: small sizes, since what is tested is that its figures
//! are honest, not that they are good.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::day::{DEADLINE, Day};
use crate::kafka::{Kafka, STRANGER, unique};
use crate::process::{self, Finished, Running, tally99};
use crate::wait::{SOON, wait_until};

/// A bench with names of its own.
struct Bench {
    prefix: String,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            prefix: unique("bench"),
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn command(&self, bootstrap: &str, line: &str) -> Command {
        let mut command = tally99(["bench"]);
        command.args(line.split_whitespace());
        command.args(["--bootstrap-servers", bootstrap, "--workers", "2"]);
        command
            .args(["--prefix", &self.prefix])
            .arg("--folder")
            .arg(self.folder.path());
        command
    }

    fn run(&self, line: &str) -> Finished {
        let bootstrap = Kafka::shared().bootstrap();
        process::run(&mut self.command(bootstrap, line), DEADLINE)
    }

    /// Nothing is left of it: no topic, no group, no checkpoint.
    #[track_caller]
    fn assert_is_gone(&self) {
        let kafka = Kafka::shared();
        // The broker that deletes a topic tells those that are asked a moment later.
        wait_until(SOON, "its topics are gone", || {
            kafka.topics_of(&self.prefix).is_empty()
        });
        let left = kafka.groups_of(&self.prefix);
        assert!(left.is_empty(), "{left:?}");
        let left = std::fs::read_dir(self.folder.path())
            .expect("a folder")
            .count();
        assert_eq!(left, 0, "checkpoints are left");
    }
}

#[track_caller]
fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// What it says of each run of this kind.
fn runs<'a>(drain: &'a Value, kind: &str) -> Vec<&'a Value> {
    let runs = drain["runs"].as_array().expect("runs");
    runs.iter().filter(|run| run["kind"] == kind).collect()
}

#[test]
fn a_drain_reads_all_of_it_is_exact_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let report = tempfile::tempdir().expect("a temporary folder");
    let line = format!(
        "drain --events 60000 --partitions 4 --campaigns 500 --pairs 2 --json --report {}",
        report.path().display()
    );
    let found = json(&bench.run(&line).succeeded());
    bench.assert_is_gone();
    let drain = &found["drain"];
    for kind in ["raw-poll", "raw-batch", "fold"] {
        let runs = runs(drain, kind);
        assert_eq!(runs.len(), 2, "{drain}");
        for run in runs {
            assert_eq!(run["events"], 60_000, "{run}");
            assert!(run["seconds"].as_f64() > Some(0.0), "{run}");
            assert!(run["bytes"].as_u64() > Some(60_000 * 100), "{run}");
            if cfg!(target_os = "linux") {
                assert!(run["peak_memory_bytes"].as_u64() > Some(1 << 20), "{run}");
                let parts = run["cpu"].as_object().expect("CPU by thread");
                let cpu: f64 = parts.values().filter_map(Value::as_f64).sum();
                assert!(cpu > 0.0, "{run}");
            }
        }
    }
    for run in runs(drain, "fold") {
        let exact = run["exactness"]["equal"].as_u64();
        assert!(exact > Some(400) && exact <= Some(500), "{run}");
    }
    // The report holds the same, and can be compared.
    let result = std::fs::read_to_string(report.path().join("result.json")).expect("it is there");
    assert_eq!(
        serde_json::from_str::<Value>(&result).expect("it is JSON"),
        found
    );
    assert_draws(report.path(), &["Raw against drain", CPU]);
    let page = std::fs::read_to_string(report.path().join("index.html")).expect("it is there");
    assert_eq!(page.matches("<svg").count(), 2);
    let compared = compare(report.path(), &report.path().join("result.json"));
    let rate = compared
        .lines()
        .find(|line| line.starts_with("tally99: events/s"));
    assert!(
        rate.is_some_and(|line| line.ends_with("1.000")),
        "{compared}"
    );
    assert!(!compared.contains("differs"), "{compared}");
}

const CPU: &str = "CPU by thread";
const LATENCY: [&str; 4] = [
    "Latency by percentile",
    "Latency over time",
    "Rate over time",
    "Lag over time",
];

/// The page of a report has these plots. Of CPU only Linux tells.
#[track_caller]
fn assert_draws(report: &Path, titles: &[&str]) {
    let page = std::fs::read_to_string(report.join("index.html")).expect("it is there");
    for title in titles {
        let is_drawn = page.split("<figcaption>").skip(1).any(|figure| {
            let figure = figure.split("</figure>").next().unwrap_or_default();
            figure.starts_with(title) && figure.contains("<svg")
        });
        assert!(
            is_drawn || *title == CPU && cfg!(not(target_os = "linux")),
            "{title}"
        );
    }
}

#[track_caller]
fn compare(a: &Path, b: &Path) -> String {
    let mut compare = tally99(["bench", "compare"]);
    compare.arg(a).arg(b);
    process::run(&mut compare, SOON).succeeded().stdout
}

#[test]
fn what_is_not_of_the_same_thing_is_told_when_it_is_compared() {
    let bench = Bench::new();
    let reports = [(2, 50), (4, 100)].map(|(partitions, campaigns)| {
        let report = tempfile::tempdir().expect("a temporary folder");
        let line = format!(
            "raw --events 5000 --partitions {partitions} --campaigns {campaigns} --pairs 1 \
             --report {}",
            report.path().display()
        );
        let table = bench.run(&line).succeeded().stdout;
        assert!(table.contains("raw, polled") && table.contains("raw, batches"));
        report
    });
    bench.assert_is_gone();
    let compared = compare(reports[0].path(), reports[1].path());
    for differs in ["partitions: 2 | 4", "campaigns: 50 | 100"] {
        let line = format!("differs: {differs}\n");
        assert!(compared.contains(&line), "{compared}");
    }
    assert!(compared.contains("\nraw, batches: MB/s "), "{compared}");
    assert!(!compared.contains("differs: events"), "{compared}");
    assert_eq!(compared.matches("differs: ").count(), 2, "{compared}");
}

#[test]
fn a_topic_of_others_is_read_and_not_touched() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "bench");
    day.write(20_000, &[]);
    let topic = day.topic("donations");
    let ends = kafka.end_offsets(&topic);
    let bench = Bench::new();
    let found = json(
        &bench
            .run(&format!("drain --topic {topic} --pairs 2 --json"))
            .succeeded(),
    );
    bench.assert_is_gone();
    assert_eq!(kafka.end_offsets(&topic), ends);
    let folds = runs(&found["drain"], "fold");
    // There is nothing to compare with but each other.
    assert!(
        folds
            .iter()
            .all(|run| run["exactness"]["unknown"].is_string()),
        "{found}"
    );
    assert!(folds[0]["digest"].is_string() && folds[0]["digest"] == folds[1]["digest"]);
    assert!(folds.iter().all(|run| run["events"] == 20_000));
}

#[test]
fn what_cannot_be_measured_is_told_with_the_way_out() {
    let kafka = Kafka::shared();
    let empty = kafka.new_topic("bench", 3);
    let compacted = unique("bench");
    kafka.create_topic(&compacted, 3, &[("cleanup.policy", "compact")]);
    let bench = Bench::new();
    for (line, code, says) in [
        (format!("drain --topic {empty}"), 3, "is empty"),
        (format!("raw --topic {compacted}"), 3, "is compacted"),
        ("drain --topic nobody-has-made-it".into(), 3, "is not there"),
        ("drain --partitions 1".into(), 2, "not enough for 2 workers"),
        ("paced --partitions 1".into(), 2, "not enough for 2 workers"),
        ("sweep --from 100 --to 10".into(), 2, "--to 10 is lower"),
        ("day --scale 1000".into(), 2, "--scale"),
        (
            format!("drain --topic {empty} --events 5"),
            2,
            "cannot be used with",
        ),
        ("drain --report /proc/none".into(), 3, "cannot write"),
        ("sweep --limit-p99 500us".into(), 2, "give at least 1ms"),
        ("paced --warmup 25h".into(), 2, "give 24h at most"),
        (
            "paced --rate 10000000 --duration 24h".into(),
            2,
            "--rate, --duration and --warmup",
        ),
    ] {
        let refused = bench.run(&line);
        assert_eq!(refused.code(), code, "{line}: {refused}");
        assert!(refused.stderr.contains(says), "{line}: {refused}");
        assert_eq!(refused.stdout, "");
    }
    bench.assert_is_gone();
    let nobody = process::run(&mut bench.command("127.0.0.1:1", "raw"), DEADLINE);
    assert_eq!(nobody.code(), 3, "{nobody}");
    assert!(
        nobody
            .stderr
            .contains("no Kafka broker answers at 127.0.0.1:1"),
        "{nobody}"
    );
}

#[test]
fn a_place_for_checkpoints_that_is_none_is_told_before_anything_is_measured() {
    let mut command = tally99(["bench", "drain", "--folder", "/nothing/is/here"]);
    command.args(["--bootstrap-servers", Kafka::shared().bootstrap()]);
    let refused = process::run(&mut command, SOON);
    assert_eq!(refused.code(), 3, "{refused}");
    let says = "checkpoints cannot be kept there; see --folder: cannot make /nothing/is/here";
    assert!(refused.stderr.contains(says), "{refused}");
    assert!(!refused.stderr.contains("filling"), "{refused}");
}

#[test]
fn a_topic_that_is_written_to_meanwhile_is_read_and_not_folded() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "bench");
    day.write(20_000, &[]);
    let topic = day.topic("donations");
    for (command, code) in [("raw", 0), ("drain", 3)] {
        let bench = Bench::new();
        let line = format!("{command} --topic {topic} --pairs 3");
        let mut running = Running::start(&mut bench.command(kafka.bootstrap(), &line));
        running.wait_for_output(DEADLINE, "pair 1 of 3, raw, batches");
        kafka.produce(&topic, [(0, "key", "one more")]);
        let ended = running.wait(DEADLINE);
        assert_eq!(ended.code(), code, "{ended}");
        let is_refused = ended.stderr.contains("somebody writes to topic");
        assert_eq!(is_refused, code == 3, "{ended}");
        bench.assert_is_gone();
    }
}

#[test]
fn a_topic_that_may_not_be_read_is_told() {
    let kafka = Kafka::guarded();
    let topic = kafka.new_topic("bench", 3);
    kafka.produce(&topic, [(0, "key", "value")]); // others may
    let bench = Bench::new();
    let as_stranger = |line: &str| {
        let mut command = bench.command(&kafka.guarded_address(), line);
        for (key, value) in STRANGER {
            let name = key.replace('.', "_").to_uppercase();
            command.env(format!("TALLY99_KAFKA_PROPERTIES_{name}"), value);
        }
        let refused = process::run(&mut command, DEADLINE);
        assert_eq!(refused.code(), 3, "{refused}");
        refused.stderr
    };
    let told = as_stranger(&format!("raw --topic {topic}"));
    let grant = format!("no permission for topic {topic}: grant READ and DESCRIBE");
    assert!(told.contains(&grant), "{told}");
    let told = as_stranger("paced --rate 10");
    let grant = "grant CREATE, DESCRIBE, READ, WRITE and DELETE on topics of this prefix";
    assert!(told.contains(grant), "{told}");
}

#[track_caller]
fn assert_is_log_of(path: &Path) {
    let log = std::fs::read_to_string(path).expect("it is there");
    // Comments, then an interval a line: start, length, maximum, histogram.
    let is_interval = |line: &&str| line.split(',').count() == 4 && !line.starts_with('#');
    assert!(log.lines().filter(is_interval).count() >= 3, "{log}");
}

#[test]
fn every_event_at_a_steady_rate_is_accounted_for() {
    let bench = Bench::new();
    let report = tempfile::tempdir().expect("a temporary folder");
    let line = format!(
        "paced --rate 1000 --duration 3s --warmup 1s --partitions 4 --campaigns 100 --json \
         --report {}",
        report.path().display()
    );
    // A machine that is busy with other tests may be too slow even for this; then it says so.
    let ended = bench.run(&line);
    bench.assert_is_gone();
    let paced = &json(&ended)["paced"];
    assert_eq!(
        ended.code(),
        i32::from(!paced["invalid"].is_null()),
        "{ended}"
    );
    assert_eq!(
        (&paced["events"], &paced["sent"]),
        (&4_000.into(), &4_000.into())
    );
    assert_eq!(paced["readable"]["events"], 3_000, "{paced}");
    assert_eq!(paced["warmup"]["events"], 1_000, "{paced}");
    assert_eq!(paced["visible"]["events"], 3_000, "{paced}");
    assert_eq!(paced["lateness"]["events"], 3_000, "{paced}");
    assert!(paced["exactness"]["equal"].as_u64() > Some(50), "{paced}");
    let latency = &paced["readable"];
    let figures = [
        "p50_us",
        "p90_us",
        "p99_us",
        "p99_9_us",
        "p99_99_us",
        "max_us",
    ];
    let figures = figures.map(|name| latency[name].as_u64().expect("a figure"));
    assert!(figures[0] > 0 && figures.is_sorted(), "{latency}");
    let seconds = paced["seconds"].as_array().expect("seconds");
    let sum = |name: &str| {
        seconds
            .iter()
            .map(|it| it[name].as_u64().expect("a count"))
            .sum::<u64>()
    };
    assert_eq!(["due", "sent", "readable"].map(sum), [4_000; 3]);
    assert_eq!(seconds.last().map(|it| &it["lag"]), Some(&0.into()));
    for log in ["readable.hlog", "visible.hlog"] {
        assert_is_log_of(&report.path().join(log));
    }
    assert_draws(report.path(), &LATENCY);
    assert_draws(report.path(), &[CPU]);
}

#[test]
fn a_generator_that_is_too_slow_for_its_rate_makes_the_run_invalid() {
    let bench = Bench::new();
    // A producer that holds 400 events, and sends them twice a second.
    let line = "paced --rate 2000 --duration 2s --warmup 0s --partitions 4 --campaigns 10 \
                --kafka-property queue.buffering.max.messages=400 --kafka-property linger.ms=500";
    let mut slow = bench.command(Kafka::shared().bootstrap(), line);
    let ended = process::run(&mut slow, DEADLINE);
    assert_eq!(ended.code(), 1, "{ended}");
    assert!(
        ended
            .stdout
            .contains("NOT VALID: the run is invalid: the brokers did not take events"),
        "{ended}"
    );
    bench.assert_is_gone();
}

#[test]
fn a_sweep_names_the_knee_and_why_it_ended() {
    let bench = Bench::new();
    // Every rate is too high for a limit of nothing, and none for one of a minute.
    let report = tempfile::tempdir().expect("a temporary folder");
    let sweep = |limit: &str| {
        let line = format!(
            "sweep --from 500 --to 600 --step 4s --warmup 0s --limit-p99 {limit} --partitions 4 \
             --campaigns 100 --json --report {}",
            report.path().display()
        );
        let ended = bench.run(&line);
        let sweep = json(&ended)["sweep"].clone();
        let steps = sweep["steps"].as_array().expect("steps");
        let is_valid = steps.iter().any(|it| it["paced"]["invalid"].is_null());
        assert_eq!(ended.code(), i32::from(!is_valid), "{ended}");
        sweep
    };
    let found = sweep("1ms");
    assert!(found["knee"].is_null(), "{found}");
    assert!(
        found["ended"]
            .as_str()
            .is_some_and(|why| why.contains("--from")),
        "{found}"
    );
    assert_eq!(found["steps"].as_array().map(Vec::len), Some(1));
    let found = sweep("60s");
    let ended = found["ended"].as_str().expect("why it ended");
    // A machine that is busy with other tests may keep the generator from it.
    if !ended.contains("generator or brokers fell behind") {
        assert_eq!(found["knee"], 600, "{found}");
        assert!(ended.contains("--to"), "{found}");
        assert_eq!(found["steps"].as_array().map(Vec::len), Some(2));
        assert_draws(report.path(), &["Rate against p99"]);
        assert_draws(report.path(), &LATENCY);
        assert_is_log_of(&report.path().join("readable.hlog"));
    }
    bench.assert_is_gone();
}

#[test]
fn a_day_is_replayed_on_its_own_curve() {
    let bench = Bench::new();
    // 580 donations and 1,000 flowers, and a day in four seconds.
    let line = "day --scale 0.00001 --replay 21600 --partitions 4 --campaigns 50 --json";
    let ended = bench.run(line);
    bench.assert_is_gone();
    let paced = &json(&ended)["paced"];
    let seconds = paced["seconds"].as_array().expect("seconds");
    let due: Vec<u64> = seconds
        .iter()
        .map(|it| it["due"].as_u64().expect("a count"))
        .collect();
    // The second from 06:00 to 12:00 has the rush in it.
    assert_eq!(due.iter().take(4).max(), Some(&due[1]), "{due:?}");
    assert_eq!(paced["sent"].as_u64(), Some(due.iter().sum()));
    assert!(paced["exactness"]["equal"].as_u64() > Some(10), "{paced}");
}

/// Stops it by a signal once it prints this; it has to clean up.
#[track_caller]
fn stop_at(bench: &Bench, line: &str, at: &str) {
    let mut running = Running::start(&mut bench.command(Kafka::shared().bootstrap(), line));
    running.wait_for_output(DEADLINE, at);
    running.signal(Signal::INT);
    let stopped = running.wait(DEADLINE);
    assert_eq!(stopped.code(), 3, "{stopped}");
    assert!(
        stopped.stderr.contains("what was made is deleted"),
        "{stopped}"
    );
    bench.assert_is_gone();
}

#[test]
fn ctrl_c_cleans_up_wherever_it_is() {
    let bench = Bench::new();
    stop_at(&bench, "drain --events 50000000", "filling topic");
    stop_at(
        &bench,
        "drain --events 50000 --pairs 1000 --campaigns 100",
        "pair 2 of",
    );
    stop_at(
        &bench,
        "paced --rate 1000 --duration 10m --campaigns 100",
        "of 605,000 events",
    );
    stop_at(
        &bench,
        "sweep --from 500 --step 10m --campaigns 100",
        "500 events/s",
    );
}

#[test]
fn a_killed_bench_leaves_no_process_that_measures() {
    let bench = Bench::new();
    let line = "paced --rate 100 --duration 1h --campaigns 10";
    let mut running = Running::start(&mut bench.command(Kafka::shared().bootstrap(), line));
    let group = format!("{}-", bench.prefix);
    running.wait_until(DEADLINE, "it counts", |_| {
        !Kafka::shared().groups_of(&group).is_empty()
    });
    running.signal(Signal::KILL);
    drop(running);
    // Whoever measures is a member of the group, and leaves it in order.
    for group in Kafka::shared().groups_of(&group) {
        Kafka::shared().wait_for_empty_group(&group, SOON);
    }
    wait_until(SOON, "no process measures any more", || {
        let mut list = Command::new("ps");
        list.args(["-ww", "-e", "-o", "args="]);
        let listed = process::run(&mut list, SOON).succeeded().stdout;
        !listed.lines().any(|line| line.contains(&bench.prefix))
    });
}
