//! Where checkpoints are kept: a folder of this machine, or a bucket.

mod contents;
#[cfg(test)]
pub(super) mod double;

use std::fmt;
use std::fs;
use std::io;
use std::path::{self, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};
use thiserror::Error;

pub use contents::LeftOver;

use crate::event::Millis;
use crate::offset::Partition;

/// A store of checkpoints, by its URL.
#[derive(Clone)]
pub struct Store {
    url: String,
    objects: Arc<dyn ObjectStore>,
    /// The same, if it is a folder of this machine.
    files: Option<Arc<LocalFileSystem>>,
    /// Where checkpoints begin within the store.
    prefix: Path,
    writer: Arc<str>,
    /// How many names were given to objects. No name is ever given twice.
    named: Arc<AtomicU64>,
}

/// How many names this process gave. A standby opens its store anew each time that it
/// takes over, and what it wrote before may still be on its way.
static OPENED: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

/// A URL that names no store.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Not a URL of ours.
    #[error(
        "checkpoints.url {0:?} is none that checkpoints can be kept at: file:///folder or \
         s3://bucket/prefix"
    )]
    Url(String),
    /// The folder cannot be made.
    #[error(
        "the folder for checkpoints, {0}, cannot be made; make it, or give this user the right to"
    )]
    Folder(PathBuf, #[source] std::io::Error),
    /// The library refuses it.
    #[error("checkpoints.url {0} cannot be opened")]
    Refused(String, #[source] object_store::Error),
}

/// The store did not do what it was asked for.
#[derive(Debug, Error)]
#[error("checkpoint store: {what} {url}/{name} failed")]
pub struct StoreError {
    what: &'static str,
    url: String,
    name: String,
    #[source]
    cause: Box<object_store::Error>,
}

impl StoreError {
    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(*self.cause, object_store::Error::NotFound { .. })
    }

    /// That there is no such object, in words.
    pub fn not_there(&self) -> String {
        format!("{} is not there", self.name)
    }

    /// The error with what caused it, in one line. Most say in their own text what
    /// caused them.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let why = error.to_string();
            if !text.contains(&why) {
                text.push_str(&format!(": {why}"));
            }
            cause = error.source();
        }
        text
    }
}

/// How long a request may take. The largest object is a shard's whole counters: 14 MB
/// with 20,000 campaigns, 70 MB with 100,000, and four are written at a time.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const TIMEOUT: AmazonS3ConfigKey = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);

/// A request that fails is tried again for a while; after that, so is the whole
/// checkpoint.
fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 3,
        retry_timeout: Duration::from_secs(10),
        ..RetryConfig::default()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Store {
    /// Opens the store at a URL, for a process of this name.
    ///
    /// `file:///folder` is made if it is missing, and is on the disk when this returns;
    /// what is written there is on the disk, and its name in the folder, before a write
    /// counts as done. Of `s3://bucket/prefix` all else comes from the environment:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and so on;
    /// `AWS_ENDPOINT` and, for plain HTTP, `AWS_ALLOW_HTTP` where it is not Amazon's own.
    pub fn open(url: &str, writer: &str) -> Result<Store, OpenError> {
        if let Some(path) = url.strip_prefix("file://") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(OpenError::Url(url.to_owned()));
            }
            make_folder(&path, &mut |folder| fs::File::open(folder)?.sync_all())
                .map_err(|error| OpenError::Folder(path.clone(), error))?;
            let files = LocalFileSystem::new_with_prefix(&path)
                .map_err(|error| OpenError::Refused(url.to_owned(), error))?;
            let files = Arc::new(files.with_fsync(true));
            return Ok(Store {
                files: Some(files.clone()),
                named: OPENED.clone(),
                ..Store::of(url, files, Path::default(), writer)
            });
        }
        let bucket = url.strip_prefix("s3://").filter(|it| !it.is_empty());
        let Some(bucket) = bucket else {
            return Err(OpenError::Url(url.to_owned()));
        };
        // TLS takes whoever was there first, and there is only one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (_, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let objects = AmazonS3Builder::from_env()
            .with_url(url)
            .with_retry(retries())
            // Not all options of the client at once: the environment has set some.
            .with_config(TIMEOUT, format!("{} s", ANSWER_WITHIN.as_secs()))
            .build()
            .map_err(|error| OpenError::Refused(url.to_owned(), error))?;
        Ok(Store {
            named: OPENED.clone(),
            ..Store::of(url, Arc::new(objects), Path::from(prefix), writer)
        })
    }

    /// A store of objects under a prefix.
    pub fn of(url: &str, objects: Arc<dyn ObjectStore>, prefix: Path, writer: &str) -> Store {
        Store {
            url: url.trim_end_matches('/').to_owned(),
            objects,
            files: None,
            prefix,
            writer: writer.into(),
            named: Arc::default(),
        }
    }

    /// The URL that it was opened by.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of one partition.
    pub fn folder(&self, topic: &str, epoch: u32, partition: Partition) -> Folder {
        self.at(format!("{topic}/epoch-{epoch}/{partition:05}"))
    }

    fn at(&self, path: String) -> Folder {
        Folder {
            store: self.clone(),
            path,
        }
    }
}

