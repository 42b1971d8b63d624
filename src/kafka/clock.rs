//! Clocks: one that goes on while the machine sleeps, the one on the wall, and the
//! one of a thread at work.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::event::Millis;

/// Time since the machine's start, time in suspension included. A process that
/// was stopped, or whose machine slept, sees how long it was away.
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere (macOS) the monotonic clock counts sleep already.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    read(CLOCK)
}

/// Time since some moment that is the same for all processes of this machine; it stands
/// still while the machine sleeps.
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// How long this thread has been at work on a core.
pub fn thread_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The time of day, in milliseconds since the epoch.
pub fn now_ms() -> Millis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |since| since.as_millis() as Millis)
}
