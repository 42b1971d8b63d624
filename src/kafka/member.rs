//! The member: what speaks for this process in the consumer group.
//!
//! It holds every partition that it is assigned paused and reads nothing. So it
//! answers the group whatever the workers are doing, and a rebalance never comes
//! in between records.
//!
//! It also commits the merged offsets, for people's lag tools, and because the
//! coordinator takes a commit from a live member of the current generation only:
//! each one that succeeds proves that the process was a member when it was sent.
//! [`Membership::is_confirmed`] goes by these proofs and by a clock that does not
//! stop while the process does. The commits have a thread of their own, since
//! the answer to a synchronous one may take long, and rust-rdkafka 0.39 never
//! hands out the answer to an asynchronous one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;

use super::client::{self, Context, Health};
use super::clock::since_boot;
use super::topics;
use crate::config::KafkaConfig;
use crate::offset::{Offset, Partition};

/// What happens to the member.
#[derive(Clone, Debug)]
pub enum MemberEvent {
    /// These partitions are ours from now on.
    Assigned(Vec<Partition>),
    /// These are no longer ours.
    Revoked {
        /// Which.
        partitions: Vec<Partition>,
        /// The group gave them away before we did: it took us for dead.
        lost: bool,
    },
    /// The donations topic has this many partitions; `None`: it is not there.
    Partitions(Option<usize>),
    /// An error that does not go away by itself, with what to do.
    Trouble(String),
}

/// What this process is in the group, shared with whoever publishes.
#[derive(Debug)]
pub struct Membership {
    session_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    assigned: BTreeSet<Partition>,
    /// How often partitions were taken from us.
    revocations: u64,
    /// When the last commit that succeeded was sent.
    confirmed_at: Option<Duration>,
    /// What the coordinator said to the commits since.
    refusal: Option<KafkaError>,
    /// What is committed next.
    offsets: BTreeMap<Partition, Offset>,
}

impl Membership {
    /// Not a member yet.
    pub fn new(session_timeout: Duration) -> Membership {
        Membership {
            session_timeout,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the group surely counts this process among its members now: the
    /// coordinator said so for a moment less than a session timeout ago.
    pub fn is_confirmed(&self) -> bool {
        let confirmed_at = self.state().confirmed_at;
        confirmed_at.is_some_and(|at| since_boot().saturating_sub(at) < self.session_timeout)
    }

    /// What the coordinator said last, if it was no confirmation.
    pub fn refusal(&self) -> Option<KafkaError> {
        self.state().refusal.clone()
    }

    /// How often partitions were taken from us. Whoever sees it rise was not the
    /// only one all the while.
    pub fn revocations(&self) -> u64 {
        self.state().revocations
    }

    /// The partitions that are ours.
    pub fn assigned(&self) -> BTreeSet<Partition> {
        self.state().assigned.clone()
    }

    /// What to commit from now on.
    pub fn set_offsets(&self, offsets: BTreeMap<Partition, Offset>) {
        self.state().offsets = offsets;
    }
}

/// The member's own thread: polls the group until `stop` says so, then leaves.
pub struct Member {
    consumer: Arc<BaseConsumer<MemberContext>>,
    topic: String,
    group: String,
    membership: Arc<Membership>,
    health: Arc<Health>,
    events: UnboundedSender<MemberEvent>,
}

/// How often membership is confirmed.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);
/// How often it is tried while it is not.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// How often the number of partitions is looked up.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Member {
    /// Joins the group for `topic`.
    pub fn join(
        config: &KafkaConfig,
        topic: &str,
        membership: &Arc<Membership>,
        health: &Arc<Health>,
        events: UnboundedSender<MemberEvent>,
    ) -> KafkaResult<Member> {
        let context = MemberContext {
            common: Context {
                health: health.clone(),
            },
            membership: membership.clone(),
            events: events.clone(),
        };
        let consumer: BaseConsumer<MemberContext> =
            client::member(config).create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        Ok(Member {
            consumer: Arc::new(consumer),
            topic: topic.to_owned(),
            group: config.group.clone(),
            membership: membership.clone(),
            health: health.clone(),
            events,
        })
    }

    /// What confirms the membership, for a thread of its own.
    pub fn confirmer(&self) -> Confirmer {
        Confirmer {
            consumer: self.consumer.clone(),
            topic: self.topic.clone(),
            membership: self.membership.clone(),
        }
    }

    /// Speaks with the group until `stop` is true, then leaves it.
    pub fn run(self, stop: impl Fn() -> bool) {
        let mut looked: Option<Instant> = None;
        let mut trouble_said: Option<Instant> = None;
        while !stop() {
            match self.consumer.poll(Duration::from_millis(50)) {
                // Nothing is read here: what slipped through before the pause is
                // read again by a worker.
                None | Some(Ok(_)) => {}
                Some(Err(error)) => self.note(&error, &mut trouble_said),
            }
            if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
                looked = Some(Instant::now());
                match topics::partitions(self.consumer.client(), &self.topic) {
                    Ok(partitions) => {
                        self.health.is_up();
                        let _ = self.events.send(MemberEvent::Partitions(partitions));
                    }
                    Err(error) => self.note(&error, &mut trouble_said),
                }
            }
        }
        self.consumer.unsubscribe();
        // Dropping the consumer leaves the group, so that the next process need
        // not wait for the session to time out.
    }

