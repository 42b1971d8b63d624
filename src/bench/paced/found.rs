//! What a paced run comes to: figures, whether it is valid, second by second.

use std::time::SystemTime;

use hdrhistogram::Histogram;

use super::Plan;
use super::account::{Account, Arrivals};
use super::send::Sent;
use crate::bench::latency::{Latency, Second, interval_log};
use crate::bench::message::{Measured, Sample};
use crate::bench::report::HISTOGRAMS;
use crate::bench::result::{Exactness, Paced};
use crate::bench::stats::slope;
use crate::money::grouped;

/// A generator is in time if no more than one event of a hundred is later than this. It waits
/// half a millisecond between two looks at the clock.
const LATE_P99_US: u64 = 50_000;
/// How late the last event may be sent, and how long after that brokers may take to
/// acknowledge all that were.
const LAST_LATE_NS: u64 = 1_000_000_000;
const NOT_TAKEN: &str = "the brokers did not take events as they came";
const SECOND_NS: u64 = 1_000_000_000;

/// The result, and histograms to be written beside it.
pub(in crate::bench) struct Found {
    pub paced: Paced,
    /// Logs of HdrHistogram by their names.
    pub logs: Vec<(&'static str, Vec<u8>)>,
}

/// All that a run has left.
pub(super) struct Parts<'a> {
    pub plan: &'a Plan,
    pub began: SystemTime,
    pub start_ns: u64,
    pub account: Account,
    pub sent: Sent,
    pub sent_events: u64,
    pub events: u64,
    pub measured: Measured,
    pub samples: Vec<Sample>,
    pub generator_cpu_s: Option<f64>,
    pub exactness: Exactness,
}

impl Found {
    pub(super) fn of(parts: Parts<'_>) -> Found {
        let Account {
            readable,
            visible,
            due,
        } = &parts.account;
        let seconds = seconds(&parts, readable, due);
        let log = |what: &str, arrivals: &Arrivals| {
            interval_log(what, parts.began, &arrivals.by_second).unwrap_or_default()
        };
        let logs = [
            log(
                "from due to read from the topic of cuts, by the second due, us",
                readable,
            ),
            log(
                "from due to visible in the process that counts, by the second due, us",
                visible,
            ),
        ];
        let logs = HISTOGRAMS.into_iter().zip(logs).collect();
        let plan = parts.plan;
        let paced = Paced {
            rate: plan.rate,
            events: parts.events,
            sent: parts.sent_events,
            measured_s: plan.lasts.saturating_sub(plan.warmup).as_secs_f64(),
            warmup_s: plan.warmup.as_secs_f64(),
            readable: Latency::of(&readable.all),
            visible: Latency::of(&visible.all),
            warmup: Latency::of(&readable.warmup),
            lateness: Latency::of(&parts.sent.lateness),
            invalid: invalid(&parts.sent, parts.events - parts.sent_events),
            lag_growth: growth(&seconds, plan, |it| it.lag),
            unacknowledged_growth: growth(&seconds, plan, |it| it.unacknowledged),
            seconds,
            cpu: parts.measured.cpu,
            generator_cpu_s: parts.generator_cpu_s,
            peak_memory_bytes: parts.measured.peak_memory_bytes,
            exactness: parts.exactness.clone(),
        };
        Found { paced, logs }
    }
}

/// What generator or brokers missed, if they fell behind.
fn invalid(sent: &Sent, left: u64) -> Option<String> {
    let p99_us = p99(&sent.lateness);
    let late_ns = sent.last_late_ns.max(p99_us * 1_000);
    let who = match sent.blocked_ns >= late_ns / 2 {
        true => NOT_TAKEN,
        false => "the generator fell behind",
    };
    if sent.gave_up {
        let (seconds, left) = (sent.last_late_ns / SECOND_NS, grouped(left));
        return Some(format!(
            "{who}: it gave up {seconds} s late, {left} events before the end"
        ));
    }
    if p99_us > LATE_P99_US {
        let [ms, allowed] = [p99_us, LATE_P99_US].map(|us| us / 1_000);
        return Some(format!(
            "{who}: of a hundred events, one was sent {ms} ms late or more ({allowed} ms are \
             allowed)"
        ));
    }
    if sent.last_late_ns > LAST_LATE_NS {
        let ms = sent.last_late_ns / 1_000_000;
        return Some(format!("{who}: the last event was sent {ms} ms late"));
    }
    (sent.acknowledging_ns > LAST_LATE_NS).then(|| {
        let ms = sent.acknowledging_ns / 1_000_000;
        format!("{NOT_TAKEN}: they had all of them {ms} ms after the last was sent")
    })
}

