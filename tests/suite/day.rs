//! A giving day of a test's own: its topics, its group, and the commands on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::kafka::{Kafka, Record, unique};
use crate::process::{self, Finished, Running, tally99};

/// What a whole run of a command may take, on two cores that all tests share.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Names that no other test has, and a folder for files.
pub struct Day {
    name: String,
    pub bootstrap: String,
    folder: TempDir,
}

impl Day {
    pub fn on(kafka: &Kafka, hint: &str) -> Day {
        Day::at(kafka.bootstrap(), hint)
    }

    pub fn at(bootstrap: &str, hint: &str) -> Day {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Day {
            name: unique(hint),
            bootstrap: bootstrap.to_owned(),
            folder,
        }
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.name
    }

    pub fn topic(&self, which: &str) -> String {
        format!("{}.{which}", self.name)
    }

    pub fn expected(&self) -> PathBuf {
        self.folder.path().join("expected.json")
    }

    /// `tally99 SUBCOMMAND` (or two of them, as in `config show`) with the names of this day.
    pub fn command(&self, subcommand: &str) -> Command {
        self.command_of(subcommand, &self.name, &self.topic("donations"))
    }

    /// The same of another group, or of another topic of donations.
    pub fn command_of(&self, subcommand: &str, group: &str, donations: &str) -> Command {
        let mut command = tally99(subcommand.split(' '));
        command.args(["--bootstrap-servers", &self.bootstrap]);
        command.args(["--group", group, "--topic", donations]);
        for (flag, which) in [
            ("--totals-topic", "totals"),
            ("--cuts-topic", "cuts"),
            ("--windows-topic", "windows"),
            ("--dead-letters-topic", "dead-letters"),
        ] {
            command.args([flag, &self.topic(which)]);
        }
        command
    }

    /// The generator with all kinds of events in it, and its sums.
    pub fn generate(&self, events: u64, more: &[&str]) -> Command {
        let mut command = self.command("generate");
        let events = events.to_string();
        command.args([
            "--events",
            &events,
            "--partitions",
            "12",
            "--campaigns",
            "2000",
        ]);
        command.args([
            "--repeats",
            "0.01",
            "--refunds",
            "0.02",
            "--malformed",
            "0.001",
        ]);
        command.args(["--matches", "0.01", "--flowers", "0.1", "--late", "0.005"]);
        command.args(["--out-of-order", "0.05"]).args(more);
        command.arg("--expect").arg(self.expected());
        command
    }

    pub fn write(&self, events: u64, more: &[&str]) {
        process::run(&mut self.generate(events, more), DEADLINE).succeeded();
    }

    /// Events that come at a rate, until they are told to end: a test that waits
    /// for something that needs them cannot run out of them.
    pub fn traffic(&self, per_second: u32) -> Traffic {
        // Enough for twenty minutes, which are a whole day of events.
        let events = 1_200 * u64::from(per_second);
        let rate = ["--rate", &per_second.to_string()];
        Traffic(Running::start(&mut self.generate(events, &rate)))
    }

    pub fn run(&self) -> Running {
        Running::start(&mut self.command("run"))
    }

    /// Counts all that is there, and ends.
    pub fn run_until_end(&self) -> Finished {
        process::run(self.command("run").arg("--until-end"), DEADLINE).succeeded()
    }

    /// Whether the totals are those of the generator, by the binary's own check.
    pub fn compare(&self) -> Finished {
        process::run(
            self.command("totals").arg("--compare").arg(self.expected()),
            DEADLINE,
        )
    }

    pub fn expectation(&self) -> Value {
        let text = std::fs::read_to_string(self.expected()).expect("the generator wrote it");
        serde_json::from_str(&text).expect("it is JSON")
    }

    /// Whether a cut of exactly so many events has been published.
    pub fn has_counted(&self, kafka: &Kafka, events: u64) -> bool {
        let is_it = |cut: &Value| cut["events"].as_u64() == Some(events);
        kafka.has_topic(&self.topic("cuts")) && self.cuts(kafka).iter().any(is_it)
    }

    /// All records of `cuts`, in order.
    pub fn cuts(&self, kafka: &Kafka) -> Vec<Value> {
        kafka
            .read_all(&self.topic("cuts"))
            .iter()
            .map(Record::json)
            .collect()
    }

    /// What a compacted totals topic comes to: the last value of each campaign.
    pub fn totals(&self, kafka: &Kafka) -> BTreeMap<String, Value> {
        let records = kafka.read_all(&self.topic("totals"));
        let newest = records.iter().map(|record| {
            let key = record.key.clone().expect("upserts have keys");
            (
                String::from_utf8(key).expect("campaigns are text"),
                record.json(),
            )
        });
        newest.collect()
    }

    /// No upsert of any campaign ever stepped back, and cut numbers only rise.
    #[track_caller]
    pub fn assert_nothing_fell(&self, kafka: &Kafka) {
        let (mut versions, mut donors) = (BTreeMap::new(), BTreeMap::new());
        for record in kafka.read_all(&self.topic("totals")) {
            let (version, cut) = (
                record.json()["version"].as_u64(),
                record.json()["cut"].as_u64(),
            );
            let before = versions.insert(record.key.clone(), (version, cut));
            assert!(
                before <= Some((version, cut)),
                "{before:?} came before {record:?}"
            );
            // Estimates may tremble, but none begins again from nothing.
            let counted = record.json()["donors"].as_f64().expect("an estimate");
            let before = donors.insert(record.key.clone(), counted);
            assert!(
                counted >= 0.9 * before.unwrap_or(0.0) - 1.0,
                "{before:?} donors came before {record:?}"
            );
        }
        let mut newest: (Option<u64>, BTreeMap<String, u64>) = Default::default();
        // Whoever was replaced in the middle of a cut says so whenever it wakes up: no total.
        let cuts = self.cuts(kafka).into_iter();
        for cut in cuts.filter(|cut| cut["state"] != "abandoned") {
            assert!(
                newest.0 <= cut["cut"].as_u64(),
                "{} came before {cut}",
                newest.0.unwrap()
            );
            newest.0 = cut["cut"].as_u64();
            for (partition, offset) in cut["offsets"].as_object().expect("offsets") {
                let offset = offset.as_u64().expect("an offset");
                let before = newest.1.insert(partition.clone(), offset);
                assert!(
                    before <= Some(offset),
                    "partition {partition} stepped back in {cut}"
                );
            }
        }
    }
}

/// A generator at work.
pub struct Traffic(Running);

impl Traffic {
    /// Has it end; what it wrote until then is what the day expects.
    #[track_caller]
    pub fn end(self) {
        self.0.signal(Signal::INT);
        self.0.wait(DEADLINE).succeeded();
    }
}
