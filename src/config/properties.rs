//! librdkafka's properties: which ones are ours, which ones are secret, and
//! whether librdkafka takes them.

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaConfRes;

use super::KafkaConfig;
use super::error::did_you_mean;
use crate::kafka::client;

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "***";

/// Properties that tally99 sets itself, and why nobody else may.
#[rustfmt::skip]
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers instead"),
    ("metadata.broker.list", "set kafka.bootstrap_servers instead"),
    ("group.id", "set kafka.group instead"),
    ("session.timeout.ms", "set kafka.session_timeout_ms instead"),
    ("heartbeat.interval.ms", "it follows kafka.session_timeout_ms"),
    ("client.id", "it names the process, so that a second one in the group can be named"),
    ("group.instance.id", "set kafka.group_instance_id instead"),
    ("group.protocol", "tally99 speaks the classic group protocol"),
    ("group.remote.assignor", "tally99 speaks the classic group protocol"),
    ("partition.assignment.strategy", "all members of a group must have the same one"),
    ("enable.auto.commit", "offsets are committed for lag tools only, once they are counted"),
    ("auto.commit.enable", "offsets are committed for lag tools only, once they are counted"),
    ("auto.commit.interval.ms", "offsets are committed for lag tools only, once they are counted"),
    ("enable.auto.offset.store", "offsets are committed for lag tools only, once they are counted"),
    ("offset.store.method", "offsets are committed for lag tools only, once they are counted"),
    ("auto.offset.reset", "a missing offset is an error; skipping it would lose events in silence"),
    ("check.crcs", "a record damaged on its way must not be counted"),
    ("isolation.level", "records of an aborted transaction must not be counted"),
    ("enable.partition.eof", "tally99 finds the end of a partition its own way"),
    ("allow.auto.create.topics", "the donations topic is never created by reading it"),
    ("topic.blacklist", "a topic that cannot be seen would look like one that is missing"),
    ("enable.idempotence", "totals must reach their topic once and in order"),
    ("enable.gapless.guarantee", "a delivery that fails is tried again, it does not end the process"),
    ("acks", "a cut is complete only when all replicas have it"),
    ("request.required.acks", "a cut is complete only when all replicas have it"),
    ("retries", "a delivery is tried again for as long as the process lives"),
    ("message.send.max.retries", "a delivery is tried again for as long as the process lives"),
    ("message.timeout.ms", "a delivery is tried again for as long as the process lives"),
    ("delivery.timeout.ms", "a delivery is tried again for as long as the process lives"),
    ("delivery.report.only.error", "a cut waits for every acknowledgement"),
    ("max.in.flight", "totals must reach their topic once and in order"),
    ("max.in.flight.requests.per.connection", "totals must reach their topic once and in order"),
    ("queuing.strategy", "totals must reach their topic once and in order"),
    ("partitioner", "a campaign must always meet in the same partition"),
    ("transactional.id", "totals are exact without Kafka's transactions"),
    ("log_level", "RUST_LOG=librdkafka=debug says which of its lines are logged"),
    ("test.mock.num.brokers", "every client would have a cluster of its own"),
];

/// What is often set, to suggest the right spelling; librdkafka does not list
/// its properties.
#[rustfmt::skip]
const COMMON: &[&str] = &[
    "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password",
    "sasl.kerberos.principal", "sasl.kerberos.service.name", "sasl.kerberos.keytab",
    "sasl.oauthbearer.method", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url", "ssl.ca.location", "ssl.certificate.location",
    "ssl.key.location", "ssl.key.password", "ssl.keystore.location", "ssl.keystore.password",
    "ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification",
    "client.rack", "compression.type", "socket.keepalive.enable", "socket.timeout.ms",
    "broker.address.family", "fetch.message.max.bytes", "fetch.wait.max.ms", "fetch.min.bytes",
    "queued.max.messages.kbytes", "queued.min.messages", "linger.ms", "batch.size",
    "max.poll.interval.ms", "reconnect.backoff.max.ms", "debug",
];

/// Whether a property's value is a secret, by its name: passwords, keys,
/// tokens and whatever may carry one. Rather one too many than one too few.
pub fn is_secret(name: &str) -> bool {
    const MARKS: &[&str] = &[
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "jaas",
        "credential",
        "oauthbearer.config",
        "oauthbearer.extensions",
        "key.pem",
        "ssl_key",
        "kinit.cmd",
        "private",
    ];
    let name = name.to_ascii_lowercase();
    MARKS.iter().any(|mark| name.contains(mark)) && !name.ends_with(".location")
}

/// The value as it may be shown.
pub(super) fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) { HIDDEN } else { value }
}

/// What is wrong with one property, if something is, and whether its value may
/// be shown with it: not where librdkafka does not know the name, since it
/// could be a misspelled secret.
pub(super) fn check(name: &str, value: &str) -> Result<(), (String, bool)> {
    if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
        return Err((format!("tally99 sets this itself: {why}"), true));
    }
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let ours = OURS.iter().map(|(name, _)| *name);
            let hint = did_you_mean(name, COMMON.iter().copied().chain(ours));
            Err((format!("librdkafka has no such property{hint}"), false))
        }
        // Its descriptions quote the value.
        Err(_) if is_secret(name) => Err(("librdkafka refuses this value".into(), true)),
        Err(KafkaError::ClientConfig(_, why, ..)) => {
            Err((format!("librdkafka refuses this value: {why}"), true))
        }
        Err(_) => Err(("a value must not contain a NUL character".into(), false)),
    }
}

