//! Tells of all checkpoints of a partition whether they can be restored.
//!
//! They share most of their objects, and those may be gigabytes. So each object is
//! read once, and not kept: what is remembered of it is its checksum. The newest
//! checkpoint that is sound is restored, as a process would do that starts now. Of
//! those behind it all objects must be there, and be the bytes that were written.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::About;
use super::manifest::{Manifest, Named};
use super::object::Checksum;
use super::restore::{AT_A_TIME, Unusable, check_place, read_body, rebuild};
use super::store::Folder;
use crate::offset::Partition;
use crate::shard::Rules;

/// Inspects the checkpoints of one partition, the newest first.
#[derive(Debug)]
pub struct Inspector<'a> {
    folder: &'a Folder,
    about: &'a About,
    partition: Partition,
    rules: &'a Rules,
    /// The checksums of the objects that were read, or why they cannot be used.
    read: BTreeMap<String, Result<Checksum, String>>,
    has_restored: bool,
}

/// What has come out of it.
#[derive(Debug)]
pub struct Inspected {
    /// `None`: it cannot be read.
    pub manifest: Option<Manifest>,
    /// Why the checkpoint cannot be restored, if it cannot.
    pub why: Option<String>,
}

impl<'a> Inspector<'a> {
    /// One that has seen nothing yet.
    pub fn new(
        folder: &'a Folder,
        about: &'a About,
        partition: Partition,
        rules: &'a Rules,
    ) -> Inspector<'a> {
        Inspector {
            folder,
            about,
            partition,
            rules,
            read: BTreeMap::new(),
            has_restored: false,
        }
    }

    /// Inspects the checkpoint with this manifest, which is older than those before.
    pub async fn inspect(&mut self, name: &str) -> Inspected {
        let manifest = match self.folder.get(name).await {
            Ok(bytes) => Manifest::from_object(&bytes),
            Err(error) => Err(Unusable::from(error).why()),
        };
        match manifest {
            Err(why) => Inspected {
                manifest: None,
                why: Some(why),
            },
            Ok(manifest) => Inspected {
                why: self.check(name, &manifest).await.err().map(Unusable::why),
                manifest: Some(manifest),
            },
        }
    }

    async fn check(&mut self, name: &str, manifest: &Manifest) -> Result<(), Unusable> {
        let folder = self.folder;
        check_place(manifest, folder, self.about, self.partition, name)?;
        let known = |object: &Named| self.read.get(&object.name);
        let bad = manifest
            .objects()
            .find_map(|(_, object)| known(object)?.as_ref().err());
        if let Some(why) = bad {
            return Err(Unusable::Skip(why.clone()));
        }
        // Until one is restored, even those that are known are needed.
        let is_needed = |object| !self.has_restored || known(object) != Some(&Ok(object.checksum));
        let needed: Vec<_> = manifest.objects().filter(|(_, it)| is_needed(it)).collect();
        let found = stream::iter(needed);
        let found = found.map(|(kind, it)| async move { (it, read_body(folder, kind, it).await) });
        let mut found = found.buffered(AT_A_TIME);
        let mut bodies = Vec::new();
        while let Some((object, body)) = found.next().await {
            let body = body.map_err(Unusable::why);
            let checksum = body.as_ref().map(|_| object.checksum);
            let checksum = checksum.map_err(String::clone);
            self.read.insert(object.name.clone(), checksum);
            let body = body?;
            if !self.has_restored {
                bodies.push(body);
            }
        }
        if !self.has_restored {
            rebuild(manifest, self.rules, &bodies)?;
            self.has_restored = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::path::Path;

    use super::*;
    use crate::checkpoint::example::{self, Example, about, rules};
    use crate::checkpoint::manifests;
    use crate::checkpoint::store::double::Double;

    /// Three checkpoints, of one, two and three events, each of them whole.
    async fn kept(folder: &Folder) {
        let mut example = Example::new(folder, 3);
        for _ in 0..3 {
            example.apply();
            example.save_whole().await.unwrap();
        }
    }

    /// Why the checkpoints cannot be restored, the newest first, and what was read.
    async fn inspected(objects: &Double, folder: &Folder) -> (Vec<Option<String>>, Vec<String>) {
        let (about, rules) = (about(), rules());
        let mut inspector = Inspector::new(folder, &about, 0, &rules);
        let mut whys = Vec::new();
        objects.take_read();
        for name in manifests(folder).await.unwrap() {
            whys.push(inspector.inspect(&name).await.why);
        }
        (whys, objects.take_read())
    }

    #[tokio::test]
    async fn what_checkpoints_share_is_read_once() {
        let objects = Double::default();
        let folder = example::folder(&objects);
        kept(&folder).await;
        let all = folder.list("").await.unwrap();
        let mut all: Vec<_> = all
            .iter()
            .map(|it| format!("t/epoch-1/00000/{}", it.name))
            .collect();
        all.sort_unstable();
        assert_eq!(all.len(), 3 + 3 + 3, "the ids of all are in three objects");
        let (whys, read) = inspected(&objects, &folder).await;
        assert_eq!(whys, [None, None, None]);
        assert_eq!(read, all);

        // The oldest ids rot, and all checkpoints with them.
        let oldest = Path::from(&*all.iter().find(|it| it.contains("/ids/")).unwrap().clone());
        let whole = objects.get(&oldest).await.unwrap().bytes().await.unwrap();
        let mut rotten = whole.to_vec();
        rotten[20] ^= 1;
        objects.put(&oldest, rotten.into()).await.unwrap();
        let (whys, read) = inspected(&objects, &folder).await;
        let is_named =
            |why: &Option<String>| why.as_ref().is_some_and(|it| it.contains("checksum"));
        assert!(whys.iter().all(is_named), "{whys:?}");
        let reads = read.iter().filter(|it| **it == *oldest.as_ref());
        assert_eq!(reads.count(), 1);

        // Those before what is gone can still be restored.
        objects.put(&oldest, whole.into()).await.unwrap();
        let newest = all.iter().rfind(|it| it.contains("/ids/")).unwrap();
        objects.delete(&Path::from(&**newest)).await.unwrap();
        let (whys, _) = inspected(&objects, &folder).await;
        assert!(whys[0].is_some() && whys[1..] == [None, None], "{whys:?}");
    }
}
