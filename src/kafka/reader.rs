//! A consumer that never meets a rebalance: what it reads is said by hand.
//!
//! It is said by adding and taking away, and never by a new assignment as a whole:
//! librdkafka 2.12 then stops all that it reads, and if it is told the same again
//! before it has done so, it stops it twice and aborts the process
//! (`rd_kafka_assignment_partition_stopped: Assertion rktp_started failed`). Between
//! two times that a partition is taken away it is added, and librdkafka's main
//! thread, which takes what it is told in turn, has heard of the first stop by then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::client::{Context, Health};
use crate::offset::{Offset, Partition};

/// Reads some partitions of one topic.
pub struct Reader {
    consumer: Arc<BaseConsumer<Context>>,
    topic: String,
    reading: BTreeSet<Partition>,
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
        for partition in partitions {
            if self.reading.remove(&partition) {
                list.add_partition(&self.topic, partition);
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_unassign(&list)
    }

    /// Where the log of a partition begins, and where it ends.
    pub fn ends(
        &self,
        partition: Partition,
        patience: Duration,
    ) -> Result<(Offset, Offset), KafkaError> {
        let ends = self
            .consumer
            .fetch_watermarks(&self.topic, partition, patience)?;
        Ok((Offset(ends.0), Offset(ends.1)))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// With `assign` this aborts.
    #[test]
    fn it_can_be_pointed_anew_at_once_and_often() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("donations", 12, 1).unwrap();
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "anew");
        let mut reader = Reader::new(&settings, "donations", Arc::default()).unwrap();
        for offset in 0..500 {
            let places = (0..12).map(|partition| (partition, Offset(offset % 3)));
            reader.read_from(places).unwrap();
            reader.stop([(offset % 12) as Partition, 99]).unwrap();
        }
        let assigned = reader.consumer().assignment().unwrap();
        assert_eq!(assigned.count(), reader.reading.len());
        assert_eq!(assigned.count(), 11);
    }
}
