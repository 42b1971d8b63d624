//! Checkpoints as workers have them taken: apart from the fold.
//!
//! A worker only takes the snapshot, a little between two batches of records.
//! Writing, reading and decoding are done elsewhere, a few partitions at a time, and
//! answered by [`Reply`].

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::checkpoint::collect::GRACE_MS;
use crate::checkpoint::{
    self, About, Keeper, Manifest, RecordId, RestoreError, Restored, Store, Written,
};
use crate::config::CheckpointsConfig;
use crate::event::Millis;
use crate::kafka::clock::{now_ms, since_boot};
use crate::logging::Seldom;
use crate::offset::Partition;
use crate::publish::dead_letters::DeadLetters;
use crate::shard::{Rules, Snapshot};
use crate::shutdown::Shutdown;

/// A store of checkpoints in the hands of a process.
#[derive(Clone)]
pub struct Checkpoints {
    store: Store,
    about: About,
    rules: Rules,
    /// How often a partition that changes is kept.
    pub(super) interval: Duration,
    keep: usize,
    runtime: Handle,
    restoring: Arc<Semaphore>,
    saving: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// What became of what a worker asked for.
pub(super) enum Reply {
    /// The newest checkpoint of a partition, if there is one.
    Restored(
        Partition,
        Box<Result<Option<Restored>, RestoreError>>,
        Box<Keeper>,
    ),
    /// A checkpoint is written, or why not; the keeper is free again.
    Saved(Partition, Box<Keeper>, Result<Written, String>),
    /// What is not needed any more was not deleted; why.
    Untidy(Partition, String),
    /// A bug has ended a task; its keeper, or its shard, is lost.
    Panicked,
}

/// Tells if the task that holds it panics: nobody waits for it.
struct Guard(Sender<Reply>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Reply::Panicked);
        }
    }
}

/// What a snapshot needs, besides itself, to become a checkpoint.
pub(super) struct Taking {
    pub keeper: Box<Keeper>,
    /// The last record before the snapshot's offset.
    pub last_record: Option<RecordId>,
    /// The dead letters of the records before it have numbers below this.
    pub letters: u64,
    pub permit: OwnedSemaphorePermit,
}

/// How long a checkpoint may take; short of what [`Keeper::save`] allows.
const SAVE_WITHIN: Duration = Duration::from_secs(120);
/// After how long it is said what it waits for.
const LONG: Duration = Duration::from_secs(15);
/// How long tidying up after it may take.
const TIDY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked at whether what is waited for has come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long to wait before a store that fails is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often in a row a store is asked for what it does not hand out although it
/// lists it, until that is taken for damaged.
const UNREADABLE_TRIES: u32 = 30;
/// How many checkpoints are on their way to the store at a time; each is in memory.
const SAVING: usize = 4;

impl Checkpoints {
    /// Checkpoints of `about` at `store`, taken as the configuration says. Their work
    /// is done by the threads of `runtime`.
    pub fn new(
        config: &CheckpointsConfig,
        store: Store,
        about: About,
        rules: &Rules,
        runtime: Handle,
        shutdown: &Shutdown,
    ) -> Checkpoints {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Checkpoints {
            store,
            about,
            rules: rules.clone(),
            interval: config.interval,
            keep: config.keep,
            runtime,
            restoring: Arc::new(Semaphore::new(cores)),
            saving: Arc::new(Semaphore::new(SAVING)),
            shutdown: shutdown.clone(),
        }
    }

    /// Restores a partition. A store that fails is asked until it answers.
    pub(super) fn restore(&self, partition: Partition, reply: Sender<Reply>) {
        let this = self.clone();
        let runtime = self.runtime.clone();
        let guard = Guard(reply.clone());
        self.runtime.spawn(async move {
            // Before there is a thread of its own: the store needs some, too.
            let permit = this.restoring.clone().acquire_owned().await;
            // Decoding keeps a core busy, so it gets a thread that may be busy.
            runtime.clone().spawn_blocking(move || {
                let (_guard, _permit) = (guard, permit);
                let restored = runtime.block_on(this.restore_when_possible(partition));
                if let Some(restored) = restored {
                    let found = restored.as_ref().ok().and_then(Option::as_ref);
                    let last = found.map(|it| (it.name.clone(), it.manifest.clone()));
                    let keeper = this.keeper(partition, last);
                    let _ = reply.send(Reply::Restored(
                        partition,
                        Box::new(restored),
                        Box::new(keeper),
                    ));
                }
            });
        });
    }

    fn keeper(&self, partition: Partition, last: Option<(String, Manifest)>) -> Keeper {
        let folder = self.folder(partition);
        Keeper::new(folder, self.about.clone(), last, self.keep)
    }

