//! Plots as SVG. Their legends are in the page, where they hide no line.

use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::latency::Latency;
use super::result::{Drain, Kind, Paced, Sweep};
use crate::money::grouped;

/// Width and height of a plot.
const SIZE: (u32, u32) = (760, 300);
/// Colours that differ in brightness too.
const AZURE: RGBColor = RGBColor(31, 90, 166);
const ORANGE: RGBColor = RGBColor(222, 119, 16);
const LEAF: RGBColor = RGBColor(44, 140, 70);
const GREY: RGBColor = RGBColor(130, 130, 130);
const CRIMSON: RGBColor = RGBColor(190, 30, 45);

/// A plot, what it shows, and what its colours mean.
pub(super) struct Plot {
    pub title: &'static str,
    pub legend: Vec<(String, RGBColor)>,
    pub svg: String,
}

/// A line through points.
struct Line {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
    /// Whether each point is marked.
    marked: bool,
}

impl Line {
    fn new(name: &str, color: RGBColor, points: impl IntoIterator<Item = (f64, f64)>) -> Line {
        Line {
            name: name.to_owned(),
            color,
            points: points.into_iter().collect(),
            marked: false,
        }
    }
}

/// What the axes say.
struct Axes<'a> {
    x: &'a str,
    y: &'a str,
    x_labels: usize,
    x_text: &'a dyn Fn(&f64) -> String,
    y_text: &'a dyn Fn(&f64) -> String,
}

/// Draws lines; `None` if there are no points.
fn lines<Y>(
    title: &'static str,
    lines: Vec<Line>,
    axes: &Axes<'_>,
    x: Range<f64>,
    y: Y,
) -> Option<Plot>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    if lines.iter().all(|line| line.points.is_empty()) {
        return None;
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(86)
            .build_cartesian_2d(x, y)
            .ok()?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(GREY)
            .x_labels(axes.x_labels)
            .y_labels(6)
            .x_label_formatter(axes.x_text)
            .y_label_formatter(axes.y_text)
            .x_desc(axes.x)
            .y_desc(axes.y)
            .label_style(("sans-serif", 12))
            .axis_desc_style(("sans-serif", 13))
            .draw()
            .ok()?;
        for line in &lines {
            let points = line.points.iter().copied();
            chart
                .draw_series(LineSeries::new(points.clone(), line.color.stroke_width(2)))
                .ok()?;
            if line.marked {
                let marks = points.map(|point| Circle::new(point, 4, line.color.filled()));
                chart.draw_series(marks).ok()?;
            }
        }
        area.present().ok()?;
    }
    let legend = lines
        .into_iter()
        .map(|line| (line.name, line.color))
        .collect();
    Some(Plot { title, legend, svg })
}

fn highest<'a>(points: impl IntoIterator<Item = &'a Line>) -> f64 {
    let points = points.into_iter().flat_map(|line| &line.points);
    points.map(|(_, y)| *y).fold(0.0, f64::max)
}

fn whole(figure: &f64) -> String {
    grouped(figure.round() as i64)
}

/// Latency by percentile, on an axis on which each step takes nine tenths of what is left.
pub(super) fn percentiles(paced: &Paced) -> Option<Plot> {
    let of = |name: &str, color, latency: &Latency| {
        let points = latency.curve.iter().filter(|(quantile, _)| *quantile < 1.0);
        let points = points.map(|(quantile, us)| (-(1.0 - quantile).log10(), *us as f64 / 1_000.0));
        Line::new(name, color, points)
    };
    let all = vec![
        of("due to readable in Kafka", AZURE, &paced.readable),
        of("due to visible in process", ORANGE, &paced.visible),
        of("late sent (generator)", GREY, &paced.lateness),
    ];
    let end = all
        .iter()
        .flat_map(|line| &line.points)
        .map(|(x, _)| *x)
        .fold(1.0, f64::max)
        .ceil();
    let top = highest(&all) * 1.05 + 0.001;
    let percent = |x: &f64| match x.round() {
        whole if (x - whole).abs() > 0.01 => String::new(),
        0.0 => "0 %".into(),
        1.0 => "90 %".into(),
        2.0 => "99 %".into(),
        nines => format!("99.{} %", "9".repeat(nines as usize - 2)),
    };
    let axes = Axes {
        x: "share of all events",
        y: "latency, ms",
        x_labels: end as usize + 1,
        x_text: &percent,
        y_text: &whole,
    };
    lines("Latency by percentile", all, &axes, 0.0..end, 0.0..top)
}

