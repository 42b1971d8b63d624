//! What a worker does while the log is not seen to be the one that its shards were
//! folded from (see [`Footing`](crate::checkpoint::Footing)).

use std::time::{Duration, Instant};

use super::partition::Owned;
use super::{Worker, WorkerError, end_of, is_read};
use crate::kafka::clock;
use crate::kafka::topics::ANSWER_WITHIN;
use crate::offset::{Offset, Partition};

/// How long the reader may bring nothing before the ends of the log are asked for.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// How long one question for them may take, and how long one may be followed by another;
/// the fold waits for them. So short that the worker is not taken for one that was away.
const WAIT_FOR_ENDS: Duration = Duration::from_millis(500);
const GO_ON_ASKING: Duration = Duration::from_millis(250);
/// How long a log may bring nothing that it says it has. librdkafka does not see a topic
/// that was made anew if it had more elections than the new one: it takes what brokers
/// say of that for outdated.
const SILENT_FOR: Duration = Duration::from_secs(20);

/// How long it must be so that a log is silent, or too short. A leader that was just elected
/// may not know for a moment how far the log goes; and brokers that answer again after a while
/// have not brought yet what they say.
const SURE_AFTER: Duration = Duration::from_secs(10);

/// How a log and a shard compare.
enum Found {
    /// The log may be the one that the shard was folded from.
    Fits,
    /// It may be another one: it holds again what had expired.
    Doubtful,
    /// It is, and all that the shard was to be verified by has expired.
    Expired,
    /// The brokers do not say now.
    NoAnswer,
}

impl Worker {
    /// The log holds another record where the last one of our shard should be.
    pub(super) fn other_log(&self, partition: Partition, found: i64) -> WorkerError {
        let owned = &self.owned[&partition];
        let ends = self.reader.ends(partition, ANSWER_WITHIN);
        WorkerError::OtherLog {
            topic: self.topic.clone(),
            partition,
            offset: owned.shard.offset(),
            expected: owned.footing.last_record().map(|last| Offset(last.offset)),
            found: Offset(found),
            ends: ends.ok(),
        }
    }

    /// Asks where the log begins and ends, if there is reason to: the reader asked for
    /// what is not there, or waits for a record that does not come.
    pub(super) fn look_at_log(&mut self) -> Result<(), WorkerError> {
        self.doubt_idle();
        if self.missed.is_empty() {
            if self.asked_at.is_some_and(|at| at.elapsed() < ASK_AFTER) {
                return Ok(());
            }
            if !std::mem::take(&mut self.has_missed) {
                return self.ask_for_what_waits();
            }
            self.missed = self.owned.keys().copied().collect(); // Which, nobody says.
        }
        self.ask_for_missed()
    }

    fn ask_for_what_waits(&mut self) -> Result<(), WorkerError> {
        if let Some(partition) = self.next_to_ask_for() {
            match self.compare_with_log(partition)? {
                Found::Expired => self.point_reader(&[partition]),
                Found::Doubtful => self.read_anew(&[partition]),
                Found::Fits | Found::NoAnswer => {}
            }
        }
        Ok(())
    }

    /// Asks for as many as there is time for; for the others in the next turn.
    fn ask_for_missed(&mut self) -> Result<(), WorkerError> {
        self.missed
            .retain(|partition| self.owned.contains_key(partition));
        let began = Instant::now();
        while began.elapsed() < GO_ON_ASKING
            && let Some(partition) = self.missed.pop()
        {
            match self.compare_with_log(partition)? {
                Found::Expired => self.point_reader(&[partition]),
                // There is no record to be read anew.
                Found::Fits if self.is_expired(partition) => self.point_reader(&[partition]),
                // If it is missed again, it is asked for again.
                _ => self.read_anew(&[partition]),
            }
        }
        Ok(())
    }

    fn is_expired(&self, partition: Partition) -> bool {
        let owned = self.owned.get(&partition);
        owned.is_some_and(|owned| owned.footing.is_expired())
    }

