//! Trouble that goes on is told now and then, and not as often as it is met.

use std::time::{Duration, Instant};

/// How often the same is told.
const AGAIN: Duration = Duration::from_secs(30);

/// When something was told last, if it was.
#[derive(Debug, Default)]
pub struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is to be told now: it never was, or not for half a minute. If so, it
    /// counts as told.
    pub fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|at| at.elapsed() >= AGAIN);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_first_and_again_when_it_is_old() {
        let mut seldom = Seldom::default();
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
        let Some(long_ago) = Instant::now().checked_sub(AGAIN) else {
            return; // The machine has only just started.
        };
        seldom.0 = Some(long_ago);
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
    }
}