/// Makes a folder, and those above it that are missing. `sync` gets the one above each
/// that was made, before anything is made in it: without that, a power cut takes the
/// new folder's name away, and with it all that was synced within. One that cannot be
/// synced is taken away again, so that the next try does not take it for one that is.
fn make_folder(
    folder: &path::Path,
    sync: &mut dyn FnMut(&path::Path) -> io::Result<()>,
) -> io::Result<()> {
    match (fs::create_dir(folder), folder.parent()) {
        (Ok(()), above) => sync(above.unwrap_or(folder)).inspect_err(|_| {
            let _ = fs::remove_dir(folder);
        }),
        // Whoever made it may have been ended before it was synced. Where that is not
        // for us to do, it was not for us to make.
        (Err(_), above) if folder.is_dir() => match above.map_or(Ok(()), sync) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
            _ => Ok(()),
        },
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(above, sync)?;
            make_folder(folder, sync)
        }
        (Err(error), _) => Err(error),
    }
}

/// What belongs to one partition of a store.
#[derive(Clone, Debug)]
pub struct Folder {
    store: Store,
    path: String,
}

/// An object that was found in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name within the folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock, in milliseconds since the epoch.
    pub written_at: Millis,
}

impl Folder {
    /// A name that no object has or had: `beginning` and who gave the name.
    pub(super) fn new_name(&self, beginning: &str) -> String {
        let number = self.store.named.fetch_add(1, Ordering::Relaxed);
        format!("{beginning}.{}-{number}", self.store.writer)
    }

    /// The process that writes here.
    pub fn writer(&self) -> &str {
        &self.store.writer
    }

