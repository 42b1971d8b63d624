//! What is broken: each fault begins at a random moment, has an end, and leaves it to
//! the others to get over it.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::seq::SliceRandom;

use crate::cluster::BROKERS;
use crate::processes::SESSION;
use crate::proxy::Link;
use crate::store::{self, Damage};
use crate::wait::SOON;
use crate::world::{DONATIONS, World};

/// `kafka.group` by default.
const GROUP: &str = "tally99";
/// The size that files may have on a disk that is full: what is larger is torn.
const FULL_BYTES: u64 = 512;
/// How often the middle of a cut is tried for.
const TRIES: u32 = 20;
/// How long a checkpoint may be waited for.
const CHECKPOINT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillActive,
    KillAtCheckpoint,
    KillStandby,
    StopActive,
    IsolateActive,
    KillLeader,
    KillCoordinator,
    RollingRestart,
    OneLink,
    AllLinks,
    SlowLinks,
    StoreReadOnly,
    StoreFull,
    StoreLink,
    StoreSlow,
    FlipByte,
    TruncateFile,
    DeleteFile,
}

use Fault::*;

const ALL: [Fault; 18] = [
    KillActive,
    KillAtCheckpoint,
    KillStandby,
    StopActive,
    IsolateActive,
    KillLeader,
    KillCoordinator,
    RollingRestart,
    OneLink,
    AllLinks,
    SlowLinks,
    StoreReadOnly,
    StoreFull,
    StoreLink,
    StoreSlow,
    FlipByte,
    TruncateFile,
    DeleteFile,
];

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            KillActive => "kill -9 of the active process",
            KillAtCheckpoint => "kill -9 of it in a checkpoint",
            KillStandby => "kill -9 of the standby",
            StopActive => "SIGSTOP of the active process",
            IsolateActive => "active one's links cut or frozen",
            KillLeader => "kill -9 of a partition's leader",
            KillCoordinator => "kill -9 of the coordinator",
            RollingRestart => "rolling restart of the brokers",
            OneLink => "link to one broker cut or frozen",
            AllLinks => "links to all brokers cut, frozen",
            SlowLinks => "links to all brokers slow",
            StoreReadOnly => "checkpoint store read-only",
            StoreFull => "checkpoint store full",
            StoreLink => "link to the store cut or frozen",
            StoreSlow => "checkpoint store slow",
            FlipByte => "bytes of checkpoints flipped",
            TruncateFile => "files of checkpoints truncated",
            DeleteFile => "files of checkpoints deleted",
        }
    }

    /// Whether it can be had here. With a bucket, what has nothing to do with it is left
    /// to the folder.
    fn is_possible(self, in_bucket: bool) -> bool {
        match self {
            StoreLink | StoreSlow => in_bucket,
            KillActive | KillAtCheckpoint | StopActive => true,
            FlipByte | TruncateFile | DeleteFile => true,
            // The limit that makes a store full is set on a running process.
            StoreFull => !in_bucket && cfg!(target_os = "linux"),
            _ => !in_bucket,
        }
    }

    /// Every kind once, in random order; `only`: those with this in their names.
    pub fn round(world: &mut World, only: &str) -> Vec<Fault> {
        let in_bucket = world.processes.checkpoints.link().is_some();
        let all = ALL.into_iter();
        let mut round: Vec<_> = all
            .filter(|fault| fault.is_possible(in_bucket) && fault.name().contains(only))
            .collect();
        assert!(!round.is_empty(), "no fault has {only:?} in its name");
        round.shuffle(&mut world.random);
        round
    }

    /// Lets it happen, and ends it.
    pub fn strike(self, world: &mut World) {
        match self {
            KillActive if world.follows => kill_any(world),
            KillActive => {
                world.moment();
                kill_active(world);
            }
            KillAtCheckpoint => {
                wait_for_checkpoint(world);
                kill_active(world);
            }
            KillStandby if world.follows => kill_any(world),
            KillStandby => {
                world.moment();
                world.look(); // Whoever has ended is started again.
                let active = world.active();
                world.mark();
                let standby = world.processes.other_than(active);
                world.processes.kill(standby.expect("two processes"));
            }
            StopActive => stop_active(world),
            IsolateActive => isolate_active(world),
            // As good as any broker: each leads some.
            KillLeader => {
                let partition = world.random.random_range(0..crate::traffic::PARTITIONS);
                let broker = world.cluster.leader_of(DONATIONS, partition as i32);
                kill_broker(world, broker);
            }
            KillCoordinator => {
                let broker = world.cluster.coordinator_of(GROUP);
                kill_broker(world, broker);
            }
            RollingRestart => rolling_restart(world),
            OneLink => one_link(world),
            AllLinks => {
                let link = broken_link(world);
                all_links(world, link);
            }
            SlowLinks => {
                let by = Duration::from_millis(world.random.random_range(20..200));
                all_links(world, Link::Slow(by));
            }
            StoreReadOnly => {
                world.moment();
                world.mark();
                store::set_writable(world.processes.checkpoints.path(), false);
                hold_until_it_fails(world);
                store::set_writable(world.processes.checkpoints.path(), true);
            }
            StoreFull => {
                world.moment();
                world.mark();
                world.processes.limit_files(Some(FULL_BYTES));
                hold_until_it_fails(world);
                world.processes.limit_files(None);
            }
            StoreLink => {
                let link = broken_link(world);
                store_link(world, link);
            }
            StoreSlow => {
                // So that it is slow, or too slow for what is given up or ends.
                let ms = match world.random.random_bool(0.5) {
                    true => 100..400,
                    false => 1_000..4_000,
                };
                let by = Duration::from_millis(world.random.random_range(ms));
                store_link(world, Link::Slow(by));
            }
            FlipByte => damage(world, Damage::Flip),
            TruncateFile => damage(world, Damage::Truncate),
            DeleteFile => damage(world, Damage::Delete),
        }
    }
}

