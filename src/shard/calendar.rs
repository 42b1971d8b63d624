//! Business days.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use crate::event::Millis;

/// A business day: days since 1970-01-01 of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub i32);

const EPOCH: Date = date(1970, 1, 1);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match EPOCH.checked_add(jiff::Span::new().days(self.0)) {
            Ok(date) => date.fmt(f),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

/// The calendar of a time zone, from the database that is built in (never the
/// machine's, so that the fold does not depend on the machine).
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    /// Instants around the one asked for last that are of one day: neighbours in
    /// the log nearly always are, and a look into the zone's rules costs more
    /// than all else that is done with an event.
    last: (Range<Millis>, Day),
}

const DAY_MS: i64 = 86_400_000;

impl Calendar {
    /// The calendar of a zone by its IANA name; `None` if there is no such zone.
    pub fn of_zone(name: &str) -> Option<Calendar> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        Some(Calendar {
            zone,
            last: (0..0, Day(0)),
        })
    }

    /// The zone's IANA name.
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or_default()
    }

    /// The business day of an instant.
    ///
    /// ```
    /// use tally99::shard::Calendar;
    /// let mut calendar = Calendar::of_zone("Asia/Shanghai").unwrap();
    /// assert_eq!(calendar.day_of(1_662_652_799_999).to_string(), "2022-09-08");
    /// assert_eq!(calendar.day_of(1_662_652_800_000).to_string(), "2022-09-09");
    /// ```
    #[inline]
    pub fn day_of(&mut self, at: Millis) -> Day {
        if !self.last.0.contains(&at) {
            self.last = self.look_up(at);
        }
        self.last.1
    }

    /// The day of `at`, and a range of instants around it that are of this day.
    ///
    /// The range ends where clocks change: with clocks set back at midnight, a
    /// day can have two parts and another day's beginning between them.
    #[cold]
    fn look_up(&self, at: Millis) -> (Range<Millis>, Day) {
        let timestamp = |ms| Timestamp::from_millisecond(ms).expect("in 2000..2100, or near it");
        let offset_ms = i64::from(self.zone.to_offset(timestamp(at)).seconds()) * 1_000;
        let day = (at + offset_ms).div_euclid(DAY_MS);
        let (mut start, mut end) = (day * DAY_MS - offset_ms, (day + 1) * DAY_MS - offset_ms);
        let changed_before = self.zone.preceding(timestamp(at + 1)).next();
        if let Some(change) = changed_before {
            start = start.max(change.timestamp().as_millisecond());
        }
        if let Some(change) = self.zone.following(timestamp(at)).next() {
            end = end.min(change.timestamp().as_millisecond());
        }
        (start..end, Day(day as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The date on a clock of the zone, by jiff alone.
    fn date_of(zone: &str, at: Millis) -> String {
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        let at = Timestamp::from_millisecond(at).unwrap();
        at.to_zoned(zone).date().to_string()
    }

    /// Around midnights and changes of clocks, in whatever order instants come.
    #[test]
    fn the_day_of_an_instant_does_not_depend_on_what_was_asked_before() {
        let hours = [
            -50, -26, -25, -24, -2, -1, 0, 1, 2, 23, 24, 25, 26, 49, -3, 3,
        ];
        for (zone, around) in [
            // Set back at one minute past midnight: a day has two parts.
            ("America/St_Johns", 1_162_089_060_000),
            ("America/Sao_Paulo", 1_540_695_600_000),
            // 2011-12-30 does not exist.
            ("Pacific/Apia", 1_325_239_200_000),
            ("Europe/Berlin", 1_648_342_800_000),
            ("Asia/Shanghai", 1_662_652_800_000),
            ("Asia/Kathmandu", 1_662_660_900_000),
        ] {
            let mut calendar = Calendar::of_zone(zone).unwrap();
            for first in hours {
                for then in hours {
                    for off in [-1, 0, 1, 59_999, 1_800_000] {
                        calendar.day_of(around + first * 3_600_000);
                        let at = around + then * 3_600_000 + off;
                        let day = calendar.day_of(at).to_string();
                        assert_eq!(day, date_of(zone, at), "{zone} at {at} after {first} h");
                    }
                }
            }
        }
    }

    #[test]
    fn a_zone_must_be_in_the_database() {
        assert!(Calendar::of_zone("Asia/Atlantis").is_none());
    }
}
