//! From the layers to a [`Config`]: merging, checking, and what the values are
//! compared with each other for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::error::{ConfigError, Problem};
use super::kind::Value;
use super::layers::{Flags, Layer, Sourced};
use super::settings::{PROPERTIES, SETTINGS, Setting, by_key};
use super::{
    CheckpointsConfig, Config, CountingConfig, KafkaConfig, RunConfig, TopicsConfig, properties,
};

/// A valid configuration, and where each value comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What `config show` prints, by key, in the order of [`SETTINGS`].
    pub(super) settings: Vec<Shown>,
    /// The same of librdkafka's properties, secrets hidden.
    pub(super) properties: Vec<Shown>,
}

/// A resolved value as it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub key: String,
    pub value: Value,
    pub source: String,
}

/// Reads all layers: defaults, then `file`, then those `variables` that begin
/// with `TALLY99_`, then `flags`.
///
/// # Errors
///
/// Everything that is wrong anywhere, at once: a file that cannot be read,
/// unknown keys and variables, values that are not allowed, and values that do
/// not go together. A bad value that a later layer overrides is not in use and
/// no error.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &Flags,
) -> Result<Loaded, ConfigError> {
    let layers = Layer::of_defaults()
        .under(file.map(Layer::of_file).unwrap_or_default())
        .under(Layer::of_environment(variables))
        .under(Layer::of_flags(flags));
    let values = Values(&layers.settings);
    let mut problems = layers.problems;

    let settings: Vec<Shown> = SETTINGS
        .iter()
        .map(|setting| checked(values.of(setting.key), setting, &mut problems))
        .collect();
    let before = problems.len();
    let (properties, shown) = checked_properties(layers.properties, &mut problems);
    if problems.len() == before && !properties.is_empty() {
        go_together(&properties, &values, &shown, &mut problems);
    }
    topics_differ(&settings, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }

    Ok(Loaded {
        config: resolve(&values, properties),
        settings,
        properties: shown,
    })
}

fn checked(found: &Sourced, setting: &Setting, problems: &mut Vec<Problem>) -> Shown {
    let Sourced { value, source } = found.clone();
    let key = setting.key.to_string();
    if let Err(reason) = setting.kind.check(&value) {
        problems.push(Problem {
            key: key.clone(),
            value: Some(value.to_string()),
            source: source.clone(),
            reason,
        });
    }
    Shown { key, value, source }
}

fn checked_properties(
    found: BTreeMap<String, Sourced>,
    problems: &mut Vec<Problem>,
) -> (BTreeMap<String, String>, Vec<Shown>) {
    let mut properties = BTreeMap::new();
    let mut shown = Vec::new();
    for (name, Sourced { value, source }) in found {
        let key = format!("{PROPERTIES}.{name}");
        // librdkafka takes text; a number or a switch in the file is its text.
        let text = match value {
            Value::Text(text) => text,
            Value::Switch(_) | Value::Whole(_) | Value::Float(_) => value.to_string(),
            Value::Other(_) => {
                let reason = "allowed is text, a number, true or false".into();
                problems.push(Problem {
                    key,
                    value: None,
                    source,
                    reason,
                });
                continue;
            }
        };
        let visible = Value::from(properties::shown(&name, &text));
        if let Err((reason, show)) = properties::check(&name, &text) {
            let value = show.then(|| visible.to_string());
            problems.push(Problem {
                key,
                value,
                source: source.clone(),
                reason,
            });
        }
        shown.push(Shown {
            key: name.clone(),
            value: visible,
            source,
        });
        properties.insert(name, text);
    }
    (properties, shown)
}

/// librdkafka must take the properties with each other and with what tally99
/// sets.
fn go_together(
    properties: &BTreeMap<String, String>,
    values: &Values<'_>,
    shown: &[Shown],
    problems: &mut Vec<Problem>,
) {
    // A timeout that is wrong is a problem of its own; the default will do here.
    let key = "kafka.session_timeout_ms";
    let timeout = by_key(key).filter(|it| it.kind.check(&values.of(key).value).is_ok());
    let session_timeout = timeout.map_or(Duration::from_secs(6), |_| values.millis(key));
    let reasons = properties::check_together(&KafkaConfig {
        bootstrap_servers: String::new(),
        group: "tally99".into(),
        group_instance_id: None,
        session_timeout,
        properties: properties.clone(),
    });
    for why in reasons {
        let named = shown
            .iter()
            .filter(|shown| properties::is_named(&shown.key, &why));
        let (key, value, source) = match named.collect::<Vec<_>>()[..] {
            [one] => (
                format!("{PROPERTIES}.{}", one.key),
                Some(one.value.to_string()),
                one.source.clone(),
            ),
            _ => (PROPERTIES.to_string(), None, sources(shown)),
        };
        let reason = format!("librdkafka refuses this with all that is set: {why}");
        problems.push(Problem {
            key,
            value,
            source,
            reason,
        });
    }
}

