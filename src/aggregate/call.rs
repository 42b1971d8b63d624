//! Merge's call for what workers hold: one before each cut, so that what comes with it is
//! milliseconds old.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which flushes are called for, by merge to all workers, at least once a second. Each hands
/// over what changed, unless it is behind and did so a moment ago, and
/// [answers](super::FromWorker::Answer).
#[derive(Debug, Default)]
pub struct Call(AtomicU64);

impl Call {
    /// Calls for the next one; which it is.
    pub fn make(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The newest; 0: none was made.
    pub fn newest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
