//! What a bench found, for people at a terminal.

use std::fmt::Write;

use super::latency::Latency;
use super::result::{Document, Drain, Exactness, Kind, Paced, Run, Sweep};
use super::stats::median;
use crate::money::grouped;

/// All of it as text.
pub(super) fn of(document: &Document) -> String {
    let mut out = String::new();
    let machine = &document.machine;
    let _ = writeln!(
        out,
        "{}, {} cores; tally99 {}, librdkafka {}",
        machine.processor, machine.cores, machine.tally99, machine.librdkafka
    );
    if let Some(drain) = &document.drain {
        out.push_str(&of_drain(drain));
    }
    if let Some(paced) = &document.paced {
        out.push_str(&of_paced(paced));
    }
    if let Some(sweep) = &document.sweep {
        out.push_str(&of_sweep(sweep));
    }
    for failure in document.failures() {
        let _ = writeln!(out, "\nNOT VALID: {}", failure.trim_end());
    }
    out
}

/// Rows of cells in straight columns: the first to the left, the others to the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:<width$}", width = widths[0]),
                _ => write!(line, "  {cell:>width$}", width = widths[column]),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Cells of text.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).into()
}

/// A whole number, or a dash where nothing is known.
fn whole(figure: Option<f64>) -> String {
    figure.map_or("-".into(), |figure| grouped(figure.round() as i64))
}

/// A number with three decimals, likewise.
fn thousandths(figure: Option<f64>) -> String {
    figure.map_or("-".into(), |figure| format!("{figure:.3}"))
}

fn mebibytes(bytes: Option<f64>) -> String {
    whole(bytes.map(|bytes| bytes / (1 << 20) as f64))
}

/// Milliseconds, with as many decimals as make sense.
pub(super) fn ms(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.2}", us as f64 / 1_000.0),
        10_000..100_000 => format!("{:.1}", us as f64 / 1_000.0),
        _ => grouped(us.div_ceil(1_000)),
    }
}

fn of_drain(drain: &Drain) -> String {
    let mut out = String::new();
    let filled = drain.filled_in_s.map_or(String::new(), |seconds| {
        format!(", filled in {seconds:.1} s")
    });
    let _ = writeln!(
        out,
        "topic {}: {} events in {} partitions{filled}\n",
        drain.topic,
        grouped(drain.events),
        drain.partitions
    );
    out.push_str(&columns(&medians(drain)));
    if drain.of(Kind::Fold).next().is_none() {
        return out;
    }
    let _ = writeln!(
        out,
        "\nPair by pair, events/s, and tally99 as a part of raw:\n"
    );
    out.push_str(&columns(&pairs(drain)));
    out.push('\n');
    out.push_str(&exactness_of_all(drain));
    out
}

/// The medians of each kind of run.
pub(super) fn medians(drain: &Drain) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "median of all pairs",
        "events/s",
        "MB/s",
        "CPU s/M",
        "fold",
        "librdkafka",
        "merge",
        "publish",
        "other",
        "peak MiB",
        "start s",
    ])];
    for kind in Kind::ALL {
        let Some(of) = drain.medians(kind) else {
            continue;
        };
        let mut cells = vec![
            kind.name().to_owned(),
            whole(Some(of.rate)),
            whole(of.megabytes_a_second),
            thousandths(of.cpu),
        ];
        let parts = of
            .cpu_parts
            .map(|parts| parts.map(|(_, seconds)| Some(seconds)));
        cells.extend(parts.unwrap_or([None; 5]).map(thousandths));
        cells.push(mebibytes(of.peak_memory_bytes));
        cells.push(thousandths(Some(of.startup_s)));
        rows.push(cells);
    }
    rows
}

/// The rates and ratios of each pair.
pub(super) fn pairs(drain: &Drain) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "pair",
        "tally99",
        "raw, polled",
        "raw, batches",
        "to polled",
        "to batches",
    ])];
    let [polled, batches] = [Kind::RawPoll, Kind::RawBatch].map(|kind| drain.ratios(kind));
    for (index, fold) in drain.of(Kind::Fold).enumerate() {
        let rate = |kind| {
            let mut of_pair = drain.of(kind).filter(|run| run.pair == fold.pair);
            whole(of_pair.next().map(Run::rate))
        };
        rows.push(vec![
            fold.pair.to_string(),
            rate(Kind::Fold),
            rate(Kind::RawPoll),
            rate(Kind::RawBatch),
            thousandths(polled.get(index).copied()),
            thousandths(batches.get(index).copied()),
        ]);
    }
    rows.push(vec![
        "median".into(),
        whole(drain.median_rate(Kind::Fold)),
        whole(drain.median_rate(Kind::RawPoll)),
        whole(drain.median_rate(Kind::RawBatch)),
        thousandths(median(polled)),
        thousandths(median(batches)),
    ]);
    rows
}

/// Whether totals were exact, in a sentence.
pub(super) fn exactness_of_all(drain: &Drain) -> String {
    let folds: Vec<&Run> = drain.of(Kind::Fold).collect();
    let equal = folds
        .iter()
        .filter(|run| matches!(run.exactness, Exactness::Equal(_)))
        .count();
    match folds.first().map(|run| &run.exactness) {
        Some(Exactness::Equal(campaigns)) if equal == folds.len() => format!(
            "totals: exact in all {equal} runs, {} campaigns and all sums\n",
            grouped(*campaigns as u64)
        ),
        Some(Exactness::Unknown(why)) => format!("totals: not known to be exact: {why}\n"),
        _ => format!("totals: exact in {equal} of {} runs\n", folds.len()),
    }
}

