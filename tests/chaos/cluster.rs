//! Three brokers, each behind a relay for the clients of `tally99 run`; everybody
//! else comes directly.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::kafka::Kafka;
use crate::proxy::{Link, Proxy};
use crate::wait::{SOON, wait_until};

pub const BROKERS: u32 = 3;

/// How long the brokers may take to answer a question.
const ANSWER: Duration = Duration::from_secs(5);
/// How many partitions hold the groups: `offsets.topic.num.partitions`.
const GROUP_PARTITIONS: i32 = 4;

pub struct Cluster {
    pub kafka: Kafka,
    proxies: Vec<Proxy>,
    asker: BaseConsumer,
}

impl Cluster {
    pub fn start() -> Cluster {
        let proxies: Vec<_> = (0..BROKERS).map(|_| Proxy::new()).collect();
        let ports: Vec<_> = proxies
            .iter()
            .map(|proxy| proxy.port().to_string())
            .collect();
        let brokers = BROKERS.to_string();
        let kafka = Kafka::attach(&["--brokers", &brokers, "--relays", &ports.join(",")]);
        for (number, proxy) in (1..).zip(&proxies) {
            let port = std::fs::read_to_string(kafka.dir().join(format!("relayed-port-{number}")));
            let port = port.expect("a relayed broker").trim().parse();
            proxy.set_target(port.expect("a port"));
        }
        let asker = kafka.client().create().expect("valid settings");
        Cluster {
            kafka,
            proxies,
            asker,
        }
    }

    /// Where clients behind the relays begin.
    pub fn relayed(&self) -> String {
        let all = self.proxies.iter();
        let all: Vec<_> = all
            .map(|proxy| format!("127.0.0.1:{}", proxy.port()))
            .collect();
        all.join(",")
    }

    /// Sets the link to broker `number`, from 1.
    pub fn set_link(&self, number: u32, link: Link) {
        self.proxies[number as usize - 1].set(link, "");
    }

    /// Sets the links of all brokers, for clients with `whose` in their names.
    pub fn set_links(&self, link: Link, whose: &str) {
        self.proxies.iter().for_each(|proxy| proxy.set(link, whose));
    }

    /// The broker that leads a partition.
    pub fn leader_of(&self, topic: &str, partition: i32) -> u32 {
        let mut leader = -1;
        wait_until(SOON, &format!("{topic}/{partition} has a leader"), || {
            let metadata = self.asker.fetch_metadata(Some(topic), ANSWER);
            if let Ok(metadata) = metadata {
                let all = metadata.topics()[0].partitions();
                let it = all.iter().find(|found| found.id() == partition);
                leader = it.map_or(-1, rdkafka::metadata::MetadataPartition::leader);
            }
            leader > 0
        });
        leader as u32
    }

    /// The broker that speaks for a group: it leads the partition of
    /// `__consumer_offsets` that Java's hash of the name gives.
    pub fn coordinator_of(&self, group: &str) -> u32 {
        let hash = group.encode_utf16().fold(0i32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(unit.into())
        });
        let partition = (hash & i32::MAX) % GROUP_PARTITIONS;
        self.leader_of("__consumer_offsets", partition)
    }

    /// Whether every copy of every partition is in sync.
    pub fn is_whole(&self) -> bool {
        let metadata = self.asker.fetch_metadata(None, ANSWER);
        metadata.is_ok_and(|metadata| {
            let mut partitions = metadata
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions());
            partitions.all(|partition| partition.isr().len() == partition.replicas().len())
        })
    }
}
