//! The member: what speaks for this process in the consumer group.
//!
//! It holds every partition that it is assigned paused and reads nothing. So it
//! answers the group whatever the workers are doing, and a rebalance never comes
//! in between records.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;

use super::client::{self, Context, Health};
use super::membership::{Confirmer, Membership};
use super::topics;
use crate::config::KafkaConfig;
use crate::logging::Seldom;
use crate::offset::Partition;

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
        /// To be dropped when they have been let go of: if they are not lost, the
        /// group gives them to nobody before.
        done: Done,
    },
    /// The donations topic has this many partitions; `None`: it is not there.
    Partitions(Option<usize>),
    /// An error that does not go away by itself, with what to do.
    Trouble(String),
    /// The member is none any more and cannot be one again; why.
    Ended(RDKafkaErrorCode, String),
}

/// While one is held, or a clone of it, what it came with is not done. Dropping
/// it is enough, so whoever dies with one holds nobody up.
#[derive(Clone, Debug)]
pub struct Done {
    _held: Sender<()>,
}

impl Done {
    fn new() -> (Done, Receiver<()>) {
        let (held, done) = channel();
        (Done { _held: held }, done)
    }
}

/// The member's own thread: polls the group until `stop` says so, then leaves.
pub struct Member {
    consumer: Arc<BaseConsumer<MemberContext>>,
    topic: String,
    group: String,
    is_static: bool,
    membership: Arc<Membership>,
    health: Arc<Health>,
    events: UnboundedSender<MemberEvent>,
}

/// How long the group waits at most for us to let go of partitions. librdkafka's
/// own thread answers the coordinator meanwhile.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);
/// How long a static member may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
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
            is_static: config.group_instance_id.is_some(),
            membership: membership.clone(),
            health: health.clone(),
            events,
        })
    }

    /// What confirms the membership, for a thread of its own.
    pub fn confirmer(&self) -> Confirmer<MemberContext> {
        Confirmer::new(&self.consumer, &self.topic, &self.membership)
    }

    /// Speaks with the group until `stop` is true, then leaves it. A static member
    /// stays in it, to have its partitions when it comes again, unless others need
    /// them: `leave`.
    pub fn run(self, stop: impl Fn() -> bool, leave: impl Fn() -> bool) {
        let mut looked: Option<Instant> = None;
        let mut trouble_said = Seldom::default();
        let mut has_ended = false;
        while !stop() {
            match self.consumer.poll(Duration::from_millis(50)) {
                // Nothing is read here: what slipped through before the pause is
                // read again by a worker.
                None | Some(Ok(_)) => {}
                Some(Err(error)) => self.note(&error, &mut trouble_said),
            }
            if !has_ended && let Some((code, why)) = self.consumer.client().fatal_error() {
                has_ended = true;
                self.membership.end();
                let _ = self.events.send(MemberEvent::Ended(code, why));
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
        if !self.is_static {
            self.consumer.unsubscribe();
        } else if leave() {
            self.leave_as_static();
        }
        // Dropping the consumer leaves the group, so that the next process need
        // not wait for the session to time out.
    }

    /// librdkafka keeps a static member in the group when it is closed, so it must
    /// have left before.
    fn leave_as_static(&self) {
        self.consumer.unsubscribe();
        let since = Instant::now();
        let is_in = || {
            self.consumer
                .assignment()
                .is_ok_and(|list| list.count() > 0)
        };
        while is_in() && since.elapsed() < LEAVE_WITHIN {
            self.consumer.poll(Duration::from_millis(10));
        }
        // The last thing that it does for that it does after giving the
        // partitions up, at once, and without telling.
        self.consumer.poll(Duration::from_millis(100));
    }

    fn note(&self, error: &KafkaError, said: &mut Seldom) {
        // What is fatal is told by itself.
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) || self.health.note(error) {
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
        if said.is_due() {
            let advice = client::advice(error, &self.topic, &self.group);
            let text = advice.unwrap_or_else(|| format!("group {}: {error}", self.group));
            let _ = self.events.send(MemberEvent::Trouble(text));
        }
    }
}

/// Keeps the assignment.
pub struct MemberContext {
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
            if let Err(error) = hold_paused(consumer, list) {
                tracing::warn!("taking partitions {partitions:?} failed: {error}");
                return;
            }
            self.membership.assign(&partitions);
            let _ = self.events.send(MemberEvent::Assigned(partitions));
        } else {
            let lost = consumer.assignment_lost();
            self.membership.revoke(&partitions, lost);
            if lost {
                tracing::warn!("the group has given partitions {partitions:?} away");
            }
            self.let_go(partitions, lost);
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::debug!("giving partitions back failed: {error}");
            }
        }
    }
}

/// Takes partitions without reading from them.
pub(super) fn hold_paused<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &mut TopicPartitionList,
) -> KafkaResult<()> {
    // Where it would read from does not matter, but without an offset librdkafka
    // would ask for the committed one.
    let _ = list.set_all_offsets(KafkaOffset::End);
    consumer.incremental_assign(list)?;
    if let Err(error) = consumer.pause(list) {
        tracing::debug!("pausing partitions failed: {error}");
    }
    Ok(())
}

impl MemberContext {
    /// Tells that `partitions` are ours no more. Unless they are lost, others get
    /// them only when the workers have let go of them, or have had their time.
    fn let_go(&self, partitions: Vec<Partition>, lost: bool) {
        if partitions.is_empty() {
            return;
        }
        let (done, is_done) = Done::new();
        let named = format!("{partitions:?}");
        let revoked = MemberEvent::Revoked {
            partitions,
            lost,
            done,
        };
        let _ = self.events.send(revoked);
        if lost {
            return;
        }
        let limit = LET_GO_WITHIN.min(self.membership.session_timeout());
        if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "partitions {named} are given up before the workers have handed over what they \
                 counted of them: they took longer than {} s. Nothing is lost: the next owner \
                 counts it anew",
                limit.as_secs()
            );
        }
    }
}
