//! How long a log has brought nothing.
//!
//! librdkafka reads on in a topic that was made anew as if nothing had happened, but
//! that takes a while in which no record comes. So a log that was silent is compared
//! again with what was folded from it, before anything else of it is folded: because it
//! brought nothing, or because nobody looked, for a time that is shorter than that.

use std::time::Duration;

use crate::kafka::clock;

/// Shorter than a topic takes to be deleted, made, found, and filled beyond where we are.
const SILENT: Duration = Duration::from_secs(1);
/// After how long a log is compared also if nothing comes: it may be another one that
/// librdkafka does not see.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// When a worker looked into its reader. Times are counted since the machine's start,
/// and go on while it sleeps.
#[derive(Debug, Default)]
pub(super) struct Silence {
    looked_at: Duration,
    empty_at: Duration,
}

impl Silence {
    /// The worker looks into its reader; `true` if it had not for so long that any log
    /// may be another one.
    pub fn look(&mut self) -> bool {
        let before = std::mem::replace(&mut self.looked_at, clock::since_boot());
        self.looked_at >= before + SILENT
    }

    /// What was last looked for was not there: the reader was empty.
    pub fn found_nothing(&mut self) {
        self.empty_at = self.looked_at;
    }

    /// When the reader was last looked into. What happened since nobody has seen, be it
    /// for hours.
    pub fn last_look(&self) -> Duration {
        self.looked_at
    }

    /// How long ago something was at the last look.
    pub fn since(&self, then: Duration) -> Duration {
        self.looked_at.saturating_sub(then)
    }

    /// Whether what comes now of a partition comes after a silence: the reader was
    /// empty when it had last brought a record so long before.
    pub fn came_after(&self, heard_at: Duration) -> bool {
        self.empty_at >= heard_at + SILENT
    }

    /// Whether a partition brings nothing for so long that it is compared unasked.
    pub fn is_long(&self, heard_at: Duration) -> bool {
        self.looked_at >= heard_at + LONG
    }
}
