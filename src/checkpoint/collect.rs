//! Deletes what no restore needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::manifest::Manifest;
use super::offset_of;
use super::store::{Folder, Found, StoreError};
use super::{COUNTERS, IDS, MANIFESTS};
use crate::event::Millis;

/// How long an object that no manifest names is left alone: another owner of the
/// partition may be about to name it.
pub const GRACE_MS: Millis = 3_600_000;

/// How much of the time between two looks counts towards [`GRACE_MS`]. In a longer one the
/// whole machine may have slept, and another process may still be where it was at the
/// look before.
const COUNTED_MS: Millis = GRACE_MS / 4;

/// Collects what the checkpoints of one partition no longer need. It looks once after
/// each checkpoint that its owner wrote.
///
/// What it saw unnamed at two looks was not named in between either, unless it finds a
/// manifest that is neither known to it nor the one that its owner has just written. For
/// a manifest that came and went between the looks was deleted by another process, at the
/// second look that saw it (see [`collect`](Collector::collect)); between its two looks
/// that process wrote one itself; and if that was deleted as well, then by somebody who
/// had written one later. The last of these is still there. (Only
/// [`unneeded`] leaves no such trace, so it asks for a process that is healthy.)
#[derive(Debug)]
pub struct Collector {
    keep: usize,
    /// The manifests that were there at the last look. They never change, so each is
    /// read once. `None`: it cannot be read.
    manifests: BTreeMap<String, Option<Manifest>>,
    /// For how long an object has been named by no manifest.
    unnamed: BTreeMap<String, Millis>,
    /// When the last look was over.
    looked_until: Option<Millis>,
}

impl Collector {
    /// A collector that leaves the newest `keep` checkpoints.
    pub fn new(keep: usize) -> Collector {
        Collector {
            keep,
            manifests: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            looked_until: None,
        }
    }

    /// Deletes manifests beyond the newest ones that can be restored, once the look
    /// before has seen them, too, and objects that no manifest has named for
    /// [`GRACE_MS`]. `found`: what the folder holds, asked for and answered at these
    /// times; `own`: the manifest that the owner has just written, which stays even if
    /// it is behind: those before it may be rotten, and it is surely not.
    pub async fn collect(
        &mut self,
        folder: &Folder,
        found: &[Found],
        times: Range<Millis>,
        own: &str,
    ) -> Result<(), StoreError> {
        let new = self.new_of_others(found, own);
        if !new.is_empty() {
            self.unnamed.clear();
        }
        self.read_manifests(folder, found).await;
        // Before any is deleted: what it names was named until now.
        self.watch(found, times);
        // The oldest first, so that what a crash leaves behind is what is newer.
        for name in self.old(found) {
            if name != own && !new.contains(&name) {
                folder.delete(&name).await?;
                self.manifests.remove(&name);
            }
        }
        let is_due = |unnamed_ms: &Millis| *unnamed_ms >= GRACE_MS;
        for (name, _) in self.unnamed.iter().filter(|it| is_due(it.1)) {
            folder.delete(name).await?;
        }
        self.unnamed.retain(|_, unnamed_ms| !is_due(unnamed_ms));
        Ok(())
    }

