//! A backlog, read raw and folded, in turn.

use super::Error;
use super::args::DrainArgs;
use super::backlog::Backlog;
use super::child::{Child, Finished};
use super::message::{Job, Message, RawMode, Work};
use super::own::Own;
use super::result::{Drain, Exactness, Kind, Run};
use crate::config::Config;
use crate::generate::Settings;
use crate::generate::progress::Progress;
use crate::money::grouped;
use crate::shutdown::Shutdown;
use crate::totals::{self, Comparison};

/// Fills a topic, or takes the one that is named, and reads it again and again.
pub(super) fn drain(
    own: &mut Own,
    args: &DrainArgs,
    kinds: &[Kind],
    stop: &Shutdown,
) -> Result<Drain, Error> {
    let backlog = match &args.topic {
        Some(topic) => Backlog::existing(own, topic, kinds.contains(&Kind::Fold))?,
        None => {
            check_partitions(own.config(), args.traffic.partitions)?;
            let events = args.traffic.events(args.events)?;
            Backlog::fill(own, &events, args.traffic.partitions, stop)?
        }
    };
    read(own, backlog, kinds, args.pairs, stop)
}

/// Fills a topic with this day, and reads it again and again.
pub(super) fn drain_day(
    own: &mut Own,
    settings: &Settings,
    partitions: i32,
    pairs: u32,
    stop: &Shutdown,
) -> Result<Drain, Error> {
    check_partitions(own.config(), partitions)?;
    let backlog = Backlog::fill(own, settings, partitions, stop)?;
    read(own, backlog, &KINDS, pairs, stop)
}

/// What a pair is made of: A, B and C, not to begin with what is compared.
pub(super) const KINDS: [Kind; 3] = [Kind::RawPoll, Kind::RawBatch, Kind::Fold];

/// Each worker needs a partition of its own.
pub(super) fn check_partitions(config: &Config, partitions: i32) -> Result<(), Error> {
    let workers = config.run.workers;
    match partitions.unsigned_abs() as usize >= workers {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "--partitions {partitions} is not enough for {workers} workers: give at least \
             {workers}, or lower --workers"
        ))),
    }
}

fn read(
    own: &mut Own,
    backlog: Backlog,
    kinds: &[Kind],
    pairs: u32,
    stop: &Shutdown,
) -> Result<Drain, Error> {
    let (workers, partitions) = (own.config().run.workers, backlog.log.len());
    if partitions < workers {
        tracing::warn!(
            "topic {} has {partitions} partitions for {workers} workers: some have nothing to do",
            backlog.topic
        );
    }
    let mut runs: Vec<Run> = Vec::new();
    for pair in 1..=pairs {
        for &kind in kinds {
            let run = measure(own, &backlog, pair, kind, stop)?;
            tracing::info!(
                "pair {pair} of {pairs}, {}: {} events in {:.2} s, {} events/s",
                kind.name(),
                grouped(run.events),
                run.seconds,
                grouped(run.rate() as u64)
            );
            runs.push(run);
            if backlog.expected.is_none() {
                backlog.must_be_the_same(own, kinds.contains(&Kind::Fold))?;
            }
        }
    }
    // All read the same records, so those who did not look have read as many bytes.
    let bytes = runs.iter().find_map(|run| run.bytes);
    let events = runs.first().map_or(0, |run| run.events);
    for run in &mut runs {
        run.bytes = run.bytes.or(bytes);
    }
    own.forget_donations(&backlog.topic);
    let is_own = backlog.expected.is_some();
    Ok(Drain {
        // Where offsets are no records (transactions), runs must agree with each other.
        events: if is_own { backlog.offsets() } else { events },
        is_own,
        partitions,
        topic: backlog.topic,
        filled_in_s: backlog.filled_in_s,
        runs,
    })
}

fn measure(
    own: &mut Own,
    backlog: &Backlog,
    pair: u32,
    kind: Kind,
    stop: &Shutdown,
) -> Result<Run, Error> {
    let mode = match kind {
        Kind::RawPoll => RawMode::Poll,
        Kind::RawBatch => RawMode::Batch,
        Kind::Fold => return fold(own, backlog, pair, stop),
    };
    let mut config = own.config().clone();
    config.topics.donations = backlog.topic.clone();
    let log = backlog.log.clone();
    let work = Work::Raw { mode, log };
    let finished = listen(Job { config, work }, backlog, stop)?;
    let why = "librdkafka alone counts nothing but records".into();
    Ok(run_of(finished, pair, kind, Exactness::Unknown(why), None))
}

fn fold(own: &mut Own, backlog: &Backlog, pair: u32, stop: &Shutdown) -> Result<Run, Error> {
    let config = own.run_over(&backlog.topic)?;
    let work = Work::Fold { until_end: true };
    let job = Job {
        config: config.clone(),
        work,
    };
    let finished = listen(job, backlog, stop)?;
    let emitted = totals::Emitted::read(&config, stop)?;
    let exactness = match &backlog.expected {
        Some(expected) => exactness(&emitted.compare(expected)),
        None => Exactness::Unknown(
            "nobody knows what this topic adds up to; the runs are compared with each other".into(),
        ),
    };
    let digest = emitted.cut().map(|cut| cut.digest.clone());
    own.forget(&config);
    Ok(run_of(finished, pair, Kind::Fold, exactness, digest))
}

/// Whether all that was emitted is what the generator says.
pub(super) fn exactness(comparison: &Comparison) -> Exactness {
    match comparison.is_equal() {
        true => Exactness::Equal(comparison.equal_campaigns()),
        false => Exactness::Different(comparison.to_string()),
    }
}

/// Shows how far it is until it is done.
fn listen(job: Job, backlog: &Backlog, stop: &Shutdown) -> Result<Finished, Error> {
    let mut progress = Progress::new(backlog.offsets());
    let finished = Child::start(&job)?.finish(stop, |message| match message {
        Some(Message::Read(read)) => progress.tick(read),
        Some(Message::Cut(cut)) => progress.tick(cut.events),
        _ => {}
    });
    progress.finish();
    finished
}

fn run_of(
    finished: Finished,
    pair: u32,
    kind: Kind,
    exactness: Exactness,
    digest: Option<String>,
) -> Run {
    let Finished { measured, whole_s } = finished;
    let between = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
    Run {
        pair,
        kind,
        events: measured.events,
        bytes: measured.bytes,
        seconds: between(measured.began_ns, measured.ended_ns),
        startup_s: between(measured.started_ns, measured.began_ns),
        whole_s,
        cpu: measured.cpu,
        peak_memory_bytes: measured.peak_memory_bytes,
        exactness,
        digest,
    }
}
