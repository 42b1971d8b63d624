//! `tally99 checkpoints verify`

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::log::{Folded, Log};
use super::{Error, Expired, Site, VerifyArgs};
use crate::checkpoint::{self, RecordId};
use crate::config::Config;
use crate::generate::progress::Progress;
use crate::money::grouped;
use crate::offset::{Offset, Partition};
use crate::totals::Verdict;

/// How a partition came out.
enum Outcome {
    /// It has no checkpoint; or none that can be restored, if it has any.
    Missing {
        has_any: bool,
    },
    Equal {
        at: Offset,
        ids: u64,
        campaigns: usize,
    },
    Differs {
        at: Offset,
        how: String,
    },
    /// The log begins later, so nobody knows.
    Expired {
        at: Offset,
        start: Offset,
    },
}

/// What a thread tells of the partition with this place in the order.
enum Step {
    Folded(usize, u64),
    Done(usize, Outcome),
}

/// What partitions came to.
#[derive(Default)]
struct Sum {
    equal: usize,
    bad: usize,
    expired: Vec<Expired>,
}

pub(super) fn run(
    config: &Config,
    site: &Site,
    args: &VerifyArgs,
    out: &mut dyn Write,
) -> Result<Verdict, Error> {
    let partitions = match args.partitions.is_empty() {
        true => site.partitions()?,
        false => args.partitions.clone(),
    };
    let mut total = 0;
    for &partition in &partitions {
        total += newest_offset(site, partition)?.map_or(0, |offset| offset.0 as u64);
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (next, (told, steps)) = (AtomicUsize::new(0), sync_channel(cores));
    let sum = thread::scope(|scope| {
        for _ in 0..cores.min(partitions.len()) {
            let told = told.clone();
            scope.spawn(|| {
                let told = told;
                if let Err(error) = verify_some(config, site, &partitions, &next, &told) {
                    let _ = told.send(Err(error));
                }
            });
        }
        drop(told);
        // Whatever it ends with, the threads hear of it, and end.
        report(site, args, &partitions, total, steps, out)
    })?;
    match (sum.equal, sum.bad, sum.expired.is_empty()) {
        (0, 0, true) => writeln!(out, "{}", site.nothing()?)?,
        (equal, 0, true) => writeln!(out, "all {equal} equal the fold of the log, to the byte")?,
        (_, 0, false) => return Err(Error::Expired(sum.expired)),
        _ => {}
    }
    out.flush()?;
    // What was not verified has not passed.
    Ok(Verdict::of(sum.equal > 0 && sum.bad == 0))
}

/// Verifies partitions that no other thread has begun, until there are none, or nobody
/// listens any more.
fn verify_some(
    config: &Config,
    site: &Site,
    partitions: &[Partition],
    next: &AtomicUsize,
    told: &SyncSender<Result<Step, Error>>,
) -> Result<(), Error> {
    let mut log = Log::open(config)?;
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let Some(&partition) = partitions.get(place) else {
            return Ok(());
        };
        let tell = |step| told.send(Ok(step)).is_ok();
        let mut tick = |folded| tell(Step::Folded(place, folded));
        let outcome = verify(site, &mut log, partition, &mut tick)?;
        if !outcome.is_some_and(|outcome| tell(Step::Done(place, outcome))) {
            return Ok(());
        }
    }
}

/// Says how partitions come out, in their order, until all have.
fn report(
    site: &Site,
    args: &VerifyArgs,
    partitions: &[Partition],
    total: u64,
    steps: Receiver<Result<Step, Error>>,
    out: &mut dyn Write,
) -> Result<Sum, Error> {
    let mut progress = Progress::new(total);
    let mut folded = vec![0; partitions.len()];
    let (mut sum, mut done, mut said) = (Sum::default(), BTreeMap::new(), 0);
    for step in steps {
        match step? {
            Step::Folded(place, records) => {
                folded[place] = records;
                progress.tick(folded.iter().sum::<u64>().min(total));
            }
            Step::Done(place, outcome) => {
                folded[place] = outcome.offset().0 as u64;
                done.insert(place, outcome);
            }
        }
        while let Some(outcome) = done.remove(&said) {
            let partition = partitions[said];
            let text = sum.add(outcome, &site.about.topic, partition, args);
            progress.say(out, &format!("partition {partition}: {text}"))?;
            said += 1;
        }
    }
    progress.finish();
    Ok(sum)
}

