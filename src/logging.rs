//! Where log lines go: to standard error or, while a screen is up, to whoever
//! draws it, since a line in the middle of a screen helps nobody.
//!
//! Invariant: nothing is swallowed. What came while the screen was up is written
//! to standard error when it is down, all but what the bound drops, and that is
//! counted.

mod seldom;

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, fmt as lines};

pub use seldom::Seldom;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// How many lines are kept while a screen is up; the oldest go first.
const KEPT: usize = 200;

/// The log of this process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Logging(Arc<Mutex<Option<Kept>>>);

/// What came while the screen was up.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<(Level, String)>,
    dropped: u64,
    newest_warning: Option<String>,
}

impl Logging {
    /// Starts logging. `default` is what is logged where `RUST_LOG` says nothing.
    ///
    /// # Panics
    ///
    /// When logging was started before in this process.
    pub fn start(format: LogFormat, default: &str) -> Logging {
        let logging = Logging::default();
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let to_stderr = lines::layer().with_writer(io::stderr);
        let to_stderr = match format {
            LogFormat::Text => to_stderr.with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => to_stderr.json().boxed(),
        };
        // Layers that do not say so keep every level alive, and then each of the
        // trace lines that the Kafka client has for each message is looked at.
        let highest = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let screen = logging.clone();
        let to_screen = dynamic_filter_fn(move |_, _| !screen.is_held());
        tracing_subscriber::registry()
            .with(filter)
            .with(to_stderr.with_filter(to_screen.with_max_level_hint(highest)))
            .with(Keeper(logging.clone()).with_filter(highest))
            .init();
        debug_assert_eq!(LevelFilter::current(), highest);
        logging
    }

    /// Keeps lines back until what this returns is dropped.
    pub fn hold(&self) -> Held {
        *self.kept() = Some(Kept::default());
        Held(self.clone())
    }

    /// Whether lines are kept back.
    pub fn is_held(&self) -> bool {
        self.kept().is_some()
    }

    /// Keeps a line, if lines are kept back; else `false`.
    pub fn keep(&self, level: Level, line: String) -> bool {
        let mut kept = self.kept();
        let Some(kept) = kept.as_mut() else {
            return false;
        };
        if level <= Level::WARN {
            kept.newest_warning = Some(line.clone());
        }
        if kept.lines.len() == KEPT {
            kept.lines.pop_front();
            kept.dropped += 1;
        }
        kept.lines.push_back((level, line));
        true
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps lines back while it lives; dropped, it writes them to standard error.
#[derive(Debug)]
pub struct Held(Logging);

impl Held {
    /// The newest warning or error.
    pub fn newest_warning(&self) -> Option<String> {
        let kept = self.0.kept();
        kept.as_ref().and_then(|kept| kept.newest_warning.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(kept) = self.0.kept().take() else {
            return;
        };
        // Nobody may be left to read it.
        let _ = io::stderr().write_all(kept.to_string().as_bytes());
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped > 0 {
            writeln!(f, "({} older log lines are left out)", self.dropped)?;
        }
        for (level, line) in &self.lines {
            writeln!(f, "{level:>5} {line}")?;
        }
        Ok(())
    }
}

/// The layer that keeps lines back.
struct Keeper(Logging);

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.0.is_held() {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.keep(*event.metadata().level(), line.0);
        }
    }
}

/// An event's message, with its fields behind.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => {
                let rest = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{rest}")
            }
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_while_they_are_held_and_only_then() {
        let logging = Logging::default();
        assert!(!logging.keep(Level::WARN, "before".into()));
        let held = logging.hold();
        assert_eq!(held.newest_warning(), None);
        let subscriber = tracing_subscriber::registry().with(Keeper(logging.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(partition = 3, "a broker is gone");
            tracing::info!("it is back");
        });
        assert_eq!(
            held.newest_warning().unwrap(),
            "a broker is gone partition=3"
        );
        assert_eq!(
            logging.kept().as_ref().unwrap().to_string(),
            " WARN a broker is gone partition=3\n INFO it is back\n"
        );
        drop(held);
        assert!(!logging.is_held());
        assert!(!logging.keep(Level::WARN, "after".into()));
    }

    #[test]
    fn what_the_bound_drops_is_counted() {
        let logging = Logging::default();
        let _held = logging.hold();
        for line in 0..KEPT + 7 {
            logging.keep(Level::INFO, line.to_string());
        }
        let text = logging.kept().as_ref().unwrap().to_string();
        assert!(text.starts_with("(7 older log lines are left out)\n INFO 7\n"));
        assert_eq!(text.lines().count(), KEPT + 1);
    }
}
