//! What a bench found: all numbers of all runs, as `result.json` and `--json` have them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use super::latency::{Latency, Second};
use super::machine::Machine;
use super::stats::median;
use crate::totals::Verdict;

/// The format of the document; another number is another format.
pub const FORMAT: u32 = 1;

/// All that one command found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`FORMAT`].
    pub format: u32,
    /// `drain`, `paced` and so on.
    pub command: String,
    /// When it began, RFC 3339 in UTC.
    pub began: String,
    /// What it ran on.
    pub machine: Machine,
    /// What was asked for, and the settings that matter for speed.
    pub settings: BTreeMap<String, String>,
    /// Of `raw`, `drain`, and `day` without `--replay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Of `paced`, and `day --replay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paced: Option<Paced>,
    /// Of `sweep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

impl Document {
    /// What makes a check fail, if anything does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if let Some(drain) = &self.drain {
            failures.extend(drain.failures());
        }
        if let Some(paced) = &self.paced {
            failures.extend(paced.failures());
        }
        if let Some(sweep) = &self.sweep {
            let is_invalid = |step: &Step| step.paced.invalid.is_some();
            if sweep.steps.iter().all(is_invalid) {
                failures.push(format!("no run is valid; {}", sweep.ended));
            }
        }
        for step in self.sweep.iter().flat_map(|sweep| &sweep.steps) {
            if let Exactness::Different(what) = &step.paced.exactness {
                let rate = step.paced.rate;
                failures.push(format!("totals are not exact at {rate} events/s: {what}"));
            }
        }
        failures
    }

    /// The same as an exit code.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.failures().is_empty())
    }
}

/// Backlogs read, raw and folded, in turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// The topic that was read.
    pub topic: String,
    /// Whether it was made for this.
    pub is_own: bool,
    /// Its partitions.
    pub partitions: usize,
    /// Its records.
    pub events: u64,
    /// How long filling it took, if it was filled.
    pub filled_in_s: Option<f64>,
    /// All runs, in order.
    pub runs: Vec<Run>,
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// librdkafka alone, record by record.
    RawPoll,
    /// librdkafka alone, in batches.
    RawBatch,
    /// The whole of tally99.
    Fold,
}

impl Kind {
    /// All of them, the least work last.
    pub const ALL: [Kind; 3] = [Kind::Fold, Kind::RawPoll, Kind::RawBatch];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::RawPoll => "raw, polled",
            Kind::RawBatch => "raw, batches",
            Kind::Fold => "tally99",
        }
    }
}

/// One run over a backlog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Which pair it is of, from 1.
    pub pair: u32,
    /// What it did.
    pub kind: Kind,
    /// Records read.
    pub events: u64,
    /// Bytes of their keys and values, not compressed.
    pub bytes: Option<u64>,
    /// From pointing the readers at the first partition to the last record, or the last
    /// complete cut.
    pub seconds: f64,
    /// Before that: starting, finding topics, joining the group.
    pub startup_s: f64,
    /// From the start of the process to the last word of it.
    pub whole_s: f64,
    /// CPU of the whole process; `None` where the system does not tell.
    pub cpu: Option<Cpu>,
    /// The most memory that was resident, likewise.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the totals were right.
    pub exactness: Exactness,
    /// The digest of the last cut.
    pub digest: Option<String>,
}

impl Run {
    /// Records a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds.max(1e-9)
    }

    /// Megabytes a second.
    pub fn megabytes_a_second(&self) -> Option<f64> {
        Some(self.bytes? as f64 / 1e6 / self.seconds.max(1e-9))
    }

    /// CPU seconds for a million records, by what they were used for.
    pub fn cpu_a_million(&self) -> Option<[(&'static str, f64); 5]> {
        let millions = self.events as f64 / 1e6;
        Some(
            self.cpu?
                .parts()
                .map(|(name, seconds)| (name, seconds / millions.max(1e-9))),
        )
    }
}

/// Whether totals were those of the generator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exactness {
    /// Of so many campaigns, each, and all sums.
    Equal(usize),
    /// They were not: what differs.
    Different(String),
    /// There was nothing to compare with, and why.
    Unknown(String),
}