    fn note(&self, error: &KafkaError, said: &mut Option<Instant>) {
        if self.health.note(error) {
            return;
        }
        // The topic is reported by its partitions; an offset of the member's own
        // has no meaning.
        if matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::NoOffset
            )
        ) {
            return;
        }
        if said.is_none_or(|at| at.elapsed() >= Duration::from_secs(30)) {
            *said = Some(Instant::now());
            let advice = client::advice(error, &self.topic, &self.group);
            let text = advice.unwrap_or_else(|| format!("group {}: {error}", self.group));
            let _ = self.events.send(MemberEvent::Trouble(text));
        }
    }
}

/// Commits the merged offsets again and again.
pub struct Confirmer {
    consumer: Arc<BaseConsumer<MemberContext>>,
    topic: String,
    membership: Arc<Membership>,
}

impl Confirmer {
    /// Confirms the membership until `stop` is true.
    pub fn run(self, stop: impl Fn() -> bool) {
        while !stop() {
            if let Err(error) = self.confirm() {
                tracing::debug!("membership not confirmed: {error}");
                self.membership.state().refusal = Some(error);
            }
            let is_confirmed = self.membership.is_confirmed();
            std::thread::sleep(if is_confirmed {
                CONFIRM_EVERY
            } else {
                TRY_EVERY
            });
        }
    }

    fn confirm(&self) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        let revocations = {
            let state = &*self.membership.state();
            if state.assigned.is_empty() {
                return Ok(());
            }
            for &partition in &state.assigned {
                let offset = state.offsets.get(&partition).copied().unwrap_or_default();
                list.add_partition_offset(&self.topic, partition, KafkaOffset::Offset(offset.0))?;
            }
            state.revocations
        };
        // The moment before the question, not that of the answer: between the two
        // this process may have been stopped, and replaced.
        let asked_at = since_boot();
        self.consumer.commit(&list, CommitMode::Sync)?;
        let state = &mut *self.membership.state();
        if state.revocations == revocations {
            state.confirmed_at = Some(asked_at);
            state.refusal = None;
        }
        Ok(())
    }
}

/// Keeps the assignment.
struct MemberContext {
    common: Context,
    membership: Arc<Membership>,
    events: UnboundedSender<MemberEvent>,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.common.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.common.error(error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<Partition> = list
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Where the member would read from does not matter, but without an
            // offset librdkafka would ask for the committed one.
            let _ = list.set_all_offsets(KafkaOffset::End);
            if let Err(error) = consumer.incremental_assign(list) {
                tracing::warn!("taking partitions {partitions:?} failed: {error}");
                return;
            }
            if let Err(error) = consumer.pause(list) {
                tracing::debug!("pausing partitions {partitions:?} failed: {error}");
            }
            self.membership.state().assigned.extend(&partitions);
            let _ = self.events.send(MemberEvent::Assigned(partitions));
        } else {
            let lost = consumer.assignment_lost();
            {
                let state = &mut *self.membership.state();
                state
                    .assigned
                    .retain(|partition| !partitions.contains(partition));
                state.revocations += 1;
                if lost {
                    state.confirmed_at = None;
                }
            }
            if lost {
                tracing::warn!("the group has given partitions {partitions:?} away");
            }
            let _ = self.events.send(MemberEvent::Revoked { partitions, lost });
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::debug!("giving partitions back failed: {error}");
            }
        }
    }
}