fn kill_active(world: &mut World) {
    let active = world.active();
    world.mark();
    world.processes.kill(active);
}

/// Whatever it is at: taking over, restoring, or comparing what it restored.
fn kill_any(world: &mut World) {
    world.hold_between(0..10_000);
    world.mark();
    let place = world.random.random_range(0..2);
    world.processes.kill(place);
}

/// Until a file appears in the store; polled without a pause, since the writing
/// takes no more than milliseconds.
fn wait_for_checkpoint(world: &mut World) {
    world.look();
    let before = store::files(world.processes.checkpoints.path());
    let begun = Instant::now();
    while store::files(world.processes.checkpoints.path()).is_subset(&before) {
        assert!(begun.elapsed() < CHECKPOINT, "no checkpoint is written");
    }
}

/// Until a checkpoint was not written, and some more.
fn hold_until_it_fails(world: &mut World) {
    let failures = |world: &World| world.processes.count_said("is written: ");
    let before = failures(world);
    world.hold_between(4_000..6_000);
    world.wait_until(SOON, "a checkpoint fails", |world| failures(world) > before);
}

/// For longer than the session, and not always until others have taken over. Half
/// of the time it is stopped in the middle of a cut, so that it finishes a step of
/// it when it is replaced. Now and then it is killed as it wakes: it can send then,
/// and not say that it should not have.
fn stop_active(world: &mut World) {
    let in_a_cut = world.random.random_bool(0.5);
    let mut tries = 0;
    world.moment();
    let stopped = loop {
        if in_a_cut {
            world.wait_for_an_open_cut();
        }
        let active = world.active();
        world.mark();
        let stopped = world.processes.stop(active);
        tries += 1;
        // What it sent before is seen by then.
        world.hold(Duration::from_millis(100));
        if world.is_cut_open() || !in_a_cut || tries == TRIES {
            break stopped;
        }
        world.processes.wake();
    };
    world.hold(SESSION);
    world.hold_between(0..4_000);
    world.processes.wake();
    if world.random.random_bool(0.3) {
        world.hold_between(0..100);
        world.processes.kill_number(stopped);
    }
}

/// Connections are dropped and refused, or stand and nothing passes: what is under
/// way then comes late, perhaps after others have taken over.
fn broken_link(world: &mut World) -> Link {
    match world.random.random_bool(0.5) {
        true => Link::Cut,
        false => Link::Frozen,
    }
}

/// Only the active process is cut off, for longer than the session.
fn isolate_active(world: &mut World) {
    let link = broken_link(world);
    world.moment();
    let active = world.active();
    world.mark();
    let its = world.processes.isolate(active);
    world.cluster.set_links(link, &its);
    world.hold(SESSION);
    world.hold_between(0..6_000);
    world.cluster.set_links(Link::Open, "");
    world.processes.wake();
}

fn kill_broker(world: &mut World, broker: u32) {
    world.moment();
    world.mark();
    world.cluster.kafka.kill_broker(broker);
    world.hold_between(0..3_000);
    world.cluster.kafka.start_broker(broker);
}

/// As people do it: the next one when the copies are in sync again.
fn rolling_restart(world: &mut World) {
    world.moment();
    world.mark();
    for broker in 1..=BROKERS {
        world.cluster.kafka.signal_broker(broker, "TERM");
        world.cluster.kafka.start_broker(broker);
        world.wait_until(SOON, "all copies are in sync", |world| {
            world.cluster.is_whole()
        });
    }
}

fn one_link(world: &mut World) {
    let link = broken_link(world);
    world.moment();
    world.mark();
    let broker = world.random.random_range(1..=BROKERS);
    world.cluster.set_link(broker, link);
    world.hold_between(1_000..8_000);
    world.cluster.set_link(broker, Link::Open);
}

/// For shorter or for longer than the session.
fn all_links(world: &mut World, link: Link) {
    world.moment();
    world.mark();
    world.cluster.set_links(link, "");
    match world.random.random_bool(0.5) {
        true => world.hold_between(1_000..4_000),
        false => world.hold_between(7_000..9_000),
    }
    world.cluster.set_links(Link::Open, "");
}

/// Half of the time somebody has to restore by that link, too; not if nobody may be at work
/// who could be killed, since nobody gets to work by a link that is broken.
fn store_link(world: &mut World, link: Link) {
    world.moment();
    world.mark();
    world.processes.checkpoints.set_link(link);
    world.hold_between(2_000..5_000);
    if !world.follows && world.random.random_bool(0.5) {
        kill_active(world);
        world.hold(SESSION);
    }
    world.processes.checkpoints.set_link(Link::Open);
}

/// Damages what is there, and makes somebody restore from it.
fn damage(world: &mut World, damage: Damage) {
    wait_for_checkpoint(world);
    let (folder, random) = (world.processes.checkpoints.path(), &mut world.random);
    let damaged = store::damage(folder, damage, random);
    assert!(damaged > 0, "there was nothing to damage");
    kill_active(world);
}
