//! Reading the log, and folding what it brings.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};

use super::partition::Owned;
use super::silence::LONG;
use super::{IDLE, Worker, WorkerError, end_of, is_read};
use crate::checkpoint::RecordId;
use crate::offset::{Offset, Partition};
use crate::publish::dead_letters::DeadLetter;
use crate::shard::{Outcome, Record};

/// Records read between two looks at the clock and at the commands.
const BATCH: usize = 2_000;

/// Whether a record was folded.
enum Folded {
    No,
    Yes,
    /// And its dead letter may have had to wait for brokers.
    AfterAWait,
    /// No: the log has to be verified before, and then it comes again.
    Doubtful,
}

impl Worker {
    /// Reads and folds up to a batch of records; whether more were waiting.
    pub(super) fn read(&mut self) -> Result<bool, WorkerError> {
        if self.owned.is_empty() {
            self.silence.look();
            return Ok(false);
        }
        // The last message borrows the reader, and not us.
        let reader = self.reader.consumer().clone();
        let mut last: Option<BorrowedMessage<'_>> = None;
        let mut patience = IDLE.min(self.flush_interval);
        let mut has_more = true;
        for _ in 0..BATCH {
            let polled = reader.poll(patience);
            if !patience.is_zero() && self.silence.look() {
                self.come_back(); // What was polled comes again.
                return Ok(true);
            }
            let has_waited = match polled {
                None => {
                    self.silence.found_nothing();
                    has_more = false;
                    break;
                }
                Some(Ok(message)) => {
                    let folded = self.fold(&message)?;
                    let partition = message.partition();
                    match folded {
                        // It changes nothing of what was before.
                        Folded::No => {}
                        Folded::Yes | Folded::AfterAWait => {
                            let before = last.replace(message);
                            if let Some(before) = before.filter(|it| it.partition() != partition) {
                                self.remember(&before);
                            }
                        }
                        Folded::Doubtful => {
                            if let Some(last) = last.take() {
                                self.remember(&last);
                            }
                            self.read_anew(&[partition]);
                        }
                    }
                    matches!(folded, Folded::AfterAWait)
                }
                Some(Err(error)) => {
                    // What follows may have the log compared with what was folded.
                    if let Some(last) = last.take() {
                        self.remember(&last);
                    }
                    match error {
                        KafkaError::PartitionEOF(partition) => self.reached_end(partition),
                        error => self.trouble(error)?,
                    }
                    true
                }
            };
            if has_waited && self.silence.look() {
                if let Some(last) = last.take() {
                    self.remember(&last);
                }
                self.come_back(); // What follows in the reader comes again.
                return Ok(true);
            }
            patience = Duration::ZERO;
        }
        if let Some(last) = last {
            self.remember(&last);
        }
        Ok(has_more)
    }

    /// The reader is at the end of a partition: it has handed out all records up to where
    /// it is.
    fn reached_end(&mut self, partition: Partition) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.at_end = true;
            owned.doubt_after = LONG;
        }
    }

    /// Skips what is no record at the end of the log: the markers of transactions, and
    /// what was aborted. The reader does not hand it out, but goes on behind it.
    pub(super) fn skip_what_is_no_record(&mut self) {
        let at_end = |owned: &Owned| owned.at_end && owned.footing.is_verified();
        if !self.owned.values().any(at_end) {
            return;
        }
        let positions = match self.reader.positions() {
            Ok(positions) => positions,
            Err(error) => {
                tracing::debug!("{}: no positions: {error}", self.topic);
                return; // They are asked for again.
            }
        };
        let mut doubtful = Vec::new();
        for (&partition, owned) in self.owned.iter_mut().filter(|it| at_end(it.1)) {
            owned.at_end = false;
            let comes_again = std::mem::take(&mut owned.doubtful_end);
            let offset = owned.shard.offset();
            let position = positions.get(&partition).filter(|it| **it > offset);
            let Some(&position) = position.filter(|_| !is_read(&self.until, partition, offset))
            else {
                continue;
            };
            if self.silence.came_after(owned.heard_at) && !comes_again {
                owned.doubtful_end = true;
                doubtful.push(partition);
            } else {
                let end = end_of(&self.until, partition).unwrap_or(position);
                owned.shard.skip_to(position.min(end));
            }
        }
        self.read_anew(&doubtful);
    }

    /// Notes the last record that was folded: it is what the log is known by.
    fn remember(&mut self, message: &BorrowedMessage<'_>) {
        if let Some(owned) = self.owned.get_mut(&message.partition()) {
            owned.footing.step(&record(message), message.key());
            owned.heard_at = self.silence.last_look();
        }
    }

    /// Folds one record, if it is one to fold; one that cannot be counted goes to
    /// the dead letters.
    fn fold(&mut self, message: &BorrowedMessage<'_>) -> Result<Folded, WorkerError> {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(Folded::No);
        };
        let record = record(message);
        if !owned.footing.is_verified() {
            owned.heard_at = self.silence.last_look();
            return match owned.footing.verify(&record, message.key()) {
                true => Ok(Folded::No),
                false => Err(self.other_log(partition, offset)),
            };
        }
        if is_read(&self.until, partition, Offset(offset)) {
            owned.at_end = true; // Of what this run reads.
            return Ok(Folded::No);
        }
        // Behind the last record that was folded there was none before the shard's offset.
        let is_foreign = offset < owned.shard.offset().0;
        if is_foreign || self.silence.came_after(owned.heard_at) {
            let id = RecordId::of(&record, message.key());
            if owned.doubtful.replace(id) != Some(id) {
                return Ok(Folded::Doubtful);
            }
            if is_foreign {
                return Err(self.other_log(partition, offset));
            }
            owned.heard_at = self.silence.last_look();
        }
        (owned.doubtful_end, owned.doubtful, owned.doubt_after) = (false, None, LONG);
        if let Outcome::DeadLetter(rejected) = owned.shard.apply(record) {
            let letter = DeadLetter {
                topic: &self.topic,
                partition,
                offset,
                key: message.key(),
                payload: message.payload(),
                rejected: &rejected,
            };
            self.dead_letters.send(&letter, &self.shutdown);
            return Ok(Folded::AfterAWait);
        }
        Ok(Folded::Yes)
    }
}

/// The record as the fold sees it.
pub(crate) fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    Record {
        offset: message.offset(),
        timestamp: message
            .timestamp()
            .to_millis()
            .filter(|&timestamp| timestamp >= 0),
        payload: message.payload(),
    }
}
