//! librdkafka's properties: which ones are ours, which ones are secret, and
//! whether librdkafka takes them.

use std::collections::BTreeMap;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use rdkafka::{ClientContext, error::KafkaResult};

use super::error::did_you_mean;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Properties that tally99 sets itself, and why nobody else may.
#[rustfmt::skip]
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers instead"),
    ("metadata.broker.list", "set kafka.bootstrap_servers instead"),
    ("group.id", "set kafka.group instead"),
    ("session.timeout.ms", "set kafka.session_timeout_ms instead"),
    ("heartbeat.interval.ms", "it follows kafka.session_timeout_ms"),
    ("client.id", "it names the process, so that a second one in the group can be named"),
    ("group.instance.id", "a second process in the group is known by its member id"),
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

/// Whether librdkafka takes all of them together: it reads certificates and
/// compares limits only when a client is made. This one knows no broker.
pub(super) fn check_together(
    properties: &BTreeMap<String, String>,
    session_timeout_ms: u64,
) -> Result<(), String> {
    let mut config = ClientConfig::new();
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set("group.id", "tally99");
    config.set("session.timeout.ms", session_timeout_ms.to_string());
    let made: KafkaResult<BaseConsumer<Quiet>> = config.create_with_context(Quiet);
    made.map(drop).map_err(|error| {
        let mut why = match error {
            KafkaError::ClientCreation(why) => why,
            error => error.to_string(),
        };
        for (name, value) in properties {
            if is_secret(name) && !value.is_empty() {
                why = why.replace(value.as_str(), HIDDEN);
            }
        }
        format!("librdkafka refuses them together: {why}")
    })
}

/// A client that is made only to see whether it can be made says nothing.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
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
            pairs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(check_together(&of(&[("client.rack", "x")]), 6_000), Ok(()));
        let short_poll = of(&[("max.poll.interval.ms", "1000")]);
        assert!(
            check_together(&short_poll, 6_000)
                .unwrap_err()
                .contains("max.poll.interval.ms")
        );
        let no_such_file = of(&[
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "no-such-file.pem"),
        ]);
        assert!(
            check_together(&no_such_file, 6_000)
                .unwrap_err()
                .contains("ssl.ca.location")
        );
    }
}