fn of_paced(paced: &Paced) -> String {
    let mut out = format!(
        "{}: {} of {} events sent\n\n",
        rate(paced),
        grouped(paced.sent),
        grouped(paced.events)
    );
    out.push_str(&columns(&latencies(paced)));
    let cpu = paced.cpu.map(|cpu| {
        let millions = paced.sent.max(1) as f64 / 1e6;
        let parts = cpu
            .parts()
            .map(|(name, seconds)| format!("{name} {:.3}", seconds / millions));
        format!("{:.3} ({})", cpu.total_s() / millions, parts.join(", "))
    });
    let _ = writeln!(
        out,
        "\nCPU s per million events: {}",
        cpu.unwrap_or("-".into())
    );
    let generator = paced
        .generator_cpu_s
        .map(|seconds| seconds / (paced.sent.max(1) as f64 / 1e6));
    let _ = writeln!(
        out,
        "generator: {} CPU s per million events; peak memory of tally99: {} MiB",
        thousandths(generator),
        mebibytes(paced.peak_memory_bytes.map(|bytes| bytes as f64))
    );
    out.push_str(&exactness(&paced.exactness));
    out
}

/// What was asked for.
pub(super) fn rate(paced: &Paced) -> String {
    let (rate, seconds) = (grouped(paced.rate), paced.measured_s);
    match paced.warmup_s {
        0.0 => format!("{rate} events/s over {seconds:.0} s"),
        warmup => format!("{rate} events/s for {seconds:.0} s after {warmup:.0} s of warm-up"),
    }
}

/// Latencies in milliseconds.
pub(super) fn latencies(paced: &Paced) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "latency, ms",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "events",
    ])];
    let of = |what: &str, latency: &Latency| {
        let mut cells = vec![what.to_owned()];
        cells.extend(latency.figures().map(|(_, us)| ms(us)));
        cells.push(grouped(latency.events));
        cells
    };
    rows.push(of("due to readable in Kafka", &paced.readable));
    rows.push(of("due to visible in process", &paced.visible));
    if paced.warmup.events > 0 {
        rows.push(of("readable, of the warm-up", &paced.warmup));
    }
    rows.push(of("late sent (generator)", &paced.lateness));
    rows
}

/// Whether totals were exact, in a sentence.
pub(super) fn exactness(exactness: &Exactness) -> String {
    match exactness {
        Exactness::Equal(campaigns) => {
            let campaigns = grouped(*campaigns as u64);
            format!("totals: exact, {campaigns} campaigns and all sums\n")
        }
        Exactness::Different(_) => "totals: NOT EXACT\n".into(),
        Exactness::Unknown(why) => format!("totals: not known to be exact: {why}\n"),
    }
}

fn of_sweep(sweep: &Sweep) -> String {
    let mut out = String::from("\n");
    out.push_str(&columns(&steps(sweep)));
    out.push('\n');
    out.push_str(&knee(sweep));
    out
}

/// Each rate that was tried, the lowest first.
pub(super) fn steps(sweep: &Sweep) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "events/s", "p50 ms", "p99 ms", "max ms", "lag/s", "held",
    ])];
    let mut steps: Vec<_> = sweep.steps.iter().collect();
    steps.sort_by_key(|step| step.paced.rate);
    for step in steps {
        let latency = &step.paced.readable;
        rows.push(vec![
            grouped(step.paced.rate),
            ms(latency.p50_us),
            ms(latency.p99_us),
            ms(latency.max_us),
            whole(Some(step.paced.lag_growth)),
            step.over.clone().unwrap_or("yes".into()),
        ]);
    }
    rows
}

/// The knee, in a sentence.
pub(super) fn knee(sweep: &Sweep) -> String {
    match sweep.knee {
        Some(knee) => format!(
            "knee: {} events/s held with p99 within {} ms; {}\n",
            grouped(knee),
            sweep.limit_p99_ms,
            sweep.ended
        ),
        None => format!("knee: not found; {}\n", sweep.ended),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::drain;
    use super::*;

    #[test]
    fn a_drain_is_told_with_its_medians_and_pairs() {
        let text = of_drain(&drain());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("1,000,000 events in 12 partitions"),
            "{text}"
        );
        let cells = |name: &str| {
            let line = lines
                .iter()
                .rev()
                .find(|line| line.starts_with(name))
                .unwrap();
            line.split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            cells("median")[1..],
            ["500,000", "1,000,000", "2,000,000", "0.800", "0.250"]
        );
        assert_eq!(cells("tally99")[1..4], ["500,000", "100", "0.750"]);
        assert!(text.contains("not known to be exact"), "{text}");
    }

    #[test]
    fn columns_are_straight() {
        let rows = [row(["a", "bb", "c"]), row(["aaa", "b", "ccc"])];
        assert_eq!(columns(&rows), "a    bb    c\naaa   b  ccc\n");
    }

    #[test]
    fn short_latencies_have_decimals() {
        assert_eq!(ms(1_234), "1.23");
        assert_eq!(ms(12_345), "12.3");
        assert_eq!(ms(1_234_567), "1,235");
    }
}
