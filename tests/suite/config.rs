//! `tally99 config` and the command line, on the real binary.

use std::fs;
use std::process::Command;

use crate::process::{self, tally99};
use crate::wait::SOON;

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let finished = process::run(command, SOON);
    (finished.code(), finished.stdout, finished.stderr)
}

#[test]
fn show_prints_toml_with_sources_and_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tally99.toml");
    fs::write(
        &file,
        "[kafka.properties]\n\"sasl.password\" = \"hunter2\"\n[run]\nepoch = 2\n",
    )
    .unwrap();
    let (code, out, err) = run(tally99(None::<&str>)
        .env("TALLY99_KAFKA_GROUP", "rehearsal")
        .args(["config", "show", "--workers", "3", "--config"])
        .arg(&file));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("\nworkers = 3  # --workers\n"), "{out}");
    assert!(
        out.contains("\ngroup = \"rehearsal\"  # TALLY99_KAFKA_GROUP\n"),
        "{out}"
    );
    assert!(
        out.contains(&format!("\nepoch = 2  # {}:4\n", file.display())),
        "{out}"
    );
    assert!(out.contains("\ncuts = \"cuts\"  # default\n"), "{out}");
    assert!(
        out.contains("\"sasl.password\" = \"***\"") && !out.contains("hunter2"),
        "{out}"
    );

    // It is a configuration itself.
    let again = dir.path().join("again.toml");
    fs::write(&again, out).unwrap();
    let (code, out, _) = run(tally99(["config", "check", "--config"]).arg(again));
    assert_eq!((code, out.as_str()), (0, "configuration is valid\n"));
}

#[test]
fn check_reports_every_error_and_exits_with_2() {
    let (code, out, err) = run(tally99(None::<&str>)
        .env("TALLY99_RUN_EPOCH", "0")
        .env("TALLY99_RUN_EPOCHS", "1")
        .args([
            "config",
            "check",
            "--config",
            "no-such.toml",
            "--topic",
            "a b",
        ])
        .args([
            "--kafka-property",
            "acks=1",
            "--kafka-property",
            "sasl.pasword=hunter2",
        ]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.starts_with("tally99: the configuration has 6 errors:\n"),
        "{err}"
    );
    for part in [
        "--config = no-such.toml (configuration file): cannot be read:",
        "TALLY99_RUN_EPOCHS: no setting has this name; did you mean TALLY99_RUN_EPOCH?",
        "run.epoch = 0 (TALLY99_RUN_EPOCH): allowed is a whole number from 1 to",
        "topics.donations = \"a b\" (--topic): allowed is a topic's name:",
        "kafka.properties.acks = \"1\" (--kafka-property): tally99 sets this itself:",
        "kafka.properties.sasl.pasword (--kafka-property): librdkafka has no such property; did you mean sasl.password?",
    ] {
        assert!(err.contains(part), "{part} is not in:\n{err}");
    }
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn the_files_of_the_repository_are_valid() {
    for file in ["config/default.toml", "config/giving-day.toml"] {
        let (code, out, err) = run(&mut tally99(["config", "check", "--config", file]));
        assert_eq!(
            (code, out.as_str(), err.as_str()),
            (0, "configuration is valid\n", ""),
            "{file}"
        );
    }
}

#[test]
fn help_tells_the_exit_codes_and_wrong_usage_is_2() {
    let (code, out, _) = run(&mut tally99(["--help"]));
    assert_eq!(code, 0);
    assert!(
        out.contains("Exit codes:") && out.contains("totals") && out.contains("config"),
        "{out}"
    );
    let (code, _, err) = run(&mut tally99(["config", "check", "--wrokers", "1"]));
    assert_eq!(code, 2);
    assert!(err.contains("--workers"), "{err}");
}

#[test]
fn log_lines_are_json_when_asked() {
    // An unreachable broker makes librdkafka's details appear at debug.
    let (_, _, err) = run(tally99(None::<&str>)
        .env("RUST_LOG", "librdkafka=debug")
        .args([
            "--log-format",
            "json",
            "totals",
            "--bootstrap-servers",
            "127.0.0.1:1",
        ]));
    let lines: Vec<&str> = err.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!lines.is_empty(), "{err}");
    for line in lines {
        assert!(
            line.contains("\"level\":\"DEBUG\"") && line.ends_with('}'),
            "{line}"
        );
    }
}
