//! `tally99 checkpoints`: what is kept, whether it is what the log says, and what
//! may go.
//!
//! It works on the store alone, but for `verify`, which reads the log; it joins no
//! group and commits nothing, so it may run next to `tally99 run` at any time. Only
//! `prune` deletes.

mod list;
mod log;
mod prune;
mod verify;

use std::future::Future;
use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use crate::checkpoint::{
    self, About, Folder, OpenError, RestoreError, Restored, Store, StoreError,
};
use crate::cli::SettingsArgs;
use crate::config::Config;
use crate::kafka::client;
use crate::offset::{Offset, Partition};
use crate::run::{RunError, rules};
use crate::shard::Rules;
use crate::totals::Verdict;
pub use log::LogError;

/// `tally99 checkpoints …`
#[derive(Clone, Debug, Subcommand)]
pub enum CheckpointsCommand {
    /// Show every checkpoint, and whether it can be restored
    ///
    /// Reads every object once, unless some are damaged. The newest checkpoint of a partition is
    /// restored; of those behind
    /// it, all objects must be as they were written. Exit code 1: a partition has checkpoints, and
    /// none that can be restored.
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// What to print.
        #[command(flatten)]
        list: ListArgs,
        /// Where they are. Last, since its heading holds for what follows.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Fold the log anew up to the newest checkpoints, and compare to the byte
    ///
    /// Reads the log from its beginning, as many partitions at a time as there are cores, and each
    /// in memory twice; joins no group. Exit code 1: something differs, or there was nothing to
    /// verify; 3: the log does not reach back far enough.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// What to verify.
        #[command(flatten)]
        verify: VerifyArgs,
        /// Where they are. Last, since its heading holds for what follows.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Delete what no restore needs any more
    ///
    /// That is: checkpoints beyond the newest ones that can be restored; objects that no
    /// checkpoint named when this began, written more than an hour ago by the store's clock; and
    /// what writes have left behind that were cut short more than an hour ago. `tally99 run` does
    /// the same all along, for the partitions that it has, and watches an object for an hour before
    /// it deletes it. This command looks only once. So use it where the process that writes has
    /// ended or is healthy, and not while one hangs, or is cut off from the store, that may go on.
    #[command(after_help = PRUNE_EXAMPLES)]
    Prune {
        /// What to delete.
        #[command(flatten)]
        prune: PruneArgs,
        /// Where it is. Last, since its heading holds for what follows.
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

const LIST_EXAMPLES: &str = "\
Examples:
  tally99 checkpoints list --checkpoints file:///var/lib/tally99
  tally99 checkpoints list --checkpoints s3://bucket/tally99 --json | jq .offset";

const VERIFY_EXAMPLES: &str = "\
Examples:
  tally99 checkpoints verify --checkpoints file:///var/lib/tally99
  tally99 checkpoints verify --checkpoints s3://bucket/tally99 --partition 0 --partition 7";

const PRUNE_EXAMPLES: &str = "\
Examples:
  tally99 checkpoints prune --checkpoints file:///var/lib/tally99 --dry-run
  tally99 checkpoints prune --checkpoints file:///var/lib/tally99 --keep 1
  tally99 checkpoints prune --checkpoints file:///var/lib/tally99 --older-epochs";

/// The flags of `tally99 checkpoints list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Print a JSON object a checkpoint, each on a line of its own
    #[arg(long)]
    pub json: bool,
}

/// The flags of `tally99 checkpoints verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Verify this partition only; may be repeated
    #[arg(long = "partition", value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partitions: Vec<Partition>,
}

/// The flags of `tally99 checkpoints prune`.
#[derive(Args, Clone, Debug)]
pub struct PruneArgs {
    /// How many checkpoints of each partition to keep. Default: checkpoints.keep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub keep: Option<u32>,
    /// Delete nothing; only say what would be deleted, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Delete also all checkpoints of epochs below run.epoch, whatever their age
    #[arg(long)]
    pub older_epochs: bool,
}

/// Why the command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said where checkpoints are.
    #[error(
        "no place of checkpoints is set: give --checkpoints file:///folder or \
         s3://bucket/prefix, or set checkpoints.url"
    )]
    NoPlace,
    /// There is no such folder.
    #[error("there is no folder {0}, so there are no checkpoints in it: check checkpoints.url")]
    NoFolder(String),
    /// The URL is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder of this machine failed.
    #[error("{0} cannot be tidied up")]
    Folder(String, #[source] io::Error),
    /// What shapes the fold is not known.
    #[error(transparent)]
    Rules(Box<RunError>),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log does not reach back to its beginning any more.
    #[error(
        "cannot be verified: the log of {} has lost its beginning, so nobody can fold it anew. \
         Verify earlier than retention.ms deletes it", list(.0)
    )]
    Expired(Vec<Expired>),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Error {
    /// Whether it was asked for in a wrong way.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Error::NoPlace | Error::NoFolder(_) | Error::Open(OpenError::Url(_))
        )
    }
}

