//! What is wrong with a configuration: all of it, in one message.

use std::fmt;

/// Every error that was found; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The errors, in the order of the settings.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "the configuration has an error:")?,
            n => write!(f, "the configuration has {n} errors:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// One error: where it stands and what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, `run.workers`, or what was written where one should be.
    pub key: String,
    /// Its value as it may be shown. Absent for a key that we do not know: it
    /// could be a misspelled secret.
    pub value: Option<String>,
    /// Where it comes from: a file with its line, a variable, a flag.
    pub source: String,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        // A flag or variable that we do not know is its own source.
        if self.source != self.key {
            write!(f, " ({})", self.source)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// ", did you mean …?" where one of `known` is near to `name`, else nothing.
pub(super) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|&(likeness, _)| likeness >= 0.6)
        .map_or_else(String::new, |(_, nearest)| {
            format!("; did you mean {nearest}?")
        })
}