    /// What brings nothing may have nothing, or no record for us, or be another log that
    /// is not seen.
    fn doubt_idle(&mut self) {
        if self.until.is_some() {
            return; // What is read to its end has to bring nothing.
        }
        let mut idle = Vec::new();
        for (&partition, owned) in &mut self.owned {
            let can_be_read = owned.footing.is_verified() && !owned.footing.is_expired();
            if can_be_read && self.silence.since(owned.heard_at) >= owned.doubt_after {
                // It may be at work on much that was aborted.
                owned.doubt_after *= 2;
                idle.push(partition);
            }
        }
        self.read_anew(&idle);
    }

    /// A log that has become shorter brings no record at all, or not up to where the run
    /// ends, and one whose last record has expired has none to be known by. One partition
    /// is asked for at a time, since the others are folded on meanwhile.
    fn next_to_ask_for(&mut self) -> Option<Partition> {
        let silence = &self.silence;
        let is_waiting = |(&partition, owned): (&Partition, &Owned)| {
            let has_more = || !is_read(&self.until, partition, owned.shard.offset());
            let is_asked_for = owned.footing.is_expired() || (self.until.is_some() && has_more());
            let is_waiting = match owned.footing.is_verified() {
                true => is_asked_for && silence.is_long(owned.heard_at),
                false => silence.since(owned.waiting_since) >= ASK_AFTER,
            };
            is_waiting.then_some(partition)
        };
        let mut waiting = self.owned.iter().filter_map(is_waiting);
        let after = self.asked_for;
        let next = waiting.clone().find(|&partition| partition > after);
        self.asked_for = next.or_else(|| waiting.next())?;
        Some(self.asked_for)
    }

    /// Holds a partition against where its log begins and ends. What the log cannot
    /// give any more ends the process.
    fn compare_with_log(&mut self, partition: Partition) -> Result<Found, WorkerError> {
        let ends = self.reader.ends(partition, WAIT_FOR_ENDS);
        self.asked_at = Some(Instant::now());
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(Found::NoAnswer);
        };
        let Ok((start, end)) = ends else {
            owned.waits_from_now(); // For the brokers, until now.
            return Ok(Found::NoAnswer);
        };
        let is_idle = self.silence.is_long(owned.heard_at);
        if owned.footing.is_expired() {
            owned.heard_at = clock::since_boot();
            let last = owned.footing.last_record();
            if start <= last.map_or(Offset::START, |last| Offset(last.offset)) {
                return Ok(Found::Doubtful);
            }
        }
        let waited = self.silence.since(owned.waiting_since);
        let offset = owned.shard.offset();
        let is_verified = owned.footing.is_verified();
        let from = owned.read_from();
        let is_silent = !is_verified && from >= start && from < end && waited >= SILENT_FOR;
        let is_short = !is_verified && offset > end;
        let is_suspect = is_silent || is_short;
        let since = is_suspect.then(|| owned.suspect_since.unwrap_or_else(clock::since_boot));
        owned.suspect_since = since;
        let is_sure = since.is_some_and(|since| self.silence.since(since) >= SURE_AFTER);
        if offset < start || (is_short && is_sure) {
            return Err(WorkerError::LogChanged {
                topic: self.topic.clone(),
                partition,
                offset,
                start,
                end,
            });
        }
        if is_silent && is_sure {
            return Err(WorkerError::Silent {
                topic: self.topic.clone(),
                partition,
                offset,
                from,
                start,
                end,
                seconds: waited.as_secs(),
            });
        }
        let until = end_of(&self.until, partition);
        if is_verified
            && is_idle
            && let Some(until) = until.filter(|&until| offset < until && end < until)
        {
            return Err(WorkerError::EndGone {
                topic: self.topic.clone(),
                partition,
                until,
                start,
                end,
            });
        }
        let has_last = owned.footing.last_record().is_some();
        if from >= start || (is_verified && has_last) {
            return Ok(Found::Fits);
        }
        // A new log begins at 0, so this is the old one, and all that has expired of it
        // is in the shard.
        tracing::info!(
            "{}/{partition}: the log begins at {start} now; all that has expired of it is in the \
             shard, which is at {offset}",
            self.topic
        );
        owned.footing.has_expired();
        owned.heard_at = clock::since_boot();
        Ok(Found::Expired)
    }
}
