//! The flags of `tally99 bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, value_parser};

use crate::cli::SettingsArgs;
use crate::config::RawProperty;
use crate::generate::{Settings, SettingsError, Shares};
use crate::span;

/// `tally99 bench …`
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Read a topic with librdkafka alone: what no consumer can be faster than
    ///
    /// With the client settings and as many threads as `tally99 run`, touching nothing: once
    /// polled record by record, as a plain consumer does, and once in batches, the limit.
    #[command(after_help = RAW_EXAMPLES)]
    Raw(DrainArgs),
    /// Fold a backlog as fast as possible, in turn with librdkafka alone
    ///
    /// Each pair reads the same topic raw (polled, and in batches) and then folds it with all
    /// that a production run has on: exact ids, windows, donors, checkpoints, CRC checks,
    /// emission. The ratios are of the runs of one pair, so that a machine that is slower for a
    /// minute is so for both.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Send events at a steady rate, and measure how long each takes until it can be read
    ///
    /// Open loop: each event has its time beforehand, and its latency is from that time to the
    /// moment at which a complete cut that holds it was read from the topic of cuts. So a stall
    /// counts for all that waited. A run in which the generator itself fell behind is invalid.
    #[command(after_help = PACED_EXAMPLES)]
    Paced(PacedArgs),
    /// Raise the rate until the latency passes a limit or the lag grows: the knee
    #[command(after_help = SWEEP_EXAMPLES)]
    Sweep(SweepArgs),
    /// The 99 Giving Day of 2022: drain it whole, or replay it in a shorter time
    ///
    /// 58,160,000 donations; 160 million events with the flowers, about 16 GB in the brokers.
    #[command(after_help = DAY_EXAMPLES)]
    Day(DayArgs),
    /// Compare two reports
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// One measurement, in a process of its own
    #[command(hide = true)]
    Measure,
}

const RAW_EXAMPLES: &str = "\
Examples:
  tally99 bench raw
  tally99 bench raw --topic donations --pairs 3";

const DRAIN_EXAMPLES: &str = "\
Exit code 1: totals are not exact.

Examples:
  tally99 bench drain
  tally99 bench drain --events 2000000 --pairs 3 --report drain-report
  tally99 bench drain --topic donations --workers 4 --json > drain.json";

const PACED_EXAMPLES: &str = "\
Exit code 1: totals are not exact, or the run is invalid.

Examples:
  tally99 bench paced --rate 208000
  tally99 bench paced --rate 583000 --duration 2m --report paced-report";

const SWEEP_EXAMPLES: &str = "\
Examples:
  tally99 bench sweep
  tally99 bench sweep --from 100000 --to 800000 --limit-p99 1s --report sweep-report";

const DAY_EXAMPLES: &str = "\
Examples:
  tally99 bench day --donations-only
  tally99 bench day --scale 0.1
  tally99 bench day --scale 0.01 --replay 1440";

const COMPARE_EXAMPLES: &str = "\
Each is a folder of --report, or a file of --json.

Examples:
  tally99 bench compare before-report after-report";

impl BenchCommand {
    /// The settings, of those that need Kafka.
    pub fn settings(&self) -> Option<SettingsArgs> {
        let settings = match self {
            BenchCommand::Raw(args) | BenchCommand::Drain(args) => &args.settings,
            BenchCommand::Paced(args) => &args.settings,
            BenchCommand::Sweep(args) => &args.settings,
            BenchCommand::Day(args) => &args.settings,
            BenchCommand::Compare(_) | BenchCommand::Measure => return None,
        };
        Some(settings.as_args())
    }

    /// How it is typed.
    pub(super) fn name(&self) -> &'static str {
        match self {
            BenchCommand::Raw(_) => "raw",
            BenchCommand::Drain(_) => "drain",
            BenchCommand::Paced(_) => "paced",
            BenchCommand::Sweep(_) => "sweep",
            BenchCommand::Day(_) => "day",
            BenchCommand::Compare(_) => "compare",
            BenchCommand::Measure => "measure",
        }
    }
}

/// Where results go beside the table.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print all numbers of all runs as one JSON document instead of the table
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots (index.html), all numbers (result.json) and histograms (*.hlog)
    /// into this folder
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// What a bench takes of the settings of `tally99 run`. Topics, group and checkpoints are its
/// own, so it has no flags for those.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "Settings (over TALLY99_… variables, over the file, over the defaults)"
)]
pub struct BenchSettings {
    /// Read settings from this TOML file; topics, group and checkpoints in it are not touched
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Brokers to start from: host:port, separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap_servers: Option<String>,
    /// How many threads read and count; 0: one a core
    #[arg(long, value_name = "NUMBER")]
    pub workers: Option<String>,
    /// Pass a property to librdkafka; may be repeated
    #[arg(long = "kafka-property", value_name = "NAME=VALUE")]
    pub kafka_properties: Vec<RawProperty>,
    /// What the names of its own topics and group begin with
    #[arg(long, value_name = "NAME", default_value = "tally99-bench", value_parser = parse_prefix)]
    pub prefix: String,
    /// Where checkpoints are kept meanwhile: in a folder of its own in this one
    /// [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

impl BenchSettings {
    fn as_args(&self) -> SettingsArgs {
        SettingsArgs {
            config: self.config.clone(),
            bootstrap_servers: self.bootstrap_servers.clone(),
            workers: self.workers.clone(),
            kafka_properties: self.kafka_properties.clone(),
            ..SettingsArgs::default()
        }
    }
}

/// What the events are like.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traffic")]
pub struct TrafficArgs {
    /// How many partitions the topic of the events is made with
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
    /// How many campaigns; the first draws a tenth of all gifts
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub campaigns: u32,
    /// Where randomness starts
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

impl TrafficArgs {
    /// So many events.
    pub(super) fn events(&self, events: u64) -> Result<Settings, SettingsError> {
        let settings = Settings {
            campaigns: self.campaigns,
            ..Settings::new(self.seed, events)
        };
        settings.counts()?;
        Ok(settings)
    }
}

/// The flags of `tally99 bench raw` and `drain`.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    /// Read this topic, which is there already, and write nothing to it; without it, a topic
    /// of its own is filled
    #[arg(long, value_name = "TOPIC", conflicts_with_all = ["events", "partitions", "campaigns", "seed"])]
    pub topic: Option<String>,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub events: u64,
    /// How many times each is measured, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    pub pairs: u32,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub traffic: TrafficArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub output: OutputArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub settings: BenchSettings,
}

/// The flags of `tally99 bench paced`.
#[derive(Args, Clone, Debug)]
pub struct PacedArgs {
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u64).range(1..=10_000_000))]
    pub rate: u64,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub duration: Duration,
    /// How long it goes on before that; measured too, and reported apart
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_warmup)]
    pub warmup: Duration,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub traffic: TrafficArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub output: OutputArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub settings: BenchSettings,
}

