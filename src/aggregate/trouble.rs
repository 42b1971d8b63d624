//! What a worker does when its reader does not just bring the next record.
//!
//! What goes away by itself is waited for; what people must end is told; what
//! would make totals wrong ends the process. Nothing is skipped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Worker, WorkerError};
use crate::kafka::client;
use crate::offset::{Offset, Partition};

/// How often a damaged batch is read again.
const DAMAGED_TRIES: u32 = 5;
/// Damage after a longer time than this is another.
const DAMAGED_RECENTLY: Duration = Duration::from_secs(60);

/// A batch that does not match its checksum.
pub(super) struct Damage {
    /// Where it may be: partitions that have not moved since it was found.
    at: BTreeMap<Partition, Offset>,
    tries: u32,
    last: Instant,
}

fn places(offsets: &BTreeMap<Partition, Offset>) -> String {
    let places = offsets.iter();
    let places: Vec<_> = places
        .map(|(partition, at)| format!("{partition}/{at}"))
        .collect();
    places.join(", ")
}

impl Worker {
    /// An error of the reader: what goes away by itself is waited for, what
    /// people must end is told, what makes totals wrong ends the process. Whether all is read
    /// anew from now on.
    pub(super) fn trouble(&mut self, error: KafkaError) -> Result<bool, WorkerError> {
        use RDKafkaErrorCode as Code;
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Err(WorkerError::Fatal {
                topic: self.topic.clone(),
                error,
            });
        }
        match error.rdkafka_error_code() {
            // The member watches the topic and tells; if it is back by then, it may be
            // another one.
            Some(
                Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicId,
            ) => self.has_missed = true,
            Some(Code::BadMessage | Code::InvalidMessage | Code::BadCompression) => {
                self.read_damaged_again(error)?;
                return Ok(true);
            }
            _ if self.health.note(&error) => {}
            _ if !self.told.is_due() => {}
            _ => match client::advice(&error, &self.topic, &self.group) {
                Some(advice) => tracing::error!("reading {}: {advice}; trying on", self.topic),
                None => tracing::warn!("reading {}: {error}; trying on", self.topic),
            },
        }
        Ok(false)
    }

    /// The reader would go on behind the damaged batch; we do not.
    fn read_damaged_again(&mut self, error: KafkaError) -> Result<(), WorkerError> {
        let now: BTreeMap<_, _> = self
            .owned
            .iter()
            .map(|(&partition, owned)| (partition, owned.shard.offset()))
            .collect();
        let recent = self.damaged.take();
        let recent = recent.filter(|damage| damage.last.elapsed() < DAMAGED_RECENTLY);
        let mut damage = recent.unwrap_or_else(|| Damage {
            at: now.clone(),
            tries: 0,
            last: Instant::now(),
        });
        // Partitions that have moved on are not at fault.
        damage
            .at
            .retain(|partition, at| now.get(partition) == Some(at));
        if damage.at.is_empty() {
            (damage.at, damage.tries) = (now, 0);
        }
        (damage.tries, damage.last) = (damage.tries + 1, Instant::now());
        if damage.tries >= DAMAGED_TRIES {
            return Err(WorkerError::Damaged {
                topic: self.topic.clone(),
                at: places(&damage.at),
                tries: damage.tries,
                error: error.to_string(),
            });
        }
        tracing::warn!(
            "{}: a damaged batch ({error}), at one of these offsets: {}; reading it again",
            self.topic,
            places(&damage.at)
        );
        self.damaged = Some(damage);
        self.read_all_anew();
        Ok(())
    }
}
