//! Business days.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::event::Millis;

/// A business day: days since 1970-01-01 of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The day asked for last, and its instants: neighbours in the log are
    /// nearly always of one day, and a look into the zone's rules costs more
    /// than all else that is done with an event.
    last: (Range<Millis>, Day),
}

impl Calendar {
    /// The calendar of a zone by its IANA name; `None` if there is no such zone.
    pub fn of_zone(name: &str) -> Option<Calendar> {
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        Some(Calendar {
            zone,
            last: (0..0, Day(0)),
        })
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

    #[cold]
    fn look_up(&self, at: Millis) -> (Range<Millis>, Day) {
        let at = Timestamp::from_millisecond(at).expect("at is checked to lie in 2000..2100");
        let date = at.to_zoned(self.zone.clone()).date();
        let start_of = |date: Date| {
            let midnight = date
                .to_zoned(self.zone.clone())
                .expect("a date near 2000..2100");
            midnight.timestamp().as_millisecond()
        };
        let next = date.tomorrow().expect("a date near 2000..2100");
        let day = date.since(EPOCH).expect("both are civil dates").get_days();
        (start_of(date)..start_of(next), Day(day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_as_long_as_its_zone_makes_it() {
        // Clocks went forward in Berlin on 2022-03-27: 23 hours.
        let calendar = Calendar::of_zone("Europe/Berlin").unwrap();
        let (instants, day) = calendar.look_up(1_648_378_800_000);
        assert_eq!(day.to_string(), "2022-03-27");
        assert_eq!(instants.end - instants.start, 23 * 3_600_000);
    }

    #[test]
    fn a_zone_must_be_in_the_database() {
        assert!(Calendar::of_zone("Asia/Atlantis").is_none());
    }
}