/// The flags of `tally99 bench sweep`.
#[derive(Args, Clone, Debug)]
pub struct SweepArgs {
    /// The first rate, in events a second
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u64).range(1..=10_000_000))]
    pub from: u64,
    /// The last rate
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = value_parser!(u64).range(1..=10_000_000))]
    pub to: u64,
    /// How many times higher each rate is than the one before
    #[arg(long, value_name = "FACTOR", default_value_t = 1.25, value_parser = parse_factor)]
    pub factor: f64,
    /// How long each rate is measured
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_time)]
    pub step: Duration,
    /// How long each rate goes on before that
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_warmup)]
    pub warmup: Duration,
    /// A rate is too high when the latency of more than one event of a hundred is longer
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = parse_limit)]
    pub limit_p99: Duration,
    /// How many times the gap between the last rate that held and the first that did not is
    /// halved
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u32).range(0..=10))]
    pub bisect: u32,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub traffic: TrafficArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub output: OutputArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub settings: BenchSettings,
}

/// The flags of `tally99 bench day`.
#[derive(Args, Clone, Debug)]
pub struct DayArgs {
    /// The day this many times: 0.01 is a hundredth of it, of the same shape
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub scale: f64,
    /// Leave the flowers away: 59 million events instead of 160 million
    #[arg(long)]
    pub donations_only: bool,
    /// Replay it on its own curve, so many times faster than it was, and measure latency; 1440
    /// makes a minute of it
    #[arg(long, value_name = "FACTOR", conflicts_with = "pairs", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub replay: Option<u32>,
    /// How many times each is measured, in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    pub pairs: u32,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub traffic: TrafficArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub output: OutputArgs,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub settings: BenchSettings,
}

impl DayArgs {
    /// The day's events.
    pub(super) fn day(&self) -> Result<Settings, SettingsError> {
        let mut settings = Settings::giving_day_2022(self.traffic.seed, self.scale)?;
        settings.campaigns = self.traffic.campaigns;
        if self.donations_only {
            settings.shares = Shares {
                flowers: 0.0,
                ..settings.shares
            };
        }
        settings.counts()?;
        Ok(settings)
    }
}

/// The flags of `tally99 bench compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// What is compared with
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// What is compared
    #[arg(value_name = "B")]
    pub after: PathBuf,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match parse_warmup(text)? {
        span if span < Duration::from_secs(1) => Err("give at least 1s".into()),
        span => Ok(span),
    }
}

fn parse_limit(text: &str) -> Result<Duration, String> {
    match parse_warmup(text)? {
        span if span < Duration::from_millis(1) => Err("give at least 1ms".into()),
        span if span.subsec_micros() % 1_000 != 0 => Err("give whole milliseconds".into()),
        span => Ok(span),
    }
}

fn parse_warmup(text: &str) -> Result<Duration, String> {
    match span::parse(text)? {
        span if span > Duration::from_secs(24 * 3_600) => Err("give 24h at most".into()),
        span => Ok(span),
    }
}

fn parse_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 1.0 && factor <= 100.0 => Ok(factor),
        _ => Err("give a number above 1, and 100 at most".into()),
    }
}

/// What topics may be called, with room for what comes behind it.
fn parse_prefix(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.len() {
        1..=180 if text.chars().all(is_allowed) => Ok(text.to_owned()),
        _ => Err("give 1 to 180 of the letters A-Z a-z 0-9 . _ -".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_without_flowers_has_all_its_donations() {
        #[derive(clap::Parser)]
        struct Day {
            #[command(flatten)]
            args: DayArgs,
        }
        let day = |line: &str| {
            let day = <Day as clap::Parser>::parse_from(line.split_whitespace());
            day.args.day().unwrap().counts().unwrap()
        };
        let (with, without) = (day("day"), day("day --donations-only"));
        assert_eq!(
            (with.donations, without.donations),
            (58_160_000, 58_160_000)
        );
        assert_eq!(without.flowers, 0);
        assert!(with.total() > 159_000_000 && without.total() < 59_200_000);
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        assert!(parse_time("999ms").is_err() && parse_time("25h").is_err());
        assert!(parse_warmup("0s").is_ok() && parse_warmup("25h").is_err());
        assert!(parse_limit("1ms").is_ok() && parse_limit("999us").is_err());
        assert!(parse_limit("1500us").is_err() && parse_limit("6000000000h").is_err());
    }

    #[test]
    fn prefixes_make_names_of_topics() {
        assert!(parse_prefix("tally99-bench").is_ok());
        assert!(parse_prefix("").is_err() && parse_prefix("a b").is_err());
    }
}
