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
mod prepare;
mod progress;
mod standby;
mod supervisor;
mod threads;

use std::sync::Arc;

use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::aggregate::WorkerError;
use crate::checkpoint::OpenError;
use crate::config::Config;
use crate::kafka::client::Health;
use crate::kafka::group::GroupMember;
use crate::shutdown::Shutdown;
use crate::view::TotalsView;
pub use merger::MergerError;
pub(crate) use prepare::rules;
pub(crate) use threads::Thread;

/// What `run` may be asked for besides the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// End when everything up to the end offsets found at the start is published.
    pub until_end: bool,
    /// Wait while others do the work of the group, then take over.
    pub standby: bool,
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
         tally99's own topics and another place for its checkpoints"
    )]
    TopicDeleted(String, u64),
    /// Another process is at work.
    #[error(
        "group {group} has live members of another process: {}. One process does the work of a \
         group: start this one with --standby, to take over when that one ends; or stop that one \
         first; or give this one another kafka.group and other topics",
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
    /// Another process has our place.
    #[error(
        "another process has joined group {group} with the same kafka.group_instance_id, \
         {instance_id}, and the brokers let the newer one go on. This one ends; nothing that it \
         published is harmed. If both are to run, one of them as a standby, give each an id of \
         its own"
    )]
    Fenced {
        /// The group.
        group: String,
        /// The id that both have.
        instance_id: String,
    },
    /// The group refuses this process for good.
    #[error(
        "group {0} refuses this process for good: {1}. Nothing that it published is harmed; \
         start it again"
    )]
    NoMember(String, String),
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
    /// Checkpoints cannot be kept where they should be.
    #[error(transparent)]
    Checkpoints(#[from] OpenError),
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
    /// The end of the log was to be reached.
    #[error("ended before counting began. Nothing was published")]
    NotBegun,
    /// A bug.
    #[error("the {0} ended unexpectedly; this is a bug. The log and the totals are unharmed")]
    Panic(&'static str),
}

impl RunError {
    /// Whether this process ends, or stands back, for the sake of another one.
    fn is_of_others(&self) -> bool {
        matches!(
            self,
            RunError::GroupInUse { .. } | RunError::Replaced { .. } | RunError::Fenced { .. }
        )
    }
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
    loop {
        // A standby that was too late has ended its work, and goes on.
        let shutdown = match options.standby {
            true => &shutdown.of_part(),
            false => shutdown,
        };
        let Some(ready) = prepare::prepare(config, options, &health, shutdown).await? else {
            // The end was asked for while Kafka was waited for.
            return match options.until_end {
                true => Err(RunError::NotBegun),
                false => Ok(()),
            };
        };
        match supervisor::supervise(config, ready, &health, shutdown, view.clone()).await {
            Err(RunError::GroupInUse { group, members }) if options.standby => {
                let faster = list(&members);
                tracing::warn!("others took over group {group}: {faster}. Standing by again");
            }
            ended => return ended,
        }
    }
}
