//! Writes the checkpoints of one partition, one after the other.
//!
//! A checkpoint exists when its manifest does. The manifest is written last, and
//! only once the store has acknowledged everything that it names, so a process
//! may die between any two steps and leaves at most objects that nobody names.
//! No name is ever given twice and nothing is ever overwritten, so whoever else
//! writes checkpoints of the partition, now or later, does no harm: each of
//! them is a true fold of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::PutPayload;

use super::collect::{Collector, GRACE_MS};
use super::manifest::{IdSegment, Manifest, Named, RecordId};
use super::object::{self, Kind};
use super::segments;
use super::store::{Folder, StoreError};
use super::{About, COUNTERS, IDS, MANIFESTS};
use crate::event::Millis;
use crate::offset::Offset;
use crate::shard::{Segment, Snapshot};

/// Writes the checkpoints of one partition.
#[derive(Debug)]
pub struct Keeper {
    folder: Folder,
    about: About,
    /// The newest checkpoint that we restored or wrote, by its name, as far as its
    /// objects are known to be there.
    last: Option<(String, Manifest)>,
    /// Whether the next snapshot must be whole.
    needs_full: bool,
    /// Whether the last checkpoint has lost something since, or has something rotten.
    is_damaged: bool,
    /// Which of the objects of `last` is read back next.
    read_back: usize,
    collector: Collector,
}

/// What a checkpoint was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// What it is exact at.
    pub offset: Offset,
    /// How many bytes were written for it, all objects together.
    pub bytes: u64,
}

/// Why a checkpoint is not written.
#[derive(Debug, thiserror::Error)]
pub enum Unsaved {
    /// The store failed.
    #[error("{}", .0.in_full())]
    Failed(#[from] StoreError),
    /// It took longer than [`SAVE_WITHIN_MS`].
    #[error("the store has not taken it within {} s", SAVE_WITHIN_MS / 1_000)]
    TooSlow,
}

/// How many objects are on their way to the store at a time.
const AT_A_TIME: usize = 8;

/// How long one checkpoint may take. What it has written so far is named by no
/// manifest, and after [`GRACE_MS`](super::collect::GRACE_MS) others delete it.
pub const SAVE_WITHIN_MS: Millis = GRACE_MS / 4;

/// After how many changes the counters are written whole, so that a restore has
/// no more of them to read.
const CHANGES_MAX: usize = 30;

impl Keeper {
    /// The keeper of a partition that was restored from `last`, if it was from any;
    /// the newest `keep` checkpoints are kept.
    pub fn new(
        folder: Folder,
        about: About,
        last: Option<(String, Manifest)>,
        keep: usize,
    ) -> Keeper {
        Keeper {
            needs_full: last.is_none(),
            is_damaged: false,
            folder,
            about,
            last,
            read_back: 0,
            collector: Collector::new(keep),
        }
    }

    /// A snapshot is begun: whether it must be a full one. If it is never
    /// [saved](Keeper::save), the next one must be, since what had changed is known
    /// to nobody any more.
    pub fn begin(&mut self) -> bool {
        std::mem::replace(&mut self.needs_full, true)
    }

    /// Whether the last checkpoint must be written anew, though nothing has changed.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Writes a checkpoint of a snapshot, which follows the one before or is full.
    /// `last_record` is the last one before the snapshot's offset; `written_at`: what
    /// time it is, for people; `clock`: milliseconds since any moment, by a clock that
    /// nobody sets.
    ///
    /// # Errors
    /// The store failed, or took longer than [`SAVE_WITHIN_MS`]. Nothing is lost but
    /// this checkpoint; the next snapshot must be full.
    pub async fn save(
        &mut self,
        mut snapshot: Snapshot,
        last_record: Option<RecordId>,
        written_at: Millis,
        clock: impl Fn() -> Millis,
    ) -> Result<Written, Unsaved> {
        let began_at = clock();
        self.rely_on_the_last().await?;
        let (counters, of_counters) = self.write_counters(&mut snapshot).await?;
        let (ids, of_ids) = self.write_ids(&snapshot).await?;
        let manifest = Manifest {
            topic: self.about.topic.clone(),
            partition: snapshot.partition,
            epoch: self.about.epoch,
            rules: self.about.rules.clone(),
            offset: snapshot.offset,
            last_record,
            written_at,
            writer: self.folder.writer().to_owned(),
            counters,
            ids,
        };
        let object = manifest.to_object();
        let bytes = of_counters + of_ids + object.content_length() as u64;
        let name = format!("{MANIFESTS}/{:020}", manifest.offset.0);
        let name = self.folder.new_name(&name);
        // This process may have been stopped for hours.
        if clock() - began_at > SAVE_WITHIN_MS {
            return Err(Unsaved::TooSlow);
        }
        self.folder.put(&name, object).await?;

        self.needs_full = must_be_full_after(&manifest.counters);
        self.is_damaged = false;
        self.last = Some((name, manifest));
        Ok(Written {
            offset: snapshot.offset,
            bytes,
        })
    }

