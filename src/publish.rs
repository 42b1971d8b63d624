//! Emission to Kafka: cuts, totals and windows, and the dead letters.
//!
//! A cut is published in steps, each of which begins when the brokers have
//! acknowledged all of the one before: `open` in `cuts`, one upsert a changed
//! campaign, `complete` in `cuts`. So a reader that sees `complete` finds the
//! totals; and a process that finds `open` knows how far any upsert may have got.
//!
//! Only a process whose membership is confirmed publishes. One that finds itself
//! replaced in the middle of a cut says so with `abandoned`; and every publisher
//! reads `cuts` back, and when it finds a record that is not its own, emits every
//! campaign again, so that what a zombie wrote late is healed by the next cut.

pub mod cuts;
pub mod dead_letters;
pub mod records;
pub mod sender;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::config::{Config, TopicsConfig};
use crate::kafka::client::{self, Health};
use crate::kafka::membership::Membership;
use crate::merge::{CampaignWindows, Cut, Gate};
use crate::offset::{Offset, Partition};
use crate::shard::Rules;
use crate::shutdown::Shutdown;
use cuts::Cuts;
use records::{CutId, CutRecord};
use sender::{Sender as Upserts, Unsent};

/// How long what is under way may take once the end is asked for.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often an idle publisher looks for others' cuts.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the publisher is told.
#[derive(Debug)]
pub enum Job {
    /// Find out where those before us ended.
    Begin,
    /// Emit a cut.
    Publish(Arc<Cut>, Vec<CampaignWindows>),
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Job::Begin => f.write_str("find out where those before us ended"),
            Job::Publish(cut, windows) => write!(
                f,
                "emit {} totals and {} windows at {} records",
                cut.changed.len(),
                windows.len(),
                cut.tally.seen
            ),
        }
    }
}

/// What the publisher answers.
#[derive(Debug)]
pub enum Report {
    /// What is known once it may begin.
    Begun {
        /// Where those before us ended: publishing begins when it is reached.
        gate: Gate,
        /// Where the log of each partition ends.
        log_end: BTreeMap<Partition, Offset>,
    },
    /// The cut with this number is complete.
    Complete(u64),
    /// The cut is not complete, and this process must begin anew.
    Abandoned,
    /// Totals were published that the log cannot give any more.
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
    /// Other totals than ours must stay; why, and what to do.
    Refused(String),
}

/// Publishes one cut after the other, in a thread of its own.
pub struct Publisher {
    topics: TopicsConfig,
    epoch: u32,
    group: String,
    rules: String,
    cuts: Cuts,
    upserts: Upserts,
    membership: Arc<Membership>,
    /// How often partitions had been taken from us when we began.
    revocations: u64,
    next_cut: u64,
    /// Whether somebody else wrote to `cuts` since we began; then everything must
    /// be emitted again, and not before what they published is reached.
    must_begin: bool,
    has_begun: bool,
    shutdown: Shutdown,
}

impl Publisher {
    /// A publisher of totals that were folded by `rules`.
    pub fn new(
        config: &Config,
        rules: &Rules,
        membership: &Arc<Membership>,
        health: &Arc<Health>,
        shutdown: &Shutdown,
    ) -> Result<Publisher, KafkaError> {
        Ok(Publisher {
            topics: config.topics.clone(),
            epoch: config.run.epoch,
            group: config.kafka.group.clone(),
            rules: rules.to_string(),
            cuts: Cuts::new(&config.kafka, &config.topics.cuts, health)?,
            upserts: Upserts::new(&config.kafka, health)?,
            membership: membership.clone(),
            revocations: 0,
            next_cut: 1,
            must_begin: true,
            has_begun: false,
            shutdown: shutdown.clone(),
        })
    }