    /// Where an object of this name is, for people.
    pub fn url_of(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.store.url, self.path)
    }

    /// Writes an object that must not be there yet. When this returns, it will
    /// survive whatever happens to this machine.
    ///
    /// If the answer to a request is lost, the client sends it again, and hears that
    /// the object is there. No name is given twice, so if it holds these bytes, it is
    /// the one that was written just now.
    pub async fn put(&self, name: &str, object: PutPayload) -> Result<(), StoreError> {
        let (path, mode) = (self.path_of(name), PutMode::Create.into());
        let put = self.store.objects.put_opts(&path, object.clone(), mode);
        let Err(cause) = put.await else {
            return Ok(());
        };
        if let object_store::Error::AlreadyExists { .. } = cause {
            match self.get(name).await {
                Ok(found) if found == Bytes::from(object) => return Ok(()),
                // It was there, and others have deleted it since, as one that is old.
                Err(gone) if gone.is_not_found() => return Err(gone),
                _ => {}
            }
        }
        Err(self.error("writing", name, cause))
    }

    /// The bytes of an object.
    pub async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let path = self.path_of(name);
        let read = async { self.store.objects.get(&path).await?.bytes().await };
        read.await
            .map_err(|cause| self.error("reading", name, cause))
    }

    /// Whether an object is there; an error if it is not.
    pub(super) async fn look_at(&self, name: &str) -> Result<(), StoreError> {
        let found = self.store.objects.head(&self.path_of(name)).await;
        found.map_err(|cause| self.error("looking for", name, cause))?;
        Ok(())
    }

    /// The objects whose name begins with this folder's `subfolder`.
    pub async fn list(&self, subfolder: &str) -> Result<Vec<Found>, StoreError> {
        let path = self.path_of(subfolder);
        let whole = self.path_of("");
        let found = self.store.objects.list(Some(&path));
        let found: Vec<_> = found
            .try_collect()
            .await
            .map_err(|cause| self.error("listing", subfolder, cause))?;
        let in_folder = found.into_iter().filter_map(|object| {
            let parts = object.location.prefix_match(&whole)?;
            let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            Some(Found {
                name: parts.join("/"),
                bytes: object.size,
                written_at: object.last_modified.timestamp_millis(),
            })
        });
        Ok(in_folder.collect())
    }

    /// Deletes an object; that it is not there is fine.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.store.objects.delete(&self.path_of(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(cause) => Err(self.error("deleting", name, cause)),
        }
    }

    fn path_of(&self, name: &str) -> Path {
        let all = self
            .store
            .prefix
            .parts()
            .map(|part| part.as_ref().to_owned());
        let path = self.path.split('/').chain(name.split('/'));
        Path::from_iter(all.chain(path.filter(|part| !part.is_empty()).map(str::to_owned)))
    }

    fn error(&self, what: &'static str, name: &str, cause: object_store::Error) -> StoreError {
        StoreError {
            what,
            url: format!("{}/{}", self.store.url, self.path),
            name: name.to_owned(),
            cause: Box::new(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::example;

    #[test]
    fn each_folder_that_is_made_is_synced_into_the_one_above() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let made = |folder: &path::Path| {
            let mut synced = Vec::new();
            let done = make_folder(folder, &mut |above| {
                let entries = fs::read_dir(above)?.collect::<Result<Vec<_>, _>>()?;
                let names = entries.iter().map(|entry| entry.file_name());
                synced.push((above.to_owned(), names.collect::<Vec<_>>()));
                Ok(())
            });
            done.map(|()| synced)
        };
        let (above, folder) = (root.join("a"), root.join("a/b"));
        let names = |name: &str| vec![name.into()];
        let expected = [(root.clone(), names("a")), (above, names("b"))];
        assert_eq!(made(&folder).unwrap(), expected);
        // Once more: perhaps the first time was cut short.
        assert_eq!(made(&folder).unwrap(), expected[1..]);
        let not_ours = make_folder(
            &folder,
            &mut |_| Err(io::ErrorKind::PermissionDenied.into()),
        );
        assert!(not_ours.is_ok());
        fs::write(root.join("file"), "").unwrap();
        assert!(made(&root.join("file")).is_err());
        assert!(made(&root.join("file/c")).is_err());
        let around = folder.join("d/../e/");
        assert_eq!(made(&around).unwrap().len(), 3);
        assert!(folder.join("e").is_dir());
        let refused = make_folder(&folder.join("f"), &mut |_| Err(io::Error::other("full")));
        assert!(refused.is_err() && !folder.join("f").exists());
    }

    #[tokio::test]
    async fn a_write_whose_answer_is_lost_has_been_done() {
        let objects = double::Double::default();
        let folder = example::folder(&objects);
        objects.loses_answers(true);
        folder.put("ids/own", "own".into()).await.unwrap();
        assert_eq!(folder.get("ids/own").await.unwrap(), "own");
        objects.loses_answers(false);
        // What others have written stays an error, and stays as it is.
        let other = folder.put("ids/own", "other".into()).await;
        let error = other.unwrap_err().in_full();
        assert!(
            error.contains("writing mem://store/t/epoch-1/00000/ids/own failed"),
            "{error}"
        );
        assert_eq!(folder.get("ids/own").await.unwrap(), "own");
        // Nobody knows what is there.
        objects.loses_answers(true);
        objects.refuses_to_read("");
        let unread = folder.put("ids/unread", "unread".into()).await;
        let error = unread.unwrap_err().in_full();
        assert!(
            error.contains("writing mem://store/t/epoch-1/00000/ids/unread failed"),
            "{error}"
        );
    }

    /// A kill of the machine is not to be had in a test.
    #[test]
    fn files_are_on_the_disk_before_they_count() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("file://{}", root.path().display()), "w").unwrap();
        let files = format!("{:?}", store.files.unwrap());
        assert!(files.contains("fsync: true"), "{files}");
    }
}
