//! What traffic can be asked for, and the exact numbers that follow from it.

use crate::money::Money;

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// 2022-09-09T00:00:00+08:00, the morning of the 99 Giving Day of 2022.
pub const GIVING_DAY_2022: Millis = 1_662_652_800_000;

/// The most records that one stream can have. Donor numbers are a permutation
/// of the numbers below this prime, so there cannot be more donors than that.
pub const RECORDS_MAX: u64 = 9_999_999_967;

/// The most campaigns that one stream can have.
pub const CAMPAIGNS_MAX: u32 = 1_000_000;

/// The smallest amount that anybody gives, in minor units.
pub(super) const AMOUNT_MIN: i64 = 100;

const DAY_MS: i64 = 86_400_000;
/// `start` is kept so far inside the years that are counted (2000 to 2099)
/// that late events still lie in them.
const START_MIN: Millis = 946_684_800_000 + 3 * DAY_MS;
const START_END: Millis = 4_102_444_800_000 - 3 * DAY_MS;

/// All that a stream depends on: the same settings make the same bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where randomness starts. Two runs into one topic need two seeds, or the
    /// second one is nothing but repeats.
    pub seed: u64,
    /// How much there is of it.
    pub volume: Volume,
    /// What it is made of.
    pub shares: Shares,
    /// How many campaigns there are: 1 to [`CAMPAIGNS_MAX`].
    pub campaigns: u32,
    /// When the simulated day starts.
    pub start: Millis,
}

/// How many records there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// So many records of all sorts; what the shares leave are donations.
    Records(u64),
    /// So many donations, whose amounts add up to exactly `amount` fen. All
    /// else comes on top of them, so that each share is one of all records.
    Donations {
        /// How many donations.
        count: u64,
        /// What they add up to, in fen; refunds are not taken off.
        amount: Money,
    },
}

/// What the records are made of: fractions of all records, 0.01 being 1%.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Records sent again, with the same bytes.
    pub repeats: f64,
    /// Refunds of earlier donations.
    pub refunds: f64,
    /// Money from matching sponsors.
    pub matches: f64,
    /// Flowers.
    pub flowers: f64,
    /// Records that are no valid event.
    pub malformed: f64,
    /// Of the events that are neither repeats nor malformed: those whose `at`
    /// lies more than 24 h before the newest.
    pub late: f64,
    /// Of the same: those whose `at` lies up to 5 min before the newest.
    pub out_of_order: f64,
    /// Of donations and matches: those in USD, HKD or JPY instead of CNY.
    pub other_currencies: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Shares {
            repeats: 0.01,
            refunds: 0.002,
            matches: 0.02,
            flowers: 0.2,
            malformed: 0.001,
            late: 0.001,
            out_of_order: 0.02,
            other_currencies: 0.0,
        }
    }
}

impl Shares {
    /// The giving day of 2022: flowers bring the participants above 100 million.
    pub const GIVING_DAY_2022: Shares = Shares {
        repeats: 0.01,
        refunds: 0.001,
        matches: 0.005,
        flowers: 0.62,
        malformed: 0.0005,
        late: 0.0005,
        out_of_order: 0.02,
        other_currencies: 0.0,
    };

    /// Each share with the name of its flag.
    fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("repeats", self.repeats),
            ("refunds", self.refunds),
            ("matches", self.matches),
            ("flowers", self.flowers),
            ("malformed", self.malformed),
            ("late", self.late),
            ("out-of-order", self.out_of_order),
            ("other-currencies", self.other_currencies),
        ]
    }

    /// The part of all records that are not donations.
    fn beside_donations(&self) -> f64 {
        self.repeats + self.refunds + self.matches + self.flowers + self.malformed
    }
}

/// Settings that make no stream.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A share is no fraction.
    #[error("--{name} is {value}: give a fraction from 0 to 1 (0.01 is 1%)")]
    NotAFraction {
        /// The flag without its dashes.
        name: &'static str,
        /// What it was set to.
        value: f64,
    },
    /// The shares leave no room.
    #[error(
        "--repeats, --refunds, --matches, --flowers and --malformed add up to {sum:.4}: \
         lower them until they add up to less than 1, since what they leave are the donations"
    )]
    NoRoomForDonations {
        /// What they add up to.
        sum: f64,
    },
    /// A donation is refunded once at the most, and only a part of them is
    /// remembered.
    #[error(
        "{refunds} refunds of {donations} donations are asked for: \
         lower --refunds until at most every second donation is refunded"
    )]
    TooManyRefunds {
        /// How many refunds there would be.
        refunds: u64,
        /// How many donations there would be.
        donations: u64,
    },
    /// More events cannot be late or out of order than there are.
    #[error("--late and --out-of-order add up to {sum:.4}: lower them to 1 at most")]
    NoneInOrder {
        /// What they add up to.
        sum: f64,
    },
    /// No campaign, or too many.
    #[error("--campaigns is {0}: give a number from 1 to {max}", max = CAMPAIGNS_MAX)]
    Campaigns(u32),
    /// The stream would be empty or too long.
    #[error("{0} records are asked for: give a number from 1 to {max}", max = RECORDS_MAX)]
    Records(u64),
    /// The day does not lie in the years that are counted.
    #[error("--start lies outside of the years that are counted: give a day from 2000 to 2099")]
    Start,
    /// The sum would not be exact in fen.
    #[error("a preset's donations add up to an exact sum in CNY: leave --other-currencies away")]
    OtherCurrenciesInPreset,
    /// The scale leaves nothing, or too much.
    #[error("--scale {0} is out of range: give a number from 0.0000001 to 10")]
    Scale(f64),
    /// The amounts cannot add up to that.
    #[error("{count} donations cannot add up to {amount} fen: each is at least {AMOUNT_MIN} fen")]
    Amount {
        /// How many donations there are.
        count: u64,
        /// What they should add up to.
        amount: i64,
    },
}

