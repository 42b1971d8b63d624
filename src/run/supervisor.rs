//! Starts the threads of a run, tells the workers what is theirs, and ends
//! everything in order: workers, merger, publisher, dead letters, member.

mod others;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use others::newest_cut;

use super::RunError;
use super::merger::{Merger, MergerEnds};
use super::prepare::Ready;
use super::threads::{Ended, Thread, spawn};
use crate::aggregate::{Call, Command, Worker, WorkerEnds, worker_of};
use crate::config::Config;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::member::{Member, MemberEvent};
use crate::kafka::membership::Membership;
use crate::kafka::placeholder::Placeholder;
use crate::offset::Partition;
use crate::publish::dead_letters::DeadLetters;
use crate::publish::{PATIENCE, Publisher};
use crate::shutdown::Shutdown;
use crate::view::TotalsView;

/// How many flushes may wait for the merger, all workers together. After a backlog each may
/// have tens of megabytes; a worker whose flush finds no room waits.
const FLUSHES: usize = 8;
/// How long the topic may be gone before it counts as deleted: brokers that
/// restart may not know it for a while.
const GONE_FOR: Duration = Duration::from_secs(30);

/// How long leaving the group may take. A commit without an answer takes longer;
/// then the group drops this process when its session ends.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

pub(super) async fn supervise(
    config: &Config,
    ready: Ready,
    health: &Arc<Health>,
    shutdown: &Shutdown,
    view: Arc<TotalsView>,
) -> Result<(), RunError> {
    let membership = Arc::new(Membership::new(config.kafka.session_timeout));
    let partitions = Arc::new(AtomicUsize::new(ready.partitions));
    let dead_letters = DeadLetters::new(&config.kafka, &config.topics.dead_letters, health)?;
    let (ended, mut ends) = unbounded_channel();

    let (flushes, from_workers) = sync_channel(FLUSHES);
    let call = Arc::new(Call::default());
    let (mut commands, mut workers) = (Vec::new(), Vec::new());
    for number in 0..config.run.workers {
        let (command, obey) = channel();
        commands.push(command);
        let worker_ends = WorkerEnds {
            commands: obey,
            output: flushes.clone(),
            call: call.clone(),
            dead_letters: dead_letters.clone(),
            checkpoints: ready.checkpoints.clone(),
            health: health.clone(),
            shutdown: shutdown.clone(),
        };
        let worker = Worker::new(
            config,
            ready.rules.clone(),
            ready.until.clone(),
            worker_ends,
        )?;
        workers.push(spawn(&ended, Thread::Worker(number), || Ok(worker.run()?)));
    }
    drop(flushes); // The merger ends when the last worker has.

    let (jobs, job_queue) = sync_channel(1);
    let (report, reports) = channel();
    let publisher = Publisher::new(config, &ready.rules, &membership, health, shutdown)?;
    let publisher = spawn(&ended, Thread::Publisher, move || {
        publisher.run(&job_queue, &report);
        Ok(())
    });

    let merger_ends = MergerEnds {
        from_workers,
        call,
        jobs,
        reports,
        membership: membership.clone(),
        partitions: partitions.clone(),
        view: view.clone(),
        shutdown: shutdown.clone(),
    };
    let merger = Merger::new(&config.run, ready.until.clone(), ready.log_end, merger_ends);
    spawn(&ended, Thread::Merger, || Ok(merger.run()?));

    let (member_event, member_events) = unbounded_channel();
    let topic = &config.topics.donations;
    let member = Member::join(&config.kafka, topic, &membership, health, member_event)?;
    let end = MemberEnd::default();
    let member_threads = member_threads(member, &end, &ended);
    tracing::info!(
        "publisher {}: {} workers for {} partitions of {topic}, group {}",
        client::process_name(),
        config.run.workers,
        ready.partitions,
        config.kafka.group
    );

    let mut supervisor = Supervisor {
        config,
        admin: &ready.admin,
        commands,
        partitions,
        membership,
        gone_since: None,
        incomplete_since: None,
        began_at_cut: newest_cut(&view),
        lost_at_cut: None,
        is_back: false,
        asked_at: None,
        view: view.clone(),
        merger_has_ended: false,
        placeholder: ready.placeholder,
    };
    let watched = supervisor.watch(member_events, &mut ends, shutdown).await;
    shutdown.begin();
    if watched.as_ref().is_err_and(RunError::is_of_others) {
        // They wait for what is ours.
        end.leave.store(true, Ordering::Release);
        end.stop.store(true, Ordering::Release);
    }
    let merged = match supervisor.merger_has_ended {
        true => Ok(()),
        false => wait_for_merger(&mut ends).await,
    };
    if watched.is_ok() && merged.is_ok() {
        let _ = publisher.join(); // Its jobs ended with the merger.
    }
    let undelivered = tokio::task::block_in_place(|| dead_letters.finish(shutdown));
    // They write their last checkpoints, within a time of their own.
    tokio::task::block_in_place(|| workers.into_iter().for_each(|worker| drop(worker.join())));
    end.stop.store(true, Ordering::Release);
    let leaving = Instant::now();
    while member_threads.iter().any(|thread| !thread.is_finished())
        && leaving.elapsed() < LEAVE_WITHIN
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watched?;
    merged?;
    if undelivered > 0 {
        return Err(RunError::DeadLetters(undelivered));
    }
    Ok(())
}

