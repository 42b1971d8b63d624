//! How our clients are set up, and what they say when brokers do not answer.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::clock::now_ms;
use crate::config::KafkaConfig;
use crate::logging::Seldom;

/// A name that no other process has or had: host, process id, and when it started.
/// The id alone would not do, since in containers it is 1 for all.
pub fn process_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        format!("{host}-{}-{:x}", std::process::id(), now_ms())
    })
}

/// What a client of this process calls itself.
pub fn client_id(role: &str) -> String {
    format!("tally99-{}-{role}", process_name())
}

/// The role of a standby, which waits in the group for others to be gone.
pub const STANDBY: &str = "standby";

/// Whether this is what a standby's place in the group calls itself, of whatever
/// process.
pub fn is_of_standby(client_id: &str) -> bool {
    let role = client_id.rsplit_once('-').map(|(_, role)| role);
    client_id.starts_with("tally99-") && role == Some(STANDBY)
}

/// The host and the process id in the name of a client of ours, of whatever process.
pub fn host_and_pid(client_id: &str) -> Option<(&str, u32)> {
    let name = client_id.strip_prefix("tally99-")?;
    let mut parts = name.rsplitn(4, '-');
    let (_role, _start) = (parts.next()?, parts.next()?);
    let pid = parts.next()?.parse().ok()?;
    Some((parts.next()?, pid))
}

