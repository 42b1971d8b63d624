//! The wish to stop, as a value that is handed to whoever works.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a process that is ended at once: 128 + SIGINT, as shells have it.
const ENDED_AT_ONCE: i32 = 130;

/// Whether somebody wants this process, or this piece of work, to end. Clones
/// are the same wish.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A wish that nobody has yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Wished by the first SIGINT (Ctrl-C) or SIGTERM. The second one ends the
    /// process at once.
    ///
    /// # Errors
    ///
    /// When the system does not let us listen for signals.
    pub fn on_signals() -> io::Result<Stop> {
        let stop = Stop::new();
        let wish = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if wish.is_wished() {
                        std::process::exit(ENDED_AT_ONCE);
                    }
                    wish.wish();
                }
            });
        })?;
        Ok(stop)
    }

    /// Asks for the end.
    pub fn wish(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end is asked for.
    pub fn is_wished(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