/// The medians of all runs of a kind; of figures that none of them has, `None`.
#[derive(Clone, Debug)]
pub struct Medians {
    /// Records a second.
    pub rate: f64,
    /// Megabytes a second.
    pub megabytes_a_second: Option<f64>,
    /// CPU seconds for a million records.
    pub cpu: Option<f64>,
    /// The same by what they were used for.
    pub cpu_parts: Option<[(&'static str, f64); 5]>,
    /// The most memory that was resident.
    pub peak_memory_bytes: Option<f64>,
    /// Before the first record.
    pub startup_s: f64,
}

impl Drain {
    /// The medians of a kind; `None` if it has no runs.
    pub fn medians(&self, kind: Kind) -> Option<Medians> {
        let parts: Vec<_> = self.of(kind).filter_map(Run::cpu_a_million).collect();
        let totals = parts.iter().map(|it| it.iter().map(|part| part.1).sum());
        let memory = self.of(kind).filter_map(|run| run.peak_memory_bytes);
        Some(Medians {
            rate: self.median_rate(kind)?,
            megabytes_a_second: median(self.of(kind).filter_map(Run::megabytes_a_second)),
            cpu: median(totals),
            cpu_parts: parts.first().map(|first| {
                std::array::from_fn(|part| {
                    let seconds = median(parts.iter().map(|it| it[part].1));
                    (first[part].0, seconds.unwrap_or_default())
                })
            }),
            peak_memory_bytes: median(memory.map(|bytes| bytes as f64)),
            startup_s: median(self.of(kind).map(|run| run.startup_s))?,
        })
    }

    /// The runs of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.kind == kind)
    }

    /// The median rate of a kind.
    pub fn median_rate(&self, kind: Kind) -> Option<f64> {
        median(self.of(kind).map(Run::rate))
    }

    /// How fast it folded, as a part of how fast this kind was, pair by pair.
    pub fn ratios(&self, kind: Kind) -> Vec<f64> {
        let of_pair = |fold: &Run| {
            let mut same = self.of(kind).filter(|run| run.pair == fold.pair);
            same.next().map(|other| fold.rate() / other.rate())
        };
        self.of(Kind::Fold).filter_map(of_pair).collect()
    }

    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for run in &self.runs {
            if run.events != self.events {
                failures.push(format!(
                    "{}, pair {}: {} of {} records were seen",
                    run.kind.name(),
                    run.pair,
                    run.events,
                    self.events
                ));
            }
            if let Exactness::Different(what) = &run.exactness {
                failures.push(format!("pair {}: totals are not exact: {what}", run.pair));
            }
        }
        let mut digests: Vec<_> = self
            .runs
            .iter()
            .filter_map(|run| run.digest.as_ref())
            .collect();
        digests.sort();
        digests.dedup();
        if digests.len() > 1 {
            failures.push("the runs do not agree with each other: their digests differ".into());
        }
        failures
    }
}

/// Events at their times.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paced {
    /// Events a second that were asked for; of a replay, on average.
    pub rate: u64,
    /// Events that were due.
    pub events: u64,
    /// Events that were sent.
    pub sent: u64,
    /// How long was measured, after the warm-up.
    pub measured_s: f64,
    /// How long the warm-up was.
    pub warmup_s: f64,
    /// From due to read from the topic of cuts, after the warm-up.
    pub readable: Latency,
    /// From due to visible in the process that counts.
    pub visible: Latency,
    /// The same as `readable`, of the warm-up.
    pub warmup: Latency,
    /// How late the generator sent, after the warm-up.
    pub lateness: Latency,
    /// Whether generator and brokers kept the times; if not, what they missed.
    pub invalid: Option<String>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// How many events more a second were due than were in cuts, while it was measured.
    pub lag_growth: f64,
    /// The same of events that brokers had not acknowledged.
    #[serde(default)]
    pub unacknowledged_growth: f64,
    /// CPU of the process that counts, from its start to its end.
    pub cpu: Option<Cpu>,
    /// Seconds of CPU of the generator from the first event on, librdkafka's included, and
    /// without what was made ahead.
    pub generator_cpu_s: Option<f64>,
    /// The most memory of the process that counts.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the totals were right.
    pub exactness: Exactness,
}

impl Paced {
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if let Some(why) = &self.invalid {
            failures.push(format!("the run is invalid: {why}"));
        }
        if let Exactness::Different(what) = &self.exactness {
            failures.push(format!("totals are not exact: {what}"));
        }
        failures
    }
}

/// Rates, one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// What p99 may be.
    pub limit_p99_ms: u64,
    /// Each rate, in the order in which it was tried.
    pub steps: Vec<Step>,
    /// The highest rate that held, below which none did not.
    pub knee: Option<u64>,
    /// Why no higher rate was found to hold.
    pub ended: String,
}