/// A client's settings: what is good for us, what the user sets over it, and
/// what must be so for totals to be right. (The configuration refuses to set the
/// last ones, so nothing that is set is dropped in silence.)
pub fn settings(
    config: &KafkaConfig,
    role: &str,
    good: &[(&str, &str)],
    must: &[(&str, &str)],
) -> ClientConfig {
    let common = [
        // New partitions and lost topics are noticed within this time.
        ("topic.metadata.refresh.interval.ms", "5000"),
        ("reconnect.backoff.max.ms", "2000"),
        ("socket.keepalive.enable", "true"),
        // We say ourselves when brokers cannot be reached, once and in words.
        ("log.connection.close", "false"),
    ];
    let mut client = ClientConfig::new();
    for (name, value) in common.iter().chain(good) {
        client.set(*name, *value);
    }
    for (name, value) in &config.properties {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("client.id", client_id(role))
        // A producer that only asks for a topic would have the brokers make it,
        // unless they are told otherwise, and with their own settings.
        .set("allow.auto.create.topics", "false");
    for (name, value) in must {
        client.set(*name, *value);
    }
    client.set_log_level(RDKafkaLogLevel::Info);
    client
}

/// A consumer that never joins the group: partitions are assigned by hand, and
/// an offset that is not there is an error, never a reset. It tells when it is at the
/// end of a partition, which is not always behind a record.
pub fn reader(config: &KafkaConfig) -> ClientConfig {
    let good = [
        // A full queue is looked at again soon; librdkafka would sleep for 1 s.
        ("fetch.queue.backoff.ms", "5"),
        // What waits in the queue falls out of the caches: with 64 MB, librdkafka's default,
        // a drain took 7 % more CPU.
        ("queued.max.messages.kbytes", "4096"),
        ("fetch.wait.max.ms", "50"),
    ];
    let must = [
        ("group.id", config.group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("check.crcs", "true"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
    ];
    settings(config, "reader", &good, &must)
}

/// Such a consumer that asks the leaders alone: only they know how far the log goes.
pub fn reader_of_leaders(config: &KafkaConfig) -> ClientConfig {
    let mut settings = reader(config);
    settings.set("client.rack", "");
    settings
}

/// The consumer that speaks for this process in the group.
pub fn member(config: &KafkaConfig) -> ClientConfig {
    let mut settings = in_group(config, "member", config.session_timeout / 3);
    if let Some(id) = &config.group_instance_id {
        settings.set("group.instance.id", id);
    }
    settings
}

/// A standby's place in the group. It answers the coordinator often, since the
/// member that takes over waits for it to agree to the change.
pub fn placeholder(config: &KafkaConfig) -> ClientConfig {
    in_group(config, STANDBY, Duration::from_millis(500))
}

/// A consumer that is in the group.
fn in_group(config: &KafkaConfig, role: &str, heartbeat: Duration) -> ClientConfig {
    let session = config.session_timeout.as_millis().to_string();
    let heartbeat = heartbeat.as_millis().to_string();
    // A commit waits for its answer no longer than a session lasts.
    let good = [("socket.timeout.ms", session.as_str())];
    let must = [
        ("group.id", config.group.as_str()),
        ("session.timeout.ms", &session),
        ("heartbeat.interval.ms", &heartbeat),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
    ];
    settings(config, role, &good, &must)
}

/// The producer of upserts. librdkafka tries each for 5 s on its own, before we
/// look whether we may still send; short, because what lies in its queue is sent
/// whatever has happened to this process meanwhile.
pub fn publisher(config: &KafkaConfig) -> ClientConfig {
    producer(config, "publisher", Duration::from_secs(5))
}

/// A producer whose deliveries come once and in order while it lives.
///
/// `patience`: how long librdkafka tries a message; [`Duration::ZERO`] is for ever.
pub fn producer(config: &KafkaConfig, role: &str, patience: Duration) -> ClientConfig {
    let patience = patience.as_millis().to_string();
    let good = [("compression.type", "lz4"), ("linger.ms", "5")];
    let must = [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.timeout.ms", &patience),
    ];
    settings(config, role, &good, &must)
}

/// A client for questions about topics and groups, and for making topics.
pub fn admin(
    config: &KafkaConfig,
    health: &Arc<Health>,
) -> Result<AdminClient<Context>, KafkaError> {
    admin_settings(config).create_with_context(Context {
        health: health.clone(),
    })
}

/// The settings of [`admin`]'s client.
pub fn admin_settings(config: &KafkaConfig) -> ClientConfig {
    settings(config, "admin", &[], &[])
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
    said: Seldom,
    /// What librdkafka said last about a connection that failed.
    last_failure: String,
}

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
            if state.said.is_due() {
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
            state.said = Seldom::default();
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
                // The broker that was asked has left the cluster meanwhile.
                | RDKafkaErrorCode::DestroyBroker
                // Some broker has not answered, and all were asked.
                | RDKafkaErrorCode::Partial
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
        let line = &*without_secrets(line);
        if facility == "COMMITFAIL" {
            return; // The confirmer has the same answer.
        }
        if facility == "FAIL" {
            // "[thrd:…]: host:port/id: Connect to … failed: Connection refused (…)"
            let reason = line.rsplit_once("]: ").map_or(line, |(_, reason)| reason);
            self.health
                .with(|state| state.last_failure = reason.to_owned());
        }
        // An error of the client is a line of its log when a batch is taken where it stands.
        if facility == "ERROR" && line.ends_with("brokers are down") {
            self.health.is_down();
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", "{facility}: {line}");
            }
            _ => tracing::debug!(target: "librdkafka", "{facility}: {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        // Whoever reads is told of these as well, and knows what to make of them.
        let of_reader = matches!(
            error.rdkafka_error_code(),
            Some(Code::PartitionEOF | Code::AutoOffsetReset | Code::OffsetOutOfRange)
        );
        if !of_reader && !self.health.note(&error) {
            tracing::warn!("Kafka client: {error}: {}", without_secrets(reason));
        }
    }
}

impl ConsumerContext for Context {}

/// librdkafka's text without what it quotes of `sasl.oauthbearer.config`, which
/// holds secrets: "Unrecognized sasl.oauthbearer.config beginning at: …". All
/// else that is a secret it never quotes.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    const QUOTING: &[&str] = &[
        "beginning at",
        "Invalid sasl.oauthbearer.config: ",
        "SASL/OAUTHBEARER extension",
    ];
    let after = |mark: &&str| text.find(*mark).map(|at| at + mark.len());
    let Some(from) = QUOTING.iter().find_map(after) else {
        return text.into();
    };
    match text[from..].find(':') {
        Some(colon) => format!("{} ***", &text[..=from + colon]).into(),
        None => text.into(),
    }
}

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

    #[test]
    fn a_name_says_host_process_and_role() {
        let own = client_id("member");
        let (host, pid) = host_and_pid(&own).unwrap();
        assert!(process_name().starts_with(host));
        assert_eq!(pid, std::process::id());
        let named = "tally99-host-with-dashes-7-19a-standby";
        assert_eq!(host_and_pid(named), Some(("host-with-dashes", 7)));
        for other in ["", "tally99-a-b", "somebody-else-7-19a-member"] {
            assert_eq!(host_and_pid(other), None, "{other}");
        }
        assert!(is_of_standby(named) && !is_of_standby(&own) && !is_of_standby("x-standby"));
    }

    #[test]
    fn that_no_broker_answers_is_heard_from_a_line_of_the_log_too() {
        let context = Context::default();
        let is_down = || context.health.with(|state| state.down_since.is_some());
        context.log(
            RDKafkaLogLevel::Error,
            "ERROR",
            "rdkafka#consumer-1: something else",
        );
        assert!(!is_down());
        let line = "rdkafka#consumer-1: 3/3 brokers are down";
        context.log(RDKafkaLogLevel::Error, "ERROR", line);
        assert!(is_down());
    }

    #[test]
    fn what_librdkafka_quotes_of_secrets_is_cut_off() {
        for (text, shown) in [
            (
                "Unrecognized sasl.oauthbearer.config beginning at: hunter2 x",
                "Unrecognized sasl.oauthbearer.config beginning at: ***",
            ),
            (
                "token: Invalid sasl.oauthbearer.config: non-integral 'life': hunter2: 1",
                "token: Invalid sasl.oauthbearer.config: non-integral 'life': ***",
            ),
            (
                "SASL/OAUTHBEARER extension values must only be visible: hunter2",
                "SASL/OAUTHBEARER extension values must only be visible: ***",
            ),
            (
                "Invalid sasl.oauthbearer.config: no principal=<value>",
                "Invalid sasl.oauthbearer.config: no principal=<value>",
            ),
            (
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: refused",
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: refused",
            ),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }
}
