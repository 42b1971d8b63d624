//! All that runs at once, and how the test waits: never without a look at whether
//! something has broken meanwhile.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::cluster::Cluster;
use crate::observer::{CUTS, Observer, Seen, TOTALS};
use crate::processes::{HORIZON_S, Processes};
use crate::producer::{Log, Producer};
use crate::store::Checkpoints;
use crate::traffic::{PARTITIONS, Traffic};
use crate::truth::Truth;
use crate::wait::SOON;

/// The topic of donations.
pub const DONATIONS: &str = "donations";
/// How often it is looked whether all is well.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long it may take until all is well again, once a fault is over.
const SETTLED: Duration = Duration::from_secs(120);

pub struct World {
    pub cluster: Cluster,
    pub processes: Processes,
    pub log: Log,
    pub traffic: Traffic,
    pub random: Xoshiro256PlusPlus,
    /// Until it has ended.
    pub producer: Option<Producer>,
    observer: Option<Observer>,
    mark: Mark,
    /// Whether the fault follows on others that are not over.
    pub follows: bool,
}

/// The moment of a fault, or of the first of several.
struct Mark {
    at: Instant,
    /// The same, as logs say it.
    time: Timestamp,
    /// What was sent by then.
    ends: Vec<i64>,
}

/// What readers saw of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// When the fault began, as the logs say it.
    pub from: Timestamp,
    /// From the fault to the first complete cut beyond what was sent by then.
    pub fresh: Duration,
    /// The longest time without a complete cut, from the last one before the fault
    /// until all was well.
    pub gap: Duration,
}

impl Mark {
    fn new(ends: Vec<i64>) -> Mark {
        Mark {
            at: Instant::now(),
            time: Timestamp::now(),
            ends,
        }
    }
}

impl World {
    /// Brokers, processes, traffic, and who watches them.
    pub fn start(seed: u64, rate: u64, checkpoints: Checkpoints) -> World {
        let cluster = Cluster::start();
        let kafka = &cluster.kafka;
        kafka.create_topic(DONATIONS, PARTITIONS as i32, &[]);
        let mut processes = Processes::new(cluster.relayed(), checkpoints);
        let begun = Instant::now();
        while ![CUTS, TOTALS]
            .into_iter()
            .all(|topic| kafka.has_topic(topic))
        {
            assert!(begun.elapsed() < SOON, "{}", processes.last_words());
            processes.tend();
        }
        let traffic = Traffic {
            seed,
            start_ms: Timestamp::now().as_millisecond(),
            rate,
        };
        let producer = Producer::start(kafka.client(), DONATIONS, traffic);
        let log = producer.log.clone();
        let truth = Truth::new(traffic, log.clone(), HORIZON_S);
        let partitions = kafka.end_offsets(TOTALS).len();
        let observer = Observer::start(&kafka.client(), truth, log.clone(), partitions);
        let mut world = World {
            cluster,
            processes,
            log,
            traffic,
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            producer: Some(producer),
            observer: Some(observer),
            mark: Mark::new(vec![0; PARTITIONS]),
            follows: false,
        };
        world.settle();
        world
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.observer.as_ref().expect("it is not ended").seen()
    }

    /// Ends the observer.
    pub fn end_observer(&mut self) -> (Seen, Truth) {
        self.observer.take().expect("it is not ended").finish()
    }

    /// Fails the test if anything is not as it must be.
    pub fn look(&mut self) {
        self.processes.tend();
        let broken = self.log.places().broken.clone();
        let broken = broken.or_else(|| self.seen().broken.clone());
        if let Some(broken) = broken {
            panic!("{broken}\n{}", self.processes.last_words());
        }
    }

    /// Lets time pass: the bounded length of a fault.
    pub fn hold(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.look();
            std::thread::sleep(LOOK_EVERY.min(duration));
        }
    }

    /// A length of a fault, between these milliseconds.
    pub fn hold_between(&mut self, ms: std::ops::Range<u64>) {
        let ms = self.random.random_range(ms);
        self.hold(Duration::from_millis(ms));
    }

    #[track_caller]
    pub fn wait_until(
        &mut self,
        deadline: Duration,
        what: &str,
        mut holds: impl FnMut(&mut World) -> bool,
    ) {
        let begun = Instant::now();
        while !holds(self) {
            self.look();
            assert!(
                begun.elapsed() < deadline,
                "waited {deadline:?} in vain until {what}\n{}",
                self.processes.last_words()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The place of the process that publishes.
    pub fn active(&mut self) -> usize {
        let mut active = None;
        self.wait_until(SETTLED, "a process publishes", |world| {
            let publisher = world
                .seen()
                .reader
                .publishing()
                .map(|(name, _)| name.to_owned());
            active = publisher.and_then(|name| world.processes.of_publisher(&name));
            active.is_some()
        });
        active.expect("waited for")
    }

    /// A moment for a fault: half of the time any, half of the time one in the
    /// middle of a cut, if one comes soon.
    pub fn moment(&mut self) {
        self.hold_between(0..1_500);
        if self.random.random_bool(0.5) {
            self.wait_for_an_open_cut();
        }
    }

    /// Returns in the middle of a cut, if one comes soon. Polled without a pause,
    /// since it takes milliseconds only.
    pub fn wait_for_an_open_cut(&mut self) {
        self.look();
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until && !self.is_cut_open() {
            std::thread::yield_now();
        }
    }

    /// Whether the newest record of `cuts` says so.
    pub fn is_cut_open(&self) -> bool {
        self.seen()
            .reader
            .publishing()
            .is_some_and(|(_, open)| open)
    }

    /// The fault begins now, unless it follows on others: all began with the first.
    pub fn mark(&mut self) {
        if !self.follows {
            self.mark = Mark::new(self.log.sent());
        }
    }

    /// Waits until all is as before the fault: what was sent until now is in a
    /// complete cut, the compacted totals are right, and the copies are in sync.
    pub fn settle(&mut self) -> Outage {
        let ends = self.log.sent();
        self.wait_until(SETTLED, "there are fresh complete cuts", |world| {
            let seen = world.seen();
            seen.reader
                .complete
                .last()
                .is_some_and(|cut| cut.reaches(&ends))
        });
        self.wait_until(
            SETTLED,
            "the last upsert of each campaign is its newest",
            |world| world.seen().reader.unhealed.is_empty(),
        );
        self.wait_until(SETTLED, "all copies are in sync", |world| {
            world.cluster.is_whole()
        });
        let now = Instant::now();
        let Mark {
            at: from,
            time,
            ends,
        } = &self.mark;
        let seen = self.seen();
        let complete = &seen.reader.complete;
        let before = complete.partition_point(|cut| cut.at < *from);
        let (before, after) = (complete[..before].last(), &complete[before..]);
        let fresh = after.iter().find(|cut| cut.reaches(ends));
        let mut gap = Duration::ZERO;
        let mut last = before.map_or(*from, |cut| cut.at);
        for at in after.iter().map(|cut| cut.at).chain([now]) {
            gap = gap.max(at - last);
            last = at;
        }
        Outage {
            from: *time,
            fresh: fresh.map_or(now, |cut| cut.at) - *from,
            gap,
        }
    }
}
