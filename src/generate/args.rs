//! The flags of `tally99 generate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::settings::{GIVING_DAY_2022, Millis, Settings, SettingsError, Shares};

/// How many events there are unless somebody says so.
const EVENTS: u64 = 1_000_000;

/// The flags of `tally99 generate`, beside the settings that all commands take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traffic")]
pub struct GenerateArgs {
    /// How many partitions the topic is made with [default: 12]. A topic that
    /// is there keeps its own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: Option<i32>,
    /// Write to this file instead of Kafka, or to standard output with `-`: each
    /// record's value on a line of its own. Malformed records stand there as
    /// they are: they may be an empty line, or no UTF-8, but never two lines
    #[arg(long, value_name = "FILE", conflicts_with = "partitions")]
    pub out: Option<PathBuf>,
    /// Write what the events add up to, by campaign, to this file as JSON, once
    /// all of them are written
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,

    /// Where randomness starts. A second run into the same topic needs another
    /// seed, or all of it is repeats
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many events, repeats and malformed ones included [default: 1000000]
    #[arg(long, value_name = "N", conflicts_with = "preset")]
    pub events: Option<u64>,
    /// A whole day as it was: exact numbers and sums of donations, with all else
    /// on top. Shares, campaigns and start may still be set
    #[arg(long)]
    pub preset: Option<Preset>,
    /// The preset this many times: 0.01 is a hundredth of the donations and of
    /// their sum, of the same shape
    #[arg(long, value_name = "FACTOR", requires = "preset")]
    pub scale: Option<f64>,
    /// How many campaigns; the first draws a tenth of all gifts
    #[arg(long, value_name = "N")]
    pub campaigns: Option<u32>,
    /// When the simulated day starts (RFC 3339) [default: 2022-09-09T00:00:00+08:00]
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "live")]
    pub start: Option<Millis>,
    /// Events happen now, when they are sent, instead of in a simulated day. The
    /// bytes then depend on the clock
    #[arg(long)]
    pub live: bool,
    /// Events a second; as fast as possible without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,

    /// Share of events that are sent again later, with the same bytes
    /// [default: 0.01]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub repeats: Option<f64>,
    /// Share of refunds of earlier donations [default: 0.002; preset: 0.001]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub refunds: Option<f64>,
    /// Share of matches by sponsors [default: 0.02; preset: 0.005]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub matches: Option<f64>,
    /// Share of flowers [default: 0.2; preset: 0.62]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub flowers: Option<f64>,
    /// Share of records that are no valid event [default: 0.001; preset: 0.0005]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub malformed: Option<f64>,
    /// Share of valid events that are over 24 h older than the newest
    /// [default: 0.001; preset: 0.0005]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub late: Option<f64>,
    /// Share of valid events that are up to 5 min older than the newest
    /// [default: 0.02]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub out_of_order: Option<f64>,
    /// Share of donations and matches in USD, HKD or JPY instead of CNY; not
    /// with a preset, whose donations add up in CNY [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = "Shares")]
    pub other_currencies: Option<f64>,
}

/// Days to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 58,160,000 donations of together ¥3,300,000,000.00, and flowers that
    /// bring the participants above 100 million: 160 million events
    #[value(name = "99-giving-day-2022")]
    GivingDay2022,
}

impl GenerateArgs {
    /// What the flags ask for.
    pub fn settings(&self) -> Result<Settings, SettingsError> {
        let base = match self.preset {
            None => Settings::new(self.seed, self.events.unwrap_or(EVENTS)),
            Some(Preset::GivingDay2022) => {
                Settings::giving_day_2022(self.seed, self.scale.unwrap_or(1.0))?
            }
        };
        let shares = base.shares;
        Ok(Settings {
            shares: Shares {
                repeats: self.repeats.unwrap_or(shares.repeats),
                refunds: self.refunds.unwrap_or(shares.refunds),
                matches: self.matches.unwrap_or(shares.matches),
                flowers: self.flowers.unwrap_or(shares.flowers),
                malformed: self.malformed.unwrap_or(shares.malformed),
                late: self.late.unwrap_or(shares.late),
                out_of_order: self.out_of_order.unwrap_or(shares.out_of_order),
                other_currencies: self.other_currencies.unwrap_or(shares.other_currencies),
            },
            campaigns: self.campaigns.unwrap_or(base.campaigns),
            start: self.start.unwrap_or(GIVING_DAY_2022),
            ..base
        })
    }
}

fn parse_time(text: &str) -> Result<Millis, String> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(|time| time.as_millisecond())
        .map_err(|error| format!("{error}; give a time like 2022-09-09T00:00:00+08:00"))
}
