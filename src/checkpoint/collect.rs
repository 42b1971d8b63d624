//! Deletes what no restore needs any more.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::Manifest;
use super::offset_of;
use super::store::{Folder, Found, StoreError};
use super::{COUNTERS, IDS, MANIFESTS};
use crate::event::Millis;

/// How long an object that no manifest names is left alone: another owner of the
/// partition may be about to name it.
pub const GRACE_MS: Millis = 3_600_000;

/// How long ago we may have looked last to say that an object has not been named
/// since then. A checkpoint takes no longer than half of it, so none can have named
/// an object, lost its manifest, and be about to name the object again.
const LOOK_WITHIN_MS: Millis = GRACE_MS / 2;

/// Collects what the checkpoints of one partition no longer need.
#[derive(Debug)]
pub struct Collector {
    keep: usize,
    /// Manifests never change, so each is read once. `None`: it cannot be read.
    manifests: BTreeMap<String, Option<Manifest>>,
    /// Since when an object has been named by no manifest, as far as we saw.
    unnamed: BTreeMap<String, Millis>,
    /// When we looked last.
    looked_at: Option<Millis>,
}

impl Collector {
    /// A collector that leaves the newest `keep` checkpoints.
    pub fn new(keep: usize) -> Collector {
        Collector {
            keep,
            manifests: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            looked_at: None,
        }
    }

    /// Deletes manifests beyond the newest ones that can be restored, and objects
    /// that no manifest has named for [`GRACE_MS`]. `found`: what the folder holds;
    /// `own`: the manifest of whoever asks, which stays even if it is behind: those
    /// before it may be rotten, and it is surely not.
    pub async fn collect(
        &mut self,
        folder: &Folder,
        found: &[Found],
        own: Option<&str>,
        now: Millis,
    ) -> Result<(), StoreError> {
        self.read_manifests(folder, found).await?;
        // Those that are about to be deleted, too: what they name was named until now.
        let (named, is_in_doubt) = (self.named(), self.is_in_doubt(found));
        // The oldest first, so that what a crash leaves behind is what is newer.
        let old = self.old(found).into_iter();
        for name in old.filter(|name| Some(&**name) != own) {
            folder.delete(&name).await?;
            self.manifests.remove(&name);
        }
        // What was not seen for long may have been named meanwhile, and what is named
        // now nobody knows if a manifest cannot be read.
        let looked_at = self.looked_at.replace(now);
        if is_in_doubt || looked_at.is_none_or(|at| now - at > LOOK_WITHIN_MS) {
            self.unnamed.clear();
        }
        match is_in_doubt {
            true => Ok(()),
            false => self.delete_unnamed(folder, found, named, now).await,
        }
    }

    /// The manifests beyond the newest ones that can be restored, the oldest first.
    fn old(&self, found: &[Found]) -> Vec<String> {
        let sizes: BTreeMap<&str, u64> = found.iter().map(|it| (&*it.name, it.bytes)).collect();
        let is_whole = |manifest: &Manifest| {
            let mut objects = manifest.objects();
            objects.all(|(_, object)| sizes.get(&*object.name) == Some(&object.bytes))
        };
        // Names rise with offsets. What cannot be restored does not count, but is
        // deleted with those that are as old.
        let mut whole = 0;
        let mut old = Vec::new();
        for (name, manifest) in self.manifests.iter().rev() {
            match whole >= self.keep {
                true => old.push(name.clone()),
                false => whole += usize::from(manifest.as_ref().is_some_and(is_whole)),
            }
        }
        old.reverse();
        old
    }

    async fn read_manifests(&mut self, folder: &Folder, found: &[Found]) -> Result<(), StoreError> {
        let names: BTreeSet<&str> = found
            .iter()
            .filter(|it| is_manifest(it))
            .map(|it| &*it.name)
            .collect();
        self.manifests.retain(|name, _| names.contains(&**name));
        for name in names {
            if !self.manifests.contains_key(name) {
                let manifest = match folder.get(name).await {
                    Ok(bytes) => Manifest::from_object(&bytes).ok(),
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(error),
                };
                self.manifests.insert(name.to_owned(), manifest);
            }
        }
        Ok(())
    }

    /// All that is named.
    fn named(&self) -> BTreeSet<String> {
        let manifests = self.manifests.values().flatten();
        let objects = manifests.flat_map(Manifest::objects);
        objects.map(|(_, object)| object.name.clone()).collect()
    }

