//! Reading the log, and folding what it brings.

use rdkafka::error::KafkaError;

use super::partition::Owned;
use super::silence::LONG;
use super::{IDLE, Worker, WorkerError, at_most, is_read};
use crate::checkpoint::RecordId;
use crate::kafka::client::Context;
use crate::native::batch::{Batch, NoRecord, Taken};
use crate::native::prefetch;
use crate::offset::{Offset, Partition};
use crate::publish::dead_letters::DeadLetter;

/// How many records are taken at once.
pub(crate) const BATCH: usize = 512;
/// How many batches are folded between two looks at the clock and at the commands.
const BATCHES: usize = 4;

/// What became of records of one partition that follow each other.
enum Folded {
    /// They are in the shard, or none that is to be folded.
    Yes,
    /// And dead letters of them may have had to wait for brokers.
    AfterAWait,
    /// No: the log has to be verified before, and then they come again.
    Doubtful,
}

impl Worker {
    /// Reads and folds some batches of records; whether more were waiting.
    pub(super) fn read(&mut self) -> Result<bool, WorkerError> {
        if self.owned.is_empty() {
            self.silence.look();
            return Ok(false);
        }
        for number in 0..BATCHES {
            let batch = self.queue.take(BATCH);
            if batch.is_empty() {
                self.wait_for_one()?;
                return Ok(false);
            }
            if number == 0 && self.silence.look() {
                self.come_back(); // What was taken comes again.
                return Ok(true);
            }
            if !self.fold_batch(&batch)? {
                break;
            }
        }
        Ok(true)
    }

