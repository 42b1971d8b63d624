//! The seeded simulator of the pure core.
//!
//! Workers fold partitions, crash, lose and gain them, and go on as zombies; the
//! network between them and merge repeats, reorders and drops flushes; the
//! publishing process crashes between the upserts of a cut, and one that should
//! be dead writes over its successor's. At every cut each figure must equal a
//! plain sum over the log's prefix, nothing that was ever published may fall,
//! and the topics must hold what is true.
//!
//! Shards are kept in a store that fails, is slow, lists late and rots, and are
//! restored from it; processes die between any two requests to it. What is
//! restored must be the fold of the log byte by byte, and nothing that is needed
//! may ever be deleted.
//!
//! A failure prints its seed: `MODEL_SEED=n cargo test --test model` repeats it.
//! `MODEL_SECONDS=n cargo test --release --test model -- --nocapture` goes through
//! fresh seeds for so long. `MODEL_STEPS=n` makes runs longer.

mod checks;
mod log;
mod oracle;
mod simulator;
mod store;
mod workers;

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use simulator::{START_MS, Simulator, rules};
use tally99::event::Reason;
use tally99::merge::Merge;
use tally99::shard::{Names, Outcome, Record, Shard};

/// Says how to repeat a run that fails.
struct SaySeed(u64, u64);

impl Drop for SaySeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat it with: MODEL_SEED={} MODEL_STEPS={} cargo test --test model",
                self.0, self.1
            );
        }
    }
}

/// What runs came to.
#[derive(Debug, Default)]
struct Done {
    cuts: u64,
    checkpoints: u64,
    restores: u64,
}

impl Done {
    /// Runs that do next to nothing prove nothing.
    fn check(&self, steps: u64) {
        let least = [
            (self.cuts, 500, "cuts"),
            (self.checkpoints, 200, "checkpoints"),
            (self.restores, 1_000, "restores"),
        ];
        for (count, one_in, what) in least {
            assert!(
                count > steps / one_in,
                "only {count} {what} in {steps} steps"
            );
        }
    }
}

fn simulate(seed: u64, steps: u64, done: &mut Done) {
    let _say_seed = SaySeed(seed, steps);
    let mut simulator = Simulator::new(seed);
    for _ in 0..steps {
        simulator.step();
    }
    simulator.finish();
    done.cuts += simulator.cuts;
    done.checkpoints += simulator.checkpoints_written;
    done.restores += simulator.restores;
}

/// A million steps with seeds 0 to 199; or one seed; or fresh ones for a while.
#[test]
fn every_cut_equals_the_sum_of_the_log_up_to_it() {
    let number = |name| -> Option<u64> {
        let text = std::env::var(name).ok();
        text.map(|text| text.parse().expect(name))
    };
    let steps = number("MODEL_STEPS").unwrap_or(5_000);
    let mut done = Done::default();
    if let Some(seed) = number("MODEL_SEED") {
        tracing_subscriber::fmt().with_test_writer().init();
        return simulate(seed, steps, &mut done);
    }
    if let Some(seconds) = number("MODEL_SECONDS") {
        return endless(Duration::from_secs(seconds), steps);
    }
    let seeds = number("MODEL_SEEDS").unwrap_or(200);
    (0..seeds).for_each(|seed| simulate(seed, steps, &mut done));
    done.check(seeds * steps);
}

/// Objects have to be synced, and the simulator knows if they are not.
#[test]
fn a_store_that_forgets_is_noticed() {
    let notices = |seed| {
        let run = std::panic::catch_unwind(|| {
            let mut simulator = Simulator::on_a_store_that_forgets(seed);
            (0..5_000).for_each(|_| simulator.step());
            simulator.finish();
        });
        let said = run.err().and_then(|why| why.downcast::<String>().ok());
        said.is_some_and(|why| why.contains("which is not there"))
    };
    assert!((0..20).any(notices), "no seed of 20 notices it");
}

/// A seed that is printed is of use only if it says all of the run.
#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..10 {
        let runs = [0; 2].map(|_| {
            let mut simulator = Simulator::new(seed);
            (0..5_000).for_each(|_| simulator.step());
            simulator.random.random::<u64>()
        });
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

/// Seeds that nobody has tried before.
fn endless(limit: Duration, steps: u64) {
    let (since, mut said) = (Instant::now(), Instant::now());
    let epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let first = epoch.as_micros() as u64;
    let mut done = Done::default();
    for seed in first.. {
        simulate(seed, steps, &mut done);
        let (ran, all) = (since.elapsed(), (seed - first + 1) * steps);
        if ran >= limit || said.elapsed() >= Duration::from_secs(10) {
            said = Instant::now();
            let left = limit.saturating_sub(ran).as_secs();
            eprintln!("{all} steps, {done:?}, {left} s left");
        }
        if ran >= limit {
            return done.check(all);
        }
    }
}

