//! The simulator: everything that can happen around the core, in random order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object_store::path::Path;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tally99::checkpoint::Store;
use tally99::event::Reason;
use tally99::merge::{Applied, CampaignWindows, Gate, Merge, Total};
use tally99::offset::{Offset, Partition};
use tally99::shard::{Calendar, Flush, Rules, Window};

use crate::checks::{check_cut, check_estimate, check_total};
use crate::log::{Event, Logged, MAX_AHEAD_MS};
use crate::oracle::{HORIZON_S, Oracle, SUM_MAX, WindowFigures};
use crate::store::{self, SimStore};
use crate::workers::{Held, Worker};

pub const PARTITIONS: usize = 4;
/// How many checkpoints of a partition are kept.
pub const KEEP: usize = 3;
pub const START_MS: i64 = 1_662_652_800_000;
const CAMPAIGNS: [&str; 5] = ["乡村助学", "school", "clinic", "river", "a \"quoted\" one"];
const CURRENCIES: [&str; 3] = ["CNY", "JPY", "USD"];
const KINDS: [&str; 6] = [
    "donation", "donation", "donation", "refund", "match", "flower",
];
const UNREADABLE: [Reason; 3] = [Reason::Empty, Reason::NotUtf8, Reason::BadAmount];

/// What the topics hold, written by all processes that ever published.
#[derive(Default)]
struct Topics {
    newest_cut: BTreeMap<Partition, Offset>,
    /// The last upsert of each campaign, as compaction leaves it.
    totals: HashMap<Arc<str>, Total>,
    windows: HashMap<Arc<str>, CampaignWindows>,
    /// What a reader holds that keeps the highest version.
    versions: HashMap<Arc<str>, u64>,
    /// Upserts of the past, which a zombie may write once more.
    past: Vec<(Total, Option<CampaignWindows>)>,
    /// Whether a zombie wrote since the publisher looked.
    foreign: bool,
}

/// What is usual in one run. Every run draws its own, since what is rare in a
/// mixture of everything may need all of one kind.
pub struct Habits {
    /// How many campaigns there are.
    campaigns: usize,
    /// The longest usual time between two records.
    later_ms: i64,
    /// How often time jumps.
    jumps: f64,
    /// How often an amount fills a sum up.
    huge: f64,
    /// How often whoever had a partition does not hear that it is another's now.
    pub zombies: f64,
    /// How often it is the first partition that something happens to.
    lopsided: f64,
    /// How many turns what is under way goes on by at a time.
    pub turns: u32,
}

pub struct Simulator {
    pub random: Xoshiro256PlusPlus,
    pub habits: Habits,
    pub now: i64,
    pub store: SimStore,
    pub store_habits: store::Habits,
    pub checkpoints: Store,
    pub logs: Vec<Vec<Logged>>,
    pub workers: Vec<Worker>,
    pub network: Vec<Flush>,
    merge: Merge,
    gate: Gate,
    topics: Topics,
    ids: u64,
    /// Cuts published so far.
    pub cuts: u64,
    /// Checkpoints written, and restored.
    pub checkpoints_written: u64,
    pub restores: u64,
}

pub fn rules() -> Rules {
    Rules {
        calendar: Calendar::of_zone("Asia/Shanghai").expect("a zone of the database"),
        dedup_horizon_s: HORIZON_S as u32,
        max_ahead_ms: MAX_AHEAD_MS,
    }
}

impl Simulator {
    pub fn new(seed: u64) -> Simulator {
        Simulator::with(seed, false)
    }

    /// On a store that loses what it did not sync.
    pub fn on_a_store_that_forgets(seed: u64) -> Simulator {
        Simulator::with(seed, true)
    }

    fn with(seed: u64, forgets: bool) -> Simulator {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let habits = Habits {
            campaigns: random.random_range(1..=CAMPAIGNS.len()),
            later_ms: [200, 800, 800, 20_000][random.random_range(0..4)],
            jumps: [0.0, 0.1, 1.0][random.random_range(0..3)],
            huge: [0.0, 0.002, 0.05][random.random_range(0..3)],
            lopsided: [0.0, 0.9][random.random_range(0..2)],
            zombies: [0.3, 0.9][random.random_range(0..2)],
            turns: [1, 5][random.random_range(0..2)],
        };
        let store_habits = store::Habits {
            fails: [0.0, 0.0, 0.05, 0.3][random.random_range(0..4)],
            delay: [0, 1, 3, 20][random.random_range(0..4)],
            lists_late: [0.0, 0.0, 0.3][random.random_range(0..3)],
            rots: [0.0, 0.0, 0.02][random.random_range(0..3)],
            answers_lost: [0.0, 0.05][random.random_range(0..2)],
            forgets,
        };
        let store = SimStore::new(random.random(), store_habits, KEEP, START_MS);
        let mut simulator = Simulator {
            random,
            habits,
            now: START_MS,
            logs: vec![Vec::new(); PARTITIONS],
            workers: (0..3).map(|_| Worker::default()).collect(),
            checkpoints: Store::of("sim://store", Arc::new(store.clone()), Path::default(), "w"),
            store,
            store_habits,
            network: Vec::new(),
            merge: Merge::new(),
            gate: Gate::default(),
            topics: Topics::default(),
            ids: 0,
            cuts: 0,
            checkpoints_written: 0,
            restores: 0,
        };
        for _ in 0..2 * PARTITIONS {
            simulator.assign();
        }
        simulator
    }