    /// Nothing is there. The client says what it has to say otherwise to those who poll it;
    /// that may be the next record, too.
    fn wait_for_one(&mut self) -> Result<(), WorkerError> {
        // The message borrows the reader, and not us.
        let reader = self.reader.consumer().clone();
        let polled = reader.poll(IDLE);
        if self.silence.look() {
            self.come_back(); // What was polled comes again.
            return Ok(());
        }
        let has_waited = match polled {
            None => {
                self.silence.found_nothing();
                return Ok(());
            }
            Some(Ok(message)) => self.fold_run(&mut vec![Taken::of(&message)], &mut Vec::new())?,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.reached_end(partition, None);
                true
            }
            Some(Err(error)) => {
                self.trouble(error)?;
                true
            }
        };
        if has_waited && self.silence.look() {
            self.come_back(); // What follows in the reader comes again.
        }
        Ok(())
    }

    /// Folds a batch; `false` if all is read anew from now on.
    ///
    /// The batch was taken in one go. So what comes after a wait, and may be of another log
    /// therefore, is what is taken next, and never a later record of this one.
    fn fold_batch(&mut self, batch: &Batch<Context>) -> Result<bool, WorkerError> {
        let mut has_waited = false;
        // Of these the rest of the batch comes again.
        let mut anew: Vec<Partition> = Vec::new();
        let mut run: Vec<Taken<'_>> = Vec::with_capacity(batch.len());
        for place in 0..batch.len() {
            match batch.get(place) {
                Ok(taken) => {
                    if !run.last().is_none_or(|last| taken.follows(last)) {
                        has_waited |= self.fold_run(&mut run, &mut anew)?;
                    }
                    if let Some(payload) = taken.record.payload {
                        prefetch(payload);
                    }
                    run.push(taken);
                }
                Err(no_record) => {
                    // What follows may have the log compared with what was folded.
                    self.fold_run(&mut run, &mut anew)?;
                    match no_record {
                        NoRecord::End { partition, .. } if anew.contains(&partition) => {}
                        NoRecord::End { partition, at } => self.reached_end(partition, Some(at)),
                        NoRecord::Error(error) => {
                            if self.trouble(error)? {
                                return Ok(false);
                            }
                        }
                    }
                    has_waited = true;
                }
            }
        }
        has_waited |= self.fold_run(&mut run, &mut anew)?;
        if has_waited && self.silence.look() {
            self.come_back(); // What follows in the reader comes again.
            return Ok(false);
        }
        Ok(true)
    }

    /// Folds what `run` holds, records of one partition that follow each other, and empties
    /// it; whether dead letters may have had to wait for brokers. A partition that is read
    /// anew joins `anew`, and nothing of those is folded.
    fn fold_run(
        &mut self,
        run: &mut Vec<Taken<'_>>,
        anew: &mut Vec<Partition>,
    ) -> Result<bool, WorkerError> {
        let mut has_waited = false;
        if let Some(&Taken { partition, .. }) = run.first()
            && !anew.contains(&partition)
        {
            match self.fold(partition, run)? {
                Folded::Yes => {}
                Folded::AfterAWait => has_waited = true,
                Folded::Doubtful => {
                    self.read_anew(&[partition]);
                    anew.push(partition);
                }
            }
        }
        run.clear();
        Ok(has_waited)
    }

    /// The reader is at the end of a partition: it has handed out all records up to where
    /// it is; `at`, if it says that.
    fn reached_end(&mut self, partition: Partition, at: Option<Offset>) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            (owned.at_end, owned.end) = (true, at);
            owned.ended_at = Some(owned.shard.offset());
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
            let position = owned.end.take().or(positions.get(&partition).copied());
            let position = position.filter(|it| *it > offset);
            let Some(position) = position.filter(|_| !is_read(&self.until, partition, offset))
            else {
                continue;
            };
            if self.silence.came_after(owned.heard_at) && !comes_again {
                owned.doubtful_end = true;
                doubtful.push(partition);
            } else {
                let end = at_most(&self.until, partition, position);
                owned.shard.skip_to(end);
                owned.ended_at = Some(owned.shard.offset());
            }
        }
        self.read_anew(&doubtful);
    }

    /// Folds records of one partition that follow each other, those that are to be; one that
    /// cannot be counted goes to the dead letters.
    fn fold(&mut self, partition: Partition, mut run: &[Taken<'_>]) -> Result<Folded, WorkerError> {
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(Folded::Yes);
        };
        if !owned.footing.is_verified()
            && let Some((first, rest)) = run.split_first()
        {
            owned.heard_at = self.silence.last_look();
            if !owned.footing.verify(&first.record, first.key) {
                return Err(self.other_log(partition, first.record.offset));
            }
            run = rest;
        }
        let unread =
            run.partition_point(|it| !is_read(&self.until, partition, Offset(it.record.offset)));
        if unread < run.len() {
            owned.at_end = true; // Of what this run reads.
        }
        run = &run[..unread];
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(Folded::Yes);
        };
        // Behind the last record that was folded there was none before the shard's offset.
        let is_foreign = first.record.offset < owned.shard.offset().0;
        if is_foreign || self.silence.came_after(owned.heard_at) {
            let id = RecordId::of(&first.record, first.key);
            if owned.doubtful.replace(id) != Some(id) {
                return Ok(Folded::Doubtful);
            }
            if is_foreign {
                return Err(self.other_log(partition, first.record.offset));
            }
        }
        (owned.doubtful_end, owned.doubtful, owned.doubt_after) = (false, None, LONG);
        let mut dead = Vec::new();
        let records = run.iter().map(|taken| taken.record);
        owned
            .shard
            .apply_all(records, &mut self.names, |place, rejected| {
                dead.push((place, rejected))
            });
        self.folded += run.len() as u64;
        // It is what the log is known by.
        owned.footing.step(&last.record, last.key);
        owned.heard_at = self.silence.last_look();
        for (place, rejected) in &dead {
            let Taken { key, record, .. } = &run[*place];
            let letter = DeadLetter {
                topic: &self.topic,
                partition,
                offset: record.offset,
                key: *key,
                payload: record.payload,
                rejected,
            };
            self.dead_letters.send(&letter, &self.shutdown);
        }
        Ok(match dead.is_empty() {
            true => Folded::Yes,
            false => Folded::AfterAWait,
        })
    }
}