    fn folder(&self, partition: Partition) -> checkpoint::Folder {
        let (topic, epoch) = (&self.about.topic, self.about.epoch);
        self.store.folder(topic, epoch, partition)
    }

    /// A partition's name in messages.
    fn place(&self, partition: Partition) -> String {
        format!("{}/{partition}", self.about.topic)
    }

    /// `None`: the end was asked for meanwhile.
    async fn restore_when_possible(
        &self,
        partition: Partition,
    ) -> Option<Result<Option<Restored>, RestoreError>> {
        let folder = self.folder(partition);
        remove_left_over(&folder);
        let (mut said, mut unreadable) = (Seldom::default(), 0);
        while !self.shutdown.has_begun() {
            let skip = unreadable >= UNREADABLE_TRIES;
            let restored = checkpoint::restore(&folder, &self.about, partition, &self.rules, skip);
            let place = self.place(partition);
            let restored = told(&place, "the store to hand it out", restored);
            let restored = tokio::select! {
                restored = restored => restored,
                () = self.end() => return None,
            };
            unreadable = match &restored {
                Err(RestoreError::Unreadable(_)) => unreadable + 1,
                _ => 0,
            };
            match restored {
                Err(RestoreError::Store(error) | RestoreError::Unreadable(error)) => {
                    if said.is_due() {
                        tracing::warn!(
                            "{place} waits for its checkpoint: {}; trying on. Mend the store, or \
                             start without --checkpoints",
                            error.in_full()
                        );
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                other => return Some(other),
            }
        }
        None
    }

    /// Waits until the end is asked for.
    async fn end(&self) {
        while !self.shutdown.has_begun() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Leave to take a snapshot; `None` while enough of them are in memory.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.saving.clone().try_acquire_owned().ok()
    }

    /// Writes a checkpoint, once the dead letters of all records in it are there: who
    /// restores it does not send them again.
    pub(super) fn save(
        &self,
        snapshot: Snapshot,
        taking: Taking,
        dead_letters: &DeadLetters,
        reply: Sender<Reply>,
    ) {
        let dead_letters = dead_letters.clone();
        let partition = snapshot.partition;
        let place = self.place(partition);
        self.runtime.spawn(async move {
            let _guard = Guard(reply.clone());
            let Taking {
                mut keeper,
                last_record,
                letters,
                permit,
            } = taking;
            let written = timeout(SAVE_WITHIN, async {
                let delivered = async {
                    while !dead_letters.are_delivered(partition, letters) {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                };
                told(&place, "its dead letters to be acknowledged", delivered).await;
                let saved = keeper.save(snapshot, last_record, now_ms(), uptime_ms);
                let saved = told(&place, "the store to take it", saved).await;
                saved.map_err(|error| error.to_string())
            });
            let written = written.await.unwrap_or_else(|_| {
                let seconds = SAVE_WITHIN.as_secs();
                Err(match dead_letters.are_delivered(partition, letters) {
                    true => format!("the store has not taken it within {seconds} s"),
                    false => format!("dead letters are not acknowledged within {seconds} s"),
                })
            });
            drop(permit);
            if written.is_ok() {
                let tidied = timeout(TIDY_WITHIN, keeper.tidy(uptime_ms));
                let why = match told(&place, "the store to be tidied up", tidied).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.in_full()),
                    Err(_) => Some("the store does not answer".to_owned()),
                };
                if let Some(why) = why {
                    let _ = reply.send(Reply::Untidy(partition, why));
                }
            }
            let _ = reply.send(Reply::Saved(partition, keeper, written));
        });
    }
}

fn uptime_ms() -> Millis {
    since_boot().as_millis() as Millis
}

/// Does what a checkpoint needs, and says so if that takes long.
async fn told<T>(place: &str, what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    match timeout(LONG, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            tracing::warn!(
                "the checkpoint of {place} has been waiting for {what} for {} s",
                LONG.as_secs()
            );
            work.await
        }
    }
}

/// Deletes what processes have left behind that were ended in the middle of a write;
/// the store itself hides it. An hour is longer than any write takes.
fn remove_left_over(folder: &checkpoint::Folder) {
    let remove = || {
        for file in folder.left_over()? {
            if now_ms() - file.written_at >= GRACE_MS {
                match std::fs::remove_file(file.path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {} // Or another process has.
                }
            }
        }
        std::io::Result::Ok(())
    };
    if let Err(error) = remove() {
        let url = folder.url_of("");
        tracing::warn!(
            "what writes have left behind in {url} is not deleted: {error}. It only takes room"
        );
    }
}
