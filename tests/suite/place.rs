//! A place for checkpoints, a folder or a bucket, and what may befall it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use crate::day::{DEADLINE, Day};
use crate::process::{self, Finished, Running};
use crate::s3::{S3, block_on};

/// Where the checkpoints of one test are.
pub struct Place {
    url: String,
    env: Vec<(&'static str, String)>,
    objects: Arc<dyn ObjectStore>,
    folder: Option<TempDir>,
}

impl Place {
    pub fn folder() -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = LocalFileSystem::new_with_prefix(folder.path()).expect("a folder");
        Place {
            url: format!("file://{}", folder.path().display()),
            env: Vec::new(),
            objects: Arc::new(files),
            folder: Some(folder),
        }
    }

    pub fn bucket(s3: &S3) -> Place {
        let url = s3.new_url("checkpoints");
        let prefix = url.rsplit('/').next().expect("a prefix").to_owned();
        let bucket = s3.client().build().expect("valid settings");
        let env = s3.env();
        Place {
            url,
            env: env.map(|(name, value)| (name, value.to_owned())).to_vec(),
            objects: Arc::new(PrefixStore::new(bucket, prefix)),
            folder: None,
        }
    }

    /// The folder on the disk.
    pub fn path(&self) -> PathBuf {
        let folder = self.folder.as_ref();
        folder.expect("not of a bucket").path().to_owned()
    }

    /// A command of the day with this place for checkpoints, which are taken often.
    pub fn command(&self, day: &Day, subcommand: &str) -> Command {
        let mut command = day.command(subcommand);
        command.args(["--checkpoints", &self.url]);
        command.env("TALLY99_CHECKPOINTS_INTERVAL_MS", "300");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, day: &Day) -> Running {
        Running::start(&mut self.command(day, "run"))
    }

    /// `tally99 checkpoints SUBCOMMAND`
    pub fn checkpoints(&self, day: &Day, subcommand: &str, more: &[&str]) -> Finished {
        let subcommand = format!("checkpoints {subcommand}");
        process::run(self.command(day, &subcommand).args(more), DEADLINE)
    }

    pub fn until_end(&self, day: &Day) -> Finished {
        process::run(self.command(day, "run").arg("--until-end"), DEADLINE)
    }

    /// Counts all that is there; the totals are exact.
    #[track_caller]
    pub fn counts_all(&self, day: &Day) -> Finished {
        let finished = self.until_end(day).succeeded();
        day.compare().succeeded();
        finished
    }

    /// All objects whose name has this in it, in order.
    pub fn names(&self, part: &str) -> Vec<Path> {
        let found: Vec<_> = block_on(self.objects.list(None).try_collect()).expect("listed");
        let names = found.into_iter().map(|object| object.location);
        let mut names: Vec<_> = names.filter(|name| name.as_ref().contains(part)).collect();
        names.sort();
        names
    }

    /// The manifests of a partition, in order.
    pub fn manifests(&self, partition: i32) -> Vec<Path> {
        self.names(&format!("/{partition:05}/manifests/"))
    }

    /// The partitions with at least so many checkpoints.
    pub fn partitions_with(&self, checkpoints: usize) -> usize {
        let names = self.names("/manifests/");
        let partition = |name: &Path| name.as_ref().rsplit('/').nth(2).map(str::to_owned);
        let partitions: Vec<_> = names.iter().filter_map(partition).collect();
        let distinct: BTreeSet<_> = partitions.iter().collect();
        let count = |it: &&&String| partitions.iter().filter(|other| other == *it).count();
        distinct
            .iter()
            .filter(|it| count(it) >= checkpoints)
            .count()
    }

    pub fn delete(&self, name: &Path) {
        block_on(self.objects.delete(name)).expect("deleted");
    }

    pub fn read(&self, name: &Path) -> Vec<u8> {
        let read = block_on(async { self.objects.get(name).await?.bytes().await });
        read.expect("it is there").to_vec()
    }

    pub fn change(&self, name: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        block_on(async {
            let object = self.objects.get(name).await.expect("it is there");
            let mut bytes = object.bytes().await.expect("read").to_vec();
            change(&mut bytes);
            let put = self.objects.put(name, bytes.into()).await;
            put.expect("overwritten");
        });
    }

    pub fn flip(&self, name: &Path) {
        self.change(name, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }

    pub fn truncate(&self, name: &Path) {
        self.change(name, |bytes| bytes.truncate(bytes.len() / 2));
    }
}

/// The offset in the name of a manifest.
pub fn offset(manifest: &Path) -> i64 {
    let name = manifest.filename().expect("a name");
    let offset = name.split('.').next().expect("an offset");
    offset.parse().expect("a number")
}