    /// Does its jobs until there are no more to come.
    pub fn run(mut self, jobs: &Receiver<Job>, reports: &Sender<Report>) {
        loop {
            let report = match jobs.recv_timeout(LOOK_EVERY) {
                Ok(Job::Begin) => self.begin(),
                Ok(Job::Publish(cut, windows)) => {
                    // A busy publisher is never idle, so it looks before each cut.
                    let found = self.look();
                    match self.must_begin {
                        true => found, // If it was found before, it is reported.
                        false => Some(self.publish(&cut, &windows)),
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(report) = report
                && reports.send(report).is_err()
            {
                return;
            }
        }
    }

    /// Reads where those before us ended. `None` if the end comes first.
    fn begin(&mut self) -> Option<Report> {
        self.revocations = self.membership.revocations();
        let newest = self.cuts.newest(&self.shutdown)?;
        if let Some(before) = &newest.id {
            if let Some(why) = self.disagrees(before, newest.epoch) {
                return Some(Report::Refused(why));
            }
            if let Err(why) = self.is_beside(before)? {
                return Some(Report::Refused(why));
            }
        }
        self.next_cut = self.next_cut.max(newest.next_cut);
        let ends = self.cuts.log_ends(&self.topics.donations, &self.shutdown)?;
        let gate = if newest.id.is_some() {
            newest.offsets
        } else {
            // The last cut of a process may have come with windows only.
            for topic in [&self.topics.totals, &self.topics.windows] {
                let newest = self.cuts.newest_in(topic, &self.shutdown)?;
                self.next_cut = self.next_cut.max(newest.saturating_add(1));
            }
            match self.next_cut {
                1 => BTreeMap::new(), // Nobody was before us.
                // The cuts are gone, but whatever was published is in the log by now.
                _ => ends.clone(),
            }
        };
        for (&partition, &published) in &gate {
            let end = ends.get(&partition).copied();
            if end.is_none_or(|end| published > end) {
                let topic = self.topics.donations.clone();
                let ends = match end {
                    Some(end) => {
                        let start = self.cuts.log_start(&topic, partition, &self.shutdown)?;
                        Some((start, end))
                    }
                    None => None,
                };
                return Some(Report::BeyondLog {
                    topic,
                    partition,
                    published,
                    ends,
                });
            }
        }
        (self.must_begin, self.has_begun) = (false, true);
        let gate = Gate::at(gate);
        Some(Report::Begun {
            gate,
            log_end: ends,
        })
    }

    /// Why the totals of the cuts before ours must not be replaced by ours.
    fn disagrees(&self, before: &CutId, epoch: u32) -> Option<String> {
        let (cuts, topic) = (&self.topics.cuts, &self.topics.donations);
        if before.topic != *topic {
            return Some(format!(
                "the totals in {} are those of topic {}, not of {topic}. Give each topic of \
                 donations its own topics of totals (topics.totals, topics.cuts, topics.windows, \
                 topics.dead_letters)",
                self.topics.totals, before.topic
            ));
        }
        if epoch > self.epoch {
            return Some(format!(
                "{cuts} holds cuts of epoch {epoch}, and run.epoch is {}: readers keep the \
                 higher one and would not see these totals. Set run.epoch to {epoch}, or higher \
                 to count the whole log anew",
                self.epoch
            ));
        }
        if before.epoch == self.epoch && before.rules != self.rules {
            return Some(format!(
                "the totals of epoch {epoch} were counted by other rules ({}) than those now \
                 ({}), so they could step back. Set the settings under [counting] back, or raise \
                 run.epoch to count the whole log anew",
                before.rules, self.rules
            ));
        }
        None
    }

    /// Why this process must not publish beside one of another group, if it must
    /// not: of two that find each other under way, the one whose name comes first
    /// stays. `None` as an answer: the end of the process comes first.
    fn is_beside(&mut self, before: &CutId) -> Option<Result<(), String>> {
        let is_first = client::process_name() < before.publisher.as_str();
        if before.group == self.group || (self.has_begun && is_first) {
            return Some(Ok(()));
        }
        let members = self.cuts.live_members(&before.group, &self.shutdown)?;
        Some(match members.first() {
            None => Ok(()),
            Some(member) => Err(format!(
                "group {} has a live member, {member}, that publishes to the same topics as this \
                 process of group {}. Stop it first, or use other topics",
                before.group, self.group
            )),
        })
    }

    /// Looks whether others write to `cuts`; reports it once for each time that
    /// we have begun.
    fn look(&mut self) -> Option<Report> {
        let why = self.cuts.intrusion(client::process_name())?;
        if self.must_begin {
            return None;
        }
        tracing::warn!("{why}: emitting every campaign again");
        self.must_begin = true;
        Some(Report::Abandoned)
    }

    /// Emits one cut.
    fn publish(&mut self, cut: &Cut, windows: &[CampaignWindows]) -> Report {
        let number = self.next_cut;
        self.next_cut += 1;
        let id = CutId {
            cut: number,
            epoch: self.epoch,
            publisher: client::process_name().to_owned(),
            topic: self.topics.donations.clone(),
            group: self.group.clone(),
            rules: self.rules.clone(),
            offsets: cut.offsets.clone(),
        };
        match self.steps(&id, cut, windows) {
            Ok(()) => Report::Complete(number),
            Err(Unsent::Evicted) => {
                tracing::warn!(
                    "cut {number} is abandoned: this process was taken out of the group in the \
                     middle of it"
                );
                // Not a total, so it may be said without being a member; it makes
                // whoever publishes now emit everything again.
                let record = CutRecord::Abandoned(id);
                let abandoned = [self.cuts.upsert(number, &record)];
                let _ = self.upserts.send(&abandoned, || Ok(()), &self.shutdown);
                Report::Abandoned
            }
            Err(Unsent::Ended) => Report::Abandoned,
        }
    }

    fn steps(&mut self, id: &CutId, cut: &Cut, windows: &[CampaignWindows]) -> Result<(), Unsent> {
        let (number, epoch) = (id.cut, id.epoch);
        let (membership, revocations) = (&self.membership, self.revocations);
        // Asked before every step and every try: are we still the ones?
        let may_send = || {
            if membership.revocations() != revocations {
                return Err(Unsent::Evicted);
            }
            if membership.is_confirmed() {
                Ok(())
            } else {
                Err(Unsent::Ended)
            }
        };
        let open = self.cuts.upsert(number, &CutRecord::Open(id.clone()));
        self.upserts.send(&[open], may_send, &self.shutdown)?;

        let totals = cut.changed.iter().map(|total| {
            let record = records::campaign_total(total, number, epoch);
            sender::upsert(&self.topics.totals, &total.campaign, &record)
        });
        let windows = windows.iter().map(|campaign| {
            let record = records::campaign_windows(campaign, number, cut.as_of);
            sender::upsert(&self.topics.windows, &campaign.campaign, &record)
        });
        let upserts: Vec<_> = totals.chain(windows).collect();
        self.upserts.send(&upserts, may_send, &self.shutdown)?;

        let complete = CutRecord::Complete(records::complete_cut(id.clone(), cut));
        self.upserts.send(
            &[self.cuts.upsert(number, &complete)],
            may_send,
            &self.shutdown,
        )
    }
}
