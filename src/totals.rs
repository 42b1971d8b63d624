//! `tally99 totals`: reads `campaign-totals` and `cuts` to their ends and prints
//! the top campaigns, or checks all of them against a generator's own sums.
//!
//! It reads what was emitted, as anybody could, and never the fold. It joins no
//! group and commits nothing, so it may run next to `tally99 run` at any time.

mod compare;
mod export;
mod listener;
mod log;
mod screen;
mod seen;
mod table;
pub(crate) mod text;
mod view;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::config::Config;
use crate::expected::Expected;
use crate::kafka::clock::now_ms;
use crate::money::Currency;
use crate::publish::records::{CampaignTotal, CompleteCut};
use crate::shutdown::Shutdown;

pub use compare::Report as Comparison;
pub use log::LogError;
use log::{Follow, Next};
use seen::{Seen, SeenCut};
use view::View;

/// The flags of `tally99 totals`.
#[derive(Args, Clone, Debug)]
pub struct TotalsArgs {
    /// How to print; amounts in JSON are whole minor units (fen, cents), in CSV
    /// they have the currency's decimals and no sign, one line for each
    /// currency of a campaign. Text in CSV that begins with = + - @ gets a '
    /// before it, so that no spreadsheet takes a name for a formula
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// How many campaigns to print; 0: all. Default: 20, or all that --campaign names
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// What the order goes by, largest first
    #[arg(long, value_enum, default_value = "net")]
    pub by: By,
    /// The currency whose amounts are ordered and shown first. Default: the one
    /// that most campaigns have; CNY, if as many have it
    #[arg(long, value_parser = parse_currency, value_name = "CODE")]
    pub currency: Option<Currency>,
    /// Print this campaign only, by its exact name; may be repeated
    #[arg(long = "campaign", value_name = "NAME")]
    pub campaigns: Vec<String>,
    /// Go on, and print again at each new cut until Ctrl-C: a terminal is
    /// redrawn, each second too, to fit; elsewhere a table is one line for each cut, JSON one document a
    /// line, and CSV goes on under the same header
    #[arg(long)]
    pub follow: bool,
    /// Check every total against this file, as `tally99 generate --expect`
    /// writes it; exit code 0: all equal, 1: something differs
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["format", "top", "by", "currency", "campaigns", "follow"]
    )]
    pub compare: Option<PathBuf>,
}

/// How totals are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// What the order of campaigns goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Gross less refunded.
    Net,
    /// Counted donations.
    Gifts,
    /// Distinct donors, estimated.
    Donors,
    /// Counted flowers.
    Flowers,
}

fn parse_currency(code: &str) -> Result<Currency, String> {
    Currency::parse(code).ok_or_else(|| "not an ISO 4217 code in capitals, such as CNY".into())
}

/// Checks totals that are at hand, and the sums of the cut at which they are
/// exact, against what a log must add up to.
pub fn compare(
    expected: &Expected,
    totals: impl IntoIterator<Item = CampaignTotal>,
    cut: Option<CompleteCut>,
) -> Comparison {
    let totals = totals.into_iter();
    let seen = Seen {
        totals: totals.map(|t| (t.campaign.clone(), t)).collect(),
        complete: cut.map(|record| SeenCut {
            record,
            written_ms: None,
        }),
        ..Seen::default()
    };
    compare::compare(expected, &seen)
}

/// What was emitted, as anybody can read it: the newest total of each campaign, and the
/// newest complete cut.
pub struct Emitted(Seen);

impl Emitted {
    /// Reads both topics to their ends.
    ///
    /// # Errors
    ///
    /// No broker, a missing topic, or `shutdown`.
    pub fn read(config: &Config, shutdown: &Shutdown) -> Result<Emitted, LogError> {
        Ok(Emitted(Follow::open(config, shutdown)?.read_to_ends()?))
    }

    /// Checks all of it against what a log must add up to.
    pub fn compare(&self, expected: &Expected) -> Comparison {
        compare::compare(expected, &self.0)
    }

