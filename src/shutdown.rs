//! Ending: asked for once, seen by every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whether the process is to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
    /// What this is a part of, and ends with.
    whole: Option<Arc<Shutdown>>,
}

#[derive(Debug, Default)]
struct Shared {
    begun: AtomicBool,
    begun_at: Mutex<Option<Instant>>,
}

impl Shutdown {
    /// The end of a part: it comes with that of the whole, or before.
    pub fn of_part(&self) -> Shutdown {
        Shutdown {
            shared: Arc::default(),
            whole: Some(Arc::new(self.clone())),
        }
    }

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
        let whole = self.whole.as_ref();
        self.shared.begun.load(Ordering::Acquire) || whole.is_some_and(|it| it.has_begun())
    }

    /// Whether the end was asked for longer ago than `patience`: what waits for
    /// a broker then gives up.
    pub fn is_overdue(&self, patience: Duration) -> bool {
        let begun_at = self
            .shared
            .begun_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let whole = self.whole.as_ref();
        begun_at.is_some_and(|at| at.elapsed() > patience)
            || whole.is_some_and(|it| it.is_overdue(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_the_whole_and_not_the_other_way() {
        let whole = Shutdown::default();
        let (one, other) = (whole.of_part(), whole.of_part());
        one.begin();
        assert!(one.has_begun() && one.is_overdue(Duration::ZERO));
        assert!(!whole.has_begun() && !other.has_begun());
        whole.begin();
        assert!(other.has_begun() && other.is_overdue(Duration::ZERO));
    }
}