/// Has a donation counted: an id, a campaign and a donor.
fn donate(shard: &mut Shard, names: &mut Names, offset: i64, [id, campaign, donor]: [&str; 3]) {
    let at = START_MS + offset;
    let payload = format!(
        r#"{{"id":"{id}","campaign":"{campaign}","donor":"{donor}","amount":1,"currency":"CNY","at":{at}}}"#
    );
    let record = Record {
        offset,
        timestamp: Some(at),
        payload: Some(payload.as_bytes()),
    };
    assert_eq!(shard.apply(record, names), Outcome::Counted);
}

/// Estimates are no part of the equality above; here they are held to their error.
#[test]
fn donors_are_counted_once_however_often_sketches_come() {
    let mut merge = Merge::new();
    let mut shards = [0, 1].map(|partition| Shard::new(partition, rules()));
    let (mut names, mut distinct) = (Names::default(), HashSet::new());
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for offset in 0..20_000 {
        for shard in &mut shards {
            let (id, donor) = (random.random::<u64>(), random.random_range(0..30_000u32));
            distinct.insert(donor);
            let (id, donor) = (id.to_string(), format!("d{donor}"));
            donate(shard, &mut names, offset, [&id, "c", &donor]);
        }
        if offset % 4_999 == 4_998 || offset == 19_999 {
            for shard in &mut shards {
                merge.apply(&shard.flush());
                let sketches = shard.flush_donors().expect("donors were seen");
                merge.apply_donors(&sketches);
                merge.apply_donors(&sketches);
                assert!(shard.flush_donors().is_none());
            }
        }
    }
    merge.estimate_donors(usize::MAX);
    let cut = merge.close_cut();
    let exact = distinct.len() as f64;
    let error = |estimate: u64| (estimate as f64 - exact).abs() / exact;
    // Four standard errors: 1.04 / √2^11 for a campaign, 1.04 / √2^14 for all.
    assert!(
        error(cut.changed[0].donors) < 0.092,
        "{} of {exact}",
        cut.changed[0].donors
    );
    assert!(error(cut.donors) < 0.033, "{} of {exact}", cut.donors);
}

/// Some with each cut, those first that have waited longest, and each campaign in its turn.
#[test]
fn donors_are_estimated_for_some_campaigns_with_each_cut() {
    const CAMPAIGNS: usize = 10;
    let (mut shard, mut merge) = (Shard::new(0, rules()), Merge::new());
    let (mut names, mut offset) = (Names::default(), 0);
    let mut donate_to = |shard: &mut Shard, campaign: usize| {
        let (new, campaign) = (offset.to_string(), format!("c{campaign}"));
        donate(shard, &mut names, offset, [&new, &campaign, &new]);
        offset += 1;
    };
    let hand_over = |shard: &mut Shard, merge: &mut Merge| {
        merge.apply(&shard.flush());
        merge.apply_donors(&shard.flush_donors().expect("donors were seen"));
    };
    (0..CAMPAIGNS).for_each(|campaign| donate_to(&mut shard, campaign));
    hand_over(&mut shard, &mut merge);

    let with_donors = |merge: &mut Merge, at_most| {
        merge.estimate_donors(at_most);
        let changed = merge.close_cut().changed.into_iter();
        let changed = changed.filter(|total| total.donors > 0);
        changed.map(|total| total.campaign.to_string()).collect()
    };
    let mut estimated: Vec<String> = with_donors(&mut merge, 4);
    assert_eq!(estimated.len(), 4);
    // One more for a campaign that has had its turn: it comes behind those that wait.
    let first = estimated[0][1..].parse().expect("a number");
    donate_to(&mut shard, first);
    hand_over(&mut shard, &mut merge);
    estimated.extend(with_donors(&mut merge, 3));
    estimated.extend(with_donors(&mut merge, 3));
    estimated.sort_unstable();
    estimated.dedup();
    // It was in a cut once more since it got a donation, with the estimate that it had.
    assert_eq!(estimated.len(), CAMPAIGNS);
    assert!(merge.has_changes(), "one has got a donor since its turn");
    merge.estimate_donors(usize::MAX);
    let changed = merge.close_cut().changed;
    assert_eq!((changed.len(), changed[0].donors), (1, 2));
    assert!(!merge.has_changes());
}

#[test]
fn an_overflow_is_a_dead_letter_and_changes_nothing() {
    let (mut shard, mut names) = (Shard::new(0, rules()), Names::default());
    let mut apply = |offset: i64, id: &str, amount: i64| {
        let payload = format!(
            r#"{{"id":"{id}","campaign":"c","amount":{amount},"currency":"CNY","at":{START_MS}}}"#
        );
        let payload = Some(payload.as_bytes());
        let record = Record {
            offset,
            timestamp: Some(START_MS),
            payload,
        };
        match shard.apply(record, &mut names) {
            Outcome::DeadLetter(rejected) => Err(rejected.reason),
            outcome => Ok(outcome),
        }
    };
    assert_eq!(apply(0, "alone", i64::MAX), Err(Reason::Overflow));
    assert_eq!(apply(1, "the most", i64::MAX / 2), Ok(Outcome::Counted));
    assert_eq!(apply(2, "one more", 1), Err(Reason::Overflow));
    assert_eq!(apply(3, "one more", 1), Err(Reason::Overflow));
    assert_eq!(apply(4, "the most", i64::MAX / 2), Ok(Outcome::Duplicate));
}
