//! The threads of a run, none of which may end unnoticed, not even by a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::RunError;

/// The end of a thread: none may end unnoticed.
pub(super) struct Ended {
    pub what: Thread,
    pub result: Result<(), RunError>,
}

/// The threads of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// By its number.
    Worker(usize),
    Merger,
    Publisher,
    Member,
    Confirmer,
}

impl Thread {
    pub fn name(self) -> &'static str {
        match self {
            Thread::Worker(_) => "worker",
            Thread::Merger => "merger",
            Thread::Publisher => "publisher",
            Thread::Member => "member",
            Thread::Confirmer => "confirmer",
        }
    }
}

/// Runs `work` in a thread and says how it ended, even by a panic.
pub(super) fn spawn(
    ended: &UnboundedSender<Ended>,
    what: Thread,
    work: impl FnOnce() -> Result<(), RunError> + Send + 'static,
) -> JoinHandle<()> {
    let ended = ended.clone();
    let name = match what {
        Thread::Worker(number) => format!("{}-{number}", what.name()),
        _ => what.name().to_owned(),
    };
    let thread = std::thread::Builder::new().name(name);
    let work = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        let result = result.unwrap_or(Err(RunError::Panic(what.name())));
        let _ = ended.send(Ended { what, result });
    };
    thread.spawn(work).expect("a thread can be started")
}
