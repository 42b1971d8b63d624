//! What a store holds beyond the objects of one partition: which epochs and
//! partitions there are, and what writes that were cut short have left behind.

use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use object_store::ObjectStoreExt;

use super::{Folder, Store, StoreError};
use crate::checkpoint::MANIFESTS;
use crate::event::Millis;
use crate::offset::Partition;

/// Where [`Store::clock`] writes.
const CLOCK: &str = "clock";

/// A file of a write whose process was ended in the middle. `object_store` writes to
/// `name#1`, links that to its name and removes it, and hides such files when it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOver {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written to last, in milliseconds since the epoch.
    pub written_at: Millis,
}

impl Store {
    /// The epochs of a topic that have checkpoints, or had some, in order.
    pub async fn epochs(&self, topic: &str) -> Result<Vec<u32>, StoreError> {
        let names = self.at(topic.to_owned()).folders().await?;
        let epochs = names
            .iter()
            .filter_map(|name| name.strip_prefix("epoch-")?.parse().ok());
        let mut epochs: Vec<_> = epochs.collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// The partitions of an epoch that have checkpoints, or had some, in order.
    pub async fn partitions(&self, topic: &str, epoch: u32) -> Result<Vec<Partition>, StoreError> {
        let names = self.epoch(topic, epoch).folders().await?;
        let mut partitions: Vec<_> = names.iter().filter_map(|it| it.parse().ok()).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// All that belongs to an epoch; the names in it begin with the partition.
    pub fn epoch(&self, topic: &str, epoch: u32) -> Folder {
        self.at(format!("{topic}/epoch-{epoch}"))
    }

    /// What time it is by the clock that stamps the objects, in milliseconds since the
    /// epoch. It writes a small object to learn it, and deletes it again.
    pub async fn clock(&self) -> Result<Millis, StoreError> {
        let folder = self.at(CLOCK.to_owned());
        let name = folder.new_name("now");
        folder.put(&name, "what time is it?".into()).await?;
        let found = self.objects.head(&folder.path_of(&name)).await;
        folder.delete(&name).await?;
        let found = found.map_err(|cause| folder.error("looking for", &name, cause))?;
        Ok(found.last_modified.timestamp_millis())
    }
}

impl Folder {
    /// The names of the folders in this one.
    async fn folders(&self) -> Result<Vec<String>, StoreError> {
        let path = self.path_of("");
        let found = self.store.objects.list_with_delimiter(Some(&path)).await;
        let found = found.map_err(|cause| self.error("listing", "", cause))?;
        let names = found.common_prefixes.iter();
        let names = names.filter_map(|it| it.filename().map(str::to_owned));
        Ok(names.collect())
    }

    /// Deletes all of this folder; how many objects and bytes that were.
    pub async fn remove(&self) -> Result<(usize, u64), StoreError> {
        let mut found = self.list("").await?;
        // Manifests first: what they name must be there for as long as they are.
        let is_manifest = |name: &str| name.split('/').any(|part| part == MANIFESTS);
        found.sort_by_key(|it| !is_manifest(&it.name));
        for object in &found {
            self.delete(&object.name).await?;
        }
        if let Some(folder) = self.on_disk() {
            // Only what the store does not list is left of it.
            let _ = std::fs::remove_dir_all(folder);
        }
        Ok((found.len(), found.iter().map(|it| it.bytes).sum()))
    }

    /// What writes that were cut short have left behind in this partition's folder,
    /// and those that go on now. A bucket has none.
    pub fn left_over(&self) -> io::Result<Vec<LeftOver>> {
        let mut left_over = Vec::new();
        let mut folders: Vec<PathBuf> = self.on_disk().into_iter().collect();
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if is_staged(&entry.file_name().to_string_lossy()) {
                    let Ok(metadata) = entry.metadata() else {
                        continue; // It has just got its name.
                    };
                    let since_epoch = metadata.modified()?.duration_since(UNIX_EPOCH);
                    left_over.push(LeftOver {
                        path: entry.path(),
                        bytes: metadata.len(),
                        written_at: since_epoch.map_or(0, |it| it.as_millis() as Millis),
                    });
                }
            }
        }
        Ok(left_over)
    }

    fn on_disk(&self) -> Option<PathBuf> {
        let files = self.store.files.as_ref()?;
        files.path_to_filesystem(&self.path_of("")).ok()
    }
}

fn is_staged(name: &str) -> bool {
    let suffix = name.split_once('#').map_or("", |(_, suffix)| suffix);
    !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store(folder: &tempfile::TempDir) -> Store {
        let url = format!("file://{}", folder.path().display());
        Store::open(&url, "test").unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn epochs_and_partitions_are_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        block_on(async {
            assert!(store.epochs("t").await.unwrap().is_empty());
            assert!(store.partitions("t", 2).await.unwrap().is_empty());
            for (topic, epoch, partition) in [("t", 2, 10), ("t", 2, 9), ("t", 10, 0), ("u", 1, 0)]
            {
                let folder = store.folder(topic, epoch, partition);
                folder.put("ids/x", "123".into()).await.unwrap();
                folder.put("manifests/x", "1".into()).await.unwrap();
            }
            assert_eq!(store.epochs("t").await.unwrap(), [2, 10]);
            assert_eq!(store.partitions("t", 2).await.unwrap(), [9, 10]);
            assert_eq!(store.epoch("t", 2).remove().await.unwrap(), (4, 8));
            assert_eq!(store.epochs("t").await.unwrap(), [10]);
            assert_eq!(store.epochs("u").await.unwrap(), [1]);
        });
    }

    #[test]
    fn what_a_write_left_behind_is_found_though_the_store_hides_it() {
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let folder = store.folder("t", 1, 3);
        assert!(folder.left_over().unwrap().is_empty());
        block_on(folder.put("ids/0-5.w-1", "whole".into())).unwrap();
        let staged = root.path().join("t/epoch-1/00003/ids/0-9.w-2#1");
        fs::write(&staged, b"ha").unwrap();
        fs::write(staged.with_file_name("0-9.w-2#x"), b"no").unwrap();
        assert_eq!(block_on(folder.list("")).unwrap().len(), 2);
        let left_over = folder.left_over().unwrap();
        assert_eq!(left_over.len(), 1);
        assert_eq!((&left_over[0].path, left_over[0].bytes), (&staged, 2));
        let age = block_on(store.clock()).unwrap() - left_over[0].written_at;
        assert!((0..60_000).contains(&age), "{age}");
        assert!(store.folder("t", 1, 4).left_over().unwrap().is_empty());
    }
}