/// How many records of each sort a stream has. They are drawn from an urn
/// without putting them back, so these are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// First donations.
    pub donations: u64,
    /// Flowers.
    pub flowers: u64,
    /// Matches.
    pub matches: u64,
    /// Refunds.
    pub refunds: u64,
    /// Repeats of any of those.
    pub repeats: u64,
    /// Records that cannot be counted.
    pub malformed: u64,
}

impl Counts {
    /// All records.
    pub fn total(&self) -> u64 {
        self.beside_donations() + self.donations
    }

    fn beside_donations(&self) -> u64 {
        self.flowers + self.matches + self.refunds + self.repeats + self.malformed
    }
}

impl Settings {
    /// Usual traffic of so many records.
    pub fn new(seed: u64, records: u64) -> Settings {
        Settings {
            seed,
            volume: Volume::Records(records),
            shares: Shares::default(),
            campaigns: 20_000,
            start: GIVING_DAY_2022,
        }
    }

    /// The 99 Giving Day of 2022, from Tencent's report: 58.16 million
    /// donations, RMB 3.3 billion, more than 100 million participants; or
    /// `scale` times that.
    pub fn giving_day_2022(seed: u64, scale: f64) -> Result<Settings, SettingsError> {
        if !(1e-7..=10.0).contains(&scale) {
            return Err(SettingsError::Scale(scale));
        }
        Ok(Settings {
            volume: Volume::Donations {
                count: (58_160_000.0 * scale).round() as u64,
                amount: Money((330_000_000_000.0 * scale).round() as i64),
            },
            shares: Shares::GIVING_DAY_2022,
            ..Settings::new(seed, 0)
        })
    }

    /// How many records of each sort these settings make, or why they make none.
    pub fn counts(&self) -> Result<Counts, SettingsError> {
        for (name, value) in self.shares.named() {
            if !(0.0..=1.0).contains(&value) {
                return Err(SettingsError::NotAFraction { name, value });
            }
        }
        let sum = self.shares.late + self.shares.out_of_order;
        if sum > 1.0 {
            return Err(SettingsError::NoneInOrder { sum });
        }
        if !(1..=CAMPAIGNS_MAX).contains(&self.campaigns) {
            return Err(SettingsError::Campaigns(self.campaigns));
        }
        if !(START_MIN..START_END).contains(&self.start) {
            return Err(SettingsError::Start);
        }
        let sum = self.shares.beside_donations();
        if sum >= 1.0 {
            return Err(SettingsError::NoRoomForDonations { sum });
        }
        let counts = match self.volume {
            Volume::Records(records) => {
                let mut counts = self.beside_donations(records as f64);
                let beside = counts.beside_donations();
                // Rounding up five shares can ask for a record too many.
                if beside > records {
                    return Err(SettingsError::NoRoomForDonations { sum });
                }
                counts.donations = records - beside;
                counts
            }
            Volume::Donations { count, amount } => {
                if self.shares.other_currencies > 0.0 {
                    return Err(SettingsError::OtherCurrenciesInPreset);
                }
                if count.saturating_mul(AMOUNT_MIN as u64) > amount.0.max(0) as u64 {
                    let amount = amount.0;
                    return Err(SettingsError::Amount { count, amount });
                }
                let mut counts = self.beside_donations(count as f64 / (1.0 - sum));
                counts.donations = count;
                counts
            }
        };
        let (refunds, donations) = (counts.refunds, counts.donations);
        if refunds > donations / 2 {
            return Err(SettingsError::TooManyRefunds { refunds, donations });
        }
        match counts.total() {
            1..=RECORDS_MAX => Ok(counts),
            other => Err(SettingsError::Records(other)),
        }
    }

    fn beside_donations(&self, records: f64) -> Counts {
        // A stream this long is refused anyway; the bound keeps the sum of the
        // five from overflowing.
        let of = |share: f64| (records * share).round().min(1e18) as u64;
        Counts {
            donations: 0,
            flowers: of(self.shares.flowers),
            matches: of(self.shares.matches),
            refunds: of(self.shares.refunds),
            repeats: of(self.shares.repeats),
            malformed: of(self.shares.malformed),
        }
    }
}