/// Latency, rate, lag and memory, second by second.
pub(super) fn over_time(paced: &Paced) -> Vec<Plot> {
    let seconds = &paced.seconds;
    let of = |name: &str, color, figure: &dyn Fn(usize) -> f64| {
        let points = (0..seconds.len()).map(|index| (seconds[index].second as f64, figure(index)));
        Line::new(name, color, points)
    };
    let with_latency: Vec<usize> = (0..seconds.len())
        .filter(|it| seconds[*it].max_us > 0)
        .collect();
    let latency = |name: &str, color, us: &dyn Fn(usize) -> u64| {
        let points = with_latency.iter();
        let points = points.map(|&it| (seconds[it].second as f64, us(it) as f64 / 1_000.0));
        Line::new(name, color, points.collect::<Vec<_>>())
    };
    let end = seconds.len().max(2) as f64 - 1.0;
    let axes = |y| Axes {
        x: "seconds from the first event on",
        y,
        x_labels: 11,
        x_text: &whole,
        y_text: &whole,
    };
    let latencies = vec![
        latency("max", GREY, &|it| seconds[it].max_us),
        latency("p99", ORANGE, &|it| seconds[it].p99_us),
        latency("p50", AZURE, &|it| seconds[it].p50_us),
    ];
    let rates = vec![
        of("readable", ORANGE, &|it| seconds[it].readable as f64),
        of("sent", AZURE, &|it| seconds[it].sent as f64),
        of("due", GREY, &|it| seconds[it].due as f64),
    ];
    let lag = vec![
        of("due and not readable", CRIMSON, &|it| {
            seconds[it].lag as f64
        }),
        of("sent and not acknowledged by brokers", AZURE, &|it| {
            seconds[it].unacknowledged as f64
        }),
    ];
    let memory = seconds.iter().filter_map(|it| {
        let mebibytes = it.resident_bytes? as f64 / f64::from(1 << 20);
        Some((it.second as f64, mebibytes))
    });
    let memory = vec![Line::new("resident", LEAF, memory)];
    let draw = |title, all: Vec<Line>, y| {
        let top = highest(&all) * 1.05 + 0.001;
        lines(title, all, &axes(y), 0.0..end, 0.0..top)
    };
    let plots = [
        draw(
            "Latency over time, by the second in which events were due",
            latencies,
            "latency, ms",
        ),
        draw("Rate over time", rates, "events a second"),
        draw("Lag over time", lag, "events"),
        draw("Memory of tally99 over time", memory, "MiB"),
    ];
    plots.into_iter().flatten().collect()
}

