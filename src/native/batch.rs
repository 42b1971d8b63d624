//! Records in batches.
//!
//! librdkafka hands out hundreds of records in one call, where each `poll` of
//! rust-rdkafka makes an event, a reference count and a message of its own. Of a thousand
//! CPU nanoseconds that a polled record takes, 575 were measured for one of a batch
//! (`tally99 bench raw`). rust-rdkafka has no such call, hence this module.
//!
//! Why it is sound, in four sentences. A [`Queue`] and every [`Batch`] hold the
//! consumer, so librdkafka's handle outlives them. A message belongs to its batch alone,
//! from the call until it is destroyed when the batch is dropped. Between the two
//! librdkafka neither changes nor moves it, nor the bytes that it points to, so they may be
//! lent out for as long as the batch is borrowed. A queue may be used by any thread; a
//! batch stays where it was taken.
//!
//! The tests send random records through librdkafka's own mock brokers, take them in random
//! amounts, and let go of them in random order. Miri cannot run them, as it does not call
//! into C; valgrind can, and `CONTRIBUTING.md` says how.

#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_get_watermark_offsets, rd_kafka_message_destroy,
    rd_kafka_message_timestamp, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer,
    rd_kafka_queue_t, rd_kafka_timestamp_type_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr};

use crate::offset::{Offset, Partition};
use crate::shard::Record;

/// What a consumer has fetched and nobody has taken yet.
///
/// It must not carry rebalances: they would be swallowed. So the consumer is one of
/// those whose partitions are [said by hand](crate::kafka::reader).
pub struct Queue<C: ConsumerContext> {
    queue: NonNull<rd_kafka_queue_t>,
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues have locks of their own, and may be used by any thread.
unsafe impl<C: ConsumerContext> Send for Queue<C> {}

impl<C: ConsumerContext> Queue<C> {
    /// The queue of this consumer.
    pub fn of(consumer: &Arc<BaseConsumer<C>>) -> Queue<C> {
        // SAFETY: the handle is alive, as `consumer` is. What comes back is a reference
        // of our own, given back by `drop`.
        let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Queue {
            queue: NonNull::new(queue).expect("a handle with a group.id has a consumer queue"),
            consumer: consumer.clone(),
        }
    }

    /// Takes up to `max` records that are there already, without waiting. (librdkafka
    /// would wait until so many are there.)
    ///
    /// An empty batch does not say that all is well: errors of the client, and what it has
    /// to say otherwise, come by polling the consumer.
    pub fn take(&self, max: usize) -> Batch<C> {
        let mut messages = Vec::with_capacity(max);
        // SAFETY: the queue is alive, and there is room for `max` pointers.
        let count = unsafe {
            rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, messages.as_mut_ptr(), max)
        };
        // Below zero stands for an error, of which this call has none.
        let count = usize::try_from(count).unwrap_or_default();
        // SAFETY: librdkafka has written so many pointers, `max` at the most.
        unsafe { messages.set_len(count) };
        Batch {
            messages,
            _consumer: self.consumer.clone(),
        }
    }
}

impl<C: ConsumerContext> Queue<C> {
    /// Where a partition's log ended, as brokers said with the last records that were
    /// fetched; `None` before any were. It asks nobody. Behind it may be what is not handed
    /// out: a transaction that is open.
    pub fn last_known_end(&self, topic: &CStr, partition: Partition) -> Option<Offset> {
        let (mut start, mut end) = (-1, -1);
        // SAFETY: the handle is alive, the name ends with a zero, and both may be written.
        let code = unsafe {
            rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &mut start,
                &mut end,
            )
        };
        let is_known = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && end >= 0;
        is_known.then_some(Offset(end))
    }
}

impl<C: ConsumerContext> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: it is the reference that `of` got, and the consumer is still there.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Records that were taken in one call. Those of a partition are in the order of their
/// offsets.
pub struct Batch<C: ConsumerContext> {
    messages: Vec<*mut RDKafkaMessage>,
    /// Its handle must outlive the messages; fields are dropped after `drop`.
    _consumer: Arc<BaseConsumer<C>>,
}

/// A record out of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Where it comes from.
    pub partition: Partition,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// What the fold sees of it.
    pub record: Record<'a>,
}

/// What stands in the place of a record.
#[derive(Clone, Debug)]
pub enum NoRecord {
    /// All of a partition has been handed out that is there.
    End {
        /// Which.
        partition: Partition,
        /// The next offset that will be written. (The consumer's own
        /// [position](crate::kafka::reader::positions) is one too high after a batch with
        /// an end in it, until the next record comes: librdkafka takes the end for a record.)
        at: Offset,
    },
    /// Something went wrong.
    Error(KafkaError),
}

impl<'a> Taken<'a> {
    /// A record that was polled.
    pub fn of(message: &'a BorrowedMessage<'_>) -> Taken<'a> {
        let timestamp = message.timestamp().to_millis();
        Taken {
            partition: message.partition(),
            key: message.key(),
            record: Record {
                offset: message.offset(),
                timestamp: timestamp.filter(|&timestamp| timestamp >= 0),
                payload: message.payload(),
            },
        }
    }

    /// Whether it is a later record of the same partition.
    #[inline]
    pub fn follows(&self, other: &Taken<'_>) -> bool {
        self.partition == other.partition && self.record.offset > other.record.offset
    }
}

impl<C: ConsumerContext> Batch<C> {
    /// How many records, and errors in their places, there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The record at a place below [`len`](Batch::len).
    ///
    /// # Errors
    ///
    /// What stands in its place.
    ///
    /// # Panics
    ///
    /// If there is no such place.
    #[inline]
    pub fn get(&self, place: usize) -> Result<Taken<'_>, NoRecord> {
        let pointer = self.messages[place];
        // SAFETY: librdkafka never hands out null, and the message is ours until `drop`.
        let message = unsafe { &*pointer };
        if message.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(no_record(message));
        }
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: as above, and `kind` may be written.
        let timestamp = unsafe { rd_kafka_message_timestamp(pointer, &mut kind) };
        // SAFETY: both say where so many bytes are, which are lent with `self`.
        let (key, payload) = unsafe {
            (
                slice(message.key.cast(), message.key_len),
                slice(message.payload.cast(), message.len),
            )
        };
        Ok(Taken {
            partition: message.partition,
            key,
            record: Record {
                offset: message.offset,
                timestamp: (timestamp >= 0).then_some(timestamp),
                payload,
            },
        })
    }
}

impl<C: ConsumerContext> Drop for Batch<C> {
    fn drop(&mut self) {
        for &message in &self.messages {
            // SAFETY: each is ours, is destroyed once, and nobody has it borrowed.
            unsafe { rd_kafka_message_destroy(message) };
        }
    }
}

#[cold]
fn no_record(message: &RDKafkaMessage) -> NoRecord {
    match message.err {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => NoRecord::End {
            partition: message.partition,
            at: Offset(message.offset),
        },
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__FATAL => {
            NoRecord::Error(KafkaError::MessageConsumptionFatal(message.err.into()))
        }
        code => NoRecord::Error(KafkaError::MessageConsumption(code.into())),
    }
}

/// `None` for null: a record without a value is another thing than an empty value.
///
/// # Safety
///
/// From `start` there are `len` bytes, which nobody changes for as long as they are lent;
/// or it is null.
#[inline]
unsafe fn slice<'a>(start: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: what the caller says.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, len) })
}