    /// The newest complete cut.
    pub fn cut(&self) -> Option<&CompleteCut> {
        self.0.complete.as_ref().map(|cut| &cut.record)
    }
}

/// How a command that checks has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Printed, or checked and equal.
    Fine,
    /// Checked, and something differs.
    Differs,
}

impl Verdict {
    /// Of a check; `is_fine`: nothing differs.
    pub(crate) fn of(is_fine: bool) -> Verdict {
        match is_fine {
            true => Verdict::Fine,
            false => Verdict::Differs,
        }
    }

    /// Prints what it rests on. A reader that has left does not change it.
    pub(crate) fn print(self, out: &mut dyn Write, why: &dyn fmt::Display) -> io::Result<Verdict> {
        match write!(out, "{why}").and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(self),
        }
    }
}

/// Why totals could not be printed or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The file to compare with cannot be opened.
    #[error("cannot read {}, the file to compare with", .path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file to compare with is not what the generator writes.
    #[error("{} is not a file of expected totals, as `tally99 generate --expect` writes it", .path.display())]
    NotExpected {
        /// As given.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

/// Prints or checks the totals, to `out`. `terminal` says whether `out` is one
/// and may be redrawn; `shutdown` ends `--follow`.
///
/// # Errors
///
/// No broker, a missing topic, an unreadable file, or an `out` that takes no
/// more.
pub fn run(
    config: &Config,
    args: &TotalsArgs,
    shutdown: &Shutdown,
    out: &mut dyn Write,
    terminal: bool,
) -> Result<Verdict, Error> {
    // Before Kafka is asked for anything: a wrong path should not take seconds.
    let expected = args.compare.as_deref().map(read_expected).transpose()?;

    let mut follow = Follow::open(config, shutdown)?;
    let mut seen = follow.read_to_ends()?;
    if let Some(expected) = expected {
        warn_of_left_out(&seen);
        let report = compare::compare(&expected, &seen);
        return Ok(report.verdict().print(out, &report)?);
    }

    let mut printer = Printer::new(args, zone(config), terminal);
    printer.print(&seen, out, true)?;
    if !args.follow {
        return Ok(Verdict::Fine);
    }
    loop {
        let next = follow.next(&mut seen)?;
        printer.trouble = follow.trouble();
        match next {
            Next::Cut => printer.print(&seen, out, false)?,
            Next::Nothing => printer.wait(&seen, out)?,
            Next::End => return Ok(Verdict::Fine),
        }
    }
}

fn warn_of_left_out(seen: &Seen) {
    if let Some(left_out) = seen.left_out() {
        tracing::warn!("{left_out}");
    }
}

fn read_expected(path: &Path) -> Result<Expected, Error> {
    let file = File::open(path).map_err(|source| Error::File {
        path: path.into(),
        source,
    })?;
    serde_json::from_reader(BufReader::new(file)).map_err(|source| Error::NotExpected {
        path: path.into(),
        source,
    })
}

/// The zone that people read times in: that of the business days.
fn zone(config: &Config) -> TimeZone {
    TimeZoneDatabase::bundled()
        .get(&config.counting.time_zone)
        .unwrap_or(TimeZone::UTC)
}

struct Printer<'a> {
    args: &'a TotalsArgs,
    zone: TimeZone,
    terminal: bool,
    /// How many records are said to be left out.
    left_out: u64,
    /// The cut that is said to be old.
    old: Option<u64>,
    /// That no broker answers, if so.
    trouble: Option<String>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a TotalsArgs, zone: TimeZone, terminal: bool) -> Printer<'a> {
        Printer {
            args,
            zone,
            terminal,
            left_out: 0,
            old: None,
            trouble: None,
        }
    }

    /// Whether the terminal is drawn over. Log lines would not be seen there.
    fn redraws(&self) -> bool {
        self.args.follow && self.terminal && self.args.format == Format::Table
    }

    fn print(&mut self, seen: &Seen, out: &mut dyn Write, first: bool) -> io::Result<()> {
        let args = self.args;
        let view = View::of(seen, args);
        let text = match args.format {
            Format::Json if args.follow => export::json_line(&view, seen),
            Format::Json => export::json(&view, seen),
            Format::Csv => export::csv(&view, first),
            Format::Table if self.redraws() => {
                let (trouble, size) = (self.trouble.as_deref(), screen_size());
                let table = screen::fitted(view, seen, trouble, &self.zone, now_ms(), size);
                // Home, and clear to the end of the screen: what was scrolled away stays.
                format!("\x1b[H\x1b[J{table}")
            }
            Format::Table if args.follow => table::line(&view, seen, &self.zone),
            Format::Table => table::table(&view, seen, &self.zone, now_ms()),
        };
        if !self.redraws() && seen.unreadable > self.left_out {
            self.left_out = seen.unreadable;
            warn_of_left_out(seen);
        }
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// What whoever follows sees while there is no newer cut.
    fn wait(&mut self, seen: &Seen, out: &mut dyn Write) -> io::Result<()> {
        if self.redraws() {
            return self.print(seen, out, false);
        }
        let cut = seen.newest.as_ref().map(|cut| cut.record.id().cut);
        if screen::is_old(seen, now_ms()) && self.old != cut {
            self.old = cut;
            tracing::warn!("{}", screen::OLD);
        }
        Ok(())
    }
}