    pub fn step(&mut self) {
        self.store.set_time(self.now);
        match self.random.random_range(0..283) {
            280..=282 => self.stop_or_continue(),
            200..=229 => self.checkpoint(),
            230..=278 => self.go_on(),
            279 => self.store.rot(),
            0..=75 => self.append(),
            76..=113 => self.fold(),
            114..=143 => self.flush(),
            144..=171 => self.deliver(),
            172..=177 => self.deliver_donors(),
            178..=190 => self.publish(),
            191..=195 => self.assign(),
            196 => self.crash_worker(),
            197 => self.crash_publisher(),
            198 => self.write_as_a_zombie(),
            _ => self.jump(),
        }
    }

    /// Time passes, at times so much that ids are just about to be forgotten.
    fn jump(&mut self) {
        if self.random.random_bool(self.habits.jumps) {
            self.now += match self.random.random_range(0..4) {
                0 => HORIZON_S * 1_000,
                1 => self.random.random_range(0..7_200_000),
                // So that looks at the store are less than an hour apart.
                _ => self.random.random_range(0..1_800_000),
            };
        }
    }

    /// A producer writes an event, a repeat, or rubbish.
    fn append(&mut self) {
        let partition = self.some_partition();
        let random = &mut self.random;
        let is_usual = random.random_bool(0.95);
        let later_ms = if is_usual {
            self.habits.later_ms
        } else {
            20_000
        };
        self.now += random.random_range(0..later_ms);
        let logged = match random.random_range(0..100) {
            0..=1 => Logged::Damaged(UNREADABLE[random.random_range(0..UNREADABLE.len())]),
            2..=3 => Logged::Marker,
            4..=13 => self.repeat(partition),
            _ => Logged::Event(self.event()),
        };
        self.logs[partition].push(logged);
    }

    pub fn event(&mut self) -> Event {
        self.ids += 1;
        let random = &mut self.random;
        // At the borders of windows, and anywhere.
        let back_ms = match random.random_range(0..10) {
            0 => random.random_range(0..2 * 86_400_000),
            1 => random.random_range(0..7_200_000),
            2 => random.random_range(200_000..480_000),
            3 if random.random() => random.random_range(3_000_000..6_000_000),
            3 => random.random_range(84_000_000..89_000_000),
            _ => random.random_range(0..10_000),
        };
        let is_ahead = random.random_bool(0.02);
        let is_huge = random.random_bool(self.habits.huge);
        // The first campaigns get more than the last.
        let campaigns = [0; 2].map(|_| random.random_range(0..self.habits.campaigns));
        Event {
            id: self.ids,
            kind: KINDS[random.random_range(0..KINDS.len())],
            campaign: CAMPAIGNS[campaigns.into_iter().min().expect("two")],
            currency: CURRENCIES[random.random_range(0..CURRENCIES.len())],
            amount: match is_huge {
                true => SUM_MAX as i64 - random.random_range(0..2),
                false => random.random_range(1..1_000_000),
            },
            donor: random.random_bool(0.9).then(|| random.random_range(0..500)),
            at: match is_ahead {
                true => self.now + MAX_AHEAD_MS + 1,
                false => self.now - back_ms,
            },
            timestamp: self.now,
        }
    }

    /// An id comes again: the same event, or another under the same id; now and
    /// then one of another partition, which is none to this one.
    pub fn repeat(&mut self, partition: usize) -> Logged {
        let of = match self.random.random_bool(0.9) {
            true => partition,
            false => self.random.random_range(0..PARTITIONS),
        };
        let log = &self.logs[of];
        let place = self.random.random_range(0..log.len().max(1));
        let Some(Logged::Event(earlier)) = log.get(place).cloned() else {
            return Logged::Event(self.event());
        };
        let timestamp = self.now;
        Logged::Event(match self.random.random() {
            true => Event {
                timestamp,
                ..earlier
            },
            false => Event {
                id: earlier.id,
                timestamp,
                ..self.event()
            },
        })
    }