/// When the member ends, and how.
#[derive(Clone, Default)]
struct MemberEnd {
    stop: Arc<AtomicBool>,
    /// Whether others need its place, so that a static member gives it up, too.
    leave: Arc<AtomicBool>,
}

fn member_threads(
    member: Member,
    end: &MemberEnd,
    ended: &UnboundedSender<Ended>,
) -> [JoinHandle<()>; 2] {
    let confirmer = member.confirmer();
    let (end, stop) = (end.clone(), end.stop.clone());
    [
        spawn(ended, Thread::Member, move || {
            let is_set = |flag: &AtomicBool| flag.load(Ordering::Acquire);
            member.run(|| is_set(&end.stop), || is_set(&end.leave));
            Ok(())
        }),
        spawn(ended, Thread::Confirmer, move || {
            confirmer.run(|| stop.load(Ordering::Acquire));
            Ok(())
        }),
    ]
}

/// Waits for the merger, which waits for the workers. What is stuck in a broker's
/// answer is left behind.
async fn wait_for_merger(ends: &mut UnboundedReceiver<Ended>) -> Result<(), RunError> {
    let merger = async {
        let mut result = Ok(());
        while let Some(ended) = ends.recv().await {
            result = result.and(ended.result);
            if ended.what == Thread::Merger {
                break;
            }
        }
        result
    };
    let in_time = tokio::time::timeout(PATIENCE + Duration::from_secs(5), merger).await;
    in_time.unwrap_or(Err(RunError::Merger(super::MergerError::NotAcknowledged)))
}

struct Supervisor<'a> {
    config: &'a Config,
    admin: &'a AdminClient<Context>,
    commands: Vec<Sender<Command>>,
    partitions: Arc<AtomicUsize>,
    membership: Arc<Membership>,
    gone_since: Option<Instant>,
    incomplete_since: Option<Instant>,
    /// The newest cut of ours when it began, if it is not the first time.
    began_at_cut: u64,
    /// The newest cut when partitions were lost last, if they ever were.
    lost_at_cut: Option<u64>,
    /// Whether all partitions have been ours again since.
    is_back: bool,
    /// When the group was asked last who else is in it.
    asked_at: Option<Instant>,
    view: Arc<TotalsView>,
    merger_has_ended: bool,
    /// Our place as a standby, until we have that of a member.
    placeholder: Option<Placeholder>,
}

