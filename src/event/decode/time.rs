//! Times as text.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::event::Millis;

/// RFC 3339 and nothing else.
pub(super) fn rfc3339(text: &str) -> Option<Millis> {
    usual_rfc3339(text).or_else(|| any_rfc3339(text))
}

/// The form that nearly all use, `2022-09-09T10:00:00.123+08:00` with any or no fraction,
/// or `Z`; `None`: it is another one, or none. No general parser is asked for these.
pub(super) fn usual_rfc3339(text: &str) -> Option<Millis> {
    let (date_time, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let [
        y0,
        y1,
        y2,
        y3,
        b'-',
        m0,
        m1,
        b'-',
        d0,
        d1,
        b'T',
        h0,
        h1,
        b':',
        n0,
        n1,
        b':',
        s0,
        s1,
    ] = *date_time
    else {
        return None;
    };
    let year = i16::from(two(y0, y1)?) * 100 + i16::from(two(y2, y3)?);
    if year < 2000 {
        return None; // Too early, or so in another zone; rounding differs before 1970.
    }
    let (month, day) = (two(m0, m1)?, two(d0, d1)?);
    let (hour, minute, second) = (two(h0, h1)?, two(n0, n1)?, two(s0, s1)?);
    let (mut millis, mut rest) = (0, rest);
    if let Some((b'.', fraction)) = rest.split_first() {
        let digits = fraction.iter().take_while(|it| it.is_ascii_digit()).count();
        let (digits, behind) = fraction.split_at(digits);
        let digit = |place: usize| digits.get(place).map_or(0, |it| i32::from(it - b'0'));
        millis = digit(0) * 100 + digit(1) * 10 + digit(2);
        rest = if digits.is_empty() {
            return None;
        } else {
            behind
        };
    }
    let offset_min = match *rest {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (two(h0, h1)?, two(m0, m1)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let ahead = i32::from(hours) * 60 + i32::from(minutes);
            if sign == b'+' { ahead } else { -ahead }
        }
        _ => return None,
    };
    let local = DateTime::new(year, month, day, hour, minute, second, millis * 1_000_000).ok()?;
    let utc = Offset::UTC.to_timestamp(local).ok()?;
    Some(utc.as_millisecond() - i64::from(offset_min) * 60_000)
}

/// The number of two digits.
#[inline]
fn two(tens: u8, ones: u8) -> Option<i8> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| (tens * 10 + ones) as i8)
}

/// Any form. The parser behind would take more: a decimal comma, offsets of a day and
/// longer, zones in brackets, dates without an offset. A leap second counts as the second
/// before it.
pub(super) fn any_rfc3339(text: &str) -> Option<Millis> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let time_from = [
        "0000-00-00T00:00:00",
        "0000-00-00t00:00:00",
        "0000-00-00 00:00:00",
    ];
    let offset_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, offset) = rest.split_at(offset_at);
    let has_shape = time_from.iter().any(|shape| is_like(date_time, shape))
        && (fraction.is_empty() || is_fraction(fraction))
        && (matches!(offset, "Z" | "z") || is_offset(offset));
    if !has_shape {
        return None;
    }
    let time: jiff::Timestamp = match fraction.len() {
        // The parser takes nine digits; of more, only milliseconds matter.
        11.. => format!("{date_time}{}{offset}", &fraction[..10]).parse(),
        _ => text.parse(),
    }
    .ok()?;
    let is_leap_second = &date_time[17..] == "60";
    let ends_a_day = time.as_second().rem_euclid(86_400) == 86_399;
    (!is_leap_second || ends_a_day).then(|| time.as_millisecond())
}

/// Whether digits stand where `shape` has `0`, and its other letters where it
/// has them.
fn is_like(text: &str, shape: &str) -> bool {
    let same = |(byte, like): (u8, u8)| match like {
        b'0' => byte.is_ascii_digit(),
        _ => byte == like,
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(same)
}

fn is_fraction(text: &str) -> bool {
    let digits = text.strip_prefix('.').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_offset(text: &str) -> bool {
    (is_like(text, "+00:00") || is_like(text, "-00:00")) && text[1..3] < *"24" && text[4..] < *"60"
}
