//! The simulated object store: it may be slow, fail, tear what it was just
//! writing, list what it holds late, and rot.
//!
//! It also watches: whoever writes a manifest, or deletes anything, must leave the
//! store such that what should be restorable is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tally99::checkpoint::collect::GRACE_MS;
use tally99::checkpoint::object::{Kind, unpack};
use tally99::checkpoint::{Manifest, SAVE_WITHIN_MS};

/// How long a manifest may be on its way that is begun as late as may be.
const IN_TIME_MS: i64 = GRACE_MS - SAVE_WITHIN_MS;

/// What is usual of the store in one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// How often a request fails.
    pub fails: f64,
    /// For how many turns a request waits at most.
    pub delay: u32,
    /// How often a list lacks what came last.
    pub lists_late: f64,
    /// How often an object rots, each time that the simulator asks.
    pub rots: f64,
    /// How often the answer to a write is lost, so that the client writes again, and
    /// hears that the object is there.
    pub answers_lost: f64,
    /// Whether what is acknowledged may be lost when a process dies: a store that
    /// does not sync. No run that is to pass has it.
    pub forgets: bool,
}

impl Habits {
    /// Whether whatever was acknowledged is found at once and whole.
    pub fn is_reliable(&self) -> bool {
        self.fails == 0.0 && self.lists_late == 0.0 && self.rots == 0.0
    }
}

#[derive(Clone)]
pub struct SimStore(Arc<Mutex<State>>);

struct State {
    random: Xoshiro256PlusPlus,
    habits: Habits,
    now: i64,
    keep: usize,
    objects: BTreeMap<String, Object>,
    /// What rotted, so that it is nobody's fault.
    rotten: BTreeSet<String>,
    /// What was deleted, and when.
    deleted: BTreeMap<String, i64>,
    /// The names that came last.
    latest: Vec<String>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    /// When it was sent to the store, and when it came there.
    sent_at: i64,
    written_at: i64,
    /// When it was named by a manifest last.
    named_at: i64,
}