/// Two topics of one name would feed the output to the input, or mix two kinds
/// of records.
fn topics_differ(settings: &[Shown], problems: &mut Vec<Problem>) {
    let topics: Vec<&Shown> = settings
        .iter()
        .filter(|shown| {
            shown.key.starts_with("topics.")
                && shown.value.as_text().is_some_and(|name| !name.is_empty())
        })
        .collect();
    for (i, later) in topics.iter().enumerate() {
        let same = |earlier: &&&Shown| earlier.value.as_text() == later.value.as_text();
        if let Some(earlier) = topics[..i].iter().find(same) {
            problems.push(Problem {
                key: later.key.clone(),
                value: Some(later.value.to_string()),
                source: later.source.clone(),
                reason: format!(
                    "{} ({}) has the same name; every topic needs one of its own",
                    earlier.key, earlier.source
                ),
            });
        }
    }
}

fn sources(shown: &[Shown]) -> String {
    let mut names: Vec<&str> = shown.iter().map(|shown| shown.source.as_str()).collect();
    names.dedup();
    names.join(", ")
}

/// The values of all settings by their keys. There is one for each, and once
/// they are checked it is of the setting's kind.
struct Values<'a>(&'a BTreeMap<&'static str, Sourced>);

impl Values<'_> {
    fn of(&self, key: &str) -> &Sourced {
        let found = self.0.get(key);
        found.unwrap_or_else(|| unreachable!("{key} is not in the table of settings"))
    }

    fn text(&self, key: &str) -> String {
        let text = self.of(key).value.as_text().map(String::from);
        text.unwrap_or_else(|| unreachable!("{key} is checked to be text"))
    }

    fn whole<T: TryFrom<i64>>(&self, key: &str) -> T {
        let number = match self.of(key).value {
            Value::Whole(number) => T::try_from(number).ok(),
            _ => None,
        };
        number.unwrap_or_else(|| unreachable!("{key} is checked to be a number that fits"))
    }

    fn millis(&self, key: &str) -> Duration {
        Duration::from_millis(self.whole(key))
    }

    fn switch(&self, key: &str) -> bool {
        self.of(key).value == Value::Switch(true)
    }
}

fn resolve(values: &Values<'_>, properties: BTreeMap<String, String>) -> Config {
    Config {
        kafka: KafkaConfig {
            bootstrap_servers: values.text("kafka.bootstrap_servers"),
            group: values.text("kafka.group"),
            group_instance_id: Some(values.text("kafka.group_instance_id"))
                .filter(|id| !id.is_empty()),
            session_timeout: values.millis("kafka.session_timeout_ms"),
            properties,
        },
        topics: TopicsConfig {
            donations: values.text("topics.donations"),
            totals: values.text("topics.totals"),
            cuts: values.text("topics.cuts"),
            windows: values.text("topics.windows"),
            dead_letters: values.text("topics.dead_letters"),
            create: values.switch("topics.create"),
            replication: Some(values.whole("topics.replication")).filter(|&count| count > 0),
        },
        run: RunConfig {
            workers: match values.whole("run.workers") {
                0 => cores(),
                workers => workers,
            },
            publish_interval: values.millis("run.publish_interval_ms"),
            windows_interval: values.millis("run.windows_interval_ms"),
            donors_interval: values.millis("run.donors_interval_ms"),
            epoch: values.whole("run.epoch"),
            wait_for_topic: values.switch("run.wait_for_topic"),
        },
        checkpoints: CheckpointsConfig {
            url: Some(values.text("checkpoints.url")).filter(|url| !url.is_empty()),
            interval: values.millis("checkpoints.interval_ms"),
            keep: values.whole("checkpoints.keep"),
        },
        counting: CountingConfig {
            time_zone: values.text("counting.time_zone"),
            dedup_horizon_s: values.whole("counting.dedup_horizon_s"),
            max_ahead_ms: values.whole("counting.max_ahead_ms"),
        },
    }
}

/// How many cores this process may use; 1 where the system does not say.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
