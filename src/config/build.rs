//! From the layers to a [`Config`]: merging, checking, and what the values are
//! compared with each other for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Value};
use serde::Deserialize;

use super::error::{ConfigError, Problem};
use super::kind::Kind;
use super::layers::{Entry, Flags, Layer};
use super::settings::{PROPERTIES, SETTINGS, Setting, by_key};
use super::{Config, CountingConfig, KafkaConfig, RunConfig, TopicsConfig, properties};

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
    let mut figment = Figment::new();
    for setting in SETTINGS {
        figment = figment.merge(Entry::new(
            setting.key,
            setting.kind.read(setting.default),
            "default",
        ));
    }
    let mut problems = Vec::new();
    let layers = [
        file.map(Layer::of_file).unwrap_or_default(),
        Layer::of_environment(variables),
        Layer::of_flags(flags),
    ];
    for layer in layers {
        problems.extend(layer.problems);
        for entry in layer.entries {
            figment = figment.merge(entry);
        }
    }

    let settings: Vec<Shown> = SETTINGS
        .iter()
        .map(|setting| checked(&figment, setting, &mut problems))
        .collect();
    let before = problems.len();
    let (properties, shown) = checked_properties(&figment, &mut problems);
    if problems.len() == before && !properties.is_empty() {
        go_together(&properties, &settings, &shown, &mut problems);
    }
    topics_differ(&settings, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }

    let raw: Raw = figment.extract().map_err(|error| ConfigError {
        // The table and `Raw` disagree; a test holds that they do not.
        problems: vec![Problem {
            key: error.path.join("."),
            value: None,
            source: "tally99".into(),
            reason: error.kind.to_string(),
        }],
    })?;
    Ok(Loaded {
        config: raw.resolve(properties),
        settings,
        properties: shown,
    })
}

fn checked(figment: &Figment, setting: &Setting, problems: &mut Vec<Problem>) -> Shown {
    let value = figment
        .find_value(setting.key)
        .unwrap_or_else(|_| Value::from(Dict::new()));
    let shown = Shown {
        key: setting.key.into(),
        source: source(figment, &value),
        value,
    };
    if let Err(reason) = setting.kind.check(&shown.value) {
        problems.push(Problem {
            key: shown.key.clone(),
            value: Some(describe(&shown.value)),
            source: shown.source.clone(),
            reason,
        });
    }
    shown
}

