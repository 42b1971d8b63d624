//! When each record is due.
//!
//! Open loop: the schedule is fixed at the start and waits for nobody. Whoever
//! falls behind has to catch up, and a live event keeps the time at which it was
//! due, so that a delay is seen as the latency that it is.

use std::time::{Duration, Instant};

use super::settings::Millis;

/// The longest time that [`Pace::due`] sleeps.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// The shortest: at high rates a few dozen records become due together.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// A steady rate, from a start on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rate: u64,
    start: Instant,
    start_ms: Millis,
}

impl Pace {
    /// `rate` records a second (at least 1) from now on; `now_ms` is the wall
    /// clock of this moment.
    pub fn new(rate: u64, now_ms: Millis) -> Pace {
        Pace {
            rate: rate.max(1),
            start: Instant::now(),
            start_ms: now_ms,
        }
    }

    /// How many records are due beyond the `sent` ones. Where none is, it sleeps
    /// until the next one is, but 100 ms at the most, and may then still say 0.
    pub fn due(&self, sent: u64) -> u64 {
        let elapsed = self.start.elapsed();
        let due = self.due_after(elapsed).saturating_sub(sent);
        if due == 0 {
            let next = self.after_start(sent);
            std::thread::sleep(next.saturating_sub(elapsed).clamp(SLEEP_MIN, SLEEP_MAX));
            return self.due_after(self.start.elapsed()).saturating_sub(sent);
        }
        due
    }

    /// The moment at which record number `index`, from 0, is due.
    pub fn due_at(&self, index: u64) -> Instant {
        self.start + self.after_start(index)
    }

    /// The wall clock at which record number `index`, from 0, is due.
    pub fn due_at_ms(&self, index: u64) -> Millis {
        self.start_ms + self.after_start(index).as_millis() as Millis
    }

    fn due_after(&self, elapsed: Duration) -> u64 {
        // The first is due at once.
        (elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000) as u64 + 1
    }

    fn after_start(&self, index: u64) -> Duration {
        let (seconds, rest) = (index / self.rate, index % self.rate);
        let nanos = u128::from(rest) * 1_000_000_000 / u128::from(self.rate);
        Duration::new(seconds, nanos as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_due_one_interval_apart() {
        let pace = Pace::new(4, 1_000);
        let times: Vec<Millis> = (0..6).map(|index| pace.due_at_ms(index)).collect();
        assert_eq!(times, [1_000, 1_250, 1_500, 1_750, 2_000, 2_250]);
        assert_eq!(pace.due_after(Duration::ZERO), 1);
        assert_eq!(pace.due_after(Duration::from_millis(249)), 1);
        assert_eq!(pace.due_after(Duration::from_millis(250)), 2);
        assert_eq!(pace.due_after(Duration::from_secs(3)), 13);
    }

    #[test]
    fn a_record_is_due_when_its_time_has_come_and_not_before() {
        let pace = Pace::new(1_000, 0);
        let (mut sent, begin) = (0, Instant::now());
        while sent < 50 {
            let due = pace.due(sent);
            assert!(sent + due <= begin.elapsed().as_millis() as u64 + 2);
            sent += due;
        }
        assert!(begin.elapsed() >= Duration::from_millis(48));
    }
}
