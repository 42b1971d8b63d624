//! The merger: takes flushes in, and closes a cut whenever one may be published.
//!
//! ```text
//! NotBegun ──Begin──▶ Beginning ──Begun──▶ Ready ──Publish──▶ Publishing
//!    ▲                                      ▲ │                   │
//!    │        partitions were taken from us │ │     Complete      │
//!    ├──────────────────────────────────────┼─┘◀──────────────────┤
//!    └──────────────────────────────────────┴───── Abandoned ─────┘
//! ```
//!
//! It never waits for the publisher: while a cut is on its way to the brokers,
//! flushes are merged on.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::progress::Progress;
use crate::aggregate::{Call, FromWorker};
use crate::config::RunConfig;
use crate::kafka::membership::Membership;
use crate::kafka::topics::IF_MADE_ANEW;
use crate::merge::{Applied, Cut, Gate, Merge};
use crate::offset::{Offset, Partition};
use crate::publish::{Job, PATIENCE, Report};
use crate::shutdown::Shutdown;
use crate::view::TotalsView;

/// Where publishing stands.
enum State {
    NotBegun,
    Beginning,
    Ready,
    Publishing(Arc<Cut>),
}

/// A call for flushes.
struct Called {
    number: u64,
    at: Instant,
    /// How many workers have answered.
    answers: usize,
}

/// What ties the merger to the rest of the process.
pub struct MergerEnds {
    /// Flushes; ends when all workers have.
    pub from_workers: Receiver<FromWorker>,
    /// To the workers: when flushes are due.
    pub call: Arc<Call>,
    /// To the publisher.
    pub jobs: SyncSender<Job>,
    /// From the publisher.
    pub reports: Receiver<Report>,
    /// What this process is in the group.
    pub membership: Arc<Membership>,
    /// How many partitions the donations topic has.
    pub partitions: Arc<AtomicUsize>,
    /// Where published totals are shown.
    pub view: Arc<TotalsView>,
    /// When to end.
    pub shutdown: Shutdown,
}

/// One merged view, and the cuts made of it.
pub struct Merger {
    merge: Merge,
    ends: MergerEnds,
    workers: usize,
    publish_interval: Duration,
    windows_interval: Duration,
    donors_interval: Duration,
    until: Option<BTreeMap<Partition, Offset>>,
    state: State,
    /// When the next cut is due.
    publish_at: Instant,
    /// Whether it was due while the one before was still on its way.
    is_overdue: bool,
    /// The call to the workers for it, once it is due.
    called: Option<Called>,
    /// When they are called at the latest, though no cut is due.
    call_at: Instant,
    gate: Gate,
    /// Where the run ends, or where the log ended when it began.
    log_end: Gate,
    /// How often partitions had been taken from us when publishing began.
    revocations: u64,
    /// The offsets of the newest complete cut.
    published: Option<BTreeMap<Partition, Offset>>,
    /// When the last cut was made.
    cut_at: Option<Instant>,
    /// The offsets of the newest cut, if it came with the windows of all.
    windows_of: Option<BTreeMap<Partition, Offset>>,
    /// Whether everything up to `until` has been published.
    has_reached_the_end: bool,
    progress: Progress,
    error: Option<MergerError>,
}

/// Why nothing can be published any more.
#[derive(Debug, Error)]
pub enum MergerError {
    /// Totals were published that the log cannot give any more.
    #[error(
        "{topic}/{partition}: totals up to offset {published} have been published, \
         but {}. The topic was made anew, or its last records were lost. Nothing is published, \
         since totals would step back. {IF_MADE_ANEW}",
        goes(*ends)
    )]
    BeyondLog {
        /// The donations topic.
        topic: String,
        /// The partition at fault.
        partition: Partition,
        /// Where the newest cut lies in it.
        published: Offset,
        /// The first offset that is still there, and the next one that will be
        /// written; `None` if the topic has no such partition.
        ends: Option<(Offset, Offset)>,
    },
    /// Totals of others are in the way.
    #[error("nothing is published: {0}")]
    Refused(String),
    /// The end was asked for before the end of the log.
    #[error(
        "ended early: {0} offsets are left to where the log ended at the start. What was counted \
         is published, and the next start makes up for the rest"
    )]
    EndedEarly(u64),
    /// The brokers did not acknowledge the last cut.
    #[error(
        "the last cut is not complete: the brokers did not acknowledge it in time. Nothing is \
         lost: the next start makes up for it"
    )]
    NotAcknowledged,
}