impl Outcome {
    fn offset(&self) -> Offset {
        match self {
            Outcome::Missing { .. } => Offset::START,
            Outcome::Equal { at, .. }
            | Outcome::Differs { at, .. }
            | Outcome::Expired { at, .. } => *at,
        }
    }
}

impl Sum {
    /// Counts how a partition came out; that in words.
    fn add(
        &mut self,
        outcome: Outcome,
        topic: &str,
        partition: Partition,
        args: &VerifyArgs,
    ) -> String {
        let at = grouped(outcome.offset().0);
        match outcome {
            Outcome::Missing { has_any } => {
                // A folder without any is no fault, unless it was asked for.
                self.bad += usize::from(has_any || !args.partitions.is_empty());
                let what = if has_any { " that can be restored" } else { "" };
                format!("no checkpoint{what}")
            }
            Outcome::Equal { ids, campaigns, .. } => {
                self.equal += 1;
                let (ids, campaigns) = (grouped(ids), grouped(campaigns as i128));
                format!("equal at offset {at} ({ids} ids, {campaigns} campaigns)")
            }
            Outcome::Differs { how, .. } => {
                self.bad += 1;
                format!("differs at offset {at}: {how}")
            }
            Outcome::Expired { start, .. } => {
                self.expired.push(Expired {
                    topic: topic.to_owned(),
                    partition,
                    start,
                });
                format!(
                    "cannot be verified at offset {at}: the log of {topic}/{partition} begins at \
                     {start}"
                )
            }
        }
    }
}

/// The offset of a partition's newest checkpoint, as its manifest says, valid or not.
fn newest_offset(site: &Site, partition: Partition) -> Result<Option<Offset>, Error> {
    let names = site.wait(checkpoint::manifests(&site.folder(partition)))?;
    Ok(names.first().and_then(|name| checkpoint::offset_of(name)))
}

/// How a partition comes out; `None` if nobody wants to know any more.
fn verify(
    site: &Site,
    log: &mut Log,
    partition: Partition,
    tick: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Outcome>, Error> {
    let Some(mut kept) = site.newest(partition)? else {
        let has_any = newest_offset(site, partition)?.is_some();
        return Ok(Some(Outcome::Missing { has_any }));
    };
    let (at, last_record) = (kept.manifest.offset, kept.manifest.last_record);
    let folded = log.fold(partition, site.rules.clone(), at, last_record, tick)?;
    Ok(Some(match folded {
        Folded::Unwanted => return Ok(None),
        Folded::Expired { start } => Outcome::Expired { at, start },
        Folded::TooShort { end } => {
            let end = grouped(end.0);
            let how = format!(
                "the log ends at {end}: the topic was made anew, or an unclean leader election \
                 lost its end"
            );
            Outcome::Differs { at, how }
        }
        Folded::Whole { mut shard, last } => {
            let campaigns = kept.shard.campaign_count();
            let difference = kept
                .shard
                .full_snapshot()
                .difference(&shard.full_snapshot());
            match difference.or_else(|| differ(last_record, last)) {
                Some(how) => Outcome::Differs { at, how },
                None => Outcome::Equal {
                    at,
                    ids: kept.manifest.id_count(),
                    campaigns,
                },
            }
        }
    }))
}

fn differ(kept: Option<RecordId>, folded: Option<RecordId>) -> Option<String> {
    let place = |record: Option<RecordId>| match record {
        Some(record) => format!("offset {} with hash {}", record.offset, record.hash),
        None => "nowhere".to_owned(),
    };
    (kept != folded).then(|| {
        format!(
            "the last record before it stood at {}, and that of the log stands at {}",
            place(kept),
            place(folded)
        )
    })
}
