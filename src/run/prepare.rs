//! What must be so before counting begins: Kafka answers, the donations topic is
//! there, nobody else is at work, and our own topics are as they must be. A standby
//! first sees to all else, so that it does not find out in an emergency.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;

use super::{RunError, RunOptions, list, standby};
use crate::aggregate::Checkpoints;
use crate::checkpoint::{About, Store};
use crate::config::{Config, TopicsConfig};
use crate::kafka::client::{self, Context, Health};
use crate::kafka::group::{self, GroupMember};
use crate::kafka::placeholder::Placeholder;
use crate::kafka::topics::{self, OfTopic, TopicSettings};
use crate::offset::{Offset, Partition};
use crate::shard::{Calendar, Rules};
use crate::shutdown::Shutdown;

/// What is known once Kafka has answered.
pub(super) struct Ready {
    pub admin: AdminClient<Context>,
    pub partitions: usize,
    pub until: Option<BTreeMap<Partition, Offset>>,
    /// Where the log ends now, as far as brokers say at once: for people.
    pub log_end: BTreeMap<Partition, Offset>,
    pub rules: Rules,
    pub checkpoints: Option<Checkpoints>,
    /// The place of a standby, to be given up for that of a member.
    pub placeholder: Option<Placeholder>,
}

/// How long to wait before Kafka is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Waits for Kafka and, if wanted, for the topic; refuses to start beside
/// another process; makes topics of our own. `None` if the end is asked for.
pub(super) async fn prepare(
    config: &Config,
    options: RunOptions,
    health: &Arc<Health>,
    shutdown: &Shutdown,
) -> Result<Option<Ready>, RunError> {
    let rules = rules(config)?;
    let checkpoints = checkpoints(config, &rules, shutdown)?;
    let admin = client::admin(&config.kafka, health)?;
    let Some(mut partitions) = wait_for_topic(&admin, config, health, shutdown).await? else {
        return Ok(None);
    };
    let group = match options.standby {
        true => is_standby_needed(&admin, config, health, shutdown).await?,
        false => look_into_group(&admin, config, health, shutdown).await?,
    };
    match group {
        Group::Free | Group::StandBy => {
            check_donations(&admin, &config.topics, health, shutdown).await?;
        }
        Group::Embedded => {} // Its topics have no settings to ask for.
        Group::Ended => return Ok(None),
    }
    let missing = || topics::missing(admin.inner(), &config.topics);
    let Some(missing) = ask(config, health, shutdown, missing).await? else {
        return Ok(None);
    };
    let mut made = Vec::new();
    if !missing.is_empty() {
        if !config.topics.create {
            return Err(RunError::OwnTopicsMissing(missing));
        }
        let created = topics::create(&admin, &config.topics, &missing, partitions).await;
        let created = created.map_err(|(topic, error)| {
            let advice = client::advice(&error, &topic, &config.kafka.group);
            RunError::CreateTopic(topic, advice.unwrap_or_else(|| error.to_string()))
        })?;
        if !created.is_empty() {
            tracing::info!("made topics {}", created.join(", "));
        }
        made = created;
    }
    if !matches!(group, Group::Embedded) {
        check_own(&admin, &config.topics, &made, health, shutdown).await;
    }
    let mut placeholder = None;
    if let Group::StandBy = group {
        placeholder = standby::wait(config, health, shutdown).await?;
        // It may have taken days.
        match wait_for_topic(&admin, config, health, shutdown).await? {
            Some(found) => partitions = found,
            None => return Ok(None),
        }
    }
    let ends = || {
        let topic = &config.topics.donations;
        let ranges = topics::log_ranges(admin.inner(), topic, partitions);
        let ranges = ranges.map_err(|error| (topic.clone(), error))?.into_iter();
        Ok(ranges
            .map(|(partition, (_, end))| (partition, end))
            .collect())
    };
    let (until, log_end) = if options.until_end {
        let Some(ends) = ask(config, health, shutdown, ends).await? else {
            return Ok(None);
        };
        (Some(BTreeMap::clone(&ends)), ends)
    } else {
        (None, tokio::task::block_in_place(ends).unwrap_or_default())
    };
    Ok(Some(Ready {
        admin,
        partitions,
        until,
        log_end,
        rules,
        checkpoints,
        placeholder,
    }))
}

/// Asks until there is an answer; brokers may be lost at any time. `None` if the
/// end is asked for meanwhile.
async fn ask<T>(
    config: &Config,
    health: &Health,
    shutdown: &Shutdown,
    question: impl Fn() -> Result<T, OfTopic>,
) -> Result<Option<T>, RunError> {
    while !shutdown.has_begun() {
        match tokio::task::block_in_place(&question) {
            Ok(answer) => return Ok(Some(answer)),
            Err((_, error)) if health.note(&error) => tokio::time::sleep(ASK_AGAIN).await,
            Err((topic, error)) => {
                return match client::advice(&error, &topic, &config.kafka.group) {
                    Some(advice) => Err(RunError::Refused(advice)),
                    None => Err(error.into()),
                };
            }
        }
    }
    Ok(None)
}

