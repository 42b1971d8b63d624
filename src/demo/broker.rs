//! The embedded broker: librdkafka's own mock cluster, within this process, on a
//! free port of loopback that is closed when it is dropped.
//!
//! It keeps about 5 MiB a partition and forgets the oldest, so whoever writes to
//! it must not run ahead of its readers (see `in_flight`), and what was emitted
//! cannot be read back whole: the demo checks the totals of the view, which are
//! those that the broker has acknowledged.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use std::time::Duration;

use super::args::DemoArgs;
use crate::config::Config;

/// How many partitions the compacted topics have: the broker never compacts, so
/// more of them would only hold more of what nobody reads.
const OWN_PARTITIONS: i32 = 3;

/// How often totals are emitted: more often than usual, since somebody watches.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(200);
const DONORS_INTERVAL: Duration = Duration::from_millis(500);

/// A broker that lives as long as this does.
pub(super) struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    /// Starts it, and makes all topics: it cannot be asked to by a client.
    pub fn start(config: &Config, partitions: i32) -> Result<Broker, KafkaError> {
        let cluster = MockCluster::new(1)?;
        let topics = &config.topics;
        for (topic, partitions) in [
            (&topics.donations, partitions),
            (&topics.totals, OWN_PARTITIONS),
            (&topics.windows, OWN_PARTITIONS),
            (&topics.cuts, 1),
            (&topics.dead_letters, 1),
        ] {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(Broker { cluster })
    }

    /// `127.0.0.1:port`.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

/// The configuration of a run on the embedded broker: the defaults, whatever is
/// set in the environment, but for where the broker needs or allows another.
pub(super) fn config(args: &DemoArgs) -> Config {
    let mut config = Config::default();
    config.kafka.group = "tally99-demo".into();
    // It answers a fetch that finds nothing only after the whole wait.
    let properties = &mut config.kafka.properties;
    properties.insert("fetch.wait.max.ms".into(), "10".into());
    config.topics.create = false;
    config.run.publish_interval = PUBLISH_INTERVAL;
    config.run.donors_interval = DONORS_INTERVAL;
    if let Some(workers) = args.workers {
        config.run.workers = workers.into();
    }
    config
}
