//! An event before it is written, and its writing.
//!
//! Written by hand into a reused buffer: a serializer would cost as much as all
//! the rest of an event. The fields are those of design.md's "Event".

use super::day::SHANGHAI_OFFSET_MS;
use super::settings::Millis;
use super::ulid::IdText;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Donation,
    Refund,
    Match,
    Flower,
}

/// Currencies by index; the first is everybody's.
pub(super) const CURRENCIES: [&str; 4] = ["CNY", "USD", "HKD", "JPY"];
/// Index of CNY.
pub(super) const CNY: u8 = 0;

/// Where payments come from, by index; the first are the most usual.
pub(super) const CHANNELS: [&str; 8] = [
    "wechat_pay",
    "wechat_pay",
    "wechat_pay",
    "wechat_pay",
    "wechat_pay",
    "qq_wallet",
    "union_pay",
    "mini_program",
];

/// An event about to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft {
    pub(super) id: IdText,
    pub(super) kind: Kind,
    pub(super) campaign: u32,
    /// Counts from 0 in the order of first appearance; `None`: anonymous.
    pub(super) donor: Option<u64>,
    /// Minor units, or the number of flowers.
    pub(super) amount: i64,
    /// Index in [`CURRENCIES`]; not written for flowers.
    pub(super) currency: u8,
    pub(super) at: Millis,
    /// Whether `at` is written as RFC 3339 instead of milliseconds.
    pub(super) is_at_text: bool,
    /// Whether a donation's kind is left out, being the default.
    pub(super) is_kind_left_out: bool,
    /// Index in [`CHANNELS`].
    pub(super) channel: Option<u8>,
    pub(super) refund_of: Option<IdText>,
}

impl Draft {
    /// Replaces what is in `out` with the event as JSON.
    pub(super) fn write(&self, campaign: &str, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(&self.id);
        out.extend_from_slice(match self.kind {
            Kind::Donation if self.is_kind_left_out => b"\",\"campaign\":\"".as_slice(),
            Kind::Donation => b"\",\"kind\":\"donation\",\"campaign\":\"",
            Kind::Refund => b"\",\"kind\":\"refund\",\"campaign\":\"",
            Kind::Match => b"\",\"kind\":\"match\",\"campaign\":\"",
            Kind::Flower => b"\",\"kind\":\"flower\",\"campaign\":\"",
        });
        out.extend_from_slice(campaign.as_bytes());
        if let Some(donor) = self.donor {
            out.extend_from_slice(b"\",\"donor\":\"d");
            digits::<13>(donor_number(donor), out);
        }
        out.extend_from_slice(b"\",\"amount\":");
        write_number(self.amount, out);
        if self.kind != Kind::Flower {
            out.extend_from_slice(b",\"currency\":\"");
            out.extend_from_slice(CURRENCIES[usize::from(self.currency)].as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b",\"at\":");
        if self.is_at_text {
            out.push(b'"');
            write_rfc3339(self.at, out);
            out.push(b'"');
        } else {
            write_number(self.at, out);
        }
        if let Some(channel) = self.channel {
            out.extend_from_slice(b",\"channel\":\"");
            out.extend_from_slice(CHANNELS[usize::from(channel)].as_bytes());
            out.push(b'"');
        }
        if let Some(id) = &self.refund_of {
            out.extend_from_slice(b",\"refund_of\":\"");
            out.extend_from_slice(id);
            out.push(b'"');
        }
        out.push(b'}');
    }
}

/// Scatters donors over ten digits, as account numbers are. A multiplication
/// modulo a prime is a permutation, so no two donors share a number.
fn donor_number(donor: u64) -> u64 {
    (donor * 387_420_489 + 12_345_678) % super::settings::RECORDS_MAX
}

/// Every number below 100 as two digits.
static DIGITS: [[u8; 2]; 100] = {
    let mut digits = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        digits[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    digits
};

/// The last `N` digits of a number, with zeros in front.
fn digits<const N: usize>(number: u64, out: &mut Vec<u8>) {
    let (mut text, mut rest, mut end) = ([b'0'; N], number, N);
    while end >= 2 {
        text[end - 2..end].copy_from_slice(&DIGITS[(rest % 100) as usize]);
        rest /= 100;
        end -= 2;
    }
    if end == 1 {
        text[0] = b'0' + (rest % 10) as u8;
    }
    out.extend_from_slice(&text);
}

/// A number as it is, without zeros in front.
fn write_number(number: i64, out: &mut Vec<u8>) {
    let (mut text, mut start, mut rest) = ([0; 20], 20, number.unsigned_abs());
    while rest >= 100 {
        start -= 2;
        text[start..start + 2].copy_from_slice(&DIGITS[(rest % 100) as usize]);
        rest /= 100;
    }
    if rest >= 10 {
        start -= 2;
        text[start..start + 2].copy_from_slice(&DIGITS[rest as usize]);
    } else {
        start -= 1;
        text[start] = b'0' + rest as u8;
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&text[start..]);
}

/// `2022-09-09T10:00:00.123+08:00`.
fn write_rfc3339(at: Millis, out: &mut Vec<u8>) {
    let local = at + SHANGHAI_OFFSET_MS;
    let (days, ms) = (
        local.div_euclid(86_400_000),
        local.rem_euclid(86_400_000) as u64,
    );
    let (year, month, day) = civil(days);
    digits::<4>(year, out);
    out.push(b'-');
    digits::<2>(month, out);
    out.push(b'-');
    digits::<2>(day, out);
    out.push(b'T');
    digits::<2>(ms / 3_600_000, out);
    out.push(b':');
    digits::<2>(ms / 60_000 % 60, out);
    out.push(b':');
    digits::<2>(ms / 1_000 % 60, out);
    out.push(b'.');
    digits::<3>(ms % 1_000, out);
    out.extend_from_slice(b"+08:00");
}

/// Year, month and day of a number of days since 1970-01-01, for days since
/// the year 0 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (u64, u64, u64) {
    let shifted = (days + 719_468) as u64;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_jiff_writes() {
        let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
        for day in 0..36_525 {
            let at = 946_684_800_000 + day * 86_400_000 + day * 7_919 % 86_400_000;
            let mut text = Vec::new();
            write_rfc3339(at, &mut text);
            let zoned = jiff::Timestamp::from_millisecond(at)
                .unwrap()
                .to_zoned(zone.clone());
            let jiff = zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string();
            assert_eq!(String::from_utf8(text).unwrap(), jiff);
        }
    }

    #[test]
    fn numbers_are_written_as_rust_writes_them() {
        let mut numbers = vec![0, 9, 10, 99, 100, 101, -1, -100, i64::MAX, i64::MIN];
        numbers.extend((0..18).map(|power| 10i64.pow(power) - 1));
        for number in numbers {
            let mut text = Vec::new();
            write_number(number, &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), number.to_string());
        }
    }
}
