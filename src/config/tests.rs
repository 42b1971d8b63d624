//! The layers, the errors, the secrets and what is shown, from outside.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::settings::SETTINGS;
use super::{Config, ConfigError, Flags, Loaded, load};

fn with(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, ConfigError> {
    let mut on_disk = tempfile::Builder::new()
        .prefix("t99")
        .suffix(".toml")
        .tempfile()
        .unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let variables = variables
        .iter()
        .map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let flags = Flags {
        settings: flags.iter().map(|(k, v)| (*k, v.to_string())).collect(),
        properties: Vec::new(),
    };
    load(Some(on_disk.path()), variables, &flags)
}

/// The lines of the errors, with the temporary file's path cut out.
fn errors(result: Result<Loaded, ConfigError>) -> Vec<String> {
    let text = result.expect_err("must be refused").to_string();
    let cut = |line: &str| match (line.find("(/"), line.find(".toml:")) {
        (Some(from), Some(to)) if from < to => format!("{}(FILE{}", &line[..from], &line[to + 5..]),
        _ => line.to_string(),
    };
    text.lines().skip(1).map(|line| cut(line.trim())).collect()
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let file = "[kafka]\ngroup = 'file'\nbootstrap_servers = 'file:1'\nsession_timeout_ms = 7000\n";
    let loaded = with(
        file,
        &[
            ("TALLY99_KAFKA_GROUP", "variable"),
            ("TALLY99_KAFKA_BOOTSTRAP_SERVERS", "variable:1"),
        ],
        &[("kafka.group", "flag")],
    )
    .unwrap();
    assert_eq!(loaded.config.kafka.group, "flag");
    assert_eq!(loaded.config.kafka.bootstrap_servers, "variable:1");
    assert_eq!(loaded.config.kafka.session_timeout, Duration::from_secs(7));
    assert_eq!(loaded.config.topics.cuts, "cuts");

    let shown = loaded.to_toml();
    assert!(shown.contains("group = \"flag\"  # --group\n"), "{shown}");
    assert!(
        shown.contains("bootstrap_servers = \"variable:1\"  # TALLY99_KAFKA_BOOTSTRAP_SERVERS\n")
    );
    assert!(shown.contains(".toml:4\n"), "{shown}");
    assert!(shown.contains("cuts = \"cuts\"  # default\n"));
}

#[test]
fn every_setting_can_be_set_by_its_variable() {
    for setting in SETTINGS {
        let text = match setting.default {
            "true" => "false",
            "false" => "true",
            "Asia/Shanghai" => "Europe/Berlin",
            number if number.parse::<u32>().is_ok() => "6001",
            _ => "another",
        };
        let text = match setting.key {
            // 6001 is too many.
            "run.workers" | "checkpoints.keep" => "7",
            "checkpoints.url" => "s3://bucket/prefix",
            _ => text,
        };
        let loaded = with("", &[(&setting.variable(), text)], &[]).unwrap();
        assert_ne!(loaded.config, Config::default(), "{}", setting.key);
        assert!(
            loaded.to_toml().contains(&setting.variable()),
            "{}",
            setting.key
        );
    }
}

#[test]
fn all_errors_are_reported_together() {
    let file = "\
colour = 'red'
[kafka]
group = 7
sasl_password = 'hunter2'
properties = 3
[topics]
donations = 'a b'
totals = 'cuts'
[run]
workres = 4
epoch = 0
[run.publish_interval_ms]
x = 1
[runn]
workers = 4
[counting]
time_zone = 2022-09-09
";
    let variables = [
        ("TALLY99_RUN_DONORS_INTERVAL_MS", "often"),
        ("TALLY99_RUN_WORKER", "hunter2"),
        ("TALLY99_KAFKA_PROPERTIES_CHECK_CRCS", "false"),
        ("TALLY98_RUN_WORKERS", "not ours"),
    ];
    let errors = errors(with(file, &variables, &[("run.workers", "1025")]));
    assert_eq!(
        errors,
        [
            "colour (FILE:1): no such setting",
            "kafka.sasl_password (FILE:4): no such setting",
            "kafka.properties (FILE:5): this is a section; write [kafka.properties] on a line of its own and its settings below",
            "run.workres (FILE:10): no such setting; did you mean run.workers?",
            "runn (FILE:14): no such section; there are kafka, topics, run, checkpoints, counting; did you mean run?",
            "TALLY99_RUN_WORKER: no setting has this name; did you mean TALLY99_RUN_WORKERS?",
            "kafka.group = 7 (FILE:3): allowed is a name of 1 to 255 bytes without control characters",
            "topics.donations = \"a b\" (FILE:7): allowed is a topic's name: 1 to 249 of a-z A-Z 0-9 . _ -, and not \".\" or \"..\"",
            "run.workers = 1025 (--workers): allowed is a whole number from 0 to 1024 (0: one a core)",
            "run.publish_interval_ms = a table (FILE:12): allowed is a whole number from 10 to 3600000",
            "run.donors_interval_ms = \"often\" (TALLY99_RUN_DONORS_INTERVAL_MS): allowed is a whole number from 100 to 3600000",
            "run.epoch = 0 (FILE:11): allowed is a whole number from 1 to 4294967295",
            "counting.time_zone = 2022-09-09 (FILE:17): allowed is an IANA time zone such as \"Asia/Shanghai\"",
            "kafka.properties.check.crcs = \"false\" (TALLY99_KAFKA_PROPERTIES_CHECK_CRCS): tally99 sets this itself: a record damaged on its way must not be counted",
            "topics.cuts = \"cuts\" (default): topics.totals (FILE:8) has the same name; every topic needs one of its own",
        ]
    );
}

#[test]
fn a_setting_in_the_wrong_section_is_pointed_to_the_right_one() {
    let errors = errors(with(
        "workers = 4\n[kafka]\npublish_interval_ms = 1\n",
        &[],
        &[],
    ));
    assert_eq!(
        errors,
        [
            "workers (FILE:1): no such setting; did you mean run.workers?",
            "kafka.publish_interval_ms (FILE:3): no such setting; did you mean run.publish_interval_ms?",
        ]
    );
}

#[test]
fn a_bad_value_that_is_overridden_is_not_in_use() {
    let loaded = with("[run]\nworkers = 'many'\n", &[], &[("run.workers", "3")]).unwrap();
    assert_eq!(loaded.config.run.workers, 3);
}

#[test]
fn a_file_that_cannot_be_used_does_not_hide_other_errors() {
    let variables = [(OsString::from("TALLY99_RUN_EPOCH"), OsString::from("0"))];
    let missing = load(
        Some(Path::new("no-such.toml")),
        variables,
        &Flags::default(),
    );
    let text = missing.unwrap_err().to_string();
    assert!(
        text.starts_with("the configuration has 2 errors:\n  --config = no-such.toml"),
        "{text}"
    );
    assert!(
        text.contains("cannot be read") && text.contains("run.epoch = 0"),
        "{text}"
    );

    // The bad line has a secret, and is not quoted.
    let broken = with(
        "[kafka.properties]\n\"sasl.password\" = hunter2\n",
        &[],
        &[],
    );
    let text = broken.unwrap_err().to_string();
    assert!(
        text.contains("is not TOML: line 2: ") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn properties_come_from_all_layers_under_one_name() {
    let file = "[kafka.properties]\n\"client.rack\" = 'file'\nsasl.mechanism = 'PLAIN'\nsocket.keepalive.enable = true\nfetch.wait.max.ms = 20\n";
    let flags = Flags {
        properties: vec!["client.rack=flag=1".into(), "debug=msg".into()],
        ..Flags::default()
    };
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let variables = [("TALLY99_KAFKA_PROPERTIES_SASL_MECHANISM", "SCRAM-SHA-256")]
        .map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let config = load(Some(on_disk.path()), variables, &flags)
        .unwrap()
        .config;
    let properties: Vec<_> = config
        .kafka
        .properties
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        properties,
        [
            "client.rack=flag=1",
            "debug=msg",
            "fetch.wait.max.ms=20",
            "sasl.mechanism=SCRAM-SHA-256",
            "socket.keepalive.enable=true",
        ]
    );
}

#[test]
fn secrets_are_printed_nowhere() {
    let secret = "hunter2";
    let file = format!(
        "[kafka]\npasswrd = '{secret}'\n[kafka.properties]\n\"sasl.pasword\" = '{secret}'\n\"ssl.key.pem\" = '{secret}'\n\"sasl.password\" = ['{secret}']\n"
    );
    let flags = Flags {
        properties: vec![secret.into()],
        ..Flags::default()
    };
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let variables =
        [("TALLY99_SASL_PASSWORD", secret)].map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let refused = load(Some(on_disk.path()), variables, &flags).unwrap_err();
    assert!(refused.problems.len() >= 5, "{refused}");
    assert!(!refused.to_string().contains(secret), "{refused}");
    assert!(!format!("{refused:?}").contains(secret));

    let good = format!(
        "[kafka.properties]\n\"sasl.password\" = '{secret}'\n\"sasl.username\" = 'tally99'\n"
    );
    let loaded = with(&good, &[], &[]).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], secret);
    assert!(!format!("{loaded:?}").contains(secret));
    let shown = loaded.to_toml();
    assert!(
        !shown.contains(secret) && shown.contains("\"sasl.password\" = \"***\"  # "),
        "{shown}"
    );
    assert!(
        shown.contains("\"sasl.username\" = \"tally99\"  # "),
        "{shown}"
    );
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let file = "[kafka]\ngroup = 'a \"quoted\" \\ 捐款'\n[run]\nworkers = 3\n[kafka.properties]\n\"client.rack\" = \"tab\\there\"\n";
    let loaded = with(file, &[], &[("topics.donations", "given")]).unwrap();
    let again = with(&loaded.to_toml(), &[], &[]).unwrap();
    assert_eq!(again.config, loaded.config);
}

