//! What can be set, typed and validated.

use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that can be set, resolved and valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// What the topics are called.
    pub topics: TopicsConfig,
    /// How `tally99 run` works.
    pub run: RunConfig,
    /// What shapes the fold: two runs with different values here make
    /// different totals of the same log.
    pub counting: CountingConfig,
}

/// `[kafka]`
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `kafka.bootstrap_servers`: `host:port[,host:port…]`.
    pub bootstrap_servers: String,
    /// `kafka.group`: the consumer group.
    pub group: String,
    /// `kafka.session_timeout_ms`: a member that the group has not heard of for
    /// this long is dead.
    pub session_timeout: Duration,
    /// `[kafka.properties]`: passed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
}

/// `[topics]`
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// `run.workers`: how many threads read and fold; never 0 here (0 in the
    /// file means one a core).
    pub workers: usize,
    /// `run.flush_interval_ms`: how often a worker hands what changed to merge.
    pub flush_interval: Duration,
    /// `run.publish_interval_ms`: how often a cut is emitted, at most.
    pub publish_interval: Duration,
    /// `run.windows_interval_ms`: how often rolling windows are emitted.
    pub windows_interval: Duration,
    /// `run.donors_interval_ms`: how often the donors' sketches are handed to merge.
    pub donors_interval: Duration,
    /// `run.epoch`: raised by hand when the fold is made anew under other rules.
    pub epoch: u32,
    /// `run.wait_for_topic`: wait for a missing donations topic instead of exiting.
    pub wait_for_topic: bool,
}

/// `[counting]`
#[derive(Clone, Debug)]
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
