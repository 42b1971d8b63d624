//! The live screen: pure, from a [`Picture`] to cells. What does not fit is left
//! out, the least telling first; nothing is ever cut in the middle of a number.

mod charts;
mod header;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};

use super::board::{Figures, Point, Row};
use super::in_flight::Latency;
use crate::money::group_thousands;
use crate::totals::text::{harmless, width};

/// Colours of the 256 that nearly every terminal has.
const ACCENT: Color = Color::Indexed(204);
const MONEY: Color = Color::Indexed(215);
const EVENTS: Color = Color::Indexed(80);
const LATENCY: Color = Color::Indexed(147);
const RISE: Color = Color::Indexed(114);
const FALL: Color = Color::Indexed(174);
const WARNING: Color = Color::Indexed(221);
const QUIET: Color = Color::Indexed(245);
const LINES: Color = Color::Indexed(239);

/// Where a demo stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The broker is up; workers join the group.
    Starting,
    /// Events are made.
    Live,
    /// No more are made; those on their way arrive.
    Draining,
    /// All is emitted and being compared.
    Checking,
}

/// All that is shown at one moment.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub phase: Phase,
    /// How long events have been made, and how long they are to be.
    pub elapsed: Duration,
    pub duration: Duration,
    pub figures: Figures,
    pub minute_ago: Figures,
    pub rows: Vec<Row>,
    pub points: Vec<Point>,
    /// Events a second, of late.
    pub rate: Option<u64>,
    pub latency: Option<Latency>,
    /// Events that no complete cut holds yet.
    pub on_the_way: u64,
    /// How long the generator has waited for readers.
    pub held_back: Duration,
    pub partitions: i32,
    pub workers: usize,
    pub warning: Option<String>,
}

/// Below this many lines there are figures in the place of charts.
const CHARTS_FROM_LINES: u16 = 24;
/// Below this many columns too.
const CHARTS_FROM_COLUMNS: u16 = 72;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let area = frame.area();
    let has_charts = area.height >= CHARTS_FROM_LINES && area.width >= CHARTS_FROM_COLUMNS;
    let airy = u16::from(has_charts);
    let charts = match area.height {
        _ if !has_charts => 1,
        ..40 => 6,
        _ => 8,
    };
    let [head, _, cards, _, middle, rest, counts, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(airy),
        Constraint::Length(2 + airy),
        Constraint::Length(airy),
        Constraint::Length(charts),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    header::head(frame, head, picture);
    header::cards(frame, inset(cards), picture);
    if has_charts {
        charts::draw(frame, middle, picture);
    } else {
        frame.render_widget(pulse(picture, inset(middle).width), inset(middle));
    }
    table::draw(frame, rest, picture);
    frame.render_widget(counts_line(picture, inset(counts).width), inset(counts));
    frame.render_widget(foot_line(picture, inset(foot).width), inset(foot));
}

/// One column free on both sides.
fn inset(area: Rect) -> Rect {
    area.inner(ratatui::layout::Margin::new(1, 0))
}

/// Rate and latency in one line, where there is no room for charts.
fn pulse(picture: &Picture, wide: u16) -> Line<'static> {
    let rate = (rate(picture), "events/s".to_owned(), EVENTS);
    let mut parts = vec![rate];
    if let Some(latency) = &picture.latency {
        parts.push((seconds(latency.p50_ms), "p50".into(), LATENCY));
        parts.push((seconds(latency.p99_ms), "p99".into(), LATENCY));
    }
    fit_parts(parts, wide)
}

/// What became of the events that were not simply counted.
fn counts_line(picture: &Picture, wide: u16) -> Line<'static> {
    let figures = &picture.figures;
    let number = |number: u64| group_thousands(number.into());
    let mut parts = vec![
        (
            number(figures.repeats),
            "repeats, counted once".to_owned(),
            QUIET,
        ),
        (number(figures.dead_letters), "dead letters".into(), QUIET),
        (number(figures.late), "late".into(), QUIET),
        (number(picture.on_the_way), "on the way".into(), QUIET),
        (number(figures.cut), "cuts".into(), QUIET),
    ];
    if picture.held_back >= Duration::from_millis(100) {
        let text = format!("{:.1} s", picture.held_back.as_secs_f64());
        parts.insert(3, (text, "held back".into(), WARNING));
    }
    if wide < 60 {
        parts[0].1 = "repeats".into();
    }
    fit_parts(parts, wide)
}

/// Figures with what they are, as many as fit.
fn fit_parts(parts: Vec<(String, String, Color)>, wide: u16) -> Line<'static> {
    let mut line = Line::default();
    for (figure, what, color) in parts {
        let text = format!(" {what}   ");
        if line.width() + width(&figure) + width(text.trim_end()) > wide.into() {
            break;
        }
        let bright = if color == QUIET { Color::Reset } else { color };
        line.push_span(Span::from(figure).fg(bright).bold());
        line.push_span(Span::from(text).fg(QUIET));
    }
    line
}

/// The newest warning, or which keys there are.
fn foot_line(picture: &Picture, wide: u16) -> Line<'static> {
    if let Some(warning) = &picture.warning {
        let text = fit(&format!("! {warning}"), wide.into());
        return Line::styled(text, Style::new().fg(WARNING));
    }
    let does = match picture.phase {
        Phase::Starting | Phase::Live => "stop and check the totals",
        Phase::Draining | Phase::Checking => "Ctrl-C again ends it at once",
    };
    let workers = match picture.workers {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    let setup = format!(
        "embedded Kafka, {} partitions, {workers}",
        picture.partitions
    );
    let mut line = Line::default();
    if does.starts_with("stop") {
        line.push_span(Span::from("q").bold());
        line.push_span(Span::from(format!(" {does}")).fg(QUIET));
    } else {
        line.push_span(Span::from(does).fg(QUIET));
    }
    let gap = usize::from(wide).saturating_sub(line.width() + width(&setup));
    if gap >= 3 {
        line.push_span(Span::from(format!("{}{setup}", " ".repeat(gap))).fg(QUIET));
    }
    line
}

fn rate(picture: &Picture) -> String {
    picture
        .rate
        .map_or("0".into(), |rate| group_thousands(rate.into()))
}

/// Milliseconds as seconds, as precise as anybody wants to know.
fn seconds(ms: u64) -> String {
    match ms {
        ..10_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        _ => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
    }
}

/// The text in so many columns, without anything that a terminal would obey; an
/// ellipsis stands where something was left out.
fn fit(text: &str, columns: usize) -> String {
    let text = harmless(text);
    if width(&text) <= columns {
        return text;
    }
    let mut out = String::new();
    for c in text.chars() {
        let mut longer = out.clone();
        longer.push(c);
        if width(&longer) + 1 > columns {
            break;
        }
        out = longer;
    }
    if columns > 0 {
        out.push('…');
    }
    out
}
