//! Ending: asked for once, seen by every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whether the process is to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    begun: AtomicBool,
    begun_at: Mutex<Option<Instant>>,
}

impl Shutdown {
    /// Asks everybody to end.
    pub fn begin(&self) {
        let mut begun_at = self
            .shared
            .begun_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        begun_at.get_or_insert_with(Instant::now);
        self.shared.begun.store(true, Ordering::Release);
    }

    /// Whether somebody asked for the end.
    pub fn has_begun(&self) -> bool {
        self.shared.begun.load(Ordering::Acquire)
    }

    /// Whether the end was asked for longer ago than `patience`: what waits for
    /// a broker then gives up.
    pub fn is_overdue(&self, patience: Duration) -> bool {
        let begun_at = self
            .shared
            .begun_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        begun_at.is_some_and(|at| at.elapsed() > patience)
    }
}