    /// Whether one of the manifests cannot be read. One that has gone since it was found
    /// is as bad as one that is damaged: it named something until now.
    fn is_in_doubt(&self, found: &[Found]) -> bool {
        let readable = self.manifests.values().flatten().count();
        readable < found.iter().filter(|it| is_manifest(it)).count()
    }

    async fn delete_unnamed(
        &mut self,
        folder: &Folder,
        found: &[Found],
        named: BTreeSet<String>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let unnamed = found.iter().filter(|it| is_unnamed(it, &named));
        let unnamed: BTreeMap<String, Millis> = unnamed
            .map(|it| {
                let since = self.unnamed.get(&it.name).copied().unwrap_or(now);
                (it.name.clone(), since.max(it.written_at))
            })
            .collect();
        self.unnamed = unnamed;
        let due = |since: &Millis| now - *since >= GRACE_MS;
        for (name, _) in self.unnamed.iter().filter(|(_, since)| due(since)) {
            folder.delete(name).await?;
        }
        self.unnamed.retain(|_, since| !due(since));
        Ok(())
    }
}

fn is_manifest(found: &Found) -> bool {
    found.name.starts_with(MANIFESTS) && offset_of(&found.name).is_some()
}

fn is_unnamed(found: &Found, named: &BTreeSet<String>) -> bool {
    let is_object = found.name.starts_with(COUNTERS) || found.name.starts_with(IDS);
    is_object && !named.contains(&found.name)
}

/// What one look finds that no restore needs any more.
#[derive(Debug, Default)]
pub struct Unneeded {
    /// Manifests beyond the newest ones that can be restored, the oldest first.
    pub manifests: Vec<Found>,
    /// Objects that no manifest names, written longer than [`GRACE_MS`] ago.
    pub objects: Vec<Found>,
    /// How many objects no manifest names, but are left alone, since somebody may be
    /// about to name them.
    pub spared: usize,
    /// Whether objects were not looked at, since a manifest cannot be read, and nobody
    /// knows what it names.
    pub is_in_doubt: bool,
}

/// What may be deleted by somebody who has not watched the folder for an hour as a
/// [`Collector`] does. An object that has just lost its manifest is not among it,
/// even if it is old; one that lost it before may be. So whoever writes here must
/// have stopped, or be healthy: it names again only what a kept manifest names.
///
/// `own`: the manifest that a process would begin with, which stays: of the newer ones
/// the sizes alone are looked at, and they may be rotten. `now`: by the store's clock.
pub async fn unneeded(
    folder: &Folder,
    keep: usize,
    own: Option<&str>,
    now: Millis,
) -> Result<Unneeded, StoreError> {
    let found = folder.list("").await?;
    let mut collector = Collector::new(keep);
    collector.read_manifests(folder, &found).await?;
    let mut old = collector.old(&found);
    old.retain(|name| Some(&**name) != own);
    let mut unneeded = Unneeded {
        manifests: of_names(&found, &old),
        is_in_doubt: collector.is_in_doubt(&found),
        ..Unneeded::default()
    };
    if !unneeded.is_in_doubt {
        let named = collector.named();
        let unnamed = found.into_iter().filter(|it| is_unnamed(it, &named));
        let (due, young): (Vec<_>, Vec<_>) =
            unnamed.partition(|it| now - it.written_at >= GRACE_MS);
        (unneeded.objects, unneeded.spared) = (due, young.len());
    }
    Ok(unneeded)
}

