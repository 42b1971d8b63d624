//! `tally99 checkpoints prune`

use std::io::Write;

use indicatif::BinaryBytes;

use super::{Error, PruneArgs, Site};
use crate::checkpoint::Found;
use crate::checkpoint::collect::{self, GRACE_MS};
use crate::event::Millis;
use crate::offset::Partition;
use crate::totals::Verdict;

/// What was deleted, or would have been.
#[derive(Default)]
struct Gone {
    files: usize,
    bytes: u64,
}

pub(super) fn run(
    site: &Site,
    args: &PruneArgs,
    keep: usize,
    out: &mut dyn Write,
) -> Result<Verdict, Error> {
    let now = site.wait(site.store.clock())?;
    let mut gone = Gone::default();
    for partition in site.partitions()? {
        prune(site, partition, args.dry_run, keep, now, &mut gone, out)?;
    }
    if args.older_epochs {
        remove_older(site, args.dry_run, &mut gone, out)?;
    }
    let verb = if args.dry_run { "would be " } else { "" };
    let (files, bytes) = (gone.files, BinaryBytes(gone.bytes));
    writeln!(out, "{files} objects with {bytes} {verb}deleted")?;
    out.flush()?;
    Ok(Verdict::Fine)
}

fn prune(
    site: &Site,
    partition: Partition,
    dry_run: bool,
    keep: usize,
    now: Millis,
    gone: &mut Gone,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let folder = site.folder(partition);
    let own = site.newest(partition)?.map(|restored| restored.name);
    let unneeded = site.wait(collect::unneeded(&folder, keep, own.as_deref(), now))?;
    let old = format!("older than the newest {keep} that can be restored");
    let manifests = unneeded.manifests.iter().map(|it| (it, &*old));
    let why = "no checkpoint names it, and it is older than an hour";
    let objects = unneeded.objects.iter().map(|it| (it, why));
    for (Found { name, bytes, .. }, why) in manifests.chain(objects) {
        if !dry_run {
            site.wait(folder.delete(name))?;
        }
        gone.say(&folder.url_of(name), *bytes, why, out)?;
    }
    let in_vain = |error| Error::Folder(folder.url_of(""), error);
    for file in folder.left_over().map_err(in_vain)? {
        if now - file.written_at >= GRACE_MS {
            if !dry_run {
                std::fs::remove_file(&file.path).map_err(in_vain)?;
            }
            let why = "a write was cut short, more than an hour ago";
            let path = file.path.display().to_string();
            gone.say(&path, file.bytes, why, out)?;
        }
    }
    if unneeded.is_in_doubt {
        writeln!(
            out,
            "partition {partition}: a manifest cannot be read, and nobody knows what it names; so \
             objects without a manifest stay for now. See `tally99 checkpoints list`"
        )?;
    }
    if unneeded.spared > 0 {
        writeln!(
            out,
            "partition {partition}: {} objects without a manifest stay, since they are younger \
             than an hour",
            unneeded.spared
        )?;
    }
    Ok(())
}

fn remove_older(
    site: &Site,
    dry_run: bool,
    gone: &mut Gone,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let (topic, epoch) = (&site.about.topic, site.about.epoch);
    for older in site.wait(site.store.epochs(topic))? {
        if older >= epoch {
            continue;
        }
        let folder = site.store.epoch(topic, older);
        let (files, bytes) = match dry_run {
            false => site.wait(folder.remove())?,
            true => {
                let found = site.wait(folder.list(""))?;
                (found.len(), found.iter().map(|it| it.bytes).sum())
            }
        };
        (gone.files, gone.bytes) = (gone.files + files, gone.bytes + bytes);
        let url = folder.url_of("");
        writeln!(out, "{url}: {files} objects of an older epoch")?;
    }
    Ok(())
}

impl Gone {
    fn say(&mut self, what: &str, bytes: u64, why: &str, out: &mut dyn Write) -> Result<(), Error> {
        (self.files, self.bytes) = (self.files + 1, self.bytes + bytes);
        writeln!(out, "{what}: {why}")?;
        Ok(())
    }
}
