//! `tally99 bench`: how fast it is, and how long an event takes, on whatever Kafka there is.
//!
//! ```text
//! the command (this process)                       one measurement (a process of its own)
//!   topics, group, folder of its own (own)           raw: librdkafka alone
//!   fills a topic, or sends at a rate    ── job ──▶  fold: the real run, all of it on
//!   compares the totals that were emitted ◀── found, CPU by thread, peak memory
//!   table, JSON, report
//! ```
//!
//! Invariants: nothing is measured with anything off that a production run has on; every
//! figure of latency counts every event, from when it was due; what cannot be trusted (a
//! generator that fell behind, totals that are not exact) is said, and is an exit code; and
//! whatever was made is taken away again.

mod args;
mod asked;
mod backlog;
mod child;
mod compare;
mod cpu;
mod drain;
mod latency;
mod machine;
mod measure;
mod message;
mod own;
mod paced;
mod plots;
mod report;
mod result;
mod stats;
mod sweep;
mod table;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::config::Config;
use crate::generate::{KafkaSinkError, RECORDS_MAX, Settings, SettingsError};
use crate::kafka::clock::now_ms;
use crate::money::grouped;
use crate::publish::records::rfc3339;
use crate::shutdown::Shutdown;
use crate::totals::{LogError, Verdict};
pub use args::{
    BenchCommand, BenchSettings, CompareArgs, DayArgs, DrainArgs, OutputArgs, PacedArgs, SweepArgs,
    TrafficArgs,
};
use machine::Machine;
pub use measure::measure;
use own::Own;
use paced::ahead::Schedule;
use paced::{Plan, paced};
use result::{Document, FORMAT, Kind};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The flags make no stream.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The flags do not go together.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error(
        "no Kafka broker answers at {0}: {1}. Start one (`scripts/kafka start`), or say where it \
         is with --bootstrap-servers"
    )]
    NoBroker(String, String),
    /// Kafka refuses what cannot be done without.
    #[error("{0}")]
    Refused(String),
    /// A client could not be set up, or has failed.
    #[error("Kafka client: {0}. See kafka.properties")]
    Client(#[from] KafkaError),
    /// The events did not get to the brokers.
    #[error(transparent)]
    Generate(#[from] KafkaSinkError),
    /// What was emitted cannot be read.
    #[error(transparent)]
    Totals(#[from] LogError),
    /// The process that measures has ended with an error.
    #[error("the process that measures ended: {0}")]
    Measure(String),
    /// It has ended without a word.
    #[error(
        "the process that measures ended without a word: was it killed, for want of memory maybe?"
    )]
    Died,
    /// Somebody wants this to end.
    #[error("stopped before there was a result")]
    Stopped,
    /// The system gives no thread, no process or no file.
    #[error("the system refuses what a bench needs")]
    System(#[from] io::Error),
    /// A report cannot be written or read, or checkpoints cannot be kept.
    #[error("{what} {}", path.display())]
    File {
        /// What cannot be done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A bug.
    #[error("the {0} ended unexpectedly; this is a bug")]
    Panic(&'static str),
}

impl Error {
    /// Whether it is the flags that are at fault, and nothing outside.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Settings(_) | Error::Usage(_))
    }
}

/// Runs the bench, prints what it found to `out`, and says whether it can be trusted.
///
/// # Errors
///
/// When there is nothing to print. Totals that are not exact, and runs that are invalid, are
/// no errors but [`Verdict::Differs`].
pub fn run(
    config: &Config,
    command: &BenchCommand,
    stop: &Shutdown,
    out: &mut dyn Write,
) -> Result<Verdict, Error> {
    let (settings, output) = match command {
        BenchCommand::Raw(args) | BenchCommand::Drain(args) => (&args.settings, &args.output),
        BenchCommand::Paced(args) => (&args.settings, &args.output),
        BenchCommand::Sweep(args) => (&args.settings, &args.output),
        BenchCommand::Day(args) => (&args.settings, &args.output),
        BenchCommand::Compare(args) => {
            let (compared, verdict) = compare::compare(args)?;
            return Ok(verdict.print(out, &compared)?);
        }
        BenchCommand::Measure => return Err(Error::Usage("measures nothing by itself".into())),
    };
    if let Some(folder) = &output.report {
        report::check(folder)?; // Not after an hour.
    }
    if cfg!(debug_assertions) {
        tracing::warn!("this is a debug build: its figures say nothing. Build with --release");
    }
    let mut own = Own::new(config, settings)?;
    tracing::info!(
        "what it makes is called {}…, and deleted at the end",
        own.name()
    );
    let mut document = Document {
        format: FORMAT,
        command: command.name().to_owned(),
        began: rfc3339(now_ms()),
        machine: Machine::this(),
        settings: settings_of(own.config())
            .into_iter()
            .chain(command.asked())
            .collect(),
        drain: None,
        paced: None,
        sweep: None,
    };
    let logs = measure_all(&mut own, command, &mut document, stop);
    if logs.is_ok()
        && let Some(brokers) = own.count_brokers()
    {
        let brokers = brokers.to_string();
        document.settings.insert("brokers".into(), brokers);
    }
    drop(own); // Before anything is said of it.
    let logs = logs?;
    if let Some(drain) = &document.drain {
        // Of a topic that was there, nobody has said it.
        let partitions = drain.partitions.to_string();
        document.settings.insert("partitions".into(), partitions);
    }
    let verdict = document.verdict();
    let verdict = match output.json {
        true => {
            let json = serde_json::to_string_pretty(&document).map_err(io::Error::from)?;
            verdict.print(out, &format_args!("{json}\n"))?
        }
        false => verdict.print(out, &table::of(&document))?,
    };
    // After that: if it cannot be written any more, an hour was not in vain.
    if let Some(folder) = &output.report {
        let page = report::write(folder, &document, &logs)?;
        if !output.json {
            let _ = writeln!(out, "\nreport: {}", page.display());
        }
    }
    Ok(verdict)
}

/// Histograms to be written, by the names of their files.
type Logs = Vec<(&'static str, Vec<u8>)>;

fn measure_all(
    own: &mut Own,
    command: &BenchCommand,
    document: &mut Document,
    stop: &Shutdown,
) -> Result<Logs, Error> {
    if !matches!(command, BenchCommand::Raw(_)) {
        own.make_folder()?; // Not after an hour.
    }
    match command {
        BenchCommand::Raw(args) => {
            let kinds = [Kind::RawPoll, Kind::RawBatch];
            document.drain = Some(drain::drain(own, args, &kinds, stop)?);
        }
        BenchCommand::Drain(args) => {
            document.drain = Some(drain::drain(own, args, &drain::KINDS, stop)?);
        }
        BenchCommand::Paced(args) => {
            let plan = steady(
                &args.traffic,
                args.rate,
                args.duration,
                args.warmup,
                "--rate, --duration and --warmup",
            )?;
            let found = paced(own, &plan, stop)?;
            document.paced = Some(found.paced);
            return Ok(found.logs);
        }
        BenchCommand::Sweep(args) => {
            let (sweep, logs) = sweep::sweep(own, args, stop)?;
            document.sweep = Some(sweep);
            return Ok(logs);
        }
        BenchCommand::Day(args) => {
            let (settings, partitions) = (args.day()?, args.traffic.partitions);
            if let Some(faster) = args.replay {
                let found = paced(own, &replay(settings, partitions, faster)?, stop)?;
                document.paced = Some(found.paced);
                return Ok(found.logs);
            }
            let drain = drain::drain_day(own, &settings, partitions, args.pairs, stop)?;
            document.drain = Some(drain);
        }
        BenchCommand::Compare(_) | BenchCommand::Measure => {}
    }
    Ok(Vec::new())
}

/// A steady rate, with a warm-up before it. `flags` are those that say how many events it is.
fn steady(
    traffic: &TrafficArgs,
    rate: u64,
    duration: Duration,
    warmup: Duration,
    flags: &str,
) -> Result<Plan, Error> {
    let lasts = warmup + duration;
    let events = u128::from(rate) * lasts.as_millis() / 1_000;
    let settings = traffic.events(u64::try_from(events).unwrap_or(u64::MAX).max(1));
    Ok(Plan {
        settings: settings.map_err(|error| match error {
            SettingsError::Records(events) => Error::Usage(format!(
                "{flags} make {} events of it: lower one of them, to {} at most",
                grouped(events),
                grouped(RECORDS_MAX)
            )),
            other => other.into(),
        })?,
        schedule: Schedule::Steady { rate },
        rate,
        lasts,
        warmup,
        partitions: traffic.partitions,
    })
}

/// A day on its own curve.
fn replay(settings: Settings, partitions: i32, faster: u32) -> Result<Plan, SettingsError> {
    let lasts = Duration::from_secs(86_400) / faster;
    let events = settings.counts()?.total();
    Ok(Plan {
        settings,
        schedule: Schedule::Day { faster },
        rate: (events as f64 / lasts.as_secs_f64()) as u64,
        lasts,
        warmup: Duration::ZERO,
        partitions,
    })
}

/// The settings that matter for speed. None is a secret.
fn settings_of(config: &Config) -> BTreeMap<String, String> {
    let ms = |duration: Duration| format!("{} ms", duration.as_millis());
    let run = &config.run;
    let mut settings = BTreeMap::from([
        ("run.workers".into(), run.workers.to_string()),
        ("run.publish_interval_ms".into(), ms(run.publish_interval)),
        ("run.windows_interval_ms".into(), ms(run.windows_interval)),
        ("run.donors_interval_ms".into(), ms(run.donors_interval)),
        (
            "checkpoints.interval_ms".into(),
            ms(config.checkpoints.interval),
        ),
        (
            "counting.dedup_horizon_s".into(),
            format!("{} s", config.counting.dedup_horizon_s),
        ),
    ]);
    if let Some(replication) = config.topics.replication {
        settings.insert("topics.replication".into(), replication.to_string());
    }
    for (name, value) in &config.kafka.properties {
        if !crate::config::is_secret(name) {
            settings.insert(format!("kafka.properties.{name}"), value.clone());
        }
    }
    settings
}
