//! Money: whole minor units (fen, cents), never a float.

mod by_currency;

use std::fmt;
use std::num::NonZeroU16;

pub use by_currency::ByCurrency;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount in minor units of some currency (fen for CNY, yen for JPY).
///
/// Within a shard sums are kept in 64 bits and added with checks; what adds up
/// shards (see [`crate::merge`]) uses 128 bits and cannot overflow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(pub i64);

impl Money {
    /// No money.
    pub const ZERO: Money = Money(0);

    /// The largest sum that a shard keeps for one campaign, business day and
    /// currency: 2^62 - 1, which is 46,116,860,184,273,879.03 in yuan. It is half
    /// of what 64 bits hold, so that what is left after refunds, and a slice of
    /// time that lies in two business days, always fit.
    pub const SUM_MAX: Money = Money(i64::MAX / 2);

    /// The sum, or `None` if it would pass [`Money::SUM_MAX`].
    #[inline]
    pub fn checked_add(self, other: Money) -> Option<Money> {
        let sum = self.0.checked_add(other.0).map(Money)?;
        (sum <= Money::SUM_MAX).then_some(sum)
    }
}

/// What was given in one currency, added up over shards: 128 bits, so that no
/// number of shards can overflow it. Net may be below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyTotal {
    /// What was donated, in minor units.
    pub gross: i128,
    /// What was paid back.
    pub refunded: i128,
    /// Gross less refunded.
    pub net: i128,
    /// What matching sponsors added; in neither gross nor net.
    pub matched: i128,
}

/// An ISO 4217 currency: its three upper-case letters as digits, and one added, so that
/// `None` takes no room. Numbers are in the order of the codes, and compared at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(NonZeroU16);

/// How many letters there are.
const LETTERS: u16 = 26;

impl Currency {
    /// Reads a currency code. `None` if ISO 4217 does not list it, if it is not
    /// in upper case, or if it stands for no money: XTS is for tests, XXX for none.
    ///
    /// ```
    /// use tally99::money::Currency;
    /// assert_eq!(Currency::parse("CNY").unwrap().decimals(), 2);
    /// assert!(Currency::parse("cny").is_none());
    /// assert!(Currency::parse("ABC").is_none());
    /// assert!(Currency::parse("XXX").is_none());
    /// ```
    pub fn parse(code: &str) -> Option<Currency> {
        let &[a, b, c] = code.as_bytes() else {
            return None;
        };
        if code != "CNY" {
            let all_upper = [a, b, c].iter().all(u8::is_ascii_uppercase);
            let is_none = matches!(code, "XTS" | "XXX");
            if !all_upper || is_none || iso_currency::Currency::from_code(code).is_none() {
                return None;
            }
        }
        let number = [a, b, c].iter().fold(0, |number, letter| {
            number * LETTERS + u16::from(letter - b'A')
        });
        NonZeroU16::new(number + 1).map(Currency)
    }

    /// Its code.
    fn letters(self) -> [u8; 3] {
        let number = self.0.get() - 1;
        let digits = [number / LETTERS / LETTERS, number / LETTERS, number];
        digits.map(|digit| b'A' + (digit % LETTERS) as u8)
    }

    /// How many decimals people write: 2 for CNY, 0 for JPY, 3 for KWD.
    /// Currencies that have no minor unit at all (gold, say) count as 0.
    pub fn decimals(self) -> u32 {
        self.iso().and_then(|c| c.exponent()).unwrap_or(0).into()
    }

    /// The sign that people write before an amount: `¥`, `$`, `€`.
    pub fn symbol(self) -> String {
        self.iso()
            .map_or_else(|| self.to_string(), |c| c.symbol().to_string())
    }

    fn iso(self) -> Option<iso_currency::Currency> {
        iso_currency::Currency::from_code(&self.to_string())
    }

    /// The amount as people write it, with the currency's own sign and decimals.
    ///
    /// ```
    /// use tally99::money::Currency;
    /// let cny = Currency::parse("CNY").unwrap();
    /// assert_eq!(cny.format(330_000_000_000), "¥3,300,000,000.00");
    /// assert_eq!(cny.format(-5), "-¥0.05");
    /// assert_eq!(Currency::parse("JPY").unwrap().format(1234), "¥1,234");
    /// ```
    pub fn format(self, minor_units: i128) -> String {
        let (sign, whole, part) = self.split(minor_units);
        format!("{sign}{}{}{part}", self.symbol(), group_thousands(whole))
    }

    /// The amount with the currency's own decimals and nothing else, as programs
    /// and spreadsheets read it.
    ///
    /// ```
    /// use tally99::money::Currency;
    /// let cny = Currency::parse("CNY").unwrap();
    /// assert_eq!(cny.decimal(330_000_000_000), "3300000000.00");
    /// assert_eq!(cny.decimal(-5), "-0.05");
    /// assert_eq!(Currency::parse("JPY").unwrap().decimal(1234), "1234");
    /// ```
    pub fn decimal(self, minor_units: i128) -> String {
        let (sign, whole, part) = self.split(minor_units);
        format!("{sign}{whole}{part}")
    }

    /// The sign, the whole units, and the point with the decimals.
    fn split(self, minor_units: i128) -> (&'static str, u128, String) {
        let decimals = self.decimals();
        let (units, scale) = (minor_units.unsigned_abs(), 10u128.pow(decimals));
        let part = match decimals {
            0 => String::new(),
            _ => format!(".{:0width$}", units % scale, width = decimals as usize),
        };
        let sign = if minor_units < 0 { "-" } else { "" };
        (sign, units / scale, part)
    }
}

/// `-1234567` as `-1,234,567`.
pub fn grouped(number: impl Into<i128>) -> String {
    let number = number.into();
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", group_thousands(number.unsigned_abs()))
}

/// `1234567` as `1,234,567`.
pub fn group_thousands(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.letters()).expect("letters of ASCII"))
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.letters()).expect("letters of ASCII"))
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Currency::parse(&code)
            .ok_or_else(|| de::Error::custom(format!("{code:?} is not an ISO 4217 currency code")))
    }
}
