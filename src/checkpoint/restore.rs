//! From the newest checkpoint that is whole to a shard.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::manifest::{Manifest, Named};
use super::object::{self, Kind};
use super::store::{Folder, StoreError};
use super::{About, MANIFESTS, offset_of};
use crate::offset::Partition;
use crate::shard::{Ids, Rules, Shard};

/// A shard as it was kept, and the checkpoint that it comes from.
#[derive(Debug)]
pub struct Restored {
    /// The shard.
    pub shard: Shard,
    /// The name of its checkpoint's manifest.
    pub name: String,
    /// Its checkpoint.
    pub manifest: Manifest,
}

/// Why a partition cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store does not answer; another try may do.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It says what there is, but does not hand out some of it; another try may do.
    #[error(transparent)]
    Unreadable(StoreError),
    /// What shapes the fold has changed.
    #[error(
        "{topic}/{partition}: the checkpoint at offset {offset} ({name}) was folded by other rules \
         ({kept}) than those now ({now}), so it is another fold. Nothing was counted. Set the \
         settings under [counting] back; or, to count the whole log anew, raise run.epoch; after \
         an upgrade that counts in another way, finish the event with the version before"
    )]
    OtherRules {
        /// The donations topic.
        topic: String,
        /// Its partition.
        partition: Partition,
        /// What the checkpoint is exact at.
        offset: crate::offset::Offset,
        /// Where it is.
        name: String,
        /// The rules that it was folded by.
        kept: String,
        /// The rules now.
        now: String,
    },
}

/// What is wrong with a checkpoint.
pub(super) enum Unusable {
    /// This one cannot be used; why.
    Skip(String),
    /// Some of it is not there; what.
    Gone(String),
    /// Some of it is not handed out.
    Unreadable(StoreError),
    /// None can.
    Stop(RestoreError),
}

impl Unusable {
    /// The reason, in words.
    pub fn why(self) -> String {
        match self {
            Unusable::Skip(why) | Unusable::Gone(why) => why,
            Unusable::Unreadable(error) => error.in_full(),
            Unusable::Stop(RestoreError::OtherRules { kept, .. }) => {
                format!("it was folded by other rules: {kept}")
            }
            Unusable::Stop(error) => error.to_string(),
        }
    }
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Unusable {
        match error.is_not_found() {
            true => Unusable::Gone(error.not_there()),
            false => Unusable::Unreadable(error),
        }
    }
}

impl From<String> for Unusable {
    fn from(why: String) -> Unusable {
        Unusable::Skip(why)
    }
}

/// How often manifests are listed at most, while those that are found go away.
const LISTS_MAX: u32 = 5;

/// How many objects are read at a time.
pub(super) const AT_A_TIME: usize = 8;

