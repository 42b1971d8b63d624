//! What shapes the fold besides the code.

use std::fmt;

use super::Calendar;
use crate::event::{Millis, Reason, Rejected};

/// What shapes the fold besides the code: two shards of the same prefix are
/// equal if and only if their rules are.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose calendar days are business days.
    pub calendar: Calendar,
    /// How far the watermark moves on, in seconds, before an id is forgotten.
    pub dedup_horizon_s: u32,
    /// How far `at` may be ahead of the record's timestamp, in milliseconds.
    pub max_ahead_ms: i64,
}

/// Goes up when the code decodes or counts by other rules than before.
const RULES_VERSION: u32 = 1;

impl fmt::Display for Rules {
    /// Two rules that read the same make the same totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "v{RULES_VERSION}; days of {}; ids known for {} s; at most {} ms ahead",
            self.calendar.zone_name(),
            self.dedup_horizon_s,
            self.max_ahead_ms
        )
    }
}

impl Rules {
    /// One wrong clock must not close windows or empty the set of ids.
    pub(super) fn check_clock(
        &self,
        at: Millis,
        timestamp: Option<Millis>,
    ) -> Result<(), Rejected> {
        let Some(timestamp) = timestamp else {
            let detail = "the record has no timestamp to check at against";
            return Err(Rejected::new(Reason::NoTimestamp, detail));
        };
        let ahead_ms = at.saturating_sub(timestamp);
        if ahead_ms > self.max_ahead_ms {
            let allowed = self.max_ahead_ms;
            let detail = format!(
                "at is {ahead_ms} ms ahead of the record's timestamp; at most {allowed} are allowed"
            );
            return Err(Rejected::new(Reason::Ahead, detail));
        }
        Ok(())
    }
}
