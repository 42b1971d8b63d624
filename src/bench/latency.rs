//! Latencies: histograms, and what is told of them. Microseconds throughout.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart from longer ones.
const MAX_US: u64 = 3_600_000_000;

/// How latencies were spread. All are zero where there were none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    /// How many events.
    pub events: u64,
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p99_9_us: u64,
    pub p99_99_us: u64,
    pub max_us: u64,
    /// The share of events up to it, and the latency: for a plot.
    pub curve: Vec<(f64, u64)>,
}

impl Latency {
    /// What a histogram holds.
    pub(super) fn of(histogram: &Histogram<u64>) -> Latency {
        if histogram.is_empty() {
            return Latency::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency {
            events: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: histogram.max(),
            curve: curve(histogram),
        }
    }

    /// The figures that people look at, each with its name.
    pub fn figures(&self) -> [(&'static str, u64); 6] {
        [
            ("p50", self.p50_us),
            ("p90", self.p90_us),
            ("p99", self.p99_us),
            ("p99.9", self.p99_9_us),
            ("p99.99", self.p99_99_us),
            ("max", self.max_us),
        ]
    }
}

/// Points of the way from the quickest to the slowest, closer to each other the nearer the end: five
/// for each halving of what is left, as HdrHistogram's own plots have it.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let points = histogram.iter_quantiles(5);
    points
        .map(|it| (it.quantile(), it.value_iterated_to().min(histogram.max())))
        .collect()
}

/// An empty histogram that tells latencies apart to a thousandth.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_US, 3).expect("bounds that hdrhistogram takes")
}

/// One for a second of many: to a hundredth, and as large as what is in it.
pub(super) fn histogram_of_second() -> Histogram<u64> {
    let mut histogram = Histogram::new(2).expect("a number of digits that hdrhistogram takes");
    histogram.auto(true);
    histogram
}

/// A latency as a histogram takes it: what takes no time at all takes a microsecond.
pub(super) fn us(nanoseconds: u64) -> u64 {
    (nanoseconds / 1_000).clamp(1, MAX_US)
}

/// One second of a run: of the events that were due in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Which, from the first event on.
    pub second: u64,
    /// Events that were due in it.
    pub due: u64,
    /// Events that were sent in it.
    pub sent: u64,
    /// Events that became readable in it.
    pub readable: u64,
    /// Events that were due and not readable, at its end.
    pub lag: u64,
    /// The most events that were sent and that brokers had not acknowledged.
    #[serde(default)]
    pub unacknowledged: u64,
    /// Latency of the events that were due in it.
    pub p50_us: u64,
    #[allow(missing_docs)]
    pub p99_us: u64,
    #[allow(missing_docs)]
    pub max_us: u64,
    /// Memory of the process that counts, at its end; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
}

/// A log of HdrHistogram, an interval a second, as its tools read it.
pub(super) fn interval_log(
    what: &str,
    began: SystemTime,
    seconds: &[Histogram<u64>],
) -> Option<Vec<u8>> {
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(what)
        .with_start_time(began)
        .with_base_time(began);
    // Microseconds in, milliseconds in the column of maxima.
    builder.with_max_value_divisor(1_000.0);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer).ok()?;
    for (second, histogram) in seconds.iter().enumerate() {
        let start = Duration::from_secs(second as u64);
        writer
            .write_histogram(histogram, start, Duration::from_secs(1), None)
            .ok()?;
    }
    drop(writer);
    Some(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut all = histogram();
        (1..=10_000).for_each(|ms| all.record(ms * 1_000).unwrap());
        let latency = Latency::of(&all);
        assert_eq!(latency.events, 10_000);
        for ((_, us), ms) in latency
            .figures()
            .into_iter()
            .zip([5_000, 9_000, 9_900, 9_990, 9_999, 10_000])
        {
            let off = (us as f64 / 1_000.0 - f64::from(ms)).abs();
            assert!(off <= 0.001 * f64::from(ms) + 1.0, "{us} for {ms} ms");
        }
        let curve = &latency.curve;
        assert!(
            curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1),
            "{curve:?}"
        );
        assert_eq!(curve.last().map(|it| it.1), Some(latency.max_us));
        assert_eq!(Latency::of(&histogram()), Latency::default());
    }

    #[test]
    fn a_log_is_read_back_as_it_was_written() {
        let seconds: Vec<_> = (0..3u64)
            .map(|second| {
                let mut histogram = histogram_of_second();
                (0..10).for_each(|i| histogram.record(1 + second * 1_000 + i).unwrap());
                histogram
            })
            .collect();
        let log = interval_log("latency", SystemTime::UNIX_EPOCH, &seconds).unwrap();
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.start_timestamp().as_secs(), read.len() as u64);
                use base64::Engine;
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(interval.encoded_histogram())
                    .unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                read.push(histogram);
            }
        }
        assert_eq!(read, seconds);
    }
}
