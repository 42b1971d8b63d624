//! What people see while records are made, or read once more: a bar on a terminal, else a log
//! line every few seconds, both on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::money::grouped;

const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How far a stream is.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    begin: Instant,
    /// When the last line was written, and how many were done then.
    last: (Instant, u64),
}

impl Progress {
    pub(crate) fn new(total: u64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{bar:30} {percent:>3}%  {human_pos} of {human_len} events  {per_sec}  {eta} left",
            );
            let bar = ProgressBar::new(total);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let begin = Instant::now();
        Progress {
            bar,
            total,
            begin,
            last: (begin, 0),
        }
    }

    /// So many are done.
    pub(crate) fn tick(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        let (since, before) = self.last;
        if since.elapsed() < LINE_INTERVAL {
            return;
        }
        let rate = (done - before) as f64 / since.elapsed().as_secs_f64();
        let left = match self.total.saturating_sub(done) as f64 / rate {
            seconds if seconds.is_finite() => {
                format!(
                    "{} left",
                    indicatif::HumanDuration(Duration::from_secs_f64(seconds))
                )
            }
            _ => "standing still".to_owned(),
        };
        self.last = (Instant::now(), done);
        let (done, total, rate) = (grouped(done), grouped(self.total), grouped(rate as u64));
        tracing::info!("{done} of {total} events, {rate} events/s, {left}");
    }

    /// A warning, above the bar if there is one.
    pub(crate) fn warn(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::warn!("{text}")),
            None => tracing::warn!("{text}"),
        }
    }

    /// A line on standard output, above the bar if there is one.
    pub(crate) fn say(&self, out: &mut dyn Write, line: &str) -> std::io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(out, "{line}")),
            None => writeln!(out, "{line}"),
        }
    }

    /// Takes the bar away; how long it was there.
    pub(crate) fn finish(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begin.elapsed()
    }
}
