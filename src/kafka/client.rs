//! How our clients are set up, and what they say when brokers do not answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::KafkaConfig;

/// What all our clients share. `usual`: what this role sets unless somebody sets
/// it otherwise; what a caller sets on top of it is not to be changed.
fn common(config: &KafkaConfig, role: &str, usual: &[(&str, &str)]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // New partitions and lost topics are noticed within this time.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true")
        // We say ourselves when brokers cannot be reached, once and in words.
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in usual {
        client.set(*name, *value);
    }
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set(
            "client.id",
            format!("tally99-{}-{role}", std::process::id()),
        );
    client
}

/// A consumer that never joins the group: partitions are assigned by hand, and
/// an offset that is not there is an error, never a reset.
pub fn reader(config: &KafkaConfig) -> ClientConfig {
    let usual = [
        // A full queue is looked at again soon; librdkafka would sleep for 1 s.
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.wait.max.ms", "50"),
    ];
    let mut client = common(config, "reader", &usual);
    client
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("isolation.level", "read_committed");
    client
}

/// The consumer that speaks for this process in the group.
pub fn member(config: &KafkaConfig) -> ClientConfig {
    let session_ms = config.session_timeout.as_millis();
    // A commit waits for its answer no longer than a session lasts.
    let timeout_ms = session_ms.to_string();
    let mut client = common(config, "member", &[("socket.timeout.ms", &timeout_ms)]);
    client
        .set("group.id", &config.group)
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 3).to_string())
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error");
    client
}

/// A producer whose deliveries come once and in order while it lives.
///
/// `patience`: how long librdkafka tries a message; [`Duration::ZERO`] is for ever.
pub fn producer(config: &KafkaConfig, role: &str, patience: Duration) -> ClientConfig {
    let usual = [("compression.type", "lz4"), ("linger.ms", "5")];
    let mut client = common(config, role, &usual);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", patience.as_millis().to_string());
    client
}

/// A client for questions about topics and groups, and for making topics.
pub fn admin(
    config: &KafkaConfig,
    health: &Arc<Health>,
) -> Result<AdminClient<Context>, KafkaError> {
    common(config, "admin", &[]).create_with_context(Context {
        health: health.clone(),
    })
}

/// Whether brokers answer. It is said once when they do not, again every half a
/// minute while they do not, and once when they do again.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    down_since: Option<Instant>,
    said: Option<Instant>,
    /// What librdkafka said last about a connection that failed.
    last_failure: String,
}

const SAY_AGAIN: Duration = Duration::from_secs(30);

impl Health {
    fn with<T>(&self, change: impl FnOnce(&mut HealthState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// No broker at `bootstrap_servers` answers, at the start.
    pub fn is_down_at(&self, bootstrap_servers: &str) {
        self.with(|state| {
            if state.last_failure.is_empty() {
                state.last_failure = format!("no answer from {bootstrap_servers}");
            }
        });
        self.is_down();
    }

    /// No broker answers.
    pub fn is_down(&self) {
        self.with(|state| {
            let now = Instant::now();
            state.down_since.get_or_insert(now);
            if state.said.is_none_or(|said| now - said >= SAY_AGAIN) {
                state.said = Some(now);
                let reason = match state.last_failure.as_str() {
                    "" => "no answer",
                    reason => reason,
                };
                tracing::warn!(
                    "no Kafka broker answers ({reason}); trying on. Nothing is lost meanwhile: \
                     what is not folded stays in the log"
                );
            }
        });
    }

    /// A broker has answered.
    pub fn is_up(&self) {
        self.with(|state| {
            state.said = None;
            if let Some(since) = state.down_since.take() {
                tracing::info!(
                    "Kafka answers again, after {:.1} s",
                    since.elapsed().as_secs_f32()
                );
            }
        });
    }

    /// What librdkafka said last about a connection that failed; may be empty.
    pub fn last_failure(&self) -> String {
        self.with(|state| state.last_failure.clone())
    }

    /// Takes an error of any client in; `false` if it is none of a connection.
    pub fn note(&self, error: &KafkaError) -> bool {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.is_down(),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::NetworkException
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotEnoughReplicas
                | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            ) => {}
            _ => return false,
        }
        true
    }
}

/// The context of our clients: librdkafka's own lines go to the log as details.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Where failed connections are noted.
    pub health: Arc<Health>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if facility == "COMMITFAIL" {
            return; // The confirmer has the same answer.
        }
        if facility == "FAIL" {
            // "[thrd:…]: host:port/id: Connect to … failed: Connection refused (…)"
            let reason = line.rsplit_once("]: ").map_or(line, |(_, reason)| reason);
            self.health
                .with(|state| state.last_failure = reason.to_owned());
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", "{facility}: {line}");
            }
            _ => tracing::debug!(target: "librdkafka", "{facility}: {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let end_of_partition = Some(RDKafkaErrorCode::PartitionEOF);
        if error.rdkafka_error_code() != end_of_partition && !self.health.note(&error) {
            tracing::warn!("Kafka client: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Context {}

/// What a person should do about an error that does not go away by itself.
pub fn advice(error: &KafkaError, topic: &str, group: &str) -> Option<String> {
    use RDKafkaErrorCode as Code;
    Some(match error.rdkafka_error_code()? {
        Code::TopicAuthorizationFailed => format!(
            "no permission for topic {topic}: grant READ, DESCRIBE (donations, cuts) and \
             WRITE, CREATE (topics of tally99's own) to this user"
        ),
        Code::GroupAuthorizationFailed => {
            format!("no permission for group {group}: grant READ and DESCRIBE on it to this user")
        }
        Code::ClusterAuthorizationFailed => {
            "no permission for the cluster: grant CREATE and IDEMPOTENT_WRITE to this user".into()
        }
        Code::SaslAuthenticationFailed | Code::Authentication => {
            "the brokers refuse the user's name or password: see kafka.properties".into()
        }
        Code::SSL => "TLS failed: see ssl.ca.location in kafka.properties".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn properties_that_may_be_set_are_not_set_back() {
        let mut config = Config::default().kafka;
        let may = [
            ("fetch.wait.max.ms", "11"),
            ("fetch.queue.backoff.ms", "12"),
            ("socket.timeout.ms", "13000"),
            ("linger.ms", "14"),
            ("compression.type", "zstd"),
            ("reconnect.backoff.max.ms", "15000"),
        ];
        for (name, value) in may {
            config.properties.insert(name.into(), value.into());
        }
        for client in [
            reader(&config),
            member(&config),
            producer(&config, "totals", Duration::ZERO),
        ] {
            for (name, value) in may {
                assert_eq!(client.get(name), Some(value), "{name}");
            }
        }
        let usual = reader(&Config::default().kafka);
        assert_eq!(usual.get("fetch.wait.max.ms"), Some("50"));
    }
}