#[test]
fn the_default_file_names_every_setting_with_its_default() {
    let text = include_str!("../../config/default.toml");
    let loaded = with(text, &[], &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    for setting in &loaded.settings {
        assert!(
            setting.source.contains(".toml:"),
            "{} is not in config/default.toml",
            setting.key
        );
    }
    // Flags and bounds are told in its comments; they must be the real ones.
    for setting in SETTINGS {
        if let Some(flag) = setting.flag {
            assert!(text.contains(&format!("Flag: {flag}\n")), "{flag}");
        }
        if let super::kind::Kind::Whole {
            min,
            max,
            zero: None,
        } = setting.kind
            && setting.key != "run.epoch"
        {
            assert!(text.contains(&format!("{min} to {max}")), "{}", setting.key);
        }
    }
}

#[test]
fn the_giving_day_file_is_valid_and_explains_each_line() {
    let text = include_str!("../../config/giving-day.toml");
    let config = with(text, &[], &[]).unwrap().config;
    assert_eq!(config.topics.replication, Some(3));
    assert_eq!(config.kafka.bootstrap_servers.split(',').count(), 3);
    assert_eq!(config.counting.time_zone, "Asia/Shanghai");

    let mut explained = false;
    for line in text.lines() {
        let is_value = line.contains(" = ") && !line.starts_with('#');
        assert!(!is_value || explained, "no reason is given for: {line}");
        explained = line.starts_with('#');
    }
}

#[test]
fn what_does_not_go_together_is_reported_with_all_else() {
    let file = "[kafka]\nsession_timeout_ms = 1\n[kafka.properties]\n\"reconnect.backoff.ms\" = 5000\n[run]\nepoch = 0\n";
    let errors = errors(with(file, &[], &[]));
    assert_eq!(
        errors,
        [
            "kafka.session_timeout_ms = 1 (FILE:2): allowed is a whole number from 6000 to 300000",
            "run.epoch = 0 (FILE:6): allowed is a whole number from 1 to 4294967295",
            "kafka.properties.reconnect.backoff.ms = \"5000\" (FILE:4): librdkafka refuses this with all that is set: \
             `reconnect.backoff.max.ms` must be >= `reconnect.backoff.ms`",
        ]
    );
}

#[test]
fn a_property_stands_only_once_in_a_file() {
    let file = "[kafka.properties]\n\"sasl.mechanism\" = 'PLAIN'\nsasl.username = 'x'\nsasl.mechanism = 'SCRAM-SHA-512'\n";
    let errors = errors(with(file, &[], &[]));
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = &errors[0];
    assert!(
        error.starts_with("kafka.properties.sasl.mechanism (FILE:4): ")
            && error.ends_with(".toml:2 sets the same property"),
        "{error}"
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_is_no_setting() {
    let variables = [
        ("TALLY99_SERVICE_HOST", "10.0.0.11"),
        ("TALLY99_SERVICE_PORT", "9099"),
        ("TALLY99_SERVICE_PORT_HTTP", "9099"),
        ("TALLY99_PORT", "tcp://10.0.0.11:9099"),
        ("TALLY99_PORT_9099_TCP", "tcp://10.0.0.11:9099"),
        ("TALLY99_PORT_9099_TCP_ADDR", "10.0.0.11"),
    ];
    assert_eq!(with("", &variables, &[]).unwrap().config, Config::default());
    let errors = errors(with(
        "",
        &[("TALLY99_SERVICE", "x"), ("TALLY99_PORTS", "x")],
        &[],
    ));
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn a_static_member_is_one_by_its_setting_alone() {
    let id = |text: &str| with("", &[("TALLY99_KAFKA_GROUP_INSTANCE_ID", text)], &[]);
    assert_eq!(id("").unwrap().config.kafka.group_instance_id, None);
    let loaded = id("tally99-a.1").unwrap();
    assert_eq!(
        loaded.config.kafka.group_instance_id.as_deref(),
        Some("tally99-a.1")
    );
    for bad in ["a b", "..", "\u{6350}"] {
        let errors = errors(id(bad));
        assert!(
            errors.len() == 1 && errors[0].contains("kafka.group_instance_id"),
            "{errors:?}"
        );
    }
    let raw = "[kafka.properties]\n'group.instance.id' = 'a'\n";
    let errors = errors(with(raw, &[], &[]));
    assert!(
        errors[0].ends_with("set kafka.group_instance_id instead"),
        "{errors:?}"
    );
}