/// Columns and lines of the terminal.
fn screen_size() -> (usize, usize) {
    ratatui::crossterm::terminal::size().map_or((80, 24), |(c, r)| (c.into(), r.into()))
}

#[cfg(test)]
mod tests {
    use super::seen::tests::{HERE, complete, total};
    use super::view::tests::args;
    use super::*;
    use crate::publish::records::CutRecord;

    fn print_twice(line: &str, terminal: bool) -> [String; 2] {
        let totals: Vec<_> = (0..100).map(|i| total(&format!("c{i}"), 1, i)).collect();
        let seen = Seen::with(&totals, &[CutRecord::Complete(complete(1))]);
        let args = args(line);
        let mut printer = Printer::new(&args, TimeZone::UTC, terminal);
        [true, false].map(|first| {
            let mut out = Vec::new();
            printer.print(&seen, &mut out, first).unwrap();
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn a_followed_table_is_drawn_over_on_a_terminal_and_fits_it() {
        let [first, second] = print_twice("--follow --top 0", true);
        assert_eq!(first, second);
        assert!(
            first.starts_with("\x1b[H\x1b[JCut 1, complete"),
            "{first:?}"
        );
        assert!(first.lines().count() < screen_size().1);
        // Once, it is a plain table, however long.
        let [plain, _] = print_twice("--top 0", true);
        assert!(!plain.contains('\x1b') && plain.lines().count() > 100);
    }

    #[test]
    fn a_reader_that_has_left_does_not_change_the_verdict() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for verdict in [Verdict::Fine, Verdict::Differs] {
            let told = verdict.print(&mut Broken(io::ErrorKind::BrokenPipe), &"why");
            assert_eq!(told.unwrap(), verdict);
            let full = verdict.print(&mut Broken(io::ErrorKind::StorageFull), &"why");
            assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }

    #[test]
    fn records_that_cannot_be_read_later_are_told_too() {
        let mut seen = Seen::with(&[], &[CutRecord::Complete(complete(1))]);
        let args = args("--follow");
        let mut printer = Printer::new(&args, TimeZone::UTC, false);
        let mut told = Vec::new();
        for value in [&b"?"[..], b"?"] {
            seen.total(HERE, Some(b"x"), Some(value));
            printer.print(&seen, &mut Vec::new(), false).unwrap();
            told.push(printer.left_out);
        }
        assert_eq!(told, [1, 2]);
    }

    #[test]
    fn elsewhere_what_is_followed_goes_on_line_by_line() {
        for (line, lines) in [("--follow", 1), ("--follow --format json", 1)] {
            let [first, second] = print_twice(line, false);
            assert_eq!(first, second);
            assert_eq!(second.lines().count(), lines, "{line}");
        }
        let [first, second] = print_twice("--follow --format csv --top 3", true);
        assert_eq!((first.lines().count(), second.lines().count()), (4, 3));
    }
}
