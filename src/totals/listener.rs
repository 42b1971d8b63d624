//! What librdkafka says while it reads, kept so that it can be told in one
//! message when it matters, instead of line by line.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::client::without_secrets;

/// Hears what librdkafka says, to tell it in one message when it matters.
#[derive(Default)]
pub(super) struct Listener(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    last: Option<String>,
    hopeless: bool,
    /// Whether that was said.
    said: bool,
}

impl Listener {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What librdkafka said last about a failure.
    pub fn last_words(&self, fallback: &str) -> String {
        let heard = self.heard();
        heard.last.clone().unwrap_or_else(|| fallback.into())
    }

    /// All brokers are down or do not let us in: asking again helps nobody.
    pub fn is_hopeless(&self) -> bool {
        self.heard().hopeless
    }

    /// A broker has answered.
    pub fn is_well(&self) {
        let mut heard = self.heard();
        if heard.said {
            tracing::info!("Kafka answers again");
        }
        *heard = Heard::default();
    }

    /// That no broker answers, if so.
    pub fn trouble(&self) -> Option<String> {
        self.heard().trouble()
    }

    /// Says it once.
    pub fn warn_of_trouble(&self) {
        let mut heard = self.heard();
        if let Some(trouble) = heard.trouble().filter(|_| !heard.said) {
            heard.said = true;
            tracing::warn!("{trouble}");
        }
    }
}

impl Heard {
    fn trouble(&self) -> Option<String> {
        let why = self.last.as_deref().unwrap_or("no reason is known");
        self.hopeless
            .then(|| format!("no Kafka broker answers ({why}); waiting for one"))
    }
}

impl ClientContext for Listener {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        let message = without_secrets(message);
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = &without_secrets(reason);
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        let mut heard = self.heard();
        match error.rdkafka_error_code() {
            // That all are down says nothing; why the last one is, does.
            Some(RDKafkaErrorCode::AllBrokersDown) => heard.hopeless = true,
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(RDKafkaErrorCode::Authentication) => {
                heard.hopeless = true;
                heard.last = Some(in_short(reason));
            }
            _ => heard.last = Some(in_short(reason)),
        }
    }
}

impl ConsumerContext for Listener {}

/// librdkafka's reason without the state of its own machinery:
/// "… failed: Connection refused (after 0ms in state CONNECT, …)".
fn in_short(reason: &str) -> String {
    reason
        .split(" (after ")
        .next()
        .unwrap_or(reason)
        .to_string()
}
