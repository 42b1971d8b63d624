//! Events at their times, and how long each takes until it can be read.
//!
//! ```text
//!  ahead ── blocks, bounded ──▶ sender ──▶ donations ──▶ the process that counts ──▶ cuts
//!    │                            │ what is about to be sent         │ in its view    │
//!    └ what it adds up to         ▼                                  ▼                ▼
//!                              account ◀──────────────────────── visible          readable
//! ```
//!
//! All but the process that counts are threads of this one; their CPU is the generator's.

pub(super) mod account;
pub(super) mod ahead;
mod cuts;
mod found;
mod send;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::Error;
use super::child::{Child, Finished, Next};
use super::cpu::Threads;
use super::drain::{check_partitions, exactness};
use super::measure::now_ns;
use super::message::{Job, Message, Sample, Work};
use super::own::Own;
use super::result::Exactness;
use crate::config::Config;
use crate::expected::Expected;
use crate::generate::progress::Progress;
use crate::generate::{KafkaSink, Settings};
use crate::kafka::clock;
use crate::money::grouped;
use crate::shutdown::Shutdown;
use crate::totals;
use account::{Account, Event};
use ahead::{Ahead, Block, Schedule, blocks_ahead, time_ahead};
pub(super) use found::Found;
use found::Parts;
use send::{Sending, Sent};

/// How long starting to count takes at most, before the first cut.
const START_WITHIN: Duration = Duration::from_secs(120);
/// How long nothing may arrive after the last event was sent.
const ARRIVE_PATIENCE: Duration = Duration::from_secs(60);
/// How far ahead the start is set once all is ready.
const TO_START: Duration = Duration::from_millis(300);
/// How long joining a group takes, about: meanwhile events are made ahead.
const TO_JOIN: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(50);

/// What is to be sent.
pub(super) struct Plan {
    pub settings: Settings,
    pub schedule: Schedule,
    /// For people: events a second, on average.
    pub rate: u64,
    /// From the first event to the last.
    pub lasts: Duration,
    pub warmup: Duration,
    pub partitions: i32,
}

/// Sends all of it, and measures.
pub(super) fn paced(own: &mut Own, plan: &Plan, stop: &Shutdown) -> Result<Found, Error> {
    check_partitions(own.config(), plan.partitions)?;
    let donations = own.make_donations(plan.partitions)?;
    let config = own.run_over(&donations)?;
    let found = measure(&config, plan, stop);
    own.forget(&config);
    own.forget_donations(&donations);
    found
}

fn measure(config: &Config, plan: &Plan, stop: &Shutdown) -> Result<Found, Error> {
    // What goes wrong in one thread ends the others.
    let stop = &stop.of_part();
    let work = Work::Fold { until_end: false };
    let job = Job {
        config: config.clone(),
        work,
    };
    let child = Child::start(&job)?;
    // Early, since an idempotent producer needs half a second to begin.
    let sink = KafkaSink::open_for_schedule(config, plan.partitions)?;
    let made = make_ahead(plan)?;
    let mut samples = Vec::new();
    wait_for_first_cut(&child, &made, plan, &mut samples, stop)?;

    let until_planned = Duration::from_millis((made.start_ms - clock::now_ms()).max(0) as u64);
    let start = until_planned.max(TO_START);
    let start_ns = now_ns() + start.as_nanos() as u64;
    let began = SystemTime::now() + start;
    let run = Run {
        config,
        plan,
        start_ns,
        sent: AtomicU64::new(0),
        arrived: AtomicU64::new(0),
        stop,
        end: Shutdown::default(),
    };
    let before = generator_cpu(); // What was made ahead is not of the run.
    let (account, sent, finished, samples) = run.all(child, &sink, made.blocks, samples)?;
    let expected = made.maker.join().map_err(|_| Error::Panic("generator"))?;
    let generator_cpu_s = generator_cpu()
        .zip(before)
        .map(|(after, before)| after - before);
    // What was made is less, if the generator gave up.
    let events = plan.settings.counts()?.total();
    let is_whole = run.sent.load(Ordering::Relaxed) == events;
    let exactness = match is_whole {
        true => exactness(&totals::Emitted::read(config, stop)?.compare(&expected)),
        false => Exactness::Unknown("not all events were sent".into()),
    };
    Ok(Found::of(Parts {
        plan,
        began,
        start_ns,
        account,
        sent,
        sent_events: run.sent.into_inner(),
        events,
        measured: finished.measured,
        samples,
        generator_cpu_s,
        exactness,
    }))
}

/// Events that are made, or being made.
struct Made {
    blocks: Receiver<Block>,
    maker: JoinHandle<Expected>,
    /// The wall clock for which they are made, in milliseconds.
    start_ms: i64,
    /// How long making them will take.
    takes: Duration,
    since: Instant,
}

fn make_ahead(plan: &Plan) -> Result<Made, Error> {
    let capacity = blocks_ahead();
    let takes = time_ahead(&plan.settings, capacity)?;
    let start_ms = clock::now_ms() + takes.max(TO_JOIN).as_millis() as i64;
    let ahead = Ahead::new(&plan.settings, plan.schedule, plan.partitions, start_ms)?;
    let (fill, blocks) = sync_channel(capacity);
    let maker = std::thread::Builder::new().name("ahead".into());
    let maker = maker.spawn(move || ahead.make(&fill))?;
    tracing::info!(
        "making events ahead, and starting to count: about {:.0} s",
        takes.max(TO_JOIN).as_secs_f64()
    );
    Ok(Made {
        blocks,
        maker,
        start_ms,
        takes,
        since: Instant::now(),
    })
}

