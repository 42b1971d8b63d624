//! What this process is in the group, and what proves it.
//!
//! The merged offsets are committed, for people's lag tools, and because the
//! coordinator takes a commit from a live member of the current generation only:
//! each one that succeeds proves that the process was a member when it was sent.
//! [`Membership::is_confirmed`] goes by these proofs and by a clock that does not
//! stop while the process does. The commits have a thread of their own, since
//! the answer to a synchronous one may take long, and rust-rdkafka 0.39 never
//! hands out the answer to an asynchronous one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::clock::since_boot;
use crate::offset::{Offset, Partition};

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

    /// After how long without a word the group takes a member for dead.
    pub(super) fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// These are ours from now on.
    pub(super) fn assign(&self, partitions: &[Partition]) {
        self.state().assigned.extend(partitions);
    }

    /// These are no longer ours. `lost`: and were not for a while, perhaps.
    pub(super) fn revoke(&self, partitions: &[Partition], lost: bool) {
        let state = &mut *self.state();
        state
            .assigned
            .retain(|partition| !partitions.contains(partition));
        // The group may change without taking anything from us.
        state.revocations += u64::from(!partitions.is_empty());
        if lost {
            state.confirmed_at = None;
        }
    }

    /// The coordinator refused to confirm it. If it says that this is no member,
    /// what it said before counts no more.
    fn is_refused(&self, error: KafkaError) {
        use RDKafkaErrorCode as Code;
        let state = &mut *self.state();
        if matches!(
            error.rdkafka_error_code(),
            Some(Code::FencedInstanceId | Code::UnknownMemberId)
        ) {
            state.confirmed_at = None;
        }
        state.refusal = Some(error);
    }

    /// Nothing is ours any more.
    pub(super) fn end(&self) {
        let state = &mut *self.state();
        state.assigned.clear();
        state.revocations += 1;
        state.confirmed_at = None;
    }

    /// What to commit from now on.
    pub fn set_offsets(&self, offsets: BTreeMap<Partition, Offset>) {
        self.state().offsets = offsets;
    }
}

/// Commits the merged offsets again and again.
pub struct Confirmer<C: ConsumerContext> {
    consumer: Arc<BaseConsumer<C>>,
    topic: String,
    membership: Arc<Membership>,
}

/// How often membership is confirmed.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);
/// How often it is tried while it is not.
const TRY_EVERY: Duration = Duration::from_millis(50);

impl<C: ConsumerContext> Confirmer<C> {
    /// What confirms `membership` by commits of `consumer`, which is the member.
    pub(super) fn new(
        consumer: &Arc<BaseConsumer<C>>,
        topic: &str,
        membership: &Arc<Membership>,
    ) -> Confirmer<C> {
        Confirmer {
            consumer: consumer.clone(),
            topic: topic.to_owned(),
            membership: membership.clone(),
        }
    }

    /// Confirms the membership until `stop` is true.
    pub fn run(self, stop: impl Fn() -> bool) {
        while !stop() {
            if let Err(error) = self.confirm() {
                tracing::debug!("membership not confirmed: {error}");
                self.membership.is_refused(error);
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
