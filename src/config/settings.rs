//! The table of all settings. Everything that is said about a setting anywhere
//! comes from its line here.

use super::kind::Kind;

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its place in the file: section and name.
    pub key: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// As it would be written in an environment variable.
    pub default: &'static str,
    /// Its flag, where it has one.
    pub flag: Option<&'static str>,
}

impl Setting {
    /// `run.workers` is `TALLY99_RUN_WORKERS`.
    pub fn variable(&self) -> String {
        format!(
            "{PREFIX}{}",
            self.key.replace('.', "_").to_ascii_uppercase()
        )
    }

    /// Section and name: `("run", "workers")`.
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').unwrap_or(("", self.key))
    }
}

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "TALLY99_";

/// The section whose names are librdkafka's, not ours.
pub(super) const PROPERTIES: &str = "kafka.properties";

/// The sections, in the order of the file.
pub(super) const SECTIONS: &[&str] = &["kafka", "topics", "run", "checkpoints", "counting"];

const HOUR_MS: i64 = 3_600_000;

const fn setting(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    flag: Option<&'static str>,
) -> Setting {
    Setting {
        key,
        kind,
        default,
        flag,
    }
}

const fn whole(min: i64, max: i64) -> Kind {
    Kind::Whole {
        min,
        max,
        zero: None,
    }
}

/// All settings, in the order of the file.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    setting("kafka.bootstrap_servers", Kind::Servers, "127.0.0.1:9092", Some("--bootstrap-servers")),
    setting("kafka.group", Kind::Group, "tally99", Some("--group")),
    setting("kafka.group_instance_id", Kind::InstanceId, "", None),
    // Brokers refuse less than 6 s and more than 5 min unless told otherwise.
    setting("kafka.session_timeout_ms", whole(6_000, 300_000), "6000", None),
    setting("topics.donations", Kind::Topic, "donations", Some("--topic")),
    setting("topics.totals", Kind::Topic, "campaign-totals", Some("--totals-topic")),
    setting("topics.cuts", Kind::Topic, "cuts", Some("--cuts-topic")),
    setting("topics.windows", Kind::Topic, "campaign-windows", Some("--windows-topic")),
    setting("topics.dead_letters", Kind::Topic, "donations.dead-letters", Some("--dead-letters-topic")),
    setting("topics.create", Kind::Switch, "true", None),
    setting("topics.replication", Kind::Whole { min: 0, max: 32_767, zero: Some("the broker's default") }, "0", None),
    setting("run.workers", Kind::Whole { min: 0, max: 1_024, zero: Some("one a core") }, "0", Some("--workers")),
    setting("run.publish_interval_ms", whole(10, HOUR_MS), "250", None),
    setting("run.windows_interval_ms", whole(100, HOUR_MS), "5000", None),
    setting("run.donors_interval_ms", whole(100, HOUR_MS), "2000", None),
    setting("run.epoch", whole(1, u32::MAX as i64), "1", None),
    setting("run.wait_for_topic", Kind::Switch, "false", Some("--wait-for-topic")),
    setting("checkpoints.url", Kind::Store, "", Some("--checkpoints")),
    setting("checkpoints.interval_ms", whole(100, HOUR_MS), "10000", None),
    setting("checkpoints.keep", whole(1, 1_000), "3", None),
    setting("counting.time_zone", Kind::TimeZone, "Asia/Shanghai", None),
    // A year: past that, an id is kept for nobody.
    setting("counting.dedup_horizon_s", whole(1, 31_536_000), "259200", None),
    setting("counting.max_ahead_ms", whole(0, 24 * HOUR_MS), "300000", None),
];

/// The setting of this key.
pub(super) fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}