impl SimStore {
    pub fn new(seed: u64, habits: Habits, keep: usize, now: i64) -> SimStore {
        SimStore(Arc::new(Mutex::new(State {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            habits,
            now,
            keep,
            objects: BTreeMap::new(),
            rotten: BTreeSet::new(),
            deleted: BTreeMap::new(),
            latest: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no step panicked")
    }

    /// Time passes.
    pub fn set_time(&self, now: i64) {
        self.state().now = now;
    }

    /// What time it is.
    pub fn time(&self) -> i64 {
        self.state().now
    }

    /// From now on it does whatever it is asked for, at once.
    pub fn is_mended(&self) {
        self.state().habits = Habits::default();
    }

    /// A bit flips, an object is cut short, or goes away.
    pub fn rot(&self) {
        let state = &mut *self.state();
        let rots = state.habits.rots;
        if state.objects.is_empty() || !state.random.random_bool(rots) {
            return;
        }
        let place = state.random.random_range(0..state.objects.len());
        let (name, object) = state.objects.iter_mut().nth(place).expect("a place");
        state.rotten.insert(name.clone());
        let mut bytes = object.bytes.to_vec();
        let at = state.random.random_range(0..bytes.len().max(1));
        match state.random.random_range(0..3) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << state.random.random_range(0..8),
            1 => bytes.truncate(at),
            _ => {
                let name = name.clone();
                state.remove(&name);
                return;
            }
        }
        object.bytes = bytes.into();
    }

    /// A machine dies; what its store did not sync is gone.
    pub fn crash(&self) {
        let state = &mut *self.state();
        if !state.habits.forgets {
            return;
        }
        for name in std::mem::take(&mut state.latest) {
            if state.random.random() {
                state.remove(&name);
            }
        }
    }

    /// The highest offset of a checkpoint of this folder that can be restored.
    pub fn newest_whole(&self, folder: &str) -> Option<i64> {
        let state = self.state();
        let in_folder = |name: &String| name.starts_with(&format!("{folder}/"));
        let whole = state.whole_manifests();
        let offsets = whole.filter(|(name, _)| in_folder(name));
        offsets.map(|(_, manifest)| manifest.offset.0).max()
    }

    fn turns(&self) -> Turns {
        let state = &mut *self.state();
        let delay = state.habits.delay;
        Turns(state.random.random_range(0..=delay))
    }

    fn fails(&self) -> bool {
        let state = &mut *self.state();
        let fails = state.habits.fails;
        state.random.random_bool(fails)
    }

    fn list_now(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        if self.fails() {
            return Err(failed());
        }
        let state = &mut *self.state();
        let lists_late = state.habits.lists_late;
        let hidden = match state.random.random_bool(lists_late) {
            true => &state.latest[..],
            false => &[],
        };
        let found = state
            .objects
            .iter()
            .filter(|(name, _)| !hidden.contains(name));
        let metas = found.map(|(name, object)| meta(name, object));
        let below = |meta: &ObjectMeta| {
            prefix
                .as_ref()
                .is_none_or(|it| meta.location.prefix_matches(it))
        };
        Ok(metas.filter(below).collect())
    }
}

impl State {
    fn put(&mut self, name: &str, bytes: Bytes, sent_at: i64) {
        let object = Object {
            bytes,
            sent_at,
            written_at: self.now,
            named_at: self.now,
        };
        self.objects.insert(name.to_owned(), object);
        self.latest.push(name.to_owned());
        let old = self.latest.len().saturating_sub(4);
        self.latest.drain(..old);
    }

    fn remove(&mut self, name: &str) -> Option<Object> {
        let gone = self.objects.remove(name)?;
        if let Some(manifest) = manifest(name, &gone.bytes) {
            for (_, object) in manifest.objects() {
                if let Some(object) = self.objects.get_mut(&sibling(name, &object.name)) {
                    object.named_at = self.now;
                }
            }
        }
        Some(gone)
    }

    /// A manifest comes: all that it names is there. If whoever sent it stood still for
    /// long, it may be too late for some of it; that is as if it had rotted.
    fn check_named(&mut self, name: &str, bytes: &[u8], sent_at: i64) {
        let Some(manifest) = manifest(name, bytes) else {
            return;
        };
        for (kind, object) in manifest.objects() {
            let path = sibling(name, &object.name);
            if self.rotten.contains(&path) {
                continue;
            }
            let Some(found) = self.objects.get(&path) else {
                let deleted_at = self.deleted.get(&path);
                let is_late = deleted_at.is_some_and(|at| at - sent_at > IN_TIME_MS);
                assert!(is_late, "{name} names {path}, which is not there");
                self.rotten.insert(path);
                continue;
            };
            let checksum = unpack(kind, &found.bytes).map(|(_, checksum)| checksum);
            assert_eq!(checksum, Ok(object.checksum), "{path}");
        }
    }

    fn manifests(&self) -> impl Iterator<Item = (&String, Manifest)> {
        let manifest = |(name, object): (&'_ String, &'_ Object)| manifest(name, &object.bytes);
        let all = self.objects.iter();
        all.filter_map(move |it| manifest(it).map(|manifest| (it.0, manifest)))
    }

    fn whole_manifests(&self) -> impl Iterator<Item = (&String, Manifest)> {
        self.manifests().filter(|(name, manifest)| {
            manifest.objects().all(|(kind, object)| {
                let found = self.objects.get(&sibling(name, &object.name));
                let found = found.and_then(|it| unpack(kind, &it.bytes).ok());
                found.is_some_and(|(_, checksum)| checksum == object.checksum)
            })
        })
    }

    fn named_by(&self, which: impl Fn(&String) -> bool) -> BTreeSet<String> {
        let manifests = self.manifests().filter(|(name, _)| which(name));
        let names = manifests.flat_map(|(name, manifest)| {
            let objects = manifest.objects();
            let names = objects.map(|(_, object)| sibling(name, &object.name));
            names.collect::<Vec<_>>()
        });
        names.collect()
    }

    /// What may be deleted: a manifest behind as many newer ones as are kept, and
    /// what no manifest has named for long enough.
    fn check_delete(&self, name: &str) {
        let Some(object) = self.objects.get(name) else {
            return;
        };
        let folder = folder(name);
        if let Some(manifest) = manifest(name, &object.bytes) {
            let newer = self.manifests().filter(|(other, newer)| {
                self::folder(other) == folder && newer.offset > manifest.offset
            });
            // One with the same offset may take its place.
            let same = self.manifests().filter(|(other, it)| {
                self::folder(other) == folder
                    && it.offset == manifest.offset
                    && other.as_str() > name
            });
            let behind = newer.count() + same.count();
            assert!(
                behind >= self.keep || !self.rotten.is_empty(),
                "{name} is deleted behind {behind} newer ones"
            );
        } else if !name.contains("/manifests/") {
            let in_time = |manifest: &String| {
                let it = &self.objects[manifest];
                it.written_at - it.sent_at <= IN_TIME_MS
            };
            assert!(
                !self.named_by(in_time).contains(name),
                "{name} is named, and deleted"
            );
            let unnamed_ms = self.now - object.named_at;
            assert!(
                unnamed_ms >= GRACE_MS,
                "{name} is deleted after {unnamed_ms} ms"
            );
        }
    }
}

fn manifest(name: &str, bytes: &[u8]) -> Option<Manifest> {
    let (body, _) = unpack(Kind::Manifest, bytes).ok()?;
    assert!(name.contains("/manifests/"), "{name} is a manifest");
    Some(serde_json::from_slice(body).expect("a manifest that is whole is JSON"))
}

/// `topic/epoch-1/00003` of `topic/epoch-1/00003/ids/…`.
fn folder(name: &str) -> &str {
    let end = name
        .match_indices('/')
        .nth(2)
        .map_or(name.len(), |(at, _)| at);
    &name[..end]
}

fn sibling(name: &str, object: &str) -> String {
    format!("{}/{object}", folder(name))
}

fn meta(name: &str, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(name),
        last_modified: chrono::DateTime::from_timestamp_millis(object.written_at).expect("a time"),
        size: object.bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

fn failed() -> Error {
    Error::Generic {
        store: "simulated",
        source: "out of order".into(),
    }
}

fn not_found(path: &Path) -> Error {
    Error::NotFound {
        path: path.to_string(),
        source: "not there".into(),
    }
}

fn already_exists(path: &Path) -> Error {
    Error::AlreadyExists {
        path: path.to_string(),
        source: "it is there".into(),
    }
}

/// Waits for so many turns.
struct Turns(u32);

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What is on its way to the store. If whoever sent it dies, it may still arrive,
/// whole or in part.
struct OnItsWay {
    store: SimStore,
    name: String,
    bytes: Bytes,
    sent_at: i64,
    has_arrived: bool,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if self.has_arrived || std::thread::panicking() {
            return;
        }
        let state = &mut *self.store.state();
        let length = match state.random.random_range(0..3) {
            0 => return,
            1 => self.bytes.len(),
            _ => state.random.random_range(0..=self.bytes.len()),
        };
        if !state.objects.contains_key(&self.name) {
            let bytes = self.bytes.slice(..length);
            state.check_named(&self.name, &bytes, self.sent_at);
            state.put(&self.name, bytes, self.sent_at);
        }
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(options.mode, PutMode::Create, "nothing is ever overwritten");
        let mut it = OnItsWay {
            store: self.clone(),
            name: location.to_string(),
            bytes: payload.into(),
            sent_at: self.time(),
            has_arrived: false,
        };
        self.turns().await;
        if self.fails() {
            return Err(failed()); // And yet it may arrive.
        }
        it.has_arrived = true;
        let state = &mut *self.state();
        assert!(
            !state.objects.contains_key(&it.name),
            "{} is given twice",
            it.name
        );
        state.check_named(&it.name, &it.bytes, it.sent_at);
        state.put(&it.name, it.bytes.clone(), it.sent_at);
        let answers_lost = state.habits.answers_lost;
        if state.random.random_bool(answers_lost) {
            return Err(already_exists(location));
        }
        Ok(PutResult {
            e_tag: None,
            version: None,
            extensions: Default::default(),
        })
    }

    async fn get_opts(&self, location: &Path, _: GetOptions) -> Result<GetResult> {
        self.turns().await;
        if self.fails() {
            return Err(failed());
        }
        let state = self.state();
        let found = state.objects.get(location.as_ref());
        let object = found.ok_or_else(|| not_found(location))?.clone();
        let bytes = object.bytes.clone();
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
            meta: meta(location.as_ref(), &object),
            range: 0..object.bytes.len() as u64,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.and_then(move |location| {
            let store = store.clone();
            async move {
                store.turns().await;
                if store.fails() {
                    return Err(failed());
                }
                let state = &mut *store.state();
                state.check_delete(location.as_ref());
                let now = state.now;
                state.deleted.insert(location.to_string(), now);
                let gone = state.remove(location.as_ref());
                gone.map(|_| location.clone())
                    .ok_or_else(|| not_found(&location))
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let found = stream::once(async move {
            store.turns().await;
            store.list_now(prefix)
        });
        let each = found.map_ok(|found| stream::iter(found.into_iter().map(Ok)));
        each.try_flatten().boxed()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("objects are written at once")
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unreachable!("folders are listed whole")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("nothing is copied")
    }
}
