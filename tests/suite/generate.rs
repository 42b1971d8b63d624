//! `tally99 generate` on the real binary.

use std::process::Command;

use crate::day::{DEADLINE, Day};
use crate::kafka::{Kafka, STRANGER};
use crate::process::{self, Finished};

/// The generator's output into a reader that goes after one line.
fn into_head(more: &str) -> Finished {
    let binary = env!("CARGO_BIN_EXE_tally99");
    let script = format!(
        "set -o pipefail; '{binary}' generate --events 200000 --out - {more} | head -n 1 >/dev/null"
    );
    process::run(Command::new("bash").args(["-c", &script]), DEADLINE)
}

#[test]
fn a_reader_that_goes_does_no_harm_unless_sums_are_asked_for() {
    let seen_enough = into_head("");
    assert_eq!(seen_enough.code(), 0, "{seen_enough}");
    assert_eq!(seen_enough.stderr, "");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let expect = folder.path().join("expected.json");
    let unfinished = into_head(&format!("--expect '{}'", expect.display()));
    assert_eq!(unfinished.code(), 3, "{unfinished}");
    assert!(unfinished.stderr.contains("is not written"), "{unfinished}");
    assert!(!expect.exists());
}

#[test]
fn one_file_for_events_and_sums_is_wrong_usage() {
    let mut command = process::tally99(["generate", "--events", "10"]);
    let refused = process::run(command.args(["--out", "-", "--expect", "-"]), DEADLINE);
    assert_eq!(refused.code(), 2, "{refused}");
    assert!(refused.stderr.contains("--expect"), "{refused}");
}

/// The generator as a user whom the brokers let in, or not.
fn as_stranger(day: &Day, password: &str) -> Finished {
    let mut command = day.command("generate");
    for (key, value) in STRANGER {
        let name = key.replace('.', "_").to_uppercase();
        command.env(format!("TALLY99_KAFKA_PROPERTIES_{name}"), value);
    }
    command.env("TALLY99_KAFKA_PROPERTIES_SASL_PASSWORD", password);
    process::run(command.args(["--events", "10"]), DEADLINE)
}

#[test]
fn a_user_whom_the_brokers_refuse_is_told_so() {
    let kafka = Kafka::guarded();
    let day = Day::at(&kafka.guarded_address(), "generate");
    let wrong_password = as_stranger(&day, "not the password");
    assert_eq!(wrong_password.code(), 3, "{wrong_password}");
    let refused = "refuse the user's name or password";
    assert!(wrong_password.stderr.contains(refused), "{wrong_password}");
    assert!(
        !wrong_password.stderr.contains("not the password"),
        "{wrong_password}"
    );

    let no_rights = as_stranger(&day, "stranger");
    assert_eq!(no_rights.code(), 3, "{no_rights}");
    let grant = "grant DESCRIBE, WRITE and CREATE on it";
    assert!(no_rights.stderr.contains(grant), "{no_rights}");
}

#[test]
fn a_missing_topic_is_made_with_as_many_partitions_as_asked_for() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "generate");
    let mut command = day.command("generate");
    command.args(["--events", "1000", "--partitions", "7"]);
    process::run(&mut command, DEADLINE).succeeded();
    let ends = kafka.end_offsets(&day.topic("donations"));
    assert_eq!((ends.len(), ends.iter().sum()), (7, 1_000));
}