/// p99 of each rate of a sweep, and the limit.
pub(super) fn sweep(sweep: &Sweep) -> Option<Plot> {
    let mut points: Vec<_> = sweep
        .steps
        .iter()
        .map(|step| {
            (
                step.paced.rate as f64,
                (step.paced.readable.p99_us as f64 / 1_000.0).max(1.0),
            )
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (points.first()?.0, points.last()?.0);
    let limit = sweep.limit_p99_ms.max(1) as f64;
    let mut p99 = Line::new("p99, due to readable", AZURE, points);
    p99.marked = true;
    let margin = (last - first).max(first) * 0.05;
    let x = (first - margin).max(0.0)..last + margin;
    let mut all = vec![
        p99,
        Line::new("limit", CRIMSON, [(x.start, limit), (x.end, limit)]),
    ];
    let lowest = all[0].points.iter().map(|(_, y)| *y).fold(limit, f64::min);
    // Whole decades, since only their ends have labels.
    let decade = |ms: f64, round: fn(f64) -> f64| 10f64.powf(round(ms.log10()));
    let bottom = decade(lowest * 0.999, f64::floor);
    let top = decade(highest(&all) * 1.001, f64::ceil);
    if let Some(knee) = sweep.knee {
        let knee = knee as f64;
        all.push(Line::new("knee", LEAF, [(knee, bottom), (knee, top)]));
    }
    let axes = Axes {
        x: "events a second",
        y: "p99, ms (logarithmic)",
        x_labels: 8,
        x_text: &whole,
        y_text: &whole,
    };
    lines("Rate against p99", all, &axes, x, (bottom..top).log_scale())
}

/// The rate of each run, pair by pair.
pub(super) fn pairs(drain: &Drain) -> Option<Plot> {
    let colors = [AZURE, ORANGE, GREY];
    let all: Vec<Line> = Kind::ALL
        .into_iter()
        .zip(colors)
        .map(|(kind, color)| {
            let points = drain
                .of(kind)
                .map(|run| (f64::from(run.pair), run.rate() / 1e6));
            let mut line = Line::new(kind.name(), color, points);
            line.marked = true;
            line
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let pairs = drain.runs.iter().map(|run| run.pair).max()?;
    let top = highest(&all) * 1.1;
    let only_whole = |x: &f64| match (x - x.round()).abs() < 0.01 {
        true => format!("{x:.0}"),
        false => String::new(),
    };
    let axes = Axes {
        x: "pair",
        y: "million events/s",
        x_labels: (pairs as usize + 1).min(20),
        x_text: &only_whole,
        y_text: &|y| format!("{y:.1}"),
    };
    lines(
        "Raw against drain",
        all,
        &axes,
        0.5..f64::from(pairs) + 0.5,
        0.0..top,
    )
}

/// CPU by thread, a bar for each kind of run.
pub(super) fn cpu(drain: &Drain) -> Option<Plot> {
    let of_kind = |kind: Kind| Some((kind.name(), drain.medians(kind)?.cpu_parts?.into()));
    cpu_bars(Kind::ALL.into_iter().filter_map(of_kind).collect())
}

/// The same of the process that counts at a rate.
pub(super) fn cpu_paced(paced: &Paced) -> Option<Plot> {
    let millions = paced.sent.max(1) as f64 / 1e6;
    let parts = paced
        .cpu?
        .parts()
        .map(|(name, seconds)| (name, seconds / millions));
    cpu_bars(vec![("tally99", parts.into())])
}

/// A bar, and what it is made of.
type Bar<'a> = (&'a str, Vec<(&'a str, f64)>);

fn cpu_bars(bars: Vec<Bar<'_>>) -> Option<Plot> {
    let colors = [AZURE, ORANGE, LEAF, CRIMSON, GREY];
    let total = |parts: &[(&str, f64)]| parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
    let longest = bars
        .iter()
        .map(|(_, parts)| total(parts))
        .fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    let mut svg = String::new();
    {
        let height = 90 + 52 * bars.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        let count = bars.len() as f64;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(110)
            .build_cartesian_2d(0.0..longest * 1.05, 0.0..count)
            .ok()?;
        // The bars' names stand in the middle of each.
        let name_at = |y: &f64| {
            let place = (count - y).floor();
            let is_middle = ((count - y) - place - 0.5).abs() < 0.01;
            let bar = bars.get(place.max(0.0) as usize).filter(|_| is_middle);
            bar.map_or(String::new(), |(name, _)| (*name).to_owned())
        };
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(GREY)
            .disable_y_mesh()
            .y_labels(2 * bars.len() + 1)
            .y_label_formatter(&name_at)
            .x_desc("CPU seconds per million events")
            .label_style(("sans-serif", 12))
            .axis_desc_style(("sans-serif", 13))
            .draw()
            .ok()?;
        for (index, (_, parts)) in bars.iter().enumerate() {
            let (low, high) = (count - index as f64 - 0.8, count - index as f64 - 0.2);
            let mut from = 0.0;
            let rectangles = parts.iter().zip(colors).map(|((_, seconds), color)| {
                let begin = from;
                from += seconds;
                Rectangle::new([(begin, low), (from, high)], color.filled())
            });
            chart.draw_series(rectangles.collect::<Vec<_>>()).ok()?;
        }
        area.present().ok()?;
    }
    let names = bars[0].1.iter().map(|(name, _)| (*name).to_owned());
    Some(Plot {
        title: "CPU by thread",
        legend: names.zip(colors).collect(),
        svg,
    })
}