/// What librdkafka refuses when it makes the clients of `tally99 run`: it reads
/// certificates and compares limits, those that tally99 sets among them, only
/// then. These clients know no broker, so they connect to nothing.
pub(super) fn check_together(kafka: &KafkaConfig) -> Vec<String> {
    let refusals = [
        refusal::<BaseConsumer<Quiet>>(client::reader(kafka)),
        refusal::<BaseConsumer<Quiet>>(client::member(kafka)),
        refusal::<BaseProducer<Quiet>>(client::publisher(kafka)),
        refusal::<AdminClient<Quiet>>(client::admin_settings(kafka)),
    ];
    let mut reasons = Vec::new();
    for mut why in refusals.into_iter().flatten() {
        for (name, value) in &kafka.properties {
            if is_secret(name) && !value.is_empty() {
                why = why.replace(value.as_str(), HIDDEN);
            }
        }
        // What all clients have in common, all of them refuse.
        if !reasons.contains(&why) {
            reasons.push(why);
        }
    }
    reasons
}

fn refusal<T: FromClientConfigAndContext<Quiet>>(mut settings: ClientConfig) -> Option<String> {
    settings.remove("bootstrap.servers");
    let why = match settings.create_with_context::<_, T>(Quiet).err()? {
        KafkaError::ClientCreation(why) => why,
        error => error.to_string(),
    };
    Some(client::without_secrets(&why).into_owned())
}

/// Whether a property is named in a text of librdkafka's.
pub(super) fn is_named(name: &str, text: &str) -> bool {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')))
        .any(|word| word.trim_end_matches('.') == name)
}

/// A client that is made only to see whether it can be made says nothing.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();
    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for secret in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.jaas.config",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "SASL.PASSWORD",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in [
            "sasl.username",
            "sasl.mechanism",
            "ssl.ca.location",
            "ssl.key.location",
            "client.id",
        ] {
            assert!(!is_secret(open), "{open}");
        }
    }

    #[test]
    fn librdkafka_judges_names_and_values() {
        assert_eq!(check("security.protocol", "sasl_ssl"), Ok(()));
        let (why, shown) = check("sasl.pasword", "hunter2").unwrap_err();
        assert_eq!(
            why,
            "librdkafka has no such property; did you mean sasl.password?"
        );
        assert!(!shown);
        let (why, _) = check("security.protocol", "carrier_pigeon").unwrap_err();
        assert!(
            why.contains("carrier_pigeon") && why.contains("security.protocol"),
            "{why}"
        );
        assert!(check("client.rack", "a\0b").is_err());
        // It would be overwritten.
        let (why, _) = check("log_level", "7").unwrap_err();
        assert!(why.contains("RUST_LOG"), "{why}");
    }

    #[test]
    fn what_we_set_ourselves_librdkafka_knows() {
        // A name that librdkafka does not know would guard nothing.
        for (name, why) in OURS {
            let mut config = ClientConfig::new();
            config.set(*name, "tally99");
            let unknown = matches!(
                config.create_native_config(),
                Err(KafkaError::ClientConfig(
                    RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
                    ..
                ))
            );
            assert!(!unknown, "{name}");
            let (reason, _) = check(name, "1").unwrap_err();
            assert!(reason.ends_with(why), "{reason}");
        }
        for name in COMMON {
            let unknown = matches!(
                ClientConfig::new().set(*name, "1").create_native_config(),
                Err(KafkaError::ClientConfig(
                    RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN,
                    ..
                ))
            );
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn what_only_shows_together_is_found_too() {
        let of = |pairs: &[(&str, &str)]| {
            let properties = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            check_together(&KafkaConfig {
                bootstrap_servers: "127.0.0.1:1".into(),
                group: "tally99".into(),
                group_instance_id: None,
                session_timeout: Duration::from_secs(6),
                properties: properties.collect(),
            })
        };
        assert_eq!(of(&[("client.rack", "x")]), [""; 0]);
        // The first three are refused for what tally99 itself sets.
        for (name, value) in [
            ("reconnect.backoff.ms", "5000"),
            ("linger.ms", "6000"),
            ("max.poll.interval.ms", "1000"),
            ("ssl.ca.location", "no-such-file.pem"),
        ] {
            let why = of(&[(name, value), ("security.protocol", "ssl")]);
            assert_eq!(why.len(), 1, "{why:?}");
            assert!(is_named(name, &why[0]), "{why:?}");
        }
        let both = of(&[("linger.ms", "6000"), ("max.poll.interval.ms", "1000")]);
        assert_eq!(both.len(), 2, "{both:?}");
    }

    #[test]
    fn a_name_is_a_whole_word() {
        let text = "`reconnect.backoff.max.ms` must be >= `linger.ms`; ssl.ca.location.";
        for named in ["reconnect.backoff.max.ms", "linger.ms", "ssl.ca.location"] {
            assert!(is_named(named, text), "{named}");
        }
        assert!(!is_named("max.ms", text) && !is_named("reconnect.backoff", text));
    }
}