fn p99(histogram: &Histogram<u64>) -> u64 {
    match histogram.is_empty() {
        true => 0,
        false => histogram.value_at_quantile(0.99),
    }
}

fn seconds(parts: &Parts<'_>, readable: &Arrivals, due: &[u64]) -> Vec<Second> {
    let last_ns = readable.arrivals.last().map_or(0, |(at, _)| *at);
    let count = due.len().max((last_ns / SECOND_NS) as usize + 1);
    let mut due_so_far = 0;
    (0..count)
        .map(|index| {
            let (begin_ns, end_ns) = (index as u64 * SECOND_NS, (index as u64 + 1) * SECOND_NS);
            let due = due.get(index).copied().unwrap_or(0);
            due_so_far += due;
            let [before, after] = [begin_ns, end_ns].map(|at| readable.arrived_by(at));
            let latency = readable.by_second.get(index).filter(|it| !it.is_empty());
            let at = |quantile| latency.map_or(0, |it| it.value_at_quantile(quantile));
            let end_ns = parts.start_ns + end_ns;
            let sent = parts.sent.by_second.get(index).copied().unwrap_or_default();
            let sample = parts
                .samples
                .iter()
                .rev()
                .find(|sample| sample.at_ns <= end_ns);
            Second {
                second: index as u64,
                due,
                sent: sent.sent,
                readable: after - before,
                lag: due_so_far.saturating_sub(after),
                unacknowledged: sent.unacknowledged,
                p50_us: at(0.5),
                p99_us: at(0.99),
                max_us: at(1.0),
                resident_bytes: sample.map(|sample| sample.resident_bytes),
            }
        })
        .collect()
}

/// By how much this grew in a second, on average, while it was measured.
fn growth(seconds: &[Second], plan: &Plan, figure: impl Fn(&Second) -> u64) -> f64 {
    let measured = (plan.warmup.as_secs(), plan.lasts.as_secs());
    let points: Vec<_> = seconds
        .iter()
        .filter(|it| (measured.0..measured.1).contains(&it.second))
        .map(|it| (it.second as f64, figure(it) as f64))
        .collect();
    slope(&points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::latency::histogram;

    fn sent(late_ms: &[u64]) -> Sent {
        let mut lateness = histogram();
        late_ms
            .iter()
            .for_each(|ms| lateness.saturating_record(ms * 1_000 + 1));
        Sent {
            lateness,
            by_second: Vec::new(),
            last_late_ns: late_ms.last().map_or(0, |ms| ms * 1_000_000),
            blocked_ns: 0,
            acknowledging_ns: 0,
            gave_up: false,
        }
    }

    #[test]
    fn a_generator_that_falls_behind_makes_the_run_invalid() {
        let mut in_time = vec![1; 1_000];
        assert_eq!(invalid(&sent(&in_time), 0), None);
        // A moment late is no falling behind; its latency counts anyway.
        in_time[500..505].fill(400);
        assert_eq!(invalid(&sent(&in_time), 0), None);
        in_time[500..520].fill(400);
        assert!(
            invalid(&sent(&in_time), 0)
                .unwrap()
                .contains("the generator fell behind: of a hundred events, one was sent 400 ms")
        );
        let mut end = vec![1; 1_000];
        *end.last_mut().unwrap() = 1_500;
        assert!(invalid(&sent(&end), 0).unwrap().contains("1500 ms late"));
        let blocked = Sent {
            blocked_ns: 300_000_000,
            ..sent(&in_time)
        };
        let why = invalid(&blocked, 0).unwrap();
        assert!(
            why.contains("the brokers") && why.contains("400 ms"),
            "{why}"
        );
        let slow_brokers = Sent {
            acknowledging_ns: 2_300_000_000,
            ..sent(&[1; 100])
        };
        let why = invalid(&slow_brokers, 0).unwrap();
        assert!(
            why.contains("the brokers") && why.contains("2300 ms"),
            "{why}"
        );
        let gave_up = Sent {
            gave_up: true,
            ..sent(&[10_000])
        };
        assert!(
            invalid(&gave_up, 7)
                .unwrap()
                .contains("7 events before the end")
        );
    }
}