fn checked_properties(
    figment: &Figment,
    problems: &mut Vec<Problem>,
) -> (BTreeMap<String, String>, Vec<Shown>) {
    let mut properties = BTreeMap::new();
    let mut shown = Vec::new();
    let found = figment
        .find_value(PROPERTIES)
        .ok()
        .and_then(Value::into_dict);
    for (name, value) in found.unwrap_or_default() {
        let source = source(figment, &value);
        let key = format!("{PROPERTIES}.{name}");
        // librdkafka takes text; a number or a switch in the file is its text.
        let text = match &value {
            Value::String(_, text) => text.clone(),
            Value::Bool(_, switch) => switch.to_string(),
            Value::Num(..) => describe(&value),
            _ => {
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
        let visible = properties::shown(&name, &text).to_string();
        if let Err((reason, show)) = properties::check(&name, &text) {
            let value = show.then(|| describe(&Value::from(visible.as_str())));
            problems.push(Problem {
                key,
                value,
                source: source.clone(),
                reason,
            });
        }
        shown.push(Shown {
            key: name.clone(),
            value: visible.into(),
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
    settings: &[Shown],
    shown: &[Shown],
    problems: &mut Vec<Problem>,
) {
    let key = "kafka.session_timeout_ms";
    let valid = |kind: Kind, value: &Value| kind.check(value).is_ok().then(|| value.to_i128());
    let setting = by_key(key).zip(settings.iter().find(|shown| shown.key == key));
    // One that is wrong is a problem of its own; any other will do here.
    let session_ms = setting.and_then(|(setting, shown)| valid(setting.kind, &shown.value));
    let session_ms = session_ms.flatten().unwrap_or(6_000);
    let reasons = properties::check_together(&KafkaConfig {
        bootstrap_servers: String::new(),
        group: "tally99".into(),
        session_timeout: Duration::from_millis(session_ms as u64),
        properties: properties.clone(),
    });
    for why in reasons {
        let named = shown
            .iter()
            .filter(|shown| properties::is_named(&shown.key, &why));
        let (key, value, source) = match named.collect::<Vec<_>>()[..] {
            [one] => (
                format!("{PROPERTIES}.{}", one.key),
                Some(describe(&one.value)),
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
                && shown.value.as_str().is_some_and(|name| !name.is_empty())
        })
        .collect();
    for (i, later) in topics.iter().enumerate() {
        let same = |earlier: &&&Shown| earlier.value.as_str() == later.value.as_str();
        if let Some(earlier) = topics[..i].iter().find(same) {
            problems.push(Problem {
                key: later.key.clone(),
                value: Some(describe(&later.value)),
                source: later.source.clone(),
                reason: format!(
                    "{} ({}) has the same name; every topic needs one of its own",
                    earlier.key, earlier.source
                ),
            });
        }
    }
}

fn source(figment: &Figment, value: &Value) -> String {
    let known = figment.get_metadata(value.tag());
    known.map_or_else(|| "unknown".into(), |metadata| metadata.name.to_string())
}

fn sources(shown: &[Shown]) -> String {
    let mut names: Vec<&str> = shown.iter().map(|shown| shown.source.as_str()).collect();
    names.dedup();
    names.join(", ")
}

/// The value as TOML has it; what no setting takes, by what it is.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Bool(_, switch) => switch.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(float)) => float.to_string(),
            (None, None) => "a number".into(),
        },
        Value::Array(_, items) => match items.first().and_then(Value::as_str) {
            Some(date) => date.to_string(),
            None => "a list".into(),
        },
        _ => "a table".into(),
    }
}

/// The values as they stand in the layers.
#[derive(Deserialize)]
struct Raw {
    kafka: RawKafka,
    topics: RawTopics,
    run: RawRun,
    counting: RawCounting,
}

#[derive(Deserialize)]
struct RawKafka {
    bootstrap_servers: String,
    group: String,
    session_timeout_ms: u64,
}

#[derive(Deserialize)]
struct RawTopics {
    donations: String,
    totals: String,
    cuts: String,
    windows: String,
    dead_letters: String,
    create: bool,
    replication: i32,
}

#[derive(Deserialize)]
struct RawRun {
    workers: usize,
    flush_interval_ms: u64,
    publish_interval_ms: u64,
    windows_interval_ms: u64,
    donors_interval_ms: u64,
    epoch: u32,
    wait_for_topic: bool,
}

#[derive(Deserialize)]
struct RawCounting {
    time_zone: String,
    dedup_horizon_s: u32,
    max_ahead_ms: i64,
}

impl Raw {
    fn resolve(self, properties: BTreeMap<String, String>) -> Config {
        let Raw {
            kafka,
            topics,
            run,
            counting,
        } = self;
        Config {
            kafka: KafkaConfig {
                bootstrap_servers: kafka.bootstrap_servers,
                group: kafka.group,
                session_timeout: Duration::from_millis(kafka.session_timeout_ms),
                properties,
            },
            topics: TopicsConfig {
                donations: topics.donations,
                totals: topics.totals,
                cuts: topics.cuts,
                windows: topics.windows,
                dead_letters: topics.dead_letters,
                create: topics.create,
                replication: (topics.replication > 0).then_some(topics.replication),
            },
            run: RunConfig {
                workers: if run.workers == 0 {
                    cores()
                } else {
                    run.workers
                },
                flush_interval: Duration::from_millis(run.flush_interval_ms),
                publish_interval: Duration::from_millis(run.publish_interval_ms),
                windows_interval: Duration::from_millis(run.windows_interval_ms),
                donors_interval: Duration::from_millis(run.donors_interval_ms),
                epoch: run.epoch,
                wait_for_topic: run.wait_for_topic,
            },
            counting: CountingConfig {
                time_zone: counting.time_zone,
                dedup_horizon_s: counting.dedup_horizon_s,
                max_ahead_ms: counting.max_ahead_ms,
            },
        }
    }
}

/// How many cores this process may use; 1 where the system does not say.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
