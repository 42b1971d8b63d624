//! Chaos on the real thing: three brokers, a producer, an active `tally99 run`
//! and its standby, while processes, brokers, links and checkpoints break at
//! random moments. Whatever was published must be the fold of the log up to its
//! cut, all along and at the end.
//!
//! ```text
//! cargo test --test chaos                                    every kind of fault twice
//! CHAOS_SECONDS=3600 cargo test --test chaos with_a_folder -- --nocapture
//!                                                            rounds of all kinds, for an hour
//! CHAOS_SEED=7 CHAOS_ONLY=broker ...                         another order, some kinds only
//! CHAOS_RATE=5000 CHAOS_LOG=tally99=debug ...                more traffic, more in the logs
//! ```
//!
//! A seed decides the traffic, the order of the faults, their lengths and their
//! targets; the moment within which they hit is the machine's.

// What it stands on, shared with the suite, which uses more of it.
#[allow(dead_code)]
#[path = "../suite/kafka.rs"]
mod kafka;
#[allow(dead_code)]
#[path = "../suite/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../suite/s3.rs"]
mod s3;
#[allow(dead_code)]
#[path = "../suite/wait.rs"]
mod wait;

mod cluster;
mod ending;
mod faults;
mod observer;
mod processes;
mod producer;
mod proxy;
mod reader;
mod report;
mod store;
mod totals;
mod traffic;
mod truth;
mod world;

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use rand::Rng;

use faults::Fault;
use report::Report;
use store::Checkpoints;
use world::World;

/// How often every kind of fault comes in the short form.
const ROUNDS: usize = 2;
/// How often a fault is followed by the next one before all is well again: so
/// processes and brokers die while others take over, restore and compare.
const NEXT_AT_ONCE: f64 = 0.25;

/// Says how to repeat what failed.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat it with CHAOS_SEED={}", self.0);
        }
    }
}

fn setting<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|error| panic!("{name}={value}: {error:?}")),
    )
}

/// A machine has room for one cluster.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn whatever_breaks_every_total_is_the_fold_of_the_log_with_a_folder() {
    let _alone = ALONE.lock();
    chaos(Checkpoints::in_folder());
}

#[test]
fn whatever_breaks_every_total_is_the_fold_of_the_log_with_a_bucket() {
    let _alone = ALONE.lock();
    chaos(Checkpoints::in_bucket());
}

fn chaos(checkpoints: Checkpoints) {
    let seed = setting("CHAOS_SEED").unwrap_or(99);
    let length = setting("CHAOS_SECONDS").map(Duration::from_secs);
    let only: String = setting("CHAOS_ONLY").unwrap_or_default();
    let rate = setting("CHAOS_RATE").unwrap_or(3_000);
    let _repeat = Repeat(seed);
    eprintln!("seed {seed}, {rate} records a second");

    let mut world = World::start(seed, rate, checkpoints);
    let mut report = Report::new();
    let mut rounds = 0;
    while length.map_or(rounds < ROUNDS, |length| report.elapsed() < length) {
        rounds += 1;
        let mut struck = Vec::new();
        for fault in Fault::round(&mut world, &only) {
            world.follows = !struck.is_empty();
            fault.strike(&mut world);
            struck.push(fault);
            if !world.random.random_bool(NEXT_AT_ONCE) {
                let outage = world.settle();
                report.add(&std::mem::take(&mut struck), outage, &world);
            }
            if length.is_some_and(|length| report.elapsed() >= length) {
                break;
            }
        }
        if !struck.is_empty() {
            let outage = world.settle();
            report.add(&struck, outage, &world);
        }
    }
    let wrote_for = report.elapsed();
    let (seen, truth) = ending::end(&mut world);
    let said = |words| world.processes.count_said(words);
    let (restored, skipped) = (said("restored at offset"), said("is skipped: "));
    if only.is_empty() {
        assert!(restored > 0, "nothing was ever restored");
        assert!(skipped > 0, "no damaged checkpoint was ever met");
    }

    report.print_faults();
    let cut = truth.cut();
    let figures = seen.reader.figures;
    eprintln!(
        "\n{} faults in {:.0} s with seed {seed}; {} starts of processes, {} of which ended \
         by themselves because they were replaced or in the way",
        report.faults(),
        wrote_for.as_secs_f32(),
        world.processes.started,
        world.processes.explained,
    );
    eprintln!("{restored} partitions were restored; {skipped} damaged checkpoints were skipped");
    eprintln!(
        "{} records at {:.0} a second for {} campaigns: {} duplicates, {} dead letters, {} late",
        cut.events,
        cut.events as f32 / wrote_for.as_secs_f32(),
        cut.campaigns,
        cut.duplicates,
        cut.dead_letters,
        cut.late,
    );
    eprintln!(
        "{} complete cuts by {} publishers in turn, {} of them recomputed with {} upserts; {} \
         upserts seen; {} cuts abandoned; of processes that should be dead: {} records of cuts, \
         {} upserts",
        figures.complete,
        figures.publishers,
        seen.checked.0,
        seen.checked.1,
        figures.upserts,
        figures.abandoned,
        figures.late_cuts,
        figures.late_upserts,
    );
}
