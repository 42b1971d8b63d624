//! A consumer that never meets a rebalance: what it reads is said by hand.
//!
//! It is said by adding and taking away, and never by a new assignment as a whole:
//! librdkafka 2.12 then stops all that it reads, and if it is told the same again
//! before it has done so, it stops it twice and aborts the process
//! (`rd_kafka_assignment_partition_stopped: Assertion rktp_started failed`). Between
//! two times that a partition is taken away it is added, and librdkafka's main
//! thread, which takes what it is told in turn, has heard of the first stop by then.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::client::{Context, Health};
use crate::offset::{Offset, Partition};

/// Reads some partitions of one topic.
pub struct Reader {
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    reading: BTreeSet<Partition>,
    settings: ClientConfig,
    /// A client of its own for questions, once there is one. On the reader's connections a
    /// question waits behind the fetch that is under way, and one that is not answered in
    /// time closes the connection, and takes the fetch with it.
    asker: OnceCell<BaseConsumer<Context>>,
}

impl Reader {
    /// A reader of nothing yet, with a client of these
    /// [settings](super::client::reader).
    pub fn new(
        settings: &ClientConfig,
        topic: &str,
        health: Arc<Health>,
    ) -> Result<Reader, KafkaError> {
        Ok(Reader {
            consumer: Arc::new(settings.create_with_context(Context { health })?),
            topic: topic.to_owned(),
            reading: BTreeSet::new(),
            settings: settings.clone(),
            asker: OnceCell::new(),
        })
    }

    /// The client, to be polled.
    pub fn consumer(&self) -> &Arc<BaseConsumer<Context>> {
        &self.consumer
    }

    /// Reads these partitions from these offsets on, whether or not they were read
    /// already. Others are read on as before.
    pub fn read_from(
        &mut self,
        places: impl IntoIterator<Item = (Partition, Offset)>,
    ) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            list.add_partition_offset(&self.topic, partition, KafkaOffset::Offset(offset.0))?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        let partitions: Vec<_> = list.elements().iter().map(|it| it.partition()).collect();
        self.stop(partitions.iter().copied())?;
        self.consumer.incremental_assign(&list)?;
        self.reading.extend(partitions);
        Ok(())
    }

    /// Reads these partitions no longer, whether or not they were read.
    pub fn stop(
        &mut self,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let partitions: BTreeSet<_> = partitions.into_iter().collect();
        for &partition in self.reading.intersection(&partitions) {
            list.add_partition(&self.topic, partition);
        }
        if list.count() > 0 {
            self.consumer.incremental_unassign(&list)?;
            self.reading.retain(|it| !partitions.contains(it));
        }
        Ok(())
    }

    /// Up to where each partition was [handed out](positions).
    pub fn positions(&self) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
        positions(&self.consumer)
    }

    /// Where the log of a partition begins, and where it ends.
    pub fn ends(
        &self,
        partition: Partition,
        patience: Duration,
    ) -> Result<(Offset, Offset), KafkaError> {
        let asker = self.asker()?;
        // It reads nothing; what it has to say of its connections is taken in.
        while asker.poll(Duration::ZERO).is_some() {}
        let ends = asker.fetch_watermarks(&self.topic, partition, patience)?;
        Ok((Offset(ends.0), Offset(ends.1)))
    }

    fn asker(&self) -> Result<&BaseConsumer<Context>, KafkaError> {
        if self.asker.get().is_none() {
            let mut settings = self.settings.clone();
            settings.set("client.rack", ""); // Leaders alone know how far the log goes.
            let health = self.consumer.context().health.clone();
            let asker = settings.create_with_context(Context { health })?;
            let _ = self.asker.set(asker);
        }
        Ok(self.asker.get().expect("it was made just now"))
    }
}

/// Up to where the records of each partition were handed out since it is read. The marker
/// that a transaction ends with, and what was aborted before it, counts as handed out:
/// librdkafka takes markers out of its queue in their turn, and moves the position behind
/// them. A partition of which nothing was read yet is left out.
pub fn positions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
    let positions = consumer.position()?;
    let elements = positions.elements();
    let positions = elements.iter().filter_map(|it| match it.offset() {
        KafkaOffset::Offset(next) => Some((it.partition(), Offset(next))),
        _ => None,
    });
    Ok(positions.collect())
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Message;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    const PARTITIONS: Partition = 12;

    fn cluster() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("donations", PARTITIONS, 1).unwrap();
        cluster
    }

    fn client(bootstrap_servers: &str) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", bootstrap_servers)
            .set("auto.offset.reset", "error")
            .set("group.id", "anew");
        settings
    }

    /// With `assign` this aborts.
    #[test]
    fn it_can_be_pointed_anew_at_once_and_often() {
        let cluster = cluster();
        let settings = client(&cluster.bootstrap_servers());
        let mut reader = Reader::new(&settings, "donations", Arc::default()).unwrap();
        for offset in 0..500 {
            let places = (0..PARTITIONS).map(|partition| (partition, Offset(offset % 3)));
            reader.read_from(places).unwrap();
            reader.stop([offset as Partition % PARTITIONS, 99]).unwrap();
        }
        let assigned = reader.consumer().assignment().unwrap();
        assert_eq!(assigned.count(), reader.reading.len());
        assert_eq!(assigned.count(), 11);
    }

    #[test]
    fn what_it_was_pointed_at_before_is_not_read() {
        let cluster = cluster();
        let settings = client(&cluster.bootstrap_servers());
        let producer: BaseProducer = settings.create().unwrap();
        for number in 0..PARTITIONS * 5 {
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to("donations").payload(b"x");
            producer
                .send(record.partition(number % PARTITIONS))
                .unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        let mut reader = Reader::new(&settings, "donations", Arc::default()).unwrap();
        let consumer = reader.consumer().clone();
        for first in [0, 3, 1, 4, 0, 2] {
            let places = (0..PARTITIONS).map(|partition| (partition, Offset(first)));
            reader.read_from(places).unwrap();
            // The others have records in the queue when they are pointed anew.
            let mut seen = BTreeSet::new();
            while seen.len() < 3 {
                if let Some(message) = consumer.poll(Duration::from_secs(30)) {
                    let message = message.unwrap();
                    if seen.insert(message.partition()) {
                        assert_eq!(message.offset(), first);
                    }
                }
            }
        }
        reader.stop(0..PARTITIONS).unwrap();
        assert!(consumer.poll(Duration::from_millis(100)).is_none());
    }
}