/// A log whose head is gone.
#[derive(Clone, Debug)]
pub struct Expired {
    topic: String,
    partition: Partition,
    start: Offset,
}

fn list(expired: &[Expired]) -> String {
    let places = expired.iter().map(|it| {
        let Expired {
            topic,
            partition,
            start,
        } = it;
        format!("{topic}/{partition} (begins at offset {start})")
    });
    places.collect::<Vec<_>>().join(", ")
}

/// Does what was asked for, and prints to `out`.
///
/// # Errors
///
/// No place of checkpoints, a store or a Kafka that fails, a log that has lost its
/// beginning, or an `out` that takes no more.
pub fn run(
    config: &Config,
    command: &CheckpointsCommand,
    out: &mut dyn Write,
) -> Result<Verdict, Error> {
    let site = Site::open(config)?;
    let out = &mut Unread(out);
    match command {
        CheckpointsCommand::List { list: args, .. } => list::run(&site, args, out),
        CheckpointsCommand::Verify { verify: args, .. } => verify::run(config, &site, args, out),
        CheckpointsCommand::Prune { prune: args, .. } => {
            let keep = args.keep.map_or(config.checkpoints.keep, |it| it as usize);
            prune::run(&site, args, keep, out)
        }
    }
}

/// An output whose reader may have seen enough (`… | head`); the work goes on, and
/// its verdict stays what it is.
struct Unread<'a>(&'a mut dyn Write);

impl Unread<'_> {
    fn unless_left<T>(done: io::Result<T>, instead: T) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(instead),
            done => done,
        }
    }
}

impl Write for Unread<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Unread::unless_left(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Unread::unless_left(self.0.flush(), ())
    }
}

impl CheckpointsCommand {
    /// The settings that were typed.
    pub fn settings(&self) -> &SettingsArgs {
        match self {
            CheckpointsCommand::List { settings, .. }
            | CheckpointsCommand::Verify { settings, .. }
            | CheckpointsCommand::Prune { settings, .. } => settings,
        }
    }
}

/// The checkpoints that the configuration speaks of.
struct Site {
    store: Store,
    about: About,
    rules: Rules,
    runtime: Runtime,
}

impl Site {
    fn open(config: &Config) -> Result<Site, Error> {
        let url = config.checkpoints.url.as_ref().ok_or(Error::NoPlace)?;
        // `run` makes the folder; here, a wrong name should not.
        let folder = url.strip_prefix("file://").map(Path::new);
        if let Some(folder) = folder.filter(|it| it.is_absolute() && !it.is_dir()) {
            return Err(Error::NoFolder(folder.display().to_string()));
        }
        let rules = rules(config).map_err(|error| Error::Rules(error.into()))?;
        Ok(Site {
            store: Store::open(url, client::process_name())?,
            about: About {
                topic: config.topics.donations.clone(),
                epoch: config.run.epoch,
                rules: rules.to_string(),
            },
            rules,
            runtime: Runtime::new()?,
        })
    }

    fn folder(&self, partition: Partition) -> Folder {
        let About { topic, epoch, .. } = &self.about;
        self.store.folder(topic, *epoch, partition)
    }

    fn partitions(&self) -> Result<Vec<Partition>, Error> {
        let About { topic, epoch, .. } = &self.about;
        Ok(self.wait(self.store.partitions(topic, *epoch))?)
    }

    /// The checkpoint of a partition that a process would begin with.
    fn newest(&self, partition: Partition) -> Result<Option<Restored>, Error> {
        let folder = self.folder(partition);
        let restored = checkpoint::restore(&folder, &self.about, partition, &self.rules, true);
        match self.wait(restored) {
            Ok(restored) => Ok(restored),
            Err(RestoreError::Store(error) | RestoreError::Unreadable(error)) => Err(error.into()),
            // It would not begin; nor is there a fold to compare with.
            Err(other_rules @ RestoreError::OtherRules { .. }) => {
                tracing::warn!("{other_rules}. Or give this command the --config of `run`");
                Ok(None)
            }
        }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// That there is nothing, and where there would be something.
    fn nothing(&self) -> Result<String, Error> {
        let About { topic, epoch, .. } = &self.about;
        let url = self.store.url();
        let others = self.wait(self.store.epochs(topic))?;
        let others: Vec<_> = others.iter().filter(|it| *it != epoch).collect();
        let hint = match others.is_empty() {
            true => String::new(),
            false => format!(" (run.epoch); there are some of epochs {others:?}"),
        };
        Ok(format!(
            "no checkpoints of topic {topic} at {url} in epoch {epoch}{hint}"
        ))
    }
}
