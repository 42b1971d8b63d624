//! The seeded simulator of the pure core.
//!
//! Workers fold partitions, crash, lose and gain them, and go on as zombies; the
//! network between them and merge repeats, reorders and drops flushes; the
//! publishing process crashes between the upserts of a cut, and one that should
//! be dead writes over its successor's. At every cut each figure must equal a
//! plain sum over the log's prefix, nothing that was ever published may fall,
//! and the topics must hold what is true.
//!
//! A failure prints its seed: `MODEL_SEED=n cargo test --test model` repeats it,
//! `MODEL_STEPS=n` makes runs longer.

mod checks;
mod log;
mod oracle;
mod simulator;

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use simulator::{START_MS, Simulator, rules};
use tally99::event::Reason;
use tally99::merge::Merge;
use tally99::shard::{Outcome, Record, Shard};

/// Says how to repeat a run that fails.
struct SaySeed(u64);

impl Drop for SaySeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat it with: MODEL_SEED={} cargo test --test model",
                self.0
            );
        }
    }
}

fn simulate(seed: u64, steps: u64) -> u64 {
    let _say_seed = SaySeed(seed);
    let mut simulator = Simulator::new(seed);
    for _ in 0..steps {
        simulator.step();
    }
    simulator.finish();
    simulator.cuts
}

#[test]
fn every_cut_equals_the_sum_of_the_log_up_to_it() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect(name))
    };
    let steps = number("MODEL_STEPS").unwrap_or(5_000);
    if let Some(seed) = number("MODEL_SEED") {
        simulate(seed, steps);
        return;
    }
    let cuts: u64 = (0..40).map(|seed| simulate(seed, steps)).sum();
    assert!(cuts > 500, "only {cuts} cuts were published in 40 runs");
}

/// Estimates are no part of the equality above; here they are held to their error.
#[test]
fn donors_are_counted_once_however_often_sketches_come() {
    let mut merge = Merge::new();
    let mut shards = [0, 1].map(|partition| Shard::new(partition, rules()));
    let mut distinct = HashSet::new();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for offset in 0..20_000 {
        for shard in &mut shards {
            let (id, donor) = (random.random::<u64>(), random.random_range(0..30_000u32));
            distinct.insert(donor);
            let at = START_MS + offset;
            let payload = format!(
                r#"{{"id":"{id}","campaign":"c","donor":"d{donor}","amount":1,"currency":"CNY","at":{at}}}"#
            );
            let payload = Some(payload.as_bytes());
            let outcome = shard.apply(Record {
                offset,
                timestamp: Some(at),
                payload,
            });
            assert_eq!(outcome, Outcome::Counted);
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

#[test]
fn an_overflow_is_a_dead_letter_and_changes_nothing() {
    let mut shard = Shard::new(0, rules());
    let mut apply = |offset: i64, id: &str, amount: i64| {
        let payload = format!(
            r#"{{"id":"{id}","campaign":"c","amount":{amount},"currency":"CNY","at":{START_MS}}}"#
        );
        let payload = Some(payload.as_bytes());
        match shard.apply(Record {
            offset,
            timestamp: Some(START_MS),
            payload,
        }) {
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
