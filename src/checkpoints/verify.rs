//! `tally99 checkpoints verify`

use std::io::Write;

use super::log::{Folded, Log};
use super::{Error, Expired, Site, VerifyArgs};
use crate::checkpoint::{self, Manifest, RecordId, RestoreError};
use crate::config::Config;
use crate::generate::progress::Progress;
use crate::money::grouped;
use crate::offset::{Offset, Partition};
use crate::shard::Snapshot;
use crate::totals::Verdict;

/// The newest checkpoint of a partition.
struct Kept {
    manifest: Manifest,
    snapshot: Snapshot,
    campaigns: usize,
}

/// How a partition came out.
enum Outcome {
    Equal {
        ids: u64,
        campaigns: usize,
    },
    Differs(String),
    /// The log begins here, so nobody knows.
    Expired(Offset),
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
    let log = Log::open(config)?;
    let mut progress = Progress::new(total);
    let (mut done, mut equal, mut bad) = (0, 0, 0);
    let mut expired = Vec::new();
    for &partition in &partitions {
        let Some(kept) = newest(site, partition)? else {
            // A folder without any is no fault, unless it was asked for.
            let has_any = newest_offset(site, partition)?.is_some();
            bad += usize::from(has_any || !args.partitions.is_empty());
            let what = if has_any { " that can be restored" } else { "" };
            progress.say(out, &format!("partition {partition}: no checkpoint{what}"))?;
            continue;
        };
        let offset = kept.manifest.offset;
        let outcome = verify(site, &log, partition, kept, &mut |folded| {
            progress.tick((done + folded).min(total));
        })?;
        done += offset.0 as u64;
        let at = grouped(offset.0);
        let text = match outcome {
            Outcome::Equal { ids, campaigns } => {
                equal += 1;
                let (ids, campaigns) = (grouped(ids), grouped(campaigns as i128));
                format!("equal at offset {at} ({ids} ids, {campaigns} campaigns)")
            }
            Outcome::Differs(how) => {
                bad += 1;
                format!("differs at offset {at}: {how}")
            }
            Outcome::Expired(start) => {
                let topic = config.topics.donations.clone();
                let text = format!(
                    "cannot be verified at offset {at}: the log of {topic}/{partition} begins at \
                     {start}"
                );
                expired.push(Expired {
                    topic,
                    partition,
                    start,
                });
                text
            }
        };
        progress.say(out, &format!("partition {partition}: {text}"))?;
    }
    progress.finish();
    match (equal, bad, expired.is_empty()) {
        (0, 0, true) => writeln!(out, "{}", site.nothing()?)?,
        (_, 0, true) => writeln!(out, "all {equal} equal the fold of the log, to the byte")?,
        (_, 0, false) => return Err(Error::Expired(expired)),
        _ => {}
    }
    out.flush()?;
    Ok(match equal > 0 && bad == 0 {
        true => Verdict::Fine,
        false => Verdict::Differs, // What was not verified has not passed.
    })
}

/// The offset of a partition's newest checkpoint, as its manifest says, valid or not.
fn newest_offset(site: &Site, partition: Partition) -> Result<Option<Offset>, Error> {
    let names = site.wait(checkpoint::manifests(&site.folder(partition)))?;
    Ok(names.first().and_then(|name| checkpoint::offset_of(name)))
}

/// The checkpoint of a partition that a process would begin with.
fn newest(site: &Site, partition: Partition) -> Result<Option<Kept>, Error> {
    let folder = site.folder(partition);
    let restored = checkpoint::restore(&folder, &site.about, partition, &site.rules);
    let restored = match site.wait(restored) {
        Err(RestoreError::Store(error)) => return Err(error.into()),
        // It would not begin; nor is there a fold to compare with.
        Err(other_rules @ RestoreError::OtherRules { .. }) => {
            tracing::warn!("{other_rules}");
            None
        }
        Ok(restored) => restored,
    };
    Ok(restored.map(|mut restored| Kept {
        manifest: restored.manifest,
        snapshot: restored.shard.full_snapshot(),
        campaigns: restored.shard.campaign_count(),
    }))
}

fn verify(
    site: &Site,
    log: &Log,
    partition: Partition,
    kept: Kept,
    tick: &mut dyn FnMut(u64),
) -> Result<Outcome, Error> {
    let last_record = kept.manifest.last_record;
    let rules = site.rules.clone();
    let folded = log.fold(partition, rules, kept.manifest.offset, last_record, tick)?;
    Ok(match folded {
        Folded::Expired { start } => Outcome::Expired(start),
        Folded::TooShort { end } => Outcome::Differs(format!(
            "the log ends at {}: the topic was made anew, or an unclean leader election lost its end",
            grouped(end.0)
        )),
        Folded::Whole { mut shard, last } => {
            let difference = kept.snapshot.difference(&shard.full_snapshot());
            match difference.or_else(|| differ(last_record, last)) {
                Some(how) => Outcome::Differs(how),
                None => Outcome::Equal {
                    ids: kept.manifest.id_count(),
                    campaigns: kept.campaigns,
                },
            }
        }
    })
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
