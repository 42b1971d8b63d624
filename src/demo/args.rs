//! The flags of `tally99 demo`.

use std::time::Duration;

use clap::{Args, value_parser};

use crate::generate::{Settings, SettingsError};
use crate::span;

/// The longest demo: what is seen is kept, so it is no service.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The flags of `tally99 demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How long events are made: 90, 60s, 5m, 1h30m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Events a second
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = value_parser!(u64).range(1..=10_000_000))]
    pub rate: u64,
    /// How many partitions the topic of the events has
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = value_parser!(i32).range(1..=64))]
    pub partitions: i32,
    /// How many campaigns; the first draws a tenth of all gifts
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub campaigns: u32,
    /// Where randomness starts
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// How many threads read and count [default: one a core]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1_024))]
    pub workers: Option<u16>,
}

impl DemoArgs {
    /// The stream that the flags ask for.
    pub(super) fn settings(&self) -> Result<Settings, SettingsError> {
        let records = u128::from(self.rate) * self.duration.as_millis() / 1_000;
        let records = u64::try_from(records).unwrap_or(u64::MAX).max(1);
        let settings = Settings {
            campaigns: self.campaigns,
            ..Settings::new(self.seed, records)
        };
        settings.counts()?;
        Ok(settings)
    }
}

/// How long a demo may be.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = span::parse(text)?;
    if span < Duration::from_secs(1) {
        return Err("give at least 1s".into());
    }
    if span > DURATION_MAX {
        return Err("give 24h at most".into());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_neither_too_short_nor_too_long() {
        for text in ["1s", "60s", "24h"] {
            assert!(parse_duration(text).is_ok(), "{text}");
        }
        for text in ["0", "500ms", "25h", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
