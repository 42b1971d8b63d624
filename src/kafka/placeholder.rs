//! A standby's place in the group.
//!
//! It subscribes to `cuts`, not to the donations, so it takes nothing away from
//! the process at work, and holds what it is assigned paused. It keeps the group
//! from ever being empty: brokers let an empty group wait for more members before
//! they assign anything (`group.initial.rebalance.delay.ms`, 3 s by default), just
//! when a standby takes over. And standbys see each other by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::client::{self, Context, Health};
use super::group::{self, GroupMember};
use super::member::hold_paused;
use crate::config::KafkaConfig;

/// How often the group is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long leaving the group may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Who is in the group, or why the brokers do not say or do not let us in.
pub type Look = Result<Vec<GroupMember>, KafkaError>;

/// A place in the group. Dropped, it is given up, soon.
pub struct Placeholder {
    looks: UnboundedReceiver<Look>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Placeholder {
    /// Joins the group beside whoever is at work.
    pub fn join(
        config: &KafkaConfig,
        cuts: &str,
        health: &Arc<Health>,
    ) -> KafkaResult<Placeholder> {
        let context = PlaceholderContext(Context {
            health: health.clone(),
        });
        let consumer: BaseConsumer<PlaceholderContext> =
            client::placeholder(config).create_with_context(context)?;
        consumer.subscribe(&[cuts])?;
        let (look, looks) = unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (group, health) = (config.group.clone(), health.clone());
        let is_over = stop.clone();
        let thread = std::thread::Builder::new().name("standby".into());
        let thread = thread
            .spawn(move || {
                stay(&consumer, &group, &health, &look, || {
                    is_over.load(Ordering::Acquire)
                });
                consumer.unsubscribe();
            })
            .expect("a thread can be started");
        Ok(Placeholder {
            looks,
            stop,
            thread,
        })
    }

    /// The next look at the group. `None` never comes but by a bug.
    pub async fn look(&mut self) -> Option<Look> {
        self.looks.recv().await
    }

    /// Leaves the group and waits until that is done, if it can be.
    pub fn leave(self) {
        self.stop.store(true, Ordering::Release);
        let since = Instant::now();
        while !self.thread.is_finished() && since.elapsed() < LEAVE_WITHIN {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Speaks with the group, and looks who is in it, until it is over.
fn stay(
    consumer: &BaseConsumer<PlaceholderContext>,
    group: &str,
    health: &Health,
    looks: &UnboundedSender<Look>,
    is_over: impl Fn() -> bool,
) {
    let mut looked: Option<Instant> = None;
    while !is_over() {
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(20))
            && !health.note(&error)
        {
            let _ = looks.send(Err(error));
        }
        if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            looked = Some(Instant::now());
            let _ = looks.send(group::live_members(consumer.client(), group));
        }
    }
}

struct PlaceholderContext(Context);

impl ClientContext for PlaceholderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for PlaceholderContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => hold_paused(consumer, list),
            _ => consumer.incremental_unassign(list),
        };
        if let Err(error) = done {
            tracing::debug!("standing by: {error}");
        }
    }
}
