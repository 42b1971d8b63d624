//! Giving-day traffic with its own exact sums.
//!
//! [`Traffic`] is a pure stream: the same [`Settings`] make the same records to
//! the byte, wherever they go and however fast. It counts what it makes as it
//! goes and says what a reader must arrive at ([`Traffic::expected`]); no code
//! of the fold has a part in that.

mod amounts;
mod args;
mod campaigns;
mod damage;
mod day;
mod draft;
mod expect;
mod history;
mod kafka;
mod oracle;
mod pace;
pub(crate) mod progress;
mod random;
mod run;
mod settings;
#[cfg(test)]
mod tests;
mod traffic;
mod ulid;

pub use args::{GenerateArgs, Preset};
pub use kafka::{KafkaSink, KafkaSinkError};
pub use pace::Pace;
pub use run::{Error, run};
pub use settings::{CAMPAIGNS_MAX, RECORDS_MAX};
pub use settings::{Counts, GIVING_DAY_2022, Settings, SettingsError, Shares, Volume};
pub use traffic::{Record, Traffic};
