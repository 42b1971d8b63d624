//! `tally99 generate` on the real binary.

use std::process::Command;

use crate::day::DEADLINE;
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