/// Waits until it counts, and enough is made.
fn wait_for_first_cut(
    child: &Child,
    made: &Made,
    plan: &Plan,
    samples: &mut Vec<Sample>,
    stop: &Shutdown,
) -> Result<(), Error> {
    let mut counts = false;
    loop {
        match child.next(TICK) {
            Next::Message(Message::Cut(_)) => counts = true,
            Next::Message(Message::Sample(sample)) => samples.push(sample),
            Next::Message(Message::Failed(why)) => return Err(Error::Measure(why)),
            Next::Message(_) | Next::Nothing => {}
            Next::Ended => return Err(Error::Died),
        }
        if stop.has_begun() {
            return Err(Error::Stopped);
        }
        let is_made = made.maker.is_finished() || made.since.elapsed() >= made.takes;
        if counts && is_made {
            return Ok(());
        }
        if !counts && made.since.elapsed() > START_WITHIN {
            return Err(Error::Measure(format!(
                "no cut was complete within {} s of the start: see to the brokers, or give fewer \
                 partitions than {}",
                START_WITHIN.as_secs(),
                plan.partitions
            )));
        }
    }
}

/// Everything under way.
struct Run<'a> {
    config: &'a Config,
    plan: &'a Plan,
    start_ns: u64,
    sent: AtomicU64,
    arrived: AtomicU64,
    stop: &'a Shutdown,
    /// Ends the reader of cuts.
    end: Shutdown,
}

type All = (Account, Sent, Finished, Vec<Sample>);

impl Run<'_> {
    fn all(
        &self,
        child: Child,
        sink: &KafkaSink,
        blocks: Receiver<Block>,
        samples: Vec<Sample>,
    ) -> Result<All, Error> {
        std::thread::scope(|scope| {
            let (tell, events) = channel();
            let warmup_ns = self.plan.warmup.as_nanos() as u64;
            let account = Account::new(self.plan.partitions, self.start_ns, warmup_ns);
            let name = |name: &str| std::thread::Builder::new().name(name.into());
            let accountant = name("account")
                .spawn_scoped(scope, move || account.keep(&events, &self.arrived))?;
            let reader = {
                let tell = tell.clone();
                name("cuts").spawn_scoped(scope, move || {
                    let read = cuts::read(self.config, &tell, &self.end);
                    self.stop_if_failed(read)
                })?
            };
            let sending = Sending {
                sink,
                start_ns: self.start_ns,
                warmup_ns,
                account: tell.clone(),
                count: &self.sent,
                stop: self.stop,
            };
            let sender = name("sender")
                .spawn_scoped(scope, move || self.stop_if_failed(sending.send(&blocks)))?;
            let listened = self.listen(child, &tell, samples, || sender.is_finished());
            let listened = self.stop_if_failed(listened);
            self.end.begin();
            let sent = sender.join().map_err(|_| Error::Panic("sender"))?;
            reader
                .join()
                .map_err(|_| Error::Panic("reader of cuts"))??;
            drop(tell);
            let account = accountant.join().map_err(|_| Error::Panic("account"))?;
            let (sent, (finished, samples)) = (sent?, listened?);
            Ok((account, sent, finished, samples))
        })
    }

    /// Whatever goes wrong ends the others, too.
    fn stop_if_failed<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.stop.begin();
        }
        result
    }

    /// Hears the process that counts until all has arrived and it has ended.
    fn listen(
        &self,
        mut child: Child,
        tell: &Sender<Event>,
        mut samples: Vec<Sample>,
        is_sent: impl Fn() -> bool,
    ) -> Result<(Finished, Vec<Sample>), Error> {
        let mut progress = Progress::new(self.plan.settings.counts()?.total());
        let (mut moved, mut before) = (Instant::now(), 0);
        let mut hear = |message| match message {
            Message::Cut(cut) => {
                let _ = tell.send(Event::Visible(cut));
            }
            Message::Sample(sample) => samples.push(sample),
            _ => {}
        };
        let waited = loop {
            match child.next(TICK) {
                Next::Message(Message::Failed(why)) => break Err(Error::Measure(why)),
                Next::Message(message) => hear(message),
                Next::Nothing => {}
                Next::Ended => break Err(Error::Died),
            }
            if self.stop.has_begun() {
                break Err(Error::Stopped);
            }
            let [sent, arrived] = [&self.sent, &self.arrived].map(|it| it.load(Ordering::Relaxed));
            progress.tick(sent);
            if is_sent() && arrived >= sent {
                break Ok(());
            }
            if arrived != before || !is_sent() {
                (before, moved) = (arrived, Instant::now());
            }
            if moved.elapsed() > ARRIVE_PATIENCE {
                break Err(Error::Measure(format!(
                    "{} of {} events that were sent did not arrive in a cut",
                    grouped(sent - arrived),
                    grouped(sent)
                )));
            }
        };
        progress.finish();
        waited?;
        child.withdraw();
        let finished = child.finish(self.stop, |message| {
            if let Some(message) = message {
                hear(message);
            }
        })?;
        Ok((finished, samples))
    }
}

/// Seconds of CPU of this process.
fn generator_cpu() -> Option<f64> {
    Some(Threads::default().look()?.total_s())
}