    /// The manifests that are there since the last look and not the owner's.
    fn new_of_others(&self, found: &[Found], own: &str) -> BTreeSet<String> {
        let manifests = found.iter().filter(|it| is_manifest(it));
        let is_new = |name: &&String| *name != own && !self.manifests.contains_key(*name);
        let new = manifests.map(|it| &it.name).filter(is_new);
        new.cloned().collect()
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

    /// Reads those that are new. One that cannot be read is not tried again: it is in
    /// doubt until it is so old that it is deleted.
    async fn read_manifests(&mut self, folder: &Folder, found: &[Found]) {
        let names: BTreeSet<&str> = found
            .iter()
            .filter(|it| is_manifest(it))
            .map(|it| &*it.name)
            .collect();
        self.manifests.retain(|name, _| names.contains(&**name));
        for name in names {
            if self.manifests.contains_key(name) {
                continue;
            }
            let read = folder.get(name).await;
            if let Err(error) = &read
                && !error.is_not_found()
            {
                tracing::warn!("{}. No object is deleted before it is", error.in_full());
            }
            let manifest = read.ok().and_then(|it| Manifest::from_object(&it).ok());
            self.manifests.insert(name.to_owned(), manifest);
        }
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

    /// Notes what no manifest names. If one cannot be read, nobody knows.
    fn watch(&mut self, found: &[Found], times: Range<Millis>) {
        let before = std::mem::take(&mut self.unnamed);
        let looked_until = self.looked_until.replace(times.end);
        if self.is_in_doubt(found) {
            return;
        }
        let passed_ms = looked_until.map_or(0, |until| times.start - until);
        let passed_ms = passed_ms.clamp(0, COUNTED_MS);
        let named = self.named();
        let unnamed = found.iter().filter(|it| is_unnamed(it, &named));
        let unnamed_ms = |it: &Found| before.get(&it.name).map_or(0, |ms| ms + passed_ms);
        self.unnamed = unnamed
            .map(|it| (it.name.clone(), unnamed_ms(it)))
            .collect();
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
    collector.read_manifests(folder, &found).await;
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
    use super::*;
    use crate::checkpoint::example::{Example, folder};
    use crate::checkpoint::manifests;
    use crate::checkpoint::store::double::Double;

    /// What nobody names, and the manifest of whoever looks.
    const UNNAMED: &str = "ids/x";
    const OWN: &str = "manifests/00000000000000000100.own";

    /// A folder with an object that no manifest names, and who watches it.
    struct Watched {
        folder: Folder,
        collector: Collector,
    }

    impl Watched {
        async fn new() -> Watched {
            let folder = folder(&Double::default());
            folder.put(UNNAMED, "1".into()).await.unwrap();
            let collector = Collector::new(1);
            Watched { folder, collector }
        }

        /// A look at some time.
        async fn look_at(&mut self, minute: Millis) {
            self.look_during(minute..minute).await;
        }

        /// A look whose list was asked for and answered in these minutes.
        async fn look_during(&mut self, minutes: Range<Millis>) {
            let found = self.folder.list("").await.unwrap();
            let times = minutes.start * 60_000..minutes.end * 60_000;
            let look = self.collector.collect(&self.folder, &found, times, OWN);
            look.await.unwrap();
        }

        /// Looks every quarter of an hour; when the object is gone.
        async fn gone_at(&mut self, mut minute: Millis) -> Millis {
            while self.is_there(UNNAMED).await {
                minute += 15;
                self.look_at(minute).await;
            }
            minute
        }

        async fn is_there(&self, name: &str) -> bool {
            self.folder.look_at(name).await.is_ok()
        }

        /// Another process writes a checkpoint; its manifest.
        async fn saved_by_another(&self) -> String {
            let mut example = Example::new(&self.folder, 3);
            example.apply();
            example.save().await.unwrap();
            manifests(&self.folder).await.unwrap().remove(0)
        }
    }

    #[tokio::test]
    async fn what_no_manifest_names_is_deleted_after_the_hour() {
        let mut watched = Watched::new().await;
        watched.look_at(7).await;
        assert_eq!(watched.gone_at(7).await, 67);
    }

    #[tokio::test]
    async fn an_hour_in_which_nobody_looked_is_none() {
        let mut watched = Watched::new().await;
        watched.look_at(0).await;
        watched.look_at(1_000).await;
        assert_eq!(watched.gone_at(1_000).await, 1_045);
    }

    #[tokio::test]
    async fn what_a_look_takes_is_not_of_the_hour() {
        let mut watched = Watched::new().await;
        watched.look_during(0..10).await;
        watched.look_during(15..25).await; // 5 minutes.
        watched.look_at(30).await; // 5.
        assert_eq!(watched.gone_at(30).await, 90);
    }

    #[tokio::test]
    async fn the_hour_begins_anew_where_another_process_wrote() {
        let mut watched = Watched::new().await;
        watched.look_at(0).await;
        watched.look_at(15).await;
        let manifest = watched.saved_by_another().await;
        watched.look_at(30).await;
        watched.folder.delete(&manifest).await.unwrap();
        assert_eq!(watched.gone_at(30).await, 90);
    }

    #[tokio::test]
    async fn the_hour_begins_anew_where_a_manifest_cannot_be_read() {
        let mut watched = Watched::new().await;
        let rotten = "manifests/00000000000000000001.x";
        watched.look_at(0).await;
        watched.folder.put(rotten, "rot".into()).await.unwrap();
        for quarter in 1..10 {
            watched.look_at(15 * quarter).await;
        }
        watched.folder.delete(rotten).await.unwrap();
        watched.look_at(150).await;
        assert_eq!(watched.gone_at(150).await, 210);
    }

    #[tokio::test]
    async fn a_manifest_is_deleted_at_the_second_look_that_sees_it() {
        let mut watched = Watched::new().await;
        let old = watched.saved_by_another().await;
        watched.look_at(0).await;
        let same = watched.folder.get(&old).await.unwrap();
        let [late, new] = [0, 50].map(|offset| format!("manifests/{offset:020}.x"));
        for name in [&late, &new] {
            let put = watched.folder.put(name, same.clone().into());
            put.await.unwrap();
        }
        watched.look_at(1).await;
        assert!(!watched.is_there(&old).await && watched.is_there(&late).await);
        watched.look_at(2).await;
        assert!(!watched.is_there(&late).await && watched.is_there(&new).await);
    }

    fn names(found: &[Found]) -> Vec<&str> {
        found.iter().map(|it| &*it.name).collect()
    }

    #[tokio::test]
    async fn one_look_spares_what_is_young_and_what_was_named_until_now() {
        let folder = folder(&Double::default());
        let mut example = Example::new(&folder, 100);
        for _ in 0..3 {
            example.apply();
            example.save_whole().await.unwrap();
        }
        folder.put("ids/nobody's", "1".into()).await.unwrap();
        let now = folder.list("ids").await.unwrap()[0].written_at;

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
