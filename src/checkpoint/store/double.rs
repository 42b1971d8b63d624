//! A store in memory that does what a test needs of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Loses answers, or refuses to read, when it is told to; and notes what was read.
#[derive(Clone, Debug, Default)]
pub struct Double(Arc<State>);

#[derive(Debug, Default)]
struct State {
    objects: InMemory,
    loses_answers: AtomicBool,
    refused: Mutex<Option<String>>,
    read: Mutex<Vec<String>>,
}

impl Double {
    /// Whether a write is done, and its answer is that the object is there already.
    pub fn loses_answers(&self, loses: bool) {
        self.0.loses_answers.store(loses, Ordering::Relaxed);
    }

    /// Objects with this in their names are not handed out.
    pub fn refuses_to_read(&self, part: &str) {
        *self.0.refused.lock().unwrap() = Some(part.to_owned());
    }

    /// Flips a bit in the middle of the first object with this in its name.
    pub async fn flip(&self, part: &str) {
        let name = self.find(part).await;
        let bytes = self.0.objects.get(&name).await.unwrap();
        let mut bytes = bytes.bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.0.objects.put(&name, bytes.into()).await.unwrap();
    }

    /// Deletes the first object with this in its name.
    pub async fn lose(&self, part: &str) {
        let name = self.find(part).await;
        self.0.objects.delete(&name).await.unwrap();
    }

    async fn find(&self, part: &str) -> Path {
        let all: Vec<_> = self.0.objects.list(None).try_collect().await.unwrap();
        let names = all.into_iter().map(|object| object.location);
        let first = names.filter(|name| name.as_ref().contains(part)).min();
        first.unwrap()
    }

    /// The names of what was read since this was asked last, in order of their names.
    pub fn take_read(&self) -> Vec<String> {
        let mut read = std::mem::take(&mut *self.0.read.lock().unwrap());
        read.sort_unstable();
        read
    }
}

impl fmt::Display for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("double")
    }
}

#[async_trait]
impl ObjectStore for Double {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let put = self.0.objects.put_opts(location, payload, options).await?;
        match self.0.loses_answers.load(Ordering::Relaxed) {
            false => Ok(put),
            true => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "the first answer was lost".into(),
            }),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let refused = self.0.refused.lock().unwrap().clone();
        if refused.is_some_and(|part| location.as_ref().contains(&part)) {
            return Err(Error::Generic {
                store: "double",
                source: "out of order".into(),
            });
        }
        if !options.head {
            self.0.read.lock().unwrap().push(location.to_string());
        }
        self.0.objects.get_opts(location, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.objects.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.objects.copy_opts(from, to, options).await
    }
}