/// The settings of a topic; `None` if the brokers will not say, or the end is
/// asked for meanwhile.
async fn settings(
    admin: &AdminClient<Context>,
    topic: &str,
    health: &Health,
    shutdown: &Shutdown,
) -> Option<TopicSettings> {
    while !shutdown.has_begun() {
        match TopicSettings::of(admin, topic).await {
            Ok(settings) => return Some(settings),
            Err(error) if health.note(&error) => tokio::time::sleep(ASK_AGAIN).await,
            Err(error) => {
                tracing::debug!("the settings of topic {topic} are not known: {error}");
                return None;
            }
        }
    }
    None
}

/// How far ahead producers may stamp their records, by Kafka's own default.
const TIMESTAMPS_AHEAD_MS: u64 = 3_600_000;

/// The log forgets nothing, and nobody's clock can close windows.
async fn check_donations(
    admin: &AdminClient<Context>,
    topics: &TopicsConfig,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    if let Some(donations) = settings(admin, &topics.donations, health, shutdown).await {
        if donations.is_compacted() {
            return Err(RunError::Compacted(topics.donations.clone()));
        }
        let ahead_ms = donations.timestamps_ahead_ms();
        if ahead_ms.is_some_and(|ahead_ms| ahead_ms > TIMESTAMPS_AHEAD_MS) {
            tracing::warn!(
                "topic {} takes records with timestamps of any time: a producer with a wrong \
                 clock could close all windows and make repeats count twice. Set \
                 message.timestamp.type=LogAppendTime, or message.timestamp.after.max.ms=3600000",
                topics.donations
            );
        }
    }
    Ok(())
}

/// What holds the last of each key is compacted. Those that were just `made` are: brokers
/// may not say so yet.
async fn check_own(
    admin: &AdminClient<Context>,
    topics: &TopicsConfig,
    made: &[String],
    health: &Health,
    shutdown: &Shutdown,
) {
    for topic in [&topics.totals, &topics.windows] {
        if made.contains(topic) {
            continue;
        }
        let settings = settings(admin, topic, health, shutdown).await;
        if settings.is_some_and(|settings| !settings.is_compacted()) {
            tracing::warn!(
                "topic {topic} is not compacted: it keeps every upsert until its retention ends, \
                 and then the last one, too. Set cleanup.policy=compact"
            );
        }
    }
}

/// The store of checkpoints, if there is to be one.
fn checkpoints(
    config: &Config,
    rules: &Rules,
    shutdown: &Shutdown,
) -> Result<Option<Checkpoints>, RunError> {
    let Some(url) = &config.checkpoints.url else {
        return Ok(None);
    };
    let store = Store::open(url, client::process_name())?;
    let about = About {
        topic: config.topics.donations.clone(),
        epoch: config.run.epoch,
        rules: rules.to_string(),
    };
    let runtime = tokio::runtime::Handle::current();
    let settings = &config.checkpoints;
    Ok(Some(Checkpoints::new(
        settings, store, about, rules, runtime, shutdown,
    )))
}

/// What shapes the fold, as the configuration says.
pub(crate) fn rules(config: &Config) -> Result<Rules, RunError> {
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
    /// Others may be at work, and are to be waited for.
    StandBy,
    /// The broker knows no such question: it is the embedded one, with no others.
    Embedded,
    /// The end was asked for meanwhile.
    Ended,
}

/// A standby that was at work itself before a restart, and has its place still,
/// takes that again at once: nothing moves.
async fn is_standby_needed(
    admin: &AdminClient<Context>,
    config: &Config,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Group, RunError> {
    let kafka = &config.kafka;
    let Some(instance_id) = &kafka.group_instance_id else {
        return Ok(Group::StandBy);
    };
    let members = || {
        let members = group::live_members(admin.inner(), &kafka.group);
        members.map_err(|error| (config.topics.donations.clone(), error))
    };
    let Some(mut members) = ask(config, health, shutdown, members).await? else {
        return Ok(Group::Ended);
    };
    members.retain(GroupMember::is_another_at_work);
    let is_ours = |member: &GroupMember| member.is_before_restart(Some(instance_id));
    match !members.is_empty() && members.iter().all(is_ours) {
        true => Ok(Group::Free),
        false => Ok(Group::StandBy),
    }
}

/// Refuses to start beside another process. One that was killed stays a member
/// until its session ends, so that is waited for.
async fn look_into_group(
    admin: &AdminClient<Context>,
    config: &Config,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Group, RunError> {
    let group = &config.kafka.group;
    let patience = config.kafka.session_timeout + Duration::from_secs(2);
    let since = Instant::now();
    let instance_id = config.kafka.group_instance_id.as_deref();
    let others = || {
        let mut others = group::others_at_work(admin.inner(), group)?;
        others.retain(|member| !member.is_before_restart(instance_id));
        Ok(others)
    };
    let mut said = false;
    while !shutdown.has_begun() {
        match tokio::task::block_in_place(others) {
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
                // A coordinator that is being elected answers in a while.
                tracing::debug!("listing group {group}: {error}");
                if since.elapsed() > 4 * patience && !health.note(&error) {
                    return Err(error.into());
                }
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(Group::Ended)
}