/// One rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What was measured.
    pub paced: Paced,
    /// Why it did not hold; `None` if it did.
    pub over: Option<String>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn document(command: &str) -> Document {
        Document {
            format: FORMAT,
            command: command.into(),
            began: "2022-09-09T00:00:00.000Z".into(),
            machine: Machine::default(),
            settings: BTreeMap::new(),
            drain: None,
            paced: None,
            sweep: None,
        }
    }

    pub fn paced(rate: u64) -> Paced {
        Paced {
            rate,
            events: 10 * rate,
            sent: 10 * rate,
            measured_s: 10.0,
            warmup_s: 0.0,
            readable: Latency::default(),
            visible: Latency::default(),
            warmup: Latency::default(),
            lateness: Latency::default(),
            invalid: None,
            seconds: Vec::new(),
            lag_growth: 0.0,
            unacknowledged_growth: 0.0,
            cpu: None,
            generator_cpu_s: None,
            peak_memory_bytes: None,
            exactness: Exactness::Equal(7),
        }
    }

    pub fn run(pair: u32, kind: Kind, seconds: f64) -> Run {
        Run {
            pair,
            kind,
            events: 1_000_000,
            bytes: Some(200_000_000),
            seconds,
            startup_s: 3.0,
            whole_s: seconds + 3.5,
            cpu: Some(Cpu {
                fold_s: 0.5,
                librdkafka_s: 0.25,
                ..Cpu::default()
            }),
            peak_memory_bytes: Some(64 << 20),
            exactness: Exactness::Unknown("raw".into()),
            digest: None,
        }
    }

    pub fn drain() -> Drain {
        let runs = [
            (1, [1.0, 0.5, 2.0]),
            (2, [1.0, 0.25, 1.0]),
            (3, [2.0, 1.0, 2.5]),
        ];
        let kinds = [Kind::RawPoll, Kind::RawBatch, Kind::Fold];
        let of_pair = |(pair, seconds): (u32, [f64; 3])| {
            kinds
                .into_iter()
                .zip(seconds)
                .map(move |(kind, seconds)| run(pair, kind, seconds))
        };
        Drain {
            topic: "donations".into(),
            is_own: true,
            partitions: 12,
            events: 1_000_000,
            filled_in_s: None,
            runs: runs.into_iter().flat_map(of_pair).collect(),
        }
    }

    #[test]
    fn ratios_are_of_the_runs_of_one_pair() {
        let drain = drain();
        assert_eq!(drain.ratios(Kind::RawPoll), [0.5, 1.0, 0.8]);
        assert_eq!(drain.ratios(Kind::RawBatch), [0.25, 0.25, 0.4]);
        assert_eq!(median(drain.ratios(Kind::RawPoll)), Some(0.8));
        assert_eq!(drain.median_rate(Kind::Fold), Some(500_000.0));
        let medians = drain.medians(Kind::Fold).unwrap();
        assert_eq!((medians.rate, medians.cpu), (500_000.0, Some(0.75)));
        assert_eq!(medians.cpu_parts.unwrap()[1], ("librdkafka", 0.25));
        assert_eq!(medians.peak_memory_bytes, Some(67_108_864.0));
        assert_eq!(drain.runs[0].megabytes_a_second(), Some(200.0));
        assert_eq!(drain.runs[0].cpu_a_million().unwrap()[0], ("fold", 0.5));
    }

    #[test]
    fn a_sweep_without_a_valid_run_is_a_failure() {
        let step = |invalid: Option<&str>| {
            let invalid = invalid.map(String::from);
            Step {
                over: invalid.clone(),
                paced: Paced {
                    invalid,
                    ..paced(100)
                },
            }
        };
        let sweep = |steps| Document {
            sweep: Some(Sweep {
                limit_p99_ms: 1,
                steps,
                knee: None,
                ended: "generator or brokers fell behind".into(),
            }),
            ..document("sweep")
        };
        let some = sweep(vec![step(None), step(Some("late"))]);
        assert_eq!((some.failures(), some.verdict()), (vec![], Verdict::Fine));
        let none = sweep(vec![step(Some("late"))]);
        assert!(none.failures()[0].contains("no run is valid; generator or brokers"));
        assert_eq!(none.verdict(), Verdict::Differs);
    }

    #[test]
    fn what_is_not_exact_is_a_failure() {
        let mut drain = drain();
        assert_eq!(drain.failures(), [""; 0]);
        drain.runs[2].exactness = Exactness::Different("campaign water".into());
        drain.runs[1].events -= 1;
        for (run, digest) in [(2, "a"), (5, "b")] {
            drain.runs[run].digest = Some(digest.into());
        }
        let failures = drain.failures();
        assert_eq!(failures.len(), 3, "{failures:?}");
        assert!(failures[0].contains("999999 of 1000000"));
        assert!(failures[1].contains("campaign water"));
        assert!(failures[2].contains("do not agree"));
    }
}