    /// What the last checkpoint names may be named again for as long as its manifest
    /// is there: only a manifest keeps others from deleting it. So if that is gone,
    /// everything is written anew.
    async fn rely_on_the_last(&mut self) -> Result<(), StoreError> {
        let Some((name, _)) = &self.last else {
            return Ok(());
        };
        let found = self.folder.look_at(name).await;
        if found.as_ref().is_err_and(StoreError::is_not_found) {
            self.last = None;
        }
        found
    }

    /// Deletes what is no longer needed, and looks whether what is needed is still
    /// there: what is missing or damaged is written anew with the next checkpoint. To
    /// be called after each checkpoint that is [saved](Keeper::save), with the same clock.
    ///
    /// # Errors
    /// The store failed. Whatever was not done is done the next time.
    pub async fn tidy(&mut self, clock: impl Fn() -> Millis) -> Result<(), StoreError> {
        let asked_at = clock();
        let found = self.folder.list("").await?;
        let times = asked_at..clock();
        let names: BTreeMap<&str, u64> = found.iter().map(|it| (&*it.name, it.bytes)).collect();
        let last = self.last.iter().flat_map(|(_, last)| last.objects());
        let objects = last.map(|(_, object)| object);
        let gone = objects.filter(|object| names.get(&*object.name) != Some(&object.bytes));
        let mut bad: BTreeSet<String> = gone.map(|object| object.name.clone()).collect();
        bad.extend(self.read_one_back(&bad).await?);
        for name in &bad {
            tracing::warn!(
                "checkpoint {} is missing or damaged: it is written anew",
                self.folder.url_of(name)
            );
        }
        self.forget(&bad);
        let Some((own, _)) = &self.last else {
            return Ok(());
        };
        let collected = self.collector.collect(&self.folder, &found, times, own);
        collected.await
    }

    /// The name of one object of the last checkpoint, if it is not what was written.
    /// Each time it is another one, so that rot is found while there is a healthy
    /// copy in memory.
    async fn read_one_back(
        &mut self,
        bad: &BTreeSet<String>,
    ) -> Result<Option<String>, StoreError> {
        let last = self.last.as_ref();
        let Some((kind, object)) = last.and_then(|(_, last)| last.object(self.read_back)) else {
            self.read_back = 0;
            return Ok(None);
        };
        self.read_back += 1;
        if bad.contains(&object.name) {
            return Ok(None);
        }
        let is_good = match self.folder.get(&object.name).await {
            Ok(bytes) => object::unpack(kind, &bytes).is_ok_and(|(_, sum)| sum == object.checksum),
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error),
        };
        Ok((!is_good).then(|| object.name.clone()))
    }

    /// These objects cannot be relied on.
    fn forget(&mut self, names: &BTreeSet<String>) {
        let Some((_, last)) = &mut self.last else {
            return;
        };
        let is_bad = |object: &Named| names.contains(&object.name);
        self.is_damaged |= last.objects().any(|(_, object)| is_bad(object));
        // Changes since an offset make a checkpoint only at a later one.
        self.needs_full |= self.is_damaged;
        last.ids.retain(|segment| !is_bad(&segment.object));
    }

    async fn write_counters(
        &self,
        snapshot: &mut Snapshot,
    ) -> Result<(Vec<Named>, u64), StoreError> {
        let mut counters = match &self.last {
            Some((_, last)) if snapshot.from > Offset::START => {
                assert_eq!(last.offset, snapshot.from, "snapshots follow each other");
                last.counters.clone()
            }
            _ => {
                assert_eq!(snapshot.from, Offset::START, "the first snapshot is full");
                Vec::new()
            }
        };
        let name = format!(
            "{COUNTERS}/{:020}-{:020}",
            snapshot.from.0, snapshot.offset.0
        );
        let body = std::mem::take(&mut snapshot.counters);
        let written = write(&self.folder, Kind::Counters, &name, body).await?;
        let bytes = written.bytes;
        counters.push(written);
        Ok((counters, bytes))
    }