fn of_names(found: &[Found], names: &[String]) -> Vec<Found> {
    let of_name = |name: &String| found.iter().find(|it| it.name == *name).cloned();
    names.iter().filter_map(of_name).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;
    use crate::checkpoint::{About, Keeper, Store, manifests};
    use crate::shard::{Calendar, Record, Rules, Shard};

    /// Where one object is that no manifest names, and which a collector watches.
    struct Watched {
        folder: Folder,
        collector: Collector,
    }

    impl Watched {
        async fn new() -> Watched {
            let objects = Arc::new(InMemory::new());
            let store = Store::of("mem://store", objects, Path::default(), "w");
            let folder = store.folder("t", 1, 0);
            folder.put("ids/x", "1".into()).await.unwrap();
            let collector = Collector::new(1);
            Watched { folder, collector }
        }

        /// A look at some time; whether the object is there after it.
        async fn is_there_at(&mut self, now: Millis) -> bool {
            let mut found = self.folder.list("").await.unwrap();
            found.iter_mut().for_each(|it| it.written_at = 0);
            let look = self.collector.collect(&self.folder, &found, None, now);
            look.await.unwrap();
            self.folder.look_at("ids/x").await.is_ok()
        }
    }

    #[tokio::test]
    async fn what_was_not_watched_for_the_hour_may_have_been_named_in_it() {
        let mut watched = Watched::new().await;
        assert!(watched.is_there_at(0).await);
        assert!(watched.is_there_at(LOOK_WITHIN_MS).await);
        assert!(watched.is_there_at(GRACE_MS - 1).await);
        assert!(!watched.is_there_at(GRACE_MS).await, "it was, for the hour");

        let mut watched = Watched::new().await;
        assert!(watched.is_there_at(0).await);
        let back = LOOK_WITHIN_MS + 1;
        for now in [back, GRACE_MS, back + GRACE_MS - 1] {
            assert!(watched.is_there_at(now).await, "at {now}");
        }
        assert!(!watched.is_there_at(back + GRACE_MS).await);
    }

    #[tokio::test]
    async fn what_a_manifest_may_have_named_that_nobody_could_read_is_kept_for_the_hour() {
        let mut watched = Watched::new().await;
        assert!(watched.is_there_at(0).await);
        let rotten = "manifests/00000000000000000009.x";
        let folder = watched.folder.clone();
        folder.put(rotten, "rot".into()).await.unwrap();
        assert!(watched.is_there_at(LOOK_WITHIN_MS).await);
        folder.delete(rotten).await.unwrap();
        for now in [GRACE_MS, GRACE_MS + LOOK_WITHIN_MS, 2 * GRACE_MS - 1] {
            assert!(watched.is_there_at(now).await, "at {now}");
        }
        assert!(!watched.is_there_at(2 * GRACE_MS).await);
    }

    fn names(found: &[Found]) -> Vec<&str> {
        found.iter().map(|it| &*it.name).collect()
    }

    #[tokio::test]
    async fn one_look_spares_what_is_young_and_what_was_named_until_now() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("file://{}", root.path().display()), "w").unwrap();
        let folder = store.folder("t", 1, 0);
        let rules = Rules {
            calendar: Calendar::of_zone("Asia/Shanghai").unwrap(),
            dedup_horizon_s: 1,
            max_ahead_ms: 1,
        };
        let about = About {
            topic: "t".into(),
            epoch: 1,
            rules: rules.to_string(),
        };
        let mut keeper = Keeper::new(folder.clone(), about, None, 100);
        let mut shard = Shard::new(0, rules);
        for offset in 0..3 {
            shard.apply(Record {
                offset,
                timestamp: None,
                payload: None,
            });
            keeper
                .save(shard.full_snapshot(), None, || 0)
                .await
                .unwrap();
        }
        folder.put("ids/nobody's", "1".into()).await.unwrap();
        let now = store.clock().await.unwrap();

        let oldest = manifests(&folder).await.unwrap().pop();
        let spared = unneeded(&folder, 2, oldest.as_deref(), now).await.unwrap();
        assert!(spared.manifests.is_empty());
        let young = unneeded(&folder, 2, None, now).await.unwrap();
        assert_eq!(names(&young.manifests).len(), 1);
        assert!(
            young.manifests[0]
                .name
                .starts_with("manifests/00000000000000000001.")
        );
        assert!(young.objects.is_empty() && young.spared == 1);
        // The counters of the oldest are named until its manifest is gone.
        let later = now + 2 * GRACE_MS;
        let old = unneeded(&folder, 2, None, later).await.unwrap();
        assert_eq!(names(&old.objects), ["ids/nobody's"]);
        folder.delete(&old.manifests[0].name).await.unwrap();
        let again = unneeded(&folder, 2, None, later).await.unwrap();
        assert_eq!(names(&again.manifests).len(), 0);
        assert_eq!(names(&again.objects).len(), 2);

        let manifest = "manifests/00000000000000000009.x";
        folder.put(manifest, "rot".into()).await.unwrap();
        let in_doubt = unneeded(&folder, 2, None, later).await.unwrap();
        assert!(in_doubt.is_in_doubt && in_doubt.objects.is_empty());
    }
}