/// The manifests of a partition by name, the newest first.
pub async fn manifests(folder: &Folder) -> Result<Vec<String>, StoreError> {
    let found = folder.list(MANIFESTS).await?;
    let names = found.into_iter().map(|object| object.name);
    let mut names: Vec<_> = names.filter(|name| offset_of(name).is_some()).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// The newest checkpoint of a partition that is whole, whoever wrote it; `None` if
/// there is none. One that is damaged is skipped with a warning; one that the store
/// does not hand out (a sector that cannot be read, a right that is missing) is too,
/// if `skip_unreadable`.
pub async fn restore(
    folder: &Folder,
    about: &About,
    partition: Partition,
    rules: &Rules,
    skip_unreadable: bool,
) -> Result<Option<Restored>, RestoreError> {
    let mut seen = Vec::new();
    for lists in 1.. {
        let names = manifests(folder).await?;
        // Whatever goes away makes place for what is newer; or it is just not there.
        let may_be_late = lists < LISTS_MAX && names != seen;
        seen.clone_from(&names);
        let mut is_late = false;
        for name in names {
            match load(folder, about, partition, rules, &name).await {
                Ok(restored) => return Ok(Some(restored)),
                Err(Unusable::Stop(error)) => return Err(error),
                // Most likely another process has written newer ones meanwhile.
                Err(Unusable::Gone(_)) if may_be_late => {
                    is_late = true;
                    break;
                }
                Err(Unusable::Unreadable(error)) if !skip_unreadable => {
                    return Err(RestoreError::Unreadable(error));
                }
                Err(unusable) => {
                    let (name, why) = (folder.url_of(&name), unusable.why());
                    tracing::warn!("checkpoint {name} is skipped: {why}");
                }
            }
        }
        if !is_late {
            break;
        }
    }
    Ok(None)
}

/// The checkpoint with this manifest.
async fn load(
    folder: &Folder,
    about: &About,
    partition: Partition,
    rules: &Rules,
    name: &str,
) -> Result<Restored, Unusable> {
    let manifest = Manifest::from_object(&folder.get(name).await?)?;
    check_place(&manifest, folder, about, partition, name)?;
    let bodies = stream::iter(manifest.objects());
    let bodies = bodies.map(|(kind, object)| read_body(folder, kind, object));
    let bodies: Vec<_> = bodies.buffered(AT_A_TIME).try_collect().await?;
    Ok(Restored {
        shard: rebuild(&manifest, rules, &bodies)?,
        name: name.to_owned(),
        manifest,
    })
}

/// That a manifest is what its place says, and was folded by the rules of now.
pub(super) fn check_place(
    manifest: &Manifest,
    folder: &Folder,
    about: &About,
    partition: Partition,
    name: &str,
) -> Result<(), Unusable> {
    let found = (&manifest.topic, manifest.partition, manifest.epoch);
    if found != (&about.topic, partition, about.epoch) || offset_of(name) != Some(manifest.offset) {
        return Err(format!(
            "it is one of {}/{} in epoch {} at {}",
            manifest.topic, manifest.partition, manifest.epoch, manifest.offset
        )
        .into());
    }
    if manifest.rules != about.rules {
        return Err(Unusable::Stop(RestoreError::OtherRules {
            topic: about.topic.clone(),
            partition,
            offset: manifest.offset,
            name: folder.url_of(name),
            kept: manifest.rules.clone(),
            now: about.rules.clone(),
        }));
    }
    Ok(())
}

/// What an object holds that a manifest names.
pub(super) async fn read_body(
    folder: &Folder,
    kind: Kind,
    object: &Named,
) -> Result<Bytes, Unusable> {
    let bytes = folder.get(&object.name).await?;
    let of_object = |why| format!("{}: {why}", object.name);
    let (body, checksum) = object::unpack(kind, &bytes).map_err(of_object)?;
    if checksum != object.checksum {
        let why = "it is not the object that the manifest names".into();
        return Err(Unusable::Skip(of_object(why)));
    }
    Ok(bytes.slice_ref(body))
}

/// The shard that these bodies of a manifest's objects, in its order, hold.
pub(super) fn rebuild(
    manifest: &Manifest,
    rules: &Rules,
    bodies: &[Bytes],
) -> Result<Shard, String> {
    let (counters, ids) = bodies.split_at(manifest.counters.len());
    let ids = Ids::from_segments(ids.iter().map(|body| &**body)).map_err(|why| why.to_string())?;
    let counters = counters.iter().map(|body| &**body);
    let shard = Shard::restore(manifest.partition, rules.clone(), counters, ids);
    let shard = shard.map_err(|why| why.to_string())?;
    if shard.offset() != manifest.offset {
        return Err(format!("its counters are those at {}", shard.offset()));
    }
    if manifest.last_record.is_none() && shard.tally().seen > 0 {
        return Err("it does not say what log it is of".to_owned());
    }
    Ok(shard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::example::{self, Example};
    use crate::checkpoint::store::double::Double;
    use crate::offset::Offset;

    #[tokio::test]
    async fn what_the_store_does_not_hand_out_is_waited_for_or_skipped() {
        let objects = Double::default();
        let folder = example::folder(&objects);
        let mut example = Example::new(&folder, 3);
        for _ in 0..2 {
            example.apply();
            example.save().await.unwrap();
        }
        let (about, rules) = (example::about(), example::rules());
        let newest = manifests(&folder).await.unwrap().swap_remove(0);
        objects.refuses_to_read(&newest);
        let error = restore(&folder, &about, 0, &rules, false).await;
        let error = error.unwrap_err();
        assert!(matches!(error, RestoreError::Unreadable(_)), "{error}");
        let older = restore(&folder, &about, 0, &rules, true).await.unwrap();
        assert_eq!(older.unwrap().manifest.offset, Offset(1));
    }
}
