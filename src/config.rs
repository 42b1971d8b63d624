//! What can be set, typed and validated.
//!
//! Four layers, the later over the earlier: defaults, a TOML file, environment
//! variables, flags. [`load`] reads them all and finds every error there is, so
//! that nobody mends one only to meet the next. What comes out is valid, and
//! nothing else reads a file or a variable.
//!
//! The table in `settings` says what exists; the rest of this module follows
//! it. Secrets among librdkafka's properties are never printed: not by
//! `config show`, not in errors, not by `Debug`.

mod build;
mod error;
mod kind;
mod layers;
mod properties;
mod settings;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use build::{Loaded, load};
pub use error::{ConfigError, Problem};
pub use layers::{Flags, RawProperty};
pub use properties::is_secret;

/// Everything that can be set, resolved and valid.
///
/// Serialised it holds secrets: that is for the pipe to a process of our own, and for
/// nothing that anybody reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// What the topics are called.
    pub topics: TopicsConfig,
    /// How `tally99 run` works.
    pub run: RunConfig,
    /// Where and how often shards are kept.
    pub checkpoints: CheckpointsConfig,
    /// What shapes the fold: two runs with different values here make
    /// different totals of the same log.
    pub counting: CountingConfig,
}

impl Default for Config {
    /// The defaults alone: no file, no environment, no flags.
    fn default() -> Config {
        match load(None, [], &Flags::default()) {
            Ok(loaded) => loaded.config,
            Err(error) => unreachable!("the table of settings has a bad default: {error}"),
        }
    }
}

/// `[kafka]`
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaConfig {
    /// `kafka.bootstrap_servers`: `host:port[,host:port…]`.
    pub bootstrap_servers: String,
    /// `kafka.group`: the consumer group.
    pub group: String,
    /// `kafka.group_instance_id`: makes this process a static member, which keeps
    /// its partitions through a restart within the session timeout.
    pub group_instance_id: Option<String>,
    /// `kafka.session_timeout_ms`: a member that the group has not heard of for
    /// this long is dead.
    pub session_timeout: Duration,
    /// `[kafka.properties]`: passed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: BTreeMap<_, _> = self
            .properties
            .iter()
            .map(|(name, value)| (name, properties::shown(name, value)))
            .collect();
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group", &self.group)
            .field("group_instance_id", &self.group_instance_id)
            .field("session_timeout", &self.session_timeout)
            .field("properties", &properties)
            .finish()
    }
}

/// `[topics]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicsConfig {
    /// `topics.donations`: where the events are. Never created by `run`.
    pub donations: String,
    /// `topics.totals`: one upsert a changed campaign; compacted.
    pub totals: String,
    /// `topics.cuts`: what the totals are exact at; kept for 30 days.
    pub cuts: String,
    /// `topics.windows`: rolling windows; compacted.
    pub windows: String,
    /// `topics.dead_letters`: what could not be counted.
    pub dead_letters: String,
    /// `topics.create`: whether to make our own topics where they are missing.
    pub create: bool,
    /// `topics.replication`: of topics that we make; `None`: the broker's default.
    pub replication: Option<i32>,
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// `run.workers`: how many threads read and fold; never 0 here (0 in the
    /// file means one a core).
    pub workers: usize,
    /// `run.publish_interval_ms`: how often a cut is emitted, at most.
    pub publish_interval: Duration,
    /// `run.windows_interval_ms`: how often rolling windows are emitted.
    pub windows_interval: Duration,
    /// `run.donors_interval_ms`: how often a partition hands its donors to merge, and how often
    /// those of a campaign are estimated anew.
    pub donors_interval: Duration,
    /// `run.epoch`: raised by hand when the fold is made anew under other rules.
    pub epoch: u32,
    /// `run.wait_for_topic`: wait for a missing donations topic instead of exiting.
    pub wait_for_topic: bool,
}

/// `[checkpoints]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointsConfig {
    /// `checkpoints.url`: where they are; `None`: there are none, and every start
    /// folds the log from its beginning.
    pub url: Option<String>,
    /// `checkpoints.interval_ms`: how often a partition that changes is kept.
    pub interval: Duration,
    /// `checkpoints.keep`: how many checkpoints of a partition are kept.
    pub keep: usize,
}

/// `[counting]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountingConfig {
    /// `counting.time_zone`: IANA name of the zone whose calendar days are business days.
    pub time_zone: String,
    /// `counting.dedup_horizon_s`: how far a partition's watermark may move on
    /// before an id is forgotten.
    pub dedup_horizon_s: u32,
    /// `counting.max_ahead_ms`: how far an event's `at` may be ahead of its
    /// record's own timestamp.
    pub max_ahead_ms: i64,
}
