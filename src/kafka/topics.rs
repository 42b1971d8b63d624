//! Topics: which are there, and making our own.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{
    Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem,
};

use crate::config::TopicsConfig;
use crate::offset::{Offset, Partition};

/// How long a question to the brokers may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What to do when a log is not the one that was folded.
pub const IF_MADE_ANEW: &str = "If the topic was meant to be made anew, use new names for \
    tally99's own topics and another place for its checkpoints, or delete them; else restore the \
    broker's data";

/// How many partitions a topic has; `None` if there is no such topic.
pub fn partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> Result<Option<usize>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let Some(topic) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(topic.partitions().len())),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(None)
        }
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// Where each partition of a topic begins and ends: the offset of its first
/// record, and the next one that will be written.
pub fn log_ranges<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: usize,
) -> Result<BTreeMap<Partition, (Offset, Offset)>, KafkaError> {
    (0..partitions as Partition)
        .map(|partition| {
            let (low, high) = client.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
            Ok((partition, (Offset(low), Offset(high))))
        })
        .collect()
}

/// Where each partition of a topic ends, asked for all of them at once.
pub fn log_ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: usize,
) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
    let mut ends = TopicPartitionList::new();
    for partition in 0..partitions as Partition {
        // The time that stands for the end.
        ends.add_partition_offset(topic, partition, KafkaOffset::End)?;
    }
    let ends = consumer.offsets_for_times(ends, ANSWER_WITHIN)?;
    let end_of = |element: &TopicPartitionListElem<'_>| {
        element.error()?;
        match element.offset() {
            KafkaOffset::Offset(end) => Ok((element.partition(), Offset(end))),
            _ => Err(KafkaError::OffsetFetch(
                RDKafkaErrorCode::LeaderNotAvailable,
            )),
        }
    };
    ends.elements().iter().map(end_of).collect()
}

const DAY_MS: u64 = 86_400_000;

/// A topic's settings, by name.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// The names of our own topics.
fn own(topics: &TopicsConfig) -> [&str; 4] {
    [
        &topics.totals,
        &topics.cuts,
        &topics.windows,
        &topics.dead_letters,
    ]
}

/// An error, and the topic that it is about.
pub type OfTopic = (String, KafkaError);

/// Those of our own topics that are not there.
pub fn missing<C: ClientContext>(
    client: &Client<C>,
    topics: &TopicsConfig,
) -> Result<Vec<String>, OfTopic> {
    let mut missing = Vec::new();
    for topic in own(topics) {
        let found = partitions(client, topic);
        if found.map_err(|error| (topic.to_owned(), error))?.is_none() {
            missing.push(topic.to_owned());
        }
    }
    Ok(missing)
}

/// What brokers say of a topic's settings.
#[derive(Debug)]
pub struct TopicSettings(ConfigResource);

impl TopicSettings {
    /// The settings of a topic.
    ///
    /// # Errors
    ///
    /// When the brokers do not say: no permission to ask, or no answer.
    pub async fn of<C: ClientContext>(
        admin: &AdminClient<C>,
        topic: &str,
    ) -> Result<TopicSettings, KafkaError> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let topic = ResourceSpecifier::Topic(topic);
        let described = admin.describe_configs([&topic], &options).await?.pop();
        let code = RDKafkaErrorCode::UnknownTopic;
        match described.unwrap_or(Err(code)) {
            Ok(resource) => Ok(TopicSettings(resource)),
            Err(code) => Err(KafkaError::AdminOp(code)),
        }
    }

    fn get(&self, name: &str) -> &str {
        let entry = self.0.get(name);
        entry.and_then(|entry| entry.value.as_deref()).unwrap_or("")
    }

    /// Whether records go away when others of their key come.
    pub fn is_compacted(&self) -> bool {
        self.get("cleanup.policy").contains("compact")
    }

    /// How far ahead of the broker's clock a producer may stamp a record, in
    /// milliseconds; `None` where the broker stamps it, or does not say.
    pub fn timestamps_ahead_ms(&self) -> Option<u64> {
        let by_producers = self.get("message.timestamp.type") == "CreateTime";
        // Before Kafka 3.6 the limit goes both ways.
        let limit = match self.get("message.timestamp.after.max.ms") {
            "" => self.get("message.timestamp.difference.max.ms"),
            after => after,
        };
        by_producers.then(|| limit.parse().ok()).flatten()
    }
}

/// Makes those of our own topics that are `missing`; returns the names of those
/// that it made.
pub async fn create<C: ClientContext>(
    admin: &AdminClient<C>,
    topics: &TopicsConfig,
    missing: &[String],
    partitions: usize,
) -> Result<Vec<String>, OfTopic> {
    let cuts_retention_ms = (30 * DAY_MS).to_string();
    // A dead letter may be as large as any record, and has headers on top.
    let dead_letter_bytes = (8 << 20).to_string();
    let totals_partitions = partitions.clamp(1, 12);
    let compacted: Settings<'_> = &[("cleanup.policy", "compact")];
    let wanted: [(&str, usize, Settings<'_>); 4] = [
        (&topics.totals, totals_partitions, compacted),
        // One partition: cuts have an order.
        (
            &topics.cuts,
            1,
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", &cuts_retention_ms),
            ],
        ),
        (&topics.windows, totals_partitions, compacted),
        // Keyed by their place, so that a replay's repeats go away.
        (
            &topics.dead_letters,
            totals_partitions,
            &[
                ("cleanup.policy", "compact"),
                ("max.message.bytes", &dead_letter_bytes),
            ],
        ),
    ];
    let mut created = Vec::new();
    for (name, partitions, settings) in wanted {
        if !missing.iter().any(|missing| missing == name) {
            continue;
        }
        let made = make(admin, name, partitions, topics.replication, settings).await;
        if made.map_err(|e| (name.to_owned(), e))? {
            created.push(name.to_owned());
        }
    }
    Ok(created)
}

/// Makes a topic; `false` if somebody else was faster. Without `replication` it
/// has as many copies as the brokers see fit.
pub async fn make<C: ClientContext>(
    admin: &AdminClient<C>,
    name: &str,
    partitions: usize,
    replication: Option<i32>,
    settings: Settings<'_>,
) -> Result<bool, KafkaError> {
    let replication = TopicReplication::Fixed(replication.unwrap_or(-1));
    let mut topic = NewTopic::new(name, partitions as i32, replication);
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
    match admin.create_topics([&topic], &options).await?.remove(0) {
        Ok(_) => Ok(true),
        Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
        Err((_, code)) => Err(KafkaError::AdminOp(code)),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::config::Config;
    use crate::kafka::client;

    #[test]
    fn to_ask_for_a_topic_does_not_make_it() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        let mut kafka = Config::default().kafka;
        kafka.bootstrap_servers = cluster.bootstrap_servers();
        let admin = client::admin(&kafka, &Default::default()).unwrap();
        for _ in 0..2 {
            assert_eq!(partitions(admin.inner(), "nobody").unwrap(), None);
        }
    }
}
