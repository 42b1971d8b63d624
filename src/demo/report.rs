//! A demo in words: a line every few seconds where there is no terminal, and the
//! closing summary.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::board::cny;
use super::draw::{Phase, Picture};
use super::in_flight::Latency;
use super::source::Made;
use crate::money::{group_thousands, grouped};
use crate::totals::Comparison;

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Plain lines to a file, a pipe or a log.
pub(super) struct Lines<'a> {
    out: &'a mut dyn Write,
    last: Option<(Phase, Instant)>,
}

impl<'a> Lines<'a> {
    pub fn new(out: &'a mut dyn Write) -> Lines<'a> {
        Lines { out, last: None }
    }

    /// Writes a line if it is time, or if something else has begun.
    pub fn show(&mut self, picture: impl Fn() -> Picture) -> io::Result<()> {
        let picture = picture();
        match self.last {
            Some((phase, at)) if phase == picture.phase && at.elapsed() < LINE_EVERY => {
                return Ok(());
            }
            // The figures of another phase say more a little later; before the
            // first event there are none.
            Some((phase, _)) if phase == picture.phase => {
                if phase != Phase::Starting {
                    writeln!(self.out, "{}", line(&picture))?;
                }
            }
            _ => writeln!(self.out, "{}", heading(&picture))?,
        }
        self.last = Some((picture.phase, Instant::now()));
        self.out.flush()
    }
}

fn heading(picture: &Picture) -> String {
    match picture.phase {
        Phase::Starting => format!(
            "embedded Kafka is up: {} partitions, {} workers; joining the consumer group",
            picture.partitions, picture.workers
        ),
        Phase::Live => format!("making events for {} s", picture.duration.as_secs_f64()),
        Phase::Draining => "no more events; letting the rest through".into(),
        Phase::Checking => "all is through; checking every total".into(),
    }
}

fn line(picture: &Picture) -> String {
    let figures = &picture.figures;
    let mut line = format!(
        "{:>4.0} s  {} events  {}/s  {} from {} donors  {} campaigns",
        picture.elapsed.as_secs_f64(),
        grouped(figures.events),
        grouped(picture.rate.unwrap_or(0)),
        cny().format(figures.net),
        grouped(figures.donors),
        grouped(figures.campaigns),
    );
    if let Some(latency) = &picture.latency {
        line.push_str(&format!(
            "  p50 {} ms  p99 {} ms",
            latency.p50_ms, latency.p99_ms
        ));
    }
    line.push_str(&format!(
        "  {} repeats  {} dead letters  {} late",
        grouped(figures.repeats),
        grouped(figures.dead_letters),
        grouped(figures.late),
    ));
    line
}

/// How a demo ended.
pub(super) struct Summary<'a> {
    pub made: &'a Made,
    /// Events a second that were asked for.
    pub rate: u64,
    pub was_stopped: bool,
    pub held_back: Duration,
    pub latency: Option<Latency>,
    pub comparison: &'a Comparison,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (made, expected) = (self.made, &self.made.expected);
        let seconds = made.took.as_secs_f64();
        let rate = (expected.events as f64 / seconds.max(0.001)).round() as u64;
        let stopped = if self.was_stopped {
            ", stopped early"
        } else {
            ""
        };
        writeln!(
            f,
            "{} events in {seconds:.1} s, {} events/s{stopped}",
            grouped(expected.events),
            grouped(rate),
        )?;
        // A hundredth late is a moment, not a rate.
        if made.overdue > self.rate / 100 && made.overdue > expected.events / 100 {
            writeln!(
                f,
                "  {} events/s were asked for, and {} events that were due were not made",
                grouped(self.rate),
                grouped(made.overdue)
            )?;
        }
        if self.held_back >= Duration::from_millis(100) {
            writeln!(
                f,
                "  the generator was held back for {:.1} s, until what it had sent was counted: \
                 the embedded broker keeps only 5 MiB a partition",
                self.held_back.as_secs_f64()
            )?;
        }
        if let Some(latency) = &self.latency {
            writeln!(
                f,
                "latency, from due to emitted: p50 {} ms, p99 {} ms, max {} ms",
                grouped(latency.p50_ms),
                grouped(latency.p99_ms),
                grouped(latency.max_ms)
            )?;
        }
        let money = expected.money.get(&cny()).copied().unwrap_or_default();
        writeln!(
            f,
            "{} in {} gifts, {} flowers; {} repeats counted once, {} dead letters",
            cny().format(money.net),
            grouped(expected.gifts),
            grouped(expected.flowers),
            grouped(expected.duplicates),
            grouped(expected.dead_letters)
        )?;
        let comparison = self.comparison;
        if !comparison.is_equal() {
            writeln!(f, "\n{comparison}")?;
        }
        let [equal, all] = [comparison.equal_campaigns(), comparison.campaigns()]
            .map(|number| group_thousands(number as u128));
        let verdict = match comparison.is_equal() {
            true => "and all sums, to the generator's own",
            false => "to the generator's own: NOT EQUAL",
        };
        writeln!(f, "{equal} of {all} campaigns equal, {verdict}")
    }
}
