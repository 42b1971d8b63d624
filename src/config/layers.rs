//! The layers: what stands in the file, in the environment and on the command
//! line, by the setting that it names, and the errors of what names none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

use toml_edit::{Document, Item, TableLike};

use super::error::{Problem, did_you_mean};
use super::kind::Value;
use super::properties::{HIDDEN, shown};
use super::settings::{PREFIX, PROPERTIES, SECTIONS, SETTINGS, Setting, by_key};

/// What was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Values by the key of their setting.
    pub settings: BTreeMap<&'static str, String>,
    /// `--kafka-property`.
    pub properties: Vec<RawProperty>,
}

/// `name=value` as it was typed. The value may be a secret, so `Debug` hides it.
#[derive(Clone)]
pub struct RawProperty(String);

impl<T: Into<String>> From<T> for RawProperty {
    fn from(text: T) -> RawProperty {
        RawProperty(text.into())
    }
}

impl fmt::Debug for RawProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('=') {
            Some((name, value)) => write!(f, "{name}={}", shown(name, value)),
            None => f.write_str(HIDDEN),
        }
    }
}

/// A value, and where it comes from. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Sourced {
    pub value: Value,
    pub source: String,
}

/// The values of one layer, or of several over each other, and what is wrong
/// with them.
#[derive(Default)]
pub(super) struct Layer {
    /// By the key of their setting.
    pub settings: BTreeMap<&'static str, Sourced>,
    /// librdkafka's, by their names, dots and all.
    pub properties: BTreeMap<String, Sourced>,
    pub problems: Vec<Problem>,
}

impl Layer {
    /// This layer with another over it.
    pub fn under(mut self, other: Layer) -> Layer {
        self.settings.extend(other.settings);
        self.properties.extend(other.properties);
        self.problems.extend(other.problems);
        self
    }

    fn set(&mut self, setting: &Setting, value: Value, source: impl Into<String>) {
        let source = source.into();
        self.settings.insert(setting.key, Sourced { value, source });
    }

    fn set_property(&mut self, name: String, value: Value, source: String) {
        self.properties.insert(name, Sourced { value, source });
    }

    /// The lowest layer: every setting has a value there.
    pub fn of_defaults() -> Layer {
        let mut layer = Layer::default();
        for setting in SETTINGS {
            layer.set(setting, setting.kind.read(setting.default), "default");
        }
        layer
    }

    /// The file's layer. A file that cannot be read or is no TOML is an error,
    /// and an empty layer.
    pub fn of_file(path: &Path) -> Layer {
        let mut layer = Layer::default();
        let name = path.display().to_string();
        let unusable = |reason: String| Problem {
            key: "--config".into(),
            value: Some(name.clone()),
            source: "configuration file".into(),
            reason,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                layer
                    .problems
                    .push(unusable(format!("cannot be read: {error}")));
                return layer;
            }
        };
        match Document::parse(text.as_str()) {
            Ok(document) => File { name, text: &text }.walk("", document.as_table(), &mut layer),
            Err(error) => {
                // Only the message: the whole of it quotes the line, and there
                // may be a password on it.
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                let reason = error.message().trim().replace('\n', ", ");
                layer
                    .problems
                    .push(unusable(format!("is not TOML: line {line}: {reason}")));
            }
        }
        layer
    }

    /// The environment's layer: all variables that begin with `TALLY99_`.
    pub fn of_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Layer {
        let mut layer = Layer::default();
        // In order of their names, so that errors always come in the same order.
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        for (name, value) in variables {
            let name = name.to_string_lossy();
            let Some(rest) = name
                .strip_prefix(PREFIX)
                .filter(|rest| !is_of_kubernetes(rest))
            else {
                continue;
            };
            let setting = SETTINGS.iter().find(|setting| setting.variable() == name);
            let property = rest
                .strip_prefix("KAFKA_PROPERTIES_")
                .filter(|rest| !rest.is_empty());
            let problem = |reason: String| Problem {
                key: name.to_string(),
                value: None,
                source: name.to_string(),
                reason,
            };
            let Some(value) = value.to_str() else {
                layer
                    .problems
                    .push(problem("its value is not UTF-8".into()));
                continue;
            };
            match (setting, property) {
                (Some(setting), _) => layer.set(setting, setting.kind.read(value), name.as_ref()),
                (None, Some(property)) => layer.set_property(
                    property.to_ascii_lowercase().replace('_', "."),
                    value.into(),
                    name.to_string(),
                ),
                (None, None) => {
                    let known: Vec<_> = SETTINGS.iter().map(|setting| setting.variable()).collect();
                    let hint = did_you_mean(&name, known.iter().map(String::as_str));
                    layer
                        .problems
                        .push(problem(format!("no setting has this name{hint}")));
                }
            }
        }
        layer
    }

    /// The command line's layer.
    pub fn of_flags(flags: &Flags) -> Layer {
        let mut layer = Layer::default();
        for setting in SETTINGS {
            if let Some(text) = flags.settings.get(setting.key) {
                let source = setting.flag.unwrap_or("command line");
                layer.set(setting, setting.kind.read(text), source);
            }
        }
        for property in &flags.properties {
            let source = "--kafka-property".to_string();
            match property.0.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => {
                    layer.set_property(name.trim().to_string(), value.into(), source);
                }
                // Not quoted: it may be a secret that lost its name.
                _ => layer.problems.push(Problem {
                    key: source.clone(),
                    value: None,
                    source,
                    reason: "allowed is name=value, such as security.protocol=ssl".into(),
                }),
            }
        }
        layer
    }
}

