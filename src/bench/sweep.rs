//! The rate raised until it does not hold any more: the knee.

use super::args::SweepArgs;
use super::own::Own;
use super::paced::{Found, paced};
use super::result::{Paced, Step, Sweep};
use super::table::ms;
use super::{Error, Logs, steady};
use crate::money::grouped;
use crate::shutdown::Shutdown;

/// What makes many events of a step.
const FLAGS: &str = "--to, --step and --warmup";
/// A lag that grows by a smaller share of what comes in a second is noise of the cuts' interval.
const GROWS_BY: f64 = 0.02;
/// And it has to have grown by so many seconds of what comes in.
const HAS_GROWN_S: f64 = 0.5;

/// Tries rate after rate.
pub(super) fn sweep(
    own: &mut Own,
    args: &SweepArgs,
    stop: &Shutdown,
) -> Result<(Sweep, Logs), Error> {
    if args.to < args.from {
        return Err(Error::Usage(format!(
            "--to {} is lower than --from {}: the rate is raised",
            args.to, args.from
        )));
    }
    let plan_of = |rate| steady(&args.traffic, rate, args.step, args.warmup, FLAGS);
    plan_of(args.to)?; // Not after an hour.
    let mut search = Search::new(args);
    let (mut steps, mut logs) = (Vec::new(), Vec::new());
    let limit_ms = args.limit_p99.as_millis() as u64;
    while let Some(rate) = search.next {
        let plan = plan_of(rate)?;
        tracing::info!("{} events/s", grouped(rate));
        let Found { paced, logs: its } = paced(own, &plan, stop)?;
        let over = Over::of(&paced, limit_ms);
        match &over {
            None => {
                let p99 = ms(paced.readable.p99_us);
                tracing::info!("{} events/s held, p99 {p99} ms", grouped(rate));
            }
            Some(over) => {
                tracing::info!("{} events/s did not hold: {}", grouped(rate), over.why);
            }
        }
        search.tried(rate, over.as_ref());
        if over.is_none() || logs.is_empty() {
            logs = its; // Of the highest rate that held.
        }
        let over = over.map(|it| it.why);
        steps.push(Step { paced, over });
    }
    let sweep = Sweep {
        limit_p99_ms: limit_ms,
        steps,
        knee: search.held,
        ended: search.ended(),
    };
    Ok((sweep, logs))
}

/// Why a rate does not hold.
struct Over {
    why: String,
    /// Whether it was generator or brokers, and not tally99.
    is_of_others: bool,
}

impl Over {
    /// Why this one does not, if it does not.
    fn of(paced: &Paced, limit_ms: u64) -> Option<Over> {
        let (rate, growth, p99_us) = (paced.rate as f64, paced.lag_growth, paced.readable.p99_us);
        let grows = growth > GROWS_BY * rate && growth * paced.measured_s > HAS_GROWN_S * rate;
        // What grows waits in the producer.
        let is_not_taken = grows && paced.unacknowledged_growth > growth / 2.0;
        let why = match &paced.invalid {
            Some(why) => why.clone(),
            None if is_not_taken => format!(
                "the brokers take {} events a second less",
                grouped(paced.unacknowledged_growth as u64)
            ),
            None if p99_us > limit_ms * 1_000 => {
                format!("p99 is {} ms, above the limit of {limit_ms} ms", ms(p99_us))
            }
            None if grows => format!(
                "the lag grows by {} events a second",
                grouped(growth as u64)
            ),
            None => return None,
        };
        Some(Over {
            why,
            is_of_others: paced.invalid.is_some() || is_not_taken,
        })
    }
}

/// Which rate is tried next: upwards by a factor, then halving the gap.
struct Search {
    next: Option<u64>,
    factor: f64,
    highest: u64,
    bisect: u32,
    /// The highest that held.
    held: Option<u64>,
    /// The lowest that did not.
    failed: Option<u64>,
    /// The lowest at which generator or brokers fell behind.
    could_not_send: Option<u64>,
}

impl Search {
    fn new(args: &SweepArgs) -> Search {
        Search {
            next: Some(args.from),
            factor: args.factor,
            highest: args.to,
            bisect: args.bisect,
            held: None,
            failed: None,
            could_not_send: None,
        }
    }

    fn tried(&mut self, rate: u64, over: Option<&Over>) {
        match over {
            None => self.held = self.held.max(Some(rate)),
            Some(over) => {
                self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
                if over.is_of_others {
                    self.could_not_send = Some(rate);
                }
            }
        }
        self.next = match (self.held, self.failed) {
            (None, _) => None,
            (Some(held), None) if held >= self.highest => None,
            (Some(held), None) => {
                Some(((held as f64 * self.factor) as u64).clamp(held + 1, self.highest))
            }
            (Some(held), Some(failed)) => {
                let between = held + failed.saturating_sub(held) / 2;
                let is_worth_it = self.bisect > 0 && failed > held + held / 100;
                self.bisect = self.bisect.saturating_sub(1);
                is_worth_it.then_some(between)
            }
        };
    }

