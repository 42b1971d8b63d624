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
//! The tests send random records through librdkafka's own mock brokers, take them by random
//! numbers, and let go of them in random order. Miri cannot run them, as it does not call
//! into C; valgrind can, and `CONTRIBUTING.md` says how.

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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

    use super::*;
    use crate::kafka::client::Context;
    use crate::kafka::reader::Reader;

    const PARTITIONS: Partition = 3;

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("donations", PARTITIONS, 1).unwrap();
        cluster
    }

    fn reader(cluster: &MockCluster<'_, DefaultProducerContext>) -> (Reader, Queue<Context>) {
        let mut settings = rdkafka::ClientConfig::new();
        settings
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("group.id", "batches");
        let mut reader = Reader::new(&settings, "donations", Arc::default()).unwrap();
        let queue = Queue::of(reader.consumer());
        let places = (0..PARTITIONS).map(|partition| (partition, Offset::START));
        reader.read_from(places).unwrap();
        (reader, queue)
    }

    /// Takes batches until `is_enough`; a queue that stays empty fails.
    fn take_until(
        queue: &Queue<Context>,
        max: usize,
        mut is_enough: impl FnMut(&Batch<Context>) -> bool,
    ) -> Vec<Batch<Context>> {
        let (mut batches, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(30));
        loop {
            let batch = queue.take(max);
            assert!(batch.len() <= max && Instant::now() < deadline);
            if is_enough(&batch) {
                batches.push(batch);
                return batches;
            }
            batches.push(batch);
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_record_comes_once_and_in_order_and_stays_until_its_batch_is_dropped() {
        const RECORDS: i32 = 3_000;
        let cluster = cluster();
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        for number in 0..RECORDS {
            let (key, value) = (format!("k{number}"), format!("value {number}"));
            let record = BaseRecord::to("donations").partition(number % PARTITIONS);
            let record = record.key(&key).payload(&value);
            producer
                .send(record.timestamp(i64::from(number + 1)))
                .unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();

        let (reader, queue) = reader(&cluster);
        assert_eq!(queue.last_known_end(c"donations", 0), None);
        let mut ends = 0;
        let batches = take_until(&queue, 100, |batch| {
            let is_end = |&place: &usize| match batch.get(place) {
                Err(NoRecord::End {
                    partition: 0..PARTITIONS,
                    at,
                }) => {
                    assert_eq!(at.0, i64::from(RECORDS / PARTITIONS));
                    true
                }
                _ => false,
            };
            ends += (0..batch.len()).filter(is_end).count();
            ends >= PARTITIONS as usize
        });
        for partition in 0..PARTITIONS {
            let end = queue.last_known_end(c"donations", partition);
            assert_eq!(end, Some(Offset(i64::from(RECORDS / PARTITIONS))));
        }
        // Nothing else holds librdkafka's handle now.
        drop((reader, queue));
        let mut next = [0; PARTITIONS as usize];
        let places = |batch: &Batch<_>| 0..batch.len();
        for (batch, place) in batches
            .iter()
            .flat_map(|it| places(it).map(move |at| (it, at)))
        {
            let Ok(taken) = batch.get(place) else {
                continue;
            };
            let offset = &mut next[taken.partition as usize];
            assert_eq!(taken.record.offset, i64::from(*offset));
            let number = *offset * PARTITIONS + taken.partition;
            assert_eq!(taken.key, Some(format!("k{number}").as_bytes()));
            assert_eq!(taken.record.timestamp, Some(i64::from(number + 1)));
            let value = format!("value {number}");
            assert_eq!(taken.record.payload, Some(value.as_bytes()));
            *offset += 1;
        }
        assert_eq!(next, [RECORDS / PARTITIONS; PARTITIONS as usize]);
    }

    #[test]
    fn no_value_and_an_empty_one_are_told_apart() {
        let cluster = cluster();
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        let record: BaseRecord<'_, (), [u8]> = BaseRecord::to("donations").partition(0);
        producer.send(record).unwrap();
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("donations").partition(0);
        producer.send(record.key(&[]).payload(&[])).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();

        let (_reader, queue) = reader(&cluster);
        let mut taken = Vec::new();
        take_until(&queue, 8, |batch| {
            let records = (0..batch.len()).filter_map(|place| batch.get(place).ok());
            taken.extend(
                records.map(|it| (it.key.map(<[u8]>::len), it.record.payload.map(<[u8]>::len))),
            );
            taken.len() >= 2
        });
        assert_eq!(taken, [(None, None), (Some(0), Some(0))]);
    }

    /// What a producer may send.
    #[derive(Clone, Debug)]
    struct Sent {
        partition: Partition,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        timestamp: i64,
    }

    prop_compose! {
        fn sent()(
            partition in 0..PARTITIONS,
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..2_000)),
            timestamp in 1..4_000_000_000_000i64,
        ) -> Sent {
            Sent { partition, key, value, timestamp }
        }
    }

    /// How many are asked for at once, and which of the batches that are held is let go of
    /// then, if any.
    fn taking() -> impl Strategy<Value = (usize, Option<prop::sample::Index>)> {
        (
            1usize..70,
            proptest::option::of(any::<prop::sample::Index>()),
        )
    }

    /// Those of a batch are what was sent at their places in the log.
    fn assert_are_as_sent(batch: &Batch<Context>, logs: &[Vec<Sent>]) -> usize {
        let records = (0..batch.len()).filter_map(|place| batch.get(place).ok());
        let checks = records.map(|taken| {
            let sent = &logs[taken.partition as usize][taken.record.offset as usize];
            assert_eq!(taken.key, sent.key.as_deref());
            assert_eq!(taken.record.payload, sent.value.as_deref());
            assert_eq!(taken.record.timestamp, Some(sent.timestamp));
        });
        checks.count()
    }

    #[test]
    fn whatever_was_sent_is_lent_as_it_is_until_its_batch_is_let_go_of() {
        let cluster = cluster();
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        // Of all cases together, by partition and offset.
        let logs = std::cell::RefCell::new(vec![Vec::new(); PARTITIONS as usize]);
        let cases = (
            proptest::collection::vec(sent(), 1..200),
            proptest::collection::vec(taking(), 1..20),
        );
        let mut runner = TestRunner::new(ProptestConfig::with_cases(32));
        let outcome = runner.run(&cases, |(records, takings)| {
            let (mut reader, queue) = reader(&cluster);
            let ends = |logs: &[Vec<Sent>]| logs.iter().map(Vec::len).collect::<Vec<_>>();
            let starts = ends(&logs.borrow());
            let count = records.len();
            for sent in records {
                let mut record = BaseRecord::<[u8], [u8]>::to("donations");
                record = record.partition(sent.partition).timestamp(sent.timestamp);
                record.key = sent.key.as_deref();
                record.payload = sent.value.as_deref();
                producer.send(record).unwrap();
                logs.borrow_mut()[sent.partition as usize].push(sent);
            }
            producer.flush(Duration::from_secs(30)).unwrap();

            let logs = logs.borrow();
            let places = starts.into_iter().map(|start| Offset(start as i64));
            reader.read_from((0..).zip(places)).unwrap();
            let (mut held, mut taken): (Vec<Batch<_>>, _) = (Vec::new(), 0);
            let deadline = Instant::now() + Duration::from_secs(30);
            for (max, let_go) in takings.into_iter().cycle() {
                let batch = queue.take(max);
                prop_assert!(batch.len() <= max && Instant::now() < deadline);
                taken += assert_are_as_sent(&batch, &logs);
                held.push(batch);
                if let Some(index) = let_go {
                    held.swap_remove(index.index(held.len()));
                }
                if taken >= count {
                    break;
                }
                std::thread::yield_now();
            }
            prop_assert_eq!(taken, count);
            // Nothing else holds librdkafka's handle now.
            drop((reader, queue));
            held.iter().for_each(|batch| {
                assert_are_as_sent(batch, &logs);
            });
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn what_is_not_there_is_not_waited_for() {
        let cluster = cluster();
        let (_reader, queue) = reader(&cluster);
        let mut ends = 0;
        // Three ends of partitions come, and nothing else, however much is asked for.
        take_until(&queue, 512, |batch| {
            ends += batch.len();
            ends == PARTITIONS as usize
        });
        for _ in 0..100 {
            assert!(queue.take(512).is_empty());
        }
    }
}
