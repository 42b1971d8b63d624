//! Waiting for a condition, with a deadline: nothing in the tests sleeps and hopes.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a test waits for at most where the work itself takes a moment: far more
/// than it needs, since the two cores are shared with all the other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until the condition holds; false if it does not by the deadline.
pub fn holds_within(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Waits until the condition holds; fails the test, naming `what`, if it does
/// not by the deadline.
#[track_caller]
pub fn wait_until(deadline: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(deadline, condition),
        "waited {deadline:?} in vain until {what}"
    );
}