/// Whether Kubernetes sets this variable: it gives every container the addresses
/// of a Service named tally99 as `TALLY99_SERVICE_HOST`, `TALLY99_PORT` and so on.
fn is_of_kubernetes(rest: &str) -> bool {
    matches!(rest, "SERVICE_HOST" | "SERVICE_PORT" | "PORT")
        || rest.starts_with("SERVICE_PORT_")
        || rest.starts_with("PORT_")
}

/// A parsed file, to name places in it.
struct File<'a> {
    name: String,
    text: &'a str,
}

impl File<'_> {
    fn walk(&self, path: &str, table: &dyn TableLike, layer: &mut Layer) {
        for (name, item) in table.iter() {
            let path = if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            };
            let source = self.source(table, name);
            let section = item.as_table_like();
            let problem = |reason: String| Problem {
                key: path.clone(),
                value: None,
                source: source.clone(),
                reason,
            };
            if let Some(setting) = by_key(&path) {
                layer.set(setting, value_of(item), source);
            } else if path == PROPERTIES || SECTIONS.contains(&path.as_str()) {
                match section {
                    Some(section) if path == PROPERTIES => self.properties("", section, layer),
                    Some(section) => self.walk(&path, section, layer),
                    None => layer.problems.push(problem(format!(
                        "this is a section; write [{path}] on a line of its own and its settings below"
                    ))),
                }
            } else if section.is_some() && !path.contains('.') {
                let hint = did_you_mean(&path, SECTIONS.iter().copied());
                layer.problems.push(problem(format!(
                    "no such section; there are {}{hint}",
                    SECTIONS.join(", ")
                )));
            } else {
                layer
                    .problems
                    .push(problem(format!("no such setting{}", suggest(&path))));
            }
        }
    }

    /// `"sasl.password"` and `sasl.password` without quotes, which TOML reads
    /// as a table in a table, mean the same property.
    fn properties(&self, path: &str, table: &dyn TableLike, layer: &mut Layer) {
        for (name, item) in table.iter() {
            let name_so_far = if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            };
            match item.as_table_like() {
                Some(table) => self.properties(&name_so_far, table, layer),
                None => {
                    let source = self.source(table, name);
                    match layer.properties.get(&name_so_far) {
                        Some(twin) => layer.problems.push(Problem {
                            reason: format!("{} sets the same property", twin.source),
                            key: format!("{PROPERTIES}.{name_so_far}"),
                            value: None,
                            source,
                        }),
                        None => layer.set_property(name_so_far, value_of(item), source),
                    }
                }
            }
        }
    }

    fn source(&self, table: &dyn TableLike, name: &str) -> String {
        let key = table.get_key_value(name).and_then(|(key, _)| key.span());
        match key {
            Some(span) => format!("{}:{}", self.name, line_of(self.text, span.start)),
            None => self.name.clone(),
        }
    }
}

/// The nearest setting: one of that name in another section, or one that is
/// written alike.
fn suggest(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    match SETTINGS.iter().find(|setting| setting.parts().1 == name) {
        Some(setting) => format!("; did you mean {}?", setting.key),
        None => did_you_mean(path, SETTINGS.iter().map(|setting| setting.key)),
    }
}

/// A value of the file.
fn value_of(item: &Item) -> Value {
    use toml_edit::Value as Toml;
    match item {
        Item::Value(Toml::String(text)) => Value::Text(text.value().clone()),
        Item::Value(Toml::Integer(number)) => Value::Whole(*number.value()),
        Item::Value(Toml::Float(number)) => Value::Float(*number.value()),
        Item::Value(Toml::Boolean(switch)) => Value::Switch(*switch.value()),
        Item::Value(Toml::Datetime(date)) => Value::Other(date.value().to_string()),
        Item::Value(Toml::Array(_)) | Item::ArrayOfTables(_) => Value::Other("a list".into()),
        _ => Value::Other("a table".into()),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}
