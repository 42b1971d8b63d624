//! The curve of a giving day: how many records fall into which minute.
//!
//! Matching money is handed out from 10:00 on, first come, first served, so
//! that is when the most people give. The curve is a table of whole numbers;
//! no function of the platform's math library has a say in the bytes.

use super::settings::Millis;

const MINUTES: usize = 1440;
const MINUTE_MS: u64 = 60_000;
/// Asia/Shanghai has been at +08:00 without summer time since 1991.
pub(super) const SHANGHAI_OFFSET_MS: i64 = 8 * 3_600_000;

/// Weight of the minute at each full hour; between them it runs straight.
const HOURS: [u64; 25] = [
    220, 90, 40, 25, 20, 30, 80, 180, 300, 420, 700, 600, 560, 460, 420, 420, 430, 440, 480, 560,
    640, 600, 430, 300, 220,
];
/// The rush: ten times as much as the curve at 10:00, back on it at 10:30.
const RUSH_FROM: u64 = 10 * 60;
const RUSH_MINUTES: u64 = 30;
const RUSH_FACTOR: u64 = 9;
/// Matches are drawn more often for the hour after 10:00.
const MATCHING_MINUTES: u64 = 60;

/// Where each record of a stream lies in the day.
pub(super) struct Day {
    start: Millis,
    /// The number of records before the end of each minute.
    ends: Vec<u64>,
    minute: usize,
    /// The number of records before the current minute.
    begin: u64,
}

impl Day {
    /// Spreads `records` over the 24 hours after `start`.
    pub(super) fn new(start: Millis, records: u64) -> Day {
        let weights: Vec<u64> = (0..MINUTES)
            .map(|m| weight(local_minute(start, m)))
            .collect();
        let sum: u64 = weights.iter().sum();
        let mut before = 0;
        let ends = weights
            .iter()
            .map(|weight| {
                before += weight;
                (u128::from(records) * u128::from(before) / u128::from(sum)) as u64
            })
            .collect();
        Day {
            start,
            ends,
            minute: 0,
            begin: 0,
        }
    }

    /// When record number `index` happens. Numbers must rise from call to call.
    pub(super) fn at(&mut self, index: u64) -> Millis {
        while index >= self.ends[self.minute] && self.minute + 1 < MINUTES {
            self.begin = self.ends[self.minute];
            self.minute += 1;
        }
        let width = (self.ends[self.minute] - self.begin).max(1);
        let into = ((index - self.begin) * MINUTE_MS / width).min(MINUTE_MS - 1);
        self.start + (self.minute as u64 * MINUTE_MS + into) as i64
    }

    /// Whether matching money is being handed out in the current minute.
    pub(super) fn is_matching(&self) -> bool {
        let minute = local_minute(self.start, self.minute);
        (RUSH_FROM..RUSH_FROM + MATCHING_MINUTES).contains(&minute)
    }
}

/// The minute of Shanghai's day, so many minutes after `start`.
fn local_minute(start: Millis, minutes: usize) -> u64 {
    let first = (start + SHANGHAI_OFFSET_MS).div_euclid(MINUTE_MS as i64);
    (first + minutes as i64).rem_euclid(MINUTES as i64) as u64
}

fn weight(minute: u64) -> u64 {
    let (hour, into) = ((minute / 60) as usize, minute % 60);
    let base = HOURS[hour] * (60 - into) + HOURS[hour + 1] * into;
    if !(RUSH_FROM..RUSH_FROM + RUSH_MINUTES).contains(&minute) {
        return base;
    }
    let left = RUSH_FROM + RUSH_MINUTES - minute;
    base + base * RUSH_FACTOR * left / RUSH_MINUTES
}

#[cfg(test)]
mod tests {
    use super::super::settings::GIVING_DAY_2022;
    use super::*;

    #[test]
    fn time_never_steps_back_and_stays_within_the_day() {
        for records in [1, 2, 1_000, 100_000] {
            let mut day = Day::new(GIVING_DAY_2022, records);
            let mut last = GIVING_DAY_2022;
            for index in 0..records {
                let at = day.at(index);
                assert!(at >= last, "{index} of {records}");
                last = at;
            }
            assert!(last < GIVING_DAY_2022 + 86_400_000);
        }
    }

    #[test]
    fn the_busiest_minute_is_ten_o_clock_wherever_the_day_starts() {
        for start in [GIVING_DAY_2022, GIVING_DAY_2022 + 5 * 3_600_000] {
            let mut day = Day::new(start, 1_000_000);
            let mut by_minute = [0u32; MINUTES];
            for index in 0..1_000_000 {
                let local = day.at(index) + SHANGHAI_OFFSET_MS;
                by_minute[(local / 60_000).rem_euclid(1440) as usize] += 1;
            }
            let busiest = (0..MINUTES).max_by_key(|m| by_minute[*m]);
            assert_eq!(busiest, Some(600));
            assert!(by_minute[600] > 8 * by_minute[599]);
            assert!(by_minute[240] > 0);
        }
    }
}