    fn some_partition(&mut self) -> usize {
        match self.random.random_bool(self.habits.lopsided) {
            true => 0,
            false => self.random.random_range(0..PARTITIONS),
        }
    }

    pub fn some_place(&mut self) -> (usize, usize) {
        let worker = self.random.random_range(0..self.workers.len());
        (worker, self.some_partition())
    }

    /// The network brings any flush, now and then twice, now and then never.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.network.len());
        let flush = match self.random.random_range(0..10) {
            0 => self.network[place].clone(),
            1 => {
                self.network.swap_remove(place);
                return;
            }
            _ => self.network.swap_remove(place),
        };
        let before = self.merge.offsets();
        let applied = self.merge.apply(&flush);
        let expected = match before.get(&flush.partition) {
            Some(&held) if flush.to <= held => Applied::Old,
            held if flush.from <= held.copied().unwrap_or_default() => Applied::Merged,
            _ => Applied::Missing,
        };
        assert_eq!(applied, expected);
        let after = self.merge.offsets();
        match applied {
            Applied::Merged => assert_eq!(after[&flush.partition], flush.to),
            Applied::Old | Applied::Missing => assert_eq!(after, before),
        }
        if applied == Applied::Missing {
            let partition = flush.partition as usize;
            let mut owners = self.workers.iter_mut();
            let owner = owners.find_map(|worker| worker.held.get_mut(&partition));
            self.network
                .extend(owner.map(|held| held.shard.full_flush()));
        }
    }

    /// Sketches come late, and now and then twice, but behind the values of the same
    /// offset: a worker sends both through one channel.
    fn deliver_donors(&mut self) {
        let (worker, partition) = self.some_place();
        let held = self.workers[worker].held.get_mut(&partition);
        let Some(held) = held.filter(|held| held.is_verified()) else {
            return;
        };
        if let Some(sketches) = held.shard.flush_donors() {
            if self.merge.apply(&held.shard.flush()) == Applied::Missing {
                self.merge.apply(&held.shard.full_flush());
            }
            for _ in 0..self.random.random_range(1..3) {
                self.merge.apply_donors(&sketches);
            }
        }
    }

    /// The next publisher knows nothing but the newest cut in the topic.
    fn crash_publisher(&mut self) {
        self.merge = Merge::new();
        self.gate = Gate::at(self.topics.newest_cut.clone());
        self.topics.foreign = true;
        let held = self
            .workers
            .iter_mut()
            .flat_map(|worker| worker.held.values_mut());
        self.network
            .extend(held.map(|held| held.shard.full_flush()));
    }

    /// Somebody who should be dead writes what it had ready long ago.
    fn write_as_a_zombie(&mut self) {
        if self.topics.past.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.topics.past.len());
        let (total, windows) = self.topics.past.swap_remove(place);
        if let Some(windows) = windows {
            self.topics
                .windows
                .insert(windows.campaign.clone(), windows);
        }
        self.topics.totals.insert(total.campaign.clone(), total);
        self.topics.foreign = true;
    }

    /// Emits a cut; now and then the process dies between its upserts.
    fn publish(&mut self) {
        let held = self.merge.offsets();
        let donors_held = self.merge.donors_offsets();
        let is_reached = self.gate.is_reached(&held) && self.gate.is_reached(donors_held);
        if held.len() < PARTITIONS || !is_reached {
            return;
        }
        let all = self.merge.campaign_count();
        let some = self.random.random_range(0..=all);
        if std::mem::take(&mut self.topics.foreign) {
            self.merge.emit_all_again();
            self.merge.estimate_donors(all);
        }
        // Those of some campaigns, then those of the others.
        let mut windows = self.merge.take_changed_windows(some);
        windows.extend(self.merge.take_changed_windows(all - some));
        self.merge.estimate_donors(some);
        let cut = self.merge.close_cut();
        let oracle = Oracle::at(&self.logs, &cut.offsets);
        check_cut(&cut, &oracle);
        for (partition, offset) in &self.topics.newest_cut {
            assert!(cut.offsets[partition] >= *offset, "the cut stepped back");
        }
        self.topics.newest_cut = cut.offsets.clone();
        self.cuts += 1;

        let dies_after = self.random.random_range(0..20 * cut.changed.len().max(1));
        for total in cut.changed.iter().take(dies_after) {
            self.upsert(total);
        }
        if dies_after < cut.changed.len() {
            self.crash_publisher();
            return;
        }
        for windows in windows {
            self.topics
                .windows
                .insert(windows.campaign.clone(), windows);
        }
        self.check_topics(&oracle);
    }

    fn upsert(&mut self, total: &Total) {
        let name = &total.campaign;
        let version = self.topics.versions.entry(name.clone()).or_default();
        assert!(total.counts.counted >= *version, "{name} fell");
        *version = total.counts.counted;
        if let Some(before) = self.topics.totals.insert(name.clone(), total.clone()) {
            // Estimates may tremble, but none begins again from nothing.
            let of_before = |share: u64| before.donors * share / 100;
            assert!(
                total.donors + 1 >= of_before(90),
                "the donors of {name} fell from {} to {}",
                before.donors,
                total.donors
            );
            if self.random.random_bool(0.05) {
                let windows = self.topics.windows.get(name).cloned();
                self.topics.past.push((before, windows));
            }
        }
    }

    /// After a complete cut the topics hold exactly what is true at it.
    fn check_topics(&self, oracle: &Oracle) {
        let expected: Vec<_> = oracle.totals().collect();
        assert_eq!(
            self.topics.totals.len(),
            expected.len(),
            "campaigns in the topic"
        );
        for (name, expected) in expected {
            check_total(&self.topics.totals[name], expected);
            let windows = &self.topics.windows[name];
            assert_eq!(windows.late, expected.late, "late of {name}");
            for (window, sums) in Window::ALL.into_iter().zip(&windows.windows) {
                let net = sums.net.iter();
                let net = net.map(|(currency, net)| (currency.to_string(), *net));
                let figures: WindowFigures = (sums.gifts, sums.flowers, net.collect());
                let expected = expected.window(window, oracle.watermark);
                assert_eq!(figures, expected, "{window:?} of {name}");
            }
        }
    }

    /// All that is left is folded and published by a new process.
    pub fn finish(&mut self) {
        self.finish_checkpoints();
        self.restore_onto_other_logs();
        self.crash_publisher();
        let mut rows: HashMap<Arc<str>, BTreeMap<_, [i128; 3]>> = HashMap::new();
        for (partition, log) in self.logs.iter().enumerate() {
            let mut held = Held::new(partition);
            held.fold_up_to(log, log.len());
            let mut shard = held.shard;
            let flush = shard.full_flush();
            assert_eq!(self.merge.apply(&flush), Applied::Merged);
            shard
                .flush_donors()
                .iter()
                .for_each(|sketches| self.merge.apply_donors(sketches));
            for change in flush.changes.iter() {
                for row in change.rows {
                    let currency = row.currency.map(|currency| currency.to_string());
                    let key = (i64::from(row.day.0), currency);
                    let sums = rows
                        .entry(flush.new_names[change.place].clone())
                        .or_default()
                        .entry(key)
                        .or_default();
                    let figures = row.figures;
                    let columns = [figures.gross, figures.refunded, figures.matched];
                    sums.iter_mut()
                        .zip(columns)
                        .for_each(|(sum, amount)| *sum += i128::from(amount.0));
                }
            }
        }
        let windows = self.merge.take_changed_windows(usize::MAX);
        self.merge.estimate_donors(usize::MAX);
        let cut = self.merge.close_cut();
        for (&partition, &offset) in &cut.offsets {
            assert_eq!(offset.0 as usize, self.logs[partition as usize].len());
        }
        assert!(self.gate.is_reached(&cut.offsets));
        let oracle = Oracle::at(&self.logs, &cut.offsets);
        check_cut(&cut, &oracle);
        assert_eq!(
            cut.changed.len() as u64,
            cut.campaigns,
            "a new process emits every campaign"
        );
        cut.changed.iter().for_each(|total| self.upsert(total));
        for windows in windows {
            self.topics
                .windows
                .insert(windows.campaign.clone(), windows);
        }
        self.check_topics(&oracle);
        // Four standard errors: 1.04 / √2^11 for a campaign, 1.04 / √2^14 for all.
        check_estimate("all", cut.donors, oracle.donors.len(), 0.033);
        for (name, expected) in oracle.totals() {
            check_estimate(
                name,
                self.topics.totals[name].donors,
                expected.donors.len(),
                0.092,
            );
            let with_text = expected.rows.iter();
            let with_text = with_text.map(|((day, c), sums)| ((*day, c.map(str::to_owned)), *sums));
            assert_eq!(rows[name], with_text.collect(), "business days of {name}");
        }
    }
}