    async fn write_ids(&self, snapshot: &Snapshot) -> Result<(Vec<IdSegment>, u64), StoreError> {
        let stored = self.last.as_ref().map_or(&[][..], |(_, last)| &last.ids);
        let places: Vec<_> = stored.iter().map(IdSegment::places).collect();
        let planned = segments::plan(&places, snapshot.ids.places());
        let known = |places: &Range<u64>| stored.iter().find(|it| it.places() == *places);
        let kept: Vec<_> = planned.iter().filter_map(known).cloned().collect();
        let missing = planned.into_iter().filter(|places| known(places).is_none());
        // A list, since the compiler cannot tell how long a lazy one would borrow.
        let missing: Vec<_> = missing
            .map(|places| {
                let segment = snapshot.ids.segment(places.clone());
                write_segment(self.folder.clone(), places, segment)
            })
            .collect();
        let new = stream::iter(missing).buffer_unordered(AT_A_TIME);
        let new: Vec<IdSegment> = new.try_collect().await?;
        let bytes = new.iter().map(|segment| segment.object.bytes).sum();
        let mut all = [kept, new].concat();
        all.sort_by_key(|segment| segment.first);
        Ok((all, bytes))
    }
}

async fn write_segment(
    folder: Folder,
    places: Range<u64>,
    segment: Segment,
) -> Result<IdSegment, StoreError> {
    let (first, end) = (places.start, places.end);
    let name = format!("{IDS}/{first:020}-{end:020}");
    let object = write(&folder, Kind::Ids, &name, segment.to_bytes()).await?;
    Ok(IdSegment { first, end, object })
}

async fn write(
    folder: &Folder,
    kind: Kind,
    name: &str,
    body: Vec<u8>,
) -> Result<Named, StoreError> {
    let name = folder.new_name(name);
    let (parts, checksum) = object::pack(kind, body);
    let object: PutPayload = parts.into_iter().collect();
    let bytes = object.content_length() as u64;
    folder.put(&name, object).await?;
    Ok(Named {
        name,
        bytes,
        checksum,
    })
}

/// Whether a whole snapshot is due: when the changes are more than what changed.
fn must_be_full_after(counters: &[Named]) -> bool {
    let (whole, changes) = counters.split_first().expect("the first is whole");
    let changed: u64 = changes.iter().map(|named| named.bytes).sum();
    changed > whole.bytes || changes.len() >= CHANGES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::example::{Example, folder};
    use crate::checkpoint::manifests;
    use crate::checkpoint::store::double::Double;

    /// The same checkpoint from what is there now, whatever befell it.
    async fn heals(befall: impl AsyncFn(&Double)) {
        let objects = Double::default();
        let mut example = Example::new(&folder(&objects), 3);
        for _ in 0..3 {
            example.apply();
            example.save().await.unwrap();
            example.keeper.tidy(|| 0).await.unwrap();
        }
        example.apply();
        example.save_whole().await.unwrap();
        befall(&objects).await;
        let mut looks = 0;
        while !example.keeper.is_damaged() {
            looks += 1;
            assert!(looks < 10, "nobody noticed");
            example.keeper.tidy(|| 0).await.unwrap();
        }
        // Nothing has changed meanwhile.
        let written = example.save().await.unwrap();
        assert_eq!(written.offset, Offset(4));
        assert!(!example.keeper.is_damaged());
        assert_eq!(example.restored().await.manifest.counters.len(), 1);
    }

    #[tokio::test]
    async fn what_rots_or_is_lost_is_written_anew() {
        for part in ["counters/00000000000000000000-00000000000000000004", "ids/"] {
            heals(async |objects| objects.flip(part).await).await;
            heals(async |objects| objects.lose(part).await).await;
        }
    }

    #[tokio::test]
    async fn after_one_that_was_given_up_the_next_is_whole() {
        let mut example = Example::new(&folder(&Double::default()), 3);
        example.apply();
        example.save().await.unwrap();
        example.apply();
        example.give_up();
        example.apply();
        example.save().await.unwrap();
        let restored = example.restored().await;
        assert_eq!(restored.manifest.offset, Offset(3));
        assert_eq!(restored.manifest.counters.len(), 1);
    }

    #[tokio::test]
    async fn one_whose_manifest_is_gone_is_not_built_on() {
        let objects = Double::default();
        let mut example = Example::new(&folder(&objects), 3);
        example.apply();
        example.save().await.unwrap();
        objects.lose("manifests/").await;
        example.apply();
        let error = example.save().await.unwrap_err();
        assert!(error.contains("manifests/"), "{error}");
        example.save().await.unwrap();
        let restored = example.restored().await;
        assert_eq!(restored.manifest.offset, Offset(2));
        assert_eq!(restored.manifest.counters.len(), 1);
    }

    #[tokio::test]
    async fn only_the_newest_are_left() {
        let mut example = Example::new(&folder(&Double::default()), 2);
        for _ in 0..5 {
            example.apply();
            example.save().await.unwrap();
            example.keeper.tidy(|| 0).await.unwrap();
        }
        let names = manifests(&example.folder).await.unwrap();
        let offsets: Vec<_> = names.iter().map(|it| super::super::offset_of(it)).collect();
        assert_eq!(offsets, [Some(Offset(5)), Some(Offset(4))]);
    }
}
