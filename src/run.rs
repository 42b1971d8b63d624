//! `tally99 run`: from the donations topic to totals, until the end is asked for.
//!
//! ```text
//!            member ── events ──▶ supervisor ── commands ──▶ workers
//!  (the group's protocol)         (this file)                  │ flushes, bounded
//!                                                              ▼
//!              cuts, totals, windows ◀── publisher ◀── cuts ── merger ──▶ view
//! ```
//!
//! Each box is a thread, and each arrow a channel. When one of them cannot go
//! on, the process ends: the log and the topics are as good as before, and the
//! next start goes on from them.

mod merger;
mod progress;
mod supervisor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::aggregate::WorkerError;
use crate::config::Config;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::group::{self, GroupMember};
use crate::kafka::topics;
use crate::offset::{Offset, Partition};
use crate::shard::{Calendar, Rules};
use crate::shutdown::Shutdown;
use crate::view::TotalsView;
pub use merger::MergerError;

/// What `run` may be asked for besides the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// End when everything up to the end offsets found at the start is published.
    pub until_end: bool,
}

/// Why `run` ended early.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is nothing to read.
    #[error(
        "topic {0} is not there. Create it (tally99 never does: how many partitions it has is \
         for its producers to say), or start with --wait-for-topic"
    )]
    NoTopic(String),
    /// The topic went away.
    #[error(
        "topic {0} has been gone for {1} s: it was deleted. The totals published so far stay; \
         what comes in a topic of the same name is another log, and needs new names for \
         tally99's own topics"
    )]
    TopicDeleted(String, u64),
    /// Another process is at work.
    #[error(
        "group {group} has live members of another process: {}. One process does the work of a \
         group; stop that one first, or give this one another kafka.group and other topics",
        list(members)
    )]
    GroupInUse {
        /// The group.
        group: String,
        /// Who is in it.
        members: Vec<GroupMember>,
    },
    /// Another process took over.
    #[error(
        "this process was taken out of group {group} (it did not answer for the session \
         timeout), and others have taken over: {}. It ends, so that they can work",
        list(members)
    )]
    Replaced {
        /// The group.
        group: String,
        /// Who is in it.
        members: Vec<GroupMember>,
    },
    /// Its records go away one by one.
    #[error(
        "topic {0} is compacted: it forgets records, so nobody could recompute its totals, and a \
         restart would make others. Set cleanup.policy=delete and a retention.ms that is longer \
         than the event"
    )]
    Compacted(String),
    /// Topics of our own are not there, and may not be made.
    #[error(
        "these topics are missing, and topics.create is false: {}. Create them (docs/topics.md \
         says what they hold), or allow it", .0.join(", ")
    )]
    OwnTopicsMissing(Vec<String>),
    /// A topic of our own could not be made.
    #[error("topic {0} cannot be made: {1}")]
    CreateTopic(String, String),
    /// Kafka refuses what cannot do without.
    #[error("{0}")]
    Refused(String),
    /// A client could not be set up.
    #[error("Kafka client: {0}. See kafka.properties")]
    Client(#[from] KafkaError),
    /// A worker cannot go on.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// Nothing can be published.
    #[error(transparent)]
    Merger(#[from] MergerError),
    /// Some dead letters did not reach their topic.
    #[error(
        "{0} dead letters are not acknowledged by the brokers. Nothing is lost: the next start \
         sends them again"
    )]
    DeadLetters(u64),
    /// A bug.
    #[error("the {0} ended unexpectedly; this is a bug. The log and the totals are unharmed")]
    Panic(&'static str),
}

fn list(members: &[GroupMember]) -> String {
    let members: Vec<_> = members.iter().map(ToString::to_string).collect();
    members.join(", ")
}

/// Folds and publishes until `shutdown`, or the end of the log if that is asked
/// for. Published totals are also shown in `view`.
pub async fn run(
    config: &Config,
    options: RunOptions,
    shutdown: &Shutdown,
    view: Arc<TotalsView>,
) -> Result<(), RunError> {
    let health = Arc::new(Health::default());
    let Some(ready) = prepare(config, options, &health, shutdown).await? else {
        return Ok(()); // The end was asked for while Kafka was waited for.
    };
    supervisor::supervise(config, ready, &health, shutdown, view).await
}

/// What is known once Kafka has answered.
struct Ready {
    admin: AdminClient<Context>,
    partitions: usize,
    until: Option<BTreeMap<Partition, Offset>>,
    rules: Rules,
}