    /// Why it ended.
    fn ended(&self) -> String {
        let number = |rate: u64| grouped(rate);
        match (self.held, self.failed, self.could_not_send) {
            (None, _, Some(_)) => {
                "generator or brokers fell behind at the first rate, so nothing is said of \
                 tally99: give a lower --from, or more cores"
                    .into()
            }
            (None, ..) => "not even the first rate held: give a lower --from".into(),
            (Some(_), None, _) => {
                "the highest rate that was asked for held: give a higher --to".into()
            }
            (Some(_), Some(failed), Some(rate)) if rate == failed => format!(
                "generator or brokers fell behind at {} events/s, so this is what could be tried, \
                 and not what tally99 could take",
                number(rate)
            ),
            (Some(_), Some(failed), _) => format!("{} events/s did not hold", number(failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::latency::Latency;
    use super::super::result::tests::paced;
    use super::*;

    fn over(is_of_others: bool) -> Over {
        let why = "too high".into();
        Over { why, is_of_others }
    }

    #[test]
    fn what_the_brokers_do_not_take_is_not_laid_on_tally99() {
        let p99_us = 700_000;
        let readable = Latency {
            p99_us,
            ..Latency::default()
        };
        let of = |limit_ms, lag_growth, unacknowledged_growth| {
            let run = Paced {
                readable: readable.clone(),
                lag_growth,
                unacknowledged_growth,
                ..paced(100_000)
            };
            Over::of(&run, limit_ms).map(|it| (it.why, it.is_of_others))
        };
        assert_eq!(of(700, 100.0, 90.0), None);
        let (why, is_of_others) = of(699, -200.0, 5.0).unwrap();
        assert!(why.contains("p99 is 700 ms") && !is_of_others, "{why}");
        let (why, is_of_others) = of(700, 9_000.0, 4_000.0).unwrap();
        assert!(why.contains("the lag grows by 9,000") && !is_of_others);
        let (why, is_of_others) = of(100, 9_000.0, 8_000.0).unwrap();
        assert!(why.contains("the brokers take 8,000 events a second less") && is_of_others);
        let invalid = Paced {
            invalid: Some("the generator fell behind".into()),
            ..paced(100)
        };
        assert!(Over::of(&invalid, 100).unwrap().is_of_others);
    }

    /// Which rates are tried, where those above `knee` do not hold.
    fn rates(from: u64, to: u64, bisect: u32, knee: u64) -> (Vec<u64>, Option<u64>, String) {
        let mut search = Search {
            next: Some(from),
            factor: 1.5,
            highest: to,
            bisect,
            held: None,
            failed: None,
            could_not_send: None,
        };
        let mut rates = Vec::new();
        while let Some(rate) = search.next {
            rates.push(rate);
            let over = over(false);
            search.tried(rate, Some(&over).filter(|_| rate > knee));
        }
        (rates, search.held, search.ended())
    }

    #[test]
    fn the_gap_is_halved_once_a_rate_does_not_hold() {
        let (tried, knee, ended) = rates(1_000, 10_000, 2, 1_700);
        assert_eq!(tried, [1_000, 1_500, 2_250, 1_875, 1_687]);
        assert_eq!(knee, Some(1_687));
        assert_eq!(ended, "1,875 events/s did not hold");
    }

    #[test]
    fn it_ends_at_the_highest_rate_and_at_the_first() {
        let (tried, knee, ended) = rates(1_000, 2_000, 2, 5_000);
        assert_eq!((tried, knee), (vec![1_000, 1_500, 2_000], Some(2_000)));
        assert!(ended.contains("--to"));
        let (tried, knee, ended) = rates(1_000, 2_000, 2, 10);
        assert_eq!((tried, knee), (vec![1_000], None));
        assert!(ended.contains("--from"));
    }

    #[test]
    fn what_could_not_be_sent_is_not_taken_for_the_knee() {
        let new = || Search {
            next: Some(100),
            factor: 2.0,
            highest: 1_000,
            bisect: 0,
            held: None,
            failed: None,
            could_not_send: None,
        };
        let mut search = new();
        search.tried(100, None);
        search.tried(200, Some(&over(true)));
        assert_eq!((search.next, search.held), (None, Some(100)));
        assert!(search.ended().contains("not what tally99 could take"));
        let mut search = new();
        search.tried(100, Some(&over(true)));
        assert_eq!((search.next, search.held), (None, None));
        assert!(search.ended().contains("nothing is said of tally99"));
    }
}
