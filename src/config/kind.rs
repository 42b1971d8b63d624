//! Values, and the kinds of them: how each is read from text, and what it allows.

use std::fmt;

use jiff::tz::TimeZoneDatabase;

use super::error::did_you_mean;

/// A value as it stands in a layer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Whole(i64),
    Float(f64),
    Switch(bool),
    /// What no setting takes (dates, lists, tables), in words.
    Other(String),
}

impl Value {
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl fmt::Display for Value {
    /// As TOML has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => toml_edit::Value::from(text.as_str()).fmt(f),
            Value::Whole(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Switch(switch) => switch.fmt(f),
            Value::Other(words) => f.write_str(words),
        }
    }
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `host:port`, separated by commas.
    Servers,
    /// A consumer group's name.
    Group,
    /// A member's id in a group, in Kafka's own letters, or nothing.
    InstanceId,
    /// A topic's name, as Kafka allows them.
    Topic,
    /// An IANA time zone of the bundled database.
    TimeZone,
    /// The URL of a store of checkpoints; empty for none.
    Store,
    /// Yes or no.
    Switch,
    /// A whole number; `zero` says what 0 means where it is not a number.
    Whole {
        min: i64,
        max: i64,
        zero: Option<&'static str>,
    },
}

/// Kafka's own bound.
const TOPIC_BYTES_MAX: usize = 249;

impl Kind {
    /// The value that a variable or a flag means. Text that is no value of this
    /// kind stays text, and [`Kind::check`] refuses it.
    pub fn read(self, text: &str) -> Value {
        let text = text.trim();
        match self {
            Kind::Switch => text.parse().map_or_else(|_| text.into(), Value::Switch),
            Kind::Whole { .. } => text.parse().map_or_else(|_| text.into(), Value::Whole),
            _ => text.into(),
        }
    }

    /// What is wrong with the value, if something is.
    pub fn check(self, value: &Value) -> Result<(), String> {
        let fine = match (self, value) {
            (Kind::Switch, Value::Switch(_)) => true,
            (Kind::Whole { min, max, .. }, Value::Whole(number)) => (min..=max).contains(number),
            (Kind::Servers, Value::Text(text)) => are_servers(text),
            (Kind::Group, Value::Text(text)) => is_group(text),
            (Kind::InstanceId, Value::Text(text)) => text.is_empty() || is_topic(text),
            (Kind::Topic, Value::Text(text)) => is_topic(text),
            (Kind::Store, Value::Text(text)) => is_store(text),
            (Kind::TimeZone, Value::Text(text)) => return check_time_zone(text),
            _ => false,
        };
        if fine {
            Ok(())
        } else {
            Err(format!("allowed is {self}"))
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Servers => f.write_str("\"host:port\", or several separated by commas"),
            Kind::Group => f.write_str("a name of 1 to 255 bytes without control characters"),
            Kind::InstanceId => write!(
                f,
                "up to {TOPIC_BYTES_MAX} of a-z A-Z 0-9 . _ -, and not \".\" or \"..\" (\"\": none)"
            ),
            Kind::Topic => write!(
                f,
                "a topic's name: 1 to {TOPIC_BYTES_MAX} of a-z A-Z 0-9 . _ -, and not \".\" or \"..\""
            ),
            Kind::TimeZone => f.write_str("an IANA time zone such as \"Asia/Shanghai\""),
            Kind::Store => {
                f.write_str("\"file:///folder\", \"s3://bucket/prefix\", or \"\" for none")
            }
            Kind::Switch => f.write_str("true or false"),
            Kind::Whole { min, max, zero } => {
                write!(f, "a whole number from {min} to {max}")?;
                zero.map_or(Ok(()), |meaning| write!(f, " (0: {meaning})"))
            }
        }
    }
}

fn is_store(url: &str) -> bool {
    let path = url.strip_prefix("file://");
    let bucket = url.strip_prefix("s3://");
    url.is_empty()
        || path.is_some_and(|path| path.starts_with('/'))
        || bucket.is_some_and(|bucket| !bucket.is_empty() && !bucket.starts_with('/'))
}

fn is_topic(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=TOPIC_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !matches!(name, "." | "..")
}

fn is_group(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.contains(char::is_control) && name.trim() == name
}

/// librdkafka takes what it cannot read for a host name and then fails to
/// resolve it, over and over; so the plain mistakes are caught here.
fn are_servers(list: &str) -> bool {
    list.split(',').all(|server| {
        let server = server.trim();
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        // A bracketed IPv6 address has colons of its own.
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (server, None),
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
            && (bracketed || !host.contains(':'))
            && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    })
}

/// Zones come from the bundled database, never the machine's: business days
/// must be the same days everywhere.
fn check_time_zone(name: &str) -> Result<(), String> {
    let zones = TimeZoneDatabase::bundled();
    let known: Vec<String> = zones.available().map(|zone| zone.to_string()).collect();
    // Case matters here although look-ups forgive it, so that the same zone
    // always has the same name in what is compared later.
    if known.iter().any(|zone| zone == name) {
        return Ok(());
    }
    let lower = name.to_ascii_lowercase();
    let guess = match known.iter().find(|zone| zone.to_ascii_lowercase() == lower) {
        Some(zone) => format!("; did you mean {zone}?"),
        None => did_you_mean(name, known.iter().map(String::as_str)),
    };
    Err(format!(
        "no such zone in the time zone database; allowed is {}{guess}",
        Kind::TimeZone
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for good in [
            "localhost",
            "a:1",
            "a:9092,b:9093",
            "a:1, b:2",
            "[::1]:9092",
            "[::1]",
            "SASL_SSL://kafka.example:9092",
        ] {
            assert!(are_servers(good), "{good}");
        }
        for bad in [
            "", " ", ",", "a:1,", "a:0", "a:99999", "a:b", ":9092", "a b:1", "::1", "a/b:1",
        ] {
            assert!(!are_servers(bad), "{bad}");
        }
    }

    #[test]
    fn topics() {
        assert!(is_topic("donations.dead-letters_2") && is_topic(&"x".repeat(249)));
        for bad in ["", ".", "..", "a b", "捐款", "a/b", &"x".repeat(250)] {
            assert!(!is_topic(bad), "{bad}");
        }
    }

    #[test]
    fn text_that_is_no_value_is_refused_with_what_is_allowed() {
        let workers = Kind::Whole {
            min: 0,
            max: 8,
            zero: Some("one a core"),
        };
        assert_eq!(workers.check(&workers.read(" 8 ")), Ok(()));
        for bad in ["9", "-1", "many", "", "4.0", "0x4"] {
            assert_eq!(
                workers.check(&workers.read(bad)),
                Err("allowed is a whole number from 0 to 8 (0: one a core)".into()),
                "{bad}"
            );
        }
        assert_eq!(Kind::Switch.check(&Kind::Switch.read("true")), Ok(()));
        assert!(Kind::Switch.check(&Kind::Switch.read("yes")).is_err());
        // In a file, text is not a number.
        assert!(workers.check(&Value::from("4")).is_err());
    }

    #[test]
    fn time_zones_have_one_spelling() {
        let zone = |name: &str| Kind::TimeZone.check(&Value::from(name));
        assert_eq!(zone("Asia/Shanghai"), Ok(()));
        assert_eq!(zone("UTC"), Ok(()));
        assert!(
            zone("asia/shanghai")
                .unwrap_err()
                .ends_with("did you mean Asia/Shanghai?")
        );
        assert!(
            zone("Asia/Shangai")
                .unwrap_err()
                .ends_with("did you mean Asia/Shanghai?")
        );
        assert!(zone("").is_err());
    }
}