/// How long to wait before Kafka is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Waits for Kafka and, if wanted, for the topic; refuses to start beside
/// another process; makes topics of our own. `None` if the end is asked for.
async fn prepare(
    config: &Config,
    options: RunOptions,
    health: &Arc<Health>,
    shutdown: &Shutdown,
) -> Result<Option<Ready>, RunError> {
    let rules = rules(config)?;
    let admin = client::admin(&config.kafka, health)?;
    let Some(partitions) = wait_for_topic(&admin, config, health, shutdown).await? else {
        return Ok(None);
    };
    match look_into_group(&admin, config, shutdown).await? {
        Group::Free => check_policies(&admin, config).await?,
        Group::Embedded => {} // Its topics have no settings to ask for.
        Group::Ended => return Ok(None),
    }
    if !config.topics.create {
        let missing =
            tokio::task::block_in_place(|| topics::missing(admin.inner(), &config.topics))?;
        if !missing.is_empty() {
            return Err(RunError::OwnTopicsMissing(missing));
        }
    } else {
        let created = topics::create_missing(&admin, &config.topics, partitions).await;
        let created = created.map_err(|(topic, error)| {
            let advice = client::advice(&error, &topic, &config.kafka.group);
            RunError::CreateTopic(topic, advice.unwrap_or_else(|| error.to_string()))
        })?;
        if !created.is_empty() {
            tracing::info!("made topics {}", created.join(", "));
        }
    }
    let until = if options.until_end {
        let ranges = loop {
            let topic = &config.topics.donations;
            let ranges = tokio::task::block_in_place(|| {
                topics::log_ranges(admin.inner(), topic, partitions)
            });
            match ranges {
                Ok(ranges) => break ranges,
                Err(error) if health.note(&error) && !shutdown.has_begun() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        };
        Some(
            ranges
                .into_iter()
                .map(|(partition, (_, end))| (partition, end))
                .collect(),
        )
    } else {
        None
    };
    Ok(Some(Ready {
        admin,
        partitions,
        until,
        rules,
    }))
}

/// What is compacted must be, and what must not be is not.
async fn check_policies(admin: &AdminClient<Context>, config: &Config) -> Result<(), RunError> {
    let topics = &config.topics;
    if topics::is_compacted(admin, &topics.donations).await == Some(true) {
        return Err(RunError::Compacted(topics.donations.clone()));
    }
    for topic in [&topics.totals, &topics.windows] {
        if topics::is_compacted(admin, topic).await == Some(false) {
            tracing::warn!(
                "topic {topic} is not compacted: it keeps every upsert until its retention ends, \
                 and then the last one, too. Set cleanup.policy=compact"
            );
        }
    }
    Ok(())
}

fn rules(config: &Config) -> Result<Rules, RunError> {
    let zone = &config.counting.time_zone;
    let calendar = Calendar::of_zone(zone)
        .ok_or_else(|| RunError::Refused(format!("counting.time_zone {zone} is not known")))?;
    Ok(Rules {
        calendar,
        dedup_horizon_s: config.counting.dedup_horizon_s,
        max_ahead_ms: config.counting.max_ahead_ms,
    })
}

/// How many partitions the donations topic has, once it and Kafka are there.
async fn wait_for_topic(
    admin: &AdminClient<Context>,
    config: &Config,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Option<usize>, RunError> {
    let topic = &config.topics.donations;
    let mut said = false;
    while !shutdown.has_begun() {
        match tokio::task::block_in_place(|| topics::partitions(admin.inner(), topic)) {
            Ok(Some(partitions)) => {
                health.is_up();
                return Ok(Some(partitions));
            }
            Ok(None) if !config.run.wait_for_topic => return Err(RunError::NoTopic(topic.clone())),
            Ok(None) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("waiting for topic {topic}, which is not there yet");
                }
            }
            Err(error) => match client::advice(&error, topic, &config.kafka.group) {
                Some(advice) => return Err(RunError::Refused(advice)),
                None => health.is_down_at(&config.kafka.bootstrap_servers),
            },
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(None)
}

/// What a look into the group may find.
enum Group {
    /// No other process.
    Free,
    /// The broker knows no such question: it is the embedded one, with no others.
    Embedded,
    /// The end was asked for meanwhile.
    Ended,
}

/// Refuses to start beside another process. One that was killed stays a member
/// until its session ends, so that is waited for.
async fn look_into_group(
    admin: &AdminClient<Context>,
    config: &Config,
    shutdown: &Shutdown,
) -> Result<Group, RunError> {
    let group = &config.kafka.group;
    let patience = config.kafka.session_timeout + Duration::from_secs(2);
    let since = Instant::now();
    let mut said = false;
    while !shutdown.has_begun() {
        match tokio::task::block_in_place(|| group::live_members(admin.inner(), group)) {
            Ok(members) if members.is_empty() => return Ok(Group::Free),
            Ok(members) if since.elapsed() > patience => {
                return Err(RunError::GroupInUse {
                    group: group.clone(),
                    members,
                });
            }
            Ok(members) => {
                if !std::mem::replace(&mut said, true) {
                    let seconds = patience.as_secs();
                    tracing::warn!(
                        "group {group} has a member: {}. If it is dead, the group drops it \
                         within {seconds} s",
                        list(&members)
                    );
                }
            }
            Err(error) if group::is_unsupported(&error) => return Ok(Group::Embedded),
            Err(error) => {
                if let Some(advice) = client::advice(&error, &config.topics.donations, group) {
                    return Err(RunError::Refused(advice));
                }
                tracing::debug!("listing group {group}: {error}");
                if since.elapsed() > 4 * patience {
                    return Err(error.into());
                }
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(Group::Ended)
}