fn goes(ends: Option<(Offset, Offset)>) -> String {
    ends.map_or(
        "the topic has no such partition".to_owned(),
        |(start, end)| format!("the log goes from {start} to {end}"),
    )
}

/// How long one wait for a flush takes at most, so that reports are seen.
const LOOK: Duration = Duration::from_millis(5);
/// How long a cut waits for workers to answer its call: one that is held up hands over later.
const HELD_UP: Duration = Duration::from_millis(100);
/// How often workers are called at least, so that they never hold much.
const CALL_EVERY: Duration = Duration::from_secs(1);

impl Merger {
    /// A merger that has seen nothing. `until`: where the run ends; `log_end`: where the log
    /// does, for people.
    pub fn new(
        config: &RunConfig,
        until: Option<BTreeMap<Partition, Offset>>,
        log_end: BTreeMap<Partition, Offset>,
        ends: MergerEnds,
    ) -> Merger {
        Merger {
            merge: Merge::new(),
            workers: config.workers,
            publish_interval: config.publish_interval,
            windows_interval: config.windows_interval,
            donors_interval: config.donors_interval,
            progress: Progress::new(),
            log_end: Gate::at(log_end),
            until,
            state: State::NotBegun,
            publish_at: Instant::now(),
            is_overdue: false,
            called: None,
            call_at: Instant::now(),
            gate: Gate::default(),
            revocations: 0,
            published: None,
            cut_at: None,
            windows_of: None,
            has_reached_the_end: false,
            error: None,
            ends,
        }
    }

    /// Merges and publishes until all workers have ended and what they left is
    /// published.
    pub fn run(mut self) -> Result<(), MergerError> {
        let mut workers_ended = false;
        loop {
            workers_ended |= !self.take_in();
            self.take_reports();
            if workers_ended {
                if self.has_ended()? {
                    let left = self.left_to_the_end();
                    let left = left.filter(|&left| left > 0 && !self.has_reached_the_end);
                    let error = self.error.or(left.map(MergerError::EndedEarly));
                    return error.map_or(Ok(()), Err);
                }
            } else if Instant::now() >= self.publish_at {
                if self.is_answered() {
                    self.tick();
                }
            } else if Instant::now() >= self.call_at {
                self.call_at = Instant::now() + CALL_EVERY;
                self.ends.call.make();
            }
        }
    }

    /// Whether the workers have handed over what the cut that is due is called for, or are
    /// held up.
    fn is_answered(&mut self) -> bool {
        let now = Instant::now();
        let called = self.called.get_or_insert_with(|| Called {
            number: self.ends.call.make(),
            at: now,
            answers: 0,
        });
        self.call_at = called.at + CALL_EVERY;
        called.answers >= self.workers || called.at.elapsed() >= HELD_UP
    }

    /// A cut is due, and what the workers had for it is merged.
    fn tick(&mut self) {
        let called = self.called.take();
        self.publish_at = called.map_or_else(Instant::now, |it| it.at) + self.publish_interval;
        self.is_overdue = matches!(self.state, State::Publishing(_));
        self.ends.membership.set_offsets(self.merge.offsets());
        self.publish_if_possible();
        let why_not = self.why_not().or_else(|| self.is_beginning());
        self.progress
            .log(&self.merge, &self.gate, &self.log_end, why_not);
    }