impl Supervisor<'_> {
    /// Watches until the end is asked for or something cannot go on.
    async fn watch(
        &mut self,
        mut events: UnboundedReceiver<MemberEvent>,
        ends: &mut UnboundedReceiver<Ended>,
        shutdown: &Shutdown,
    ) -> Result<(), RunError> {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event)?,
                    None => return Err(RunError::Panic("member")),
                },
                ended = ends.recv() => {
                    let Some(Ended { what, result }) = ended else { return Ok(()) };
                    self.merger_has_ended |= what == Thread::Merger;
                    result?;
                    // Once the end is asked for, they end one after the other.
                    if !shutdown.has_begun() {
                        return Err(RunError::Panic(what.name()));
                    }
                    if self.merger_has_ended {
                        return Ok(());
                    }
                }
                _ = tick.tick() => {
                    if shutdown.has_begun() {
                        return Ok(());
                    }
                    self.end_if_replaced()?;
                    self.yield_to_others()?;
                }
            }
        }
    }

    fn take(&mut self, event: MemberEvent) -> Result<(), RunError> {
        match event {
            MemberEvent::Assigned(partitions) => {
                tracing::debug!("assigned: {partitions:?}");
                self.placeholder = None;
                self.view.begin_reading();
                self.tell(&partitions, Command::Assign);
            }
            MemberEvent::Revoked {
                partitions,
                lost,
                done,
            } => {
                tracing::debug!("revoked: {partitions:?}, lost: {lost}");
                self.tell(&partitions, |partitions| Command::Revoke {
                    partitions,
                    lost,
                    done: done.clone(),
                });
                if lost {
                    self.lost_at_cut = Some(newest_cut(&self.view));
                    self.is_back = false;
                }
            }
            MemberEvent::Partitions(found) => return self.count_partitions(found),
            MemberEvent::Trouble(text) => tracing::error!("{text}; trying on"),
            MemberEvent::Ended(code, why) => return Err(self.is_no_member(code, why)),
        }
        Ok(())
    }

    /// Tells each worker which of `partitions` concern it.
    fn tell(&self, partitions: &[Partition], command: impl Fn(Vec<Partition>) -> Command) {
        let workers = self.commands.len();
        for (worker, commands) in self.commands.iter().enumerate() {
            let of_worker = |partition: &&Partition| worker_of(**partition, workers) == worker;
            let its: Vec<_> = partitions.iter().filter(of_worker).copied().collect();
            if !its.is_empty() {
                let _ = commands.send(command(its));
            }
        }
    }

    fn count_partitions(&mut self, found: Option<usize>) -> Result<(), RunError> {
        let topic = &self.config.topics.donations;
        let known = self.partitions.load(Ordering::Acquire);
        match found {
            None => {
                let since = *self.gone_since.get_or_insert_with(|| {
                    tracing::warn!(
                        "topic {topic} is gone; if it is not back in {} s, it counts as deleted",
                        GONE_FOR.as_secs()
                    );
                    Instant::now()
                });
                if since.elapsed() >= GONE_FOR {
                    return Err(RunError::TopicDeleted(topic.clone(), GONE_FOR.as_secs()));
                }
            }
            Some(found) => {
                if self.gone_since.take().is_some() {
                    tracing::info!("topic {topic} is back");
                    for commands in &self.commands {
                        let _ = commands.send(Command::CheckLog);
                    }
                }
                if found < known {
                    return Err(RunError::Refused(format!(
                        "topic {topic} had {known} partitions and now has {found}: it was made \
                         anew, and is another log. Use new names for tally99's own topics, and \
                         another place for its checkpoints"
                    )));
                }
                if found > known {
                    tracing::info!("topic {topic} has {found} partitions now, not {known}");
                    self.partitions.store(found, Ordering::Release);
                }
            }
        }
        Ok(())
    }

    /// The group has no place for this process any more.
    fn is_no_member(&self, code: RDKafkaErrorCode, why: String) -> RunError {
        let kafka = &self.config.kafka;
        match (code, &kafka.group_instance_id) {
            (RDKafkaErrorCode::FencedInstanceId, Some(instance_id)) => RunError::Fenced {
                group: kafka.group.clone(),
                instance_id: instance_id.clone(),
            },
            _ => RunError::NoMember(kafka.group.clone(), why),
        }
    }
}