    /// Merges what has come; `false` if nothing will come any more.
    fn take_in(&mut self) -> bool {
        let mut next = match self.ends.from_workers.recv_timeout(LOOK) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(LOOK);
                return false;
            }
        };
        let until = Instant::now() + LOOK;
        while let Some(from_worker) = next {
            match from_worker {
                FromWorker::Flush(flush) => {
                    if self.merge.apply(&flush) == Applied::Missing {
                        tracing::error!(
                            "partition {}: a flush from {} to {} leaves a gap and is not merged: this is \
                             a bug",
                            flush.partition,
                            flush.from,
                            flush.to
                        );
                    }
                }
                FromWorker::Donors(donors) => self.merge.apply_donors(&donors),
                FromWorker::Answer(number) => {
                    let called = self.called.as_mut();
                    if let Some(called) = called.filter(|called| called.number == number) {
                        called.answers += 1;
                    }
                }
            }
            next = if Instant::now() < until {
                self.ends.from_workers.try_recv().ok()
            } else {
                None
            };
        }
        true
    }

    fn take_reports(&mut self) {
        while let Ok(report) = self.ends.reports.try_recv() {
            tracing::debug!("publisher answers: {report:?}");
            match report {
                Report::Begun { gate, log_end } => {
                    self.gate = gate;
                    self.log_end = Gate::at(self.until.clone().unwrap_or(log_end));
                    self.state = State::Ready;
                    self.merge.emit_all_again();
                    self.published = None;
                }
                Report::BeyondLog {
                    topic,
                    partition,
                    published,
                    ends,
                } => {
                    self.error = Some(MergerError::BeyondLog {
                        topic,
                        partition,
                        published,
                        ends,
                    });
                    self.ends.shutdown.begin();
                }
                Report::Refused(why) => {
                    self.error = Some(MergerError::Refused(why));
                    self.ends.shutdown.begin();
                }
                Report::Complete(number) => {
                    if let State::Publishing(cut) = std::mem::replace(&mut self.state, State::Ready)
                    {
                        self.progress.published(number, &cut);
                        self.published = Some(cut.offsets.clone());
                        self.ends.view.publish(number, &cut);
                    }
                    // A cut that took a little longer is not to cost a whole interval more.
                    if std::mem::take(&mut self.is_overdue) {
                        self.publish_at = Instant::now();
                    }
                    if self.left_to_the_end() == Some(0) {
                        self.has_reached_the_end = true;
                        self.ends.shutdown.begin();
                    }
                }
                Report::Abandoned if matches!(self.state, State::Beginning) => {}
                Report::Abandoned => self.state = State::NotBegun,
            }
        }
        let taken = self.revocations != self.ends.membership.revocations();
        if taken && matches!(self.state, State::Ready) {
            self.state = State::NotBegun;
        }
    }

    /// Why nothing can be published now, if so.
    fn why_not(&self) -> Option<String> {
        self.is_incomplete().or_else(|| self.is_unconfirmed())
    }

    /// What this process lacks to have the whole view.
    fn is_incomplete(&self) -> Option<String> {
        let partitions = self.ends.partitions.load(Ordering::Acquire) as Partition;
        let assigned = self.ends.membership.assigned();
        let missing: Vec<_> = (0..partitions)
            .filter(|partition| !assigned.contains(partition))
            .collect();
        if partitions == 0 || missing.len() == partitions as usize {
            return Some("no partitions are assigned to this process yet".to_owned());
        }
        if !missing.is_empty() {
            return Some(format!(
                "partitions {missing:?} are not assigned to this process"
            ));
        }
        let held = self.merge.offsets();
        let missing: Vec<_> = (0..partitions)
            .filter(|it| !held.contains_key(it))
            .collect();
        if !missing.is_empty() {
            return Some(format!(
                "partitions {missing:?} are being restored, or compared with the log"
            ));
        }
        None
    }

    fn is_unconfirmed(&self) -> Option<String> {
        let membership = &self.ends.membership;
        let said = || membership.refusal().map(|error| format!(" ({error})"));
        (!membership.is_confirmed()).then(|| {
            let said = said().unwrap_or_default();
            format!("the group has not confirmed this process for a while{said}")
        })
    }

    fn is_beginning(&self) -> Option<String> {
        let is_beginning = matches!(self.state, State::Beginning);
        is_beginning.then(|| "the end of the cuts' topic is not read yet".to_owned())
    }

    /// Begins, or publishes what changed.
    fn publish_if_possible(&mut self) {
        if self.why_not().is_some() {
            return;
        }
        let job = match self.state {
            State::Beginning | State::Publishing(_) => return,
            State::NotBegun => {
                self.revocations = self.ends.membership.revocations();
                self.state = State::Beginning;
                Job::Begin
            }
            State::Ready => {
                let held = self.merge.offsets();
                let ending = self.ends.shutdown.has_begun();
                if !self.is_gate_reached(&held) || self.is_all_published(&held, ending) {
                    return;
                }
                let all = self.merge.campaign_count();
                let is_whole = ending || self.published.is_none();
                let part = |interval| match is_whole {
                    true => all,
                    false => self.part_due(all, interval),
                };
                let windows_due = part(self.windows_interval);
                // Where nothing else is new, none waits for the next cut.
                let donors_due = match self.published.as_ref() == Some(&held) {
                    true => all,
                    false => part(self.donors_interval),
                };
                self.cut_at = Some(Instant::now());
                self.windows_of = (windows_due >= all).then_some(held);
                self.merge.estimate_donors(donors_due);
                let windows = self.merge.take_changed_windows(windows_due);
                let cut = Arc::new(self.merge.close_cut());
                self.state = State::Publishing(cut.clone());
                Job::Publish(cut, windows)
            }
        };
        tracing::debug!("publisher: {job}");
        if self.ends.jobs.send(job).is_err() {
            self.ends.shutdown.begin(); // The publisher has ended; so must we.
        }
    }

    /// How many campaigns have their turn in this cut, of what comes once an interval for
    /// each: all at once would hold up one cut.
    fn part_due(&self, all: usize, interval: Duration) -> usize {
        let since = self.cut_at.map_or(Duration::MAX, |at| at.elapsed());
        let part = since.div_duration_f64(interval).min(1.0);
        (part * all as f64).ceil() as usize
    }

    /// Whether no figure of a cut at `held` would step back: neither what is
    /// counted nor the donors, whose sketches come on an interval of their own.
    fn is_gate_reached(&self, held: &BTreeMap<Partition, Offset>) -> bool {
        self.gate.is_reached(held) && self.gate.is_reached(self.merge.donors_offsets())
    }

    /// Whether a cut at `held` would bring nothing new; windows are asked for at
    /// the end only, since until then they have an interval of their own.
    fn is_all_published(&self, held: &BTreeMap<Partition, Offset>, with_windows: bool) -> bool {
        self.published.as_ref() == Some(held)
            && !self.merge.has_changes()
            && (!with_windows || self.windows_of.as_ref() == Some(held))
    }

    /// How many offsets are not published up to where the run ends, if it does.
    fn left_to_the_end(&self) -> Option<u64> {
        let nothing = BTreeMap::new();
        let published = self.published.as_ref();
        let until = Gate::at(self.until.clone()?);
        match published {
            Some(published) if until.is_reached(published) => Some(0),
            // An end of nothing, too, is reached by a cut only.
            _ => Some(until.records_left(published.unwrap_or(&nothing)).max(1)),
        }
    }

    /// Publishes what is left; whether nothing is left to do.
    fn has_ended(&mut self) -> Result<bool, MergerError> {
        if self.error.is_some() {
            return Ok(true);
        }
        let held = self.merge.offsets();
        if matches!(self.state, State::Ready) && self.is_all_published(&held, true) {
            self.progress.finish();
            return Ok(true);
        }
        let idle = matches!(self.state, State::Ready | State::NotBegun);
        let why_not = self.is_incomplete().or_else(|| {
            let left = self.gate.records_left(&held);
            let behind = matches!(self.state, State::Ready) && left > 0;
            behind.then(|| format!("{left} offsets are left to where published totals end"))
        });
        if let (true, Some(why_not)) = (idle, why_not) {
            tracing::info!("what was folded last is not published: {why_not}");
            return Ok(true);
        }
        if self.ends.shutdown.is_overdue(PATIENCE) {
            return Err(MergerError::NotAcknowledged);
        }
        self.publish_if_possible();
        Ok(false)
    }
}
