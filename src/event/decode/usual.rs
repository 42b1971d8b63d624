//! Events as nearly all are: flat objects without escapes and faults.
//!
//! Where anything stands that is not known here (an escape, a nested value, a fraction, a
//! fault), the general decoder is asked, and says what that is. So nothing is decided here:
//! what is taken both would take, and as the same. Property tests hold one against the other.

use std::borrow::Cow;

use wide::u8x16;

use super::time;
use crate::event::{AT_END, AT_MIN, Event, Gift, Id};
use crate::money::{Currency, Money};

/// The event of a text of the usual form; `None`: the general decoder is to be asked.
pub(super) fn usual(text: &str) -> Option<Event<'_>> {
    let bytes = text.as_bytes();
    let mut cursor = Cursor { bytes, at: 0 };
    let mut fields = Fields {
        text,
        values: [Value::Null; NAMES.len()],
    };
    let (mut separator, mut expected, mut seen) = (b'{', 0, 0u16);
    loop {
        if !cursor.passes(separator)? {
            if cursor.passes_spaces() {
                continue;
            }
            break;
        }
        let field = cursor.field(expected)?;
        fields.values[field] = cursor.value()?;
        separator = b',';
        if field == OTHER {
            continue;
        }
        if seen & 1 << field != 0 {
            return None;
        }
        (expected, seen) = (field + 1, seen | 1 << field);
    }
    match &bytes[cursor.at..] {
        [b'}', spaces @ ..] if spaces.iter().all(|it| *it == b' ') => fields.event(),
        _ => None,
    }
}

/// The fields by number, in the order in which they are tried: usually each is the next one,
/// or one has been left out.
const NAMES: [Name; 11] = [
    Name::of(b"\"id\":"),
    Name::of(b"\"kind\":"),
    Name::of(b"\"campaign\":"),
    Name::of(b"\"donor\":"),
    Name::of(b"\"amount\":"),
    Name::of(b"\"currency\":"),
    Name::of(b"\"at\":"),
    Name::of(b"\"channel\":"),
    Name::of(b"\"refund_of\":"),
    NO_NAME,
    NO_NAME,
];
const ID: usize = 0;
const KIND: usize = 1;
const CAMPAIGN: usize = 2;
const DONOR: usize = 3;
const AMOUNT: usize = 4;
const CURRENCY: usize = 5;
const AT: usize = 6;
const CHANNEL: usize = 7;
const REFUND_OF: usize = 8;
/// All that are not known.
const OTHER: usize = 9;

/// The name of a field with what is around it, to compare others with at once.
struct Name {
    /// Its bytes, and which of them are its own.
    bytes: u128,
    mask: u128,
    len: usize,
}

/// One that nothing begins with.
const NO_NAME: Name = Name {
    bytes: 1,
    mask: 0,
    len: 0,
};

impl Name {
    const fn of(text: &[u8]) -> Name {
        let (mut bytes, mut len) = ([0; WINDOW], 0);
        while len < text.len() {
            bytes[len] = text[len];
            len += 1;
        }
        Name {
            bytes: u128::from_le_bytes(bytes),
            mask: u128::MAX >> (8 * (WINDOW - len)),
            len,
        }
    }

    #[inline(always)]
    fn begins(&self, window: u128) -> bool {
        window & self.mask == self.bytes
    }

    /// Whether this is the name, without what is around it.
    fn is(&self, name: &[u8]) -> bool {
        let bytes = self.bytes.to_le_bytes();
        bytes[..self.len]
            .strip_prefix(b"\"")
            .and_then(|it| it.strip_suffix(b"\":"))
            == Some(name)
    }
}

/// How many bytes are looked at together.
const WINDOW: usize = 16;

/// Marks by bits what ends a string, or must not be in one here: quotes, escapes, [control
/// characters](super::has_control), and what those above 0x7f begin with, which is 0xc2.
#[inline(always)]
fn ends(window: [u8; WINDOW]) -> u32 {
    let bytes = u8x16::new(window);
    let equal = |byte| bytes.simd_eq(u8x16::splat(byte));
    let below_space = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    (equal(b'"') | equal(b'\\') | equal(0x7f) | equal(0xc2) | below_space).to_bitmask()
}

/// A part of the text, between quotes.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    #[inline(always)]
    fn len(self) -> usize {
        self.end - self.start
    }
}

#[derive(Clone, Copy)]
enum Value {
    Null,
    Text(Span),
    Integer(i64),
    Boolean,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Whether the next byte is this one, which is then passed.
    #[inline(always)]
    fn passes(&mut self, byte: u8) -> Option<bool> {
        if *self.bytes.get(self.at)? != byte {
            return Some(false);
        }
        self.at += 1;
        Some(true)
    }

    /// Passes the name of a field, and the colon: of the one that is expected, rather.
    #[inline(always)]
    fn field(&mut self, expected: usize) -> Option<usize> {
        let left = self.bytes.get(self.at..)?;
        let window = match left.first_chunk() {
            Some(window) => u128::from_le_bytes(*window),
            // The last one has something of what is before, too.
            None => {
                let window = u128::from_le_bytes(*self.bytes.last_chunk()?);
                window.unbounded_shr(8 * (WINDOW - left.len()) as u32)
            }
        };
        for field in [expected, expected + 1] {
            if NAMES[field].begins(window) {
                self.at += NAMES[field].len;
                return Some(field);
            }
        }
        self.any_field(window)
    }

    /// The same of any field, with spaces anywhere.
    fn any_field(&mut self, window: u128) -> Option<usize> {
        let is_space = window as u8 == b' ';
        let window = window >> (8 * u32::from(is_space));
        self.at += usize::from(is_space);
        if let Some(field) = NAMES.iter().position(|name| name.begins(window)) {
            self.at += NAMES[field].len;
            return Some(field);
        }
        self.passes_spaces();
        self.passes(b'"')?.then_some(())?;
        let start = self.at;
        let end = end_of_string(self.bytes, start)?;
        self.at = end + 1;
        self.passes_spaces();
        self.passes(b':')?.then_some(())?;
        let field = NAMES.iter().position(|it| it.is(&self.bytes[start..end]));
        Some(field.unwrap_or(OTHER))
    }

    /// Whether the next bytes are spaces, which are then passed.
    #[cold]
    fn passes_spaces(&mut self) -> bool {
        let spaces = self.bytes[self.at..].iter().take_while(|it| **it == b' ');
        let count = spaces.count();
        self.at += count;
        count > 0
    }

    /// Passes a value, and spaces before it.
    #[inline(always)]
    fn value(&mut self) -> Option<Value> {
        let mut first = self.bytes.get(self.at)?;
        while *first == b' ' {
            self.at += 1;
            first = self.bytes.get(self.at)?;
        }
        match first {
            b'"' => {
                let start = self.at + 1;
                let end = end_of_string(self.bytes, start)?;
                self.at = end + 1;
                Some(Value::Text(Span { start, end }))
            }
            b'0'..=b'9' => {
                let (integer, end) = integer(self.bytes, self.at)?;
                self.at = end;
                Some(Value::Integer(integer))
            }
            first => {
                let (word, value) = match first {
                    b'n' => ("null", Value::Null),
                    b't' => ("true", Value::Boolean),
                    b'f' => ("false", Value::Boolean),
                    _ => return None,
                };
                let from_here = &self.bytes[self.at..];
                self.at += word.len();
                from_here.starts_with(word.as_bytes()).then_some(value)
            }
        }
    }
}

/// Where the string that begins at `start` ends.
#[inline(always)]
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while let Some(window) = bytes.get(at..)?.first_chunk() {
        let ends = ends(*window);
        if ends != 0 {
            let end = at + ends.trailing_zeros() as usize;
            return (bytes[end] == b'"').then_some(end);
        }
        at += WINDOW;
    }
    end_in_last(bytes, at)
}

/// The same of a string that ends in the last window, as far as it is behind `at`.
fn end_in_last(bytes: &[u8], at: usize) -> Option<usize> {
    let start = bytes.len().checked_sub(WINDOW)?;
    let ends = ends(*bytes.last_chunk()?) >> (at - start);
    let end = at + ends.trailing_zeros() as usize;
    (bytes.get(end) == Some(&b'"')).then_some(end)
}

/// A whole number of up to 18 digits (those of 64 bits have up to 19), which begins at
/// `start`, and where it ends.
#[inline]
fn integer(bytes: &[u8], start: usize) -> Option<(i64, usize)> {
    let (mut value, mut at) = (0i64, start);
    while let Some(eight) = bytes[at..].first_chunk() {
        let (digits, number) = digits(*eight);
        value = value
            .wrapping_mul(POWERS_OF_TEN[digits])
            .wrapping_add(number);
        at += digits;
        if digits < eight.len() {
            break;
        }
    }
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        value = value.wrapping_mul(10).wrapping_add((digit - b'0').into());
        at += 1;
    }
    let digits = at - start;
    let is_whole = !matches!(bytes.get(at), Some(b'.' | b'e' | b'E'));
    let is_canonical = digits == 1 || bytes[start] != b'0';
    (is_whole && is_canonical && digits <= 18).then_some((value, at))
}

const POWERS_OF_TEN: [i64; 9] = {
    let mut powers = [1; 9];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = 10 * powers[i - 1];
        i += 1;
    }
    powers
};

/// With how many digits a text of eight bytes begins, and the number that they are.
#[inline]
fn digits(text: [u8; 8]) -> (usize, i64) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // In every byte a digit's value, or more than 9; the first is the lowest.
    let values = u64::from_le_bytes(text) ^ (EACH * b'0' as u64);
    let above_9 = (values.wrapping_add(EACH * 0x76) | values) & (EACH * 0x80);
    let count = above_9.trailing_zeros() / 8;
    // With zeros before it, and then the digits of each pair together, of each four, of all.
    let values = values.unbounded_shl(64 - 8 * count);
    let pairs = (10 * values + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (100 * pairs + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let all = (10_000 * fours + (fours >> 32)) & 0xffff_ffff;
    (count as usize, all as i64)
}

/// What stands in the fields. Absent, null and, where it may be, empty are the same.
struct Fields<'a> {
    text: &'a str,
    values: [Value; NAMES.len()],
}

impl<'a> Fields<'a> {
    /// A text that may be left out, of so many bytes at most.
    #[inline(always)]
    fn optional(&self, field: usize, max_bytes: usize) -> Option<Span> {
        match self.values[field] {
            Value::Text(span) if span.len() <= max_bytes => Some(span),
            Value::Null => Some(Span { start: 0, end: 0 }),
            _ => None,
        }
    }

    #[inline(always)]
    fn required(&self, field: usize) -> Option<&'a str> {
        match self.values[field] {
            Value::Text(span) if (1..=64).contains(&span.len()) => self.text(span),
            _ => None,
        }
    }

    #[inline(always)]
    fn text(&self, span: Span) -> Option<&'a str> {
        self.text.get(span.start..span.end)
    }

    #[inline(always)]
    fn event(&self) -> Option<Event<'a>> {
        let Value::Integer(amount @ 1..) = self.values[AMOUNT] else {
            return None;
        };
        let at = match self.values[AT] {
            Value::Integer(at) => at,
            Value::Text(span) => time::rfc3339(self.text(span)?)?,
            _ => return None,
        };
        if !(AT_MIN..AT_END).contains(&at) {
            return None;
        }
        let currency = || match self.values[CURRENCY] {
            Value::Text(span) => Currency::parse(self.text(span)?),
            _ => None,
        };
        let kind = match self.values[KIND] {
            Value::Null => b"donation",
            Value::Text(span) => self.text.as_bytes().get(span.start..span.end)?,
            _ => return None,
        };
        let gift = match kind {
            b"donation" => Gift::Donation(Money(amount), currency()?),
            b"refund" => Gift::Refund(Money(amount), currency()?),
            b"match" => Gift::Match(Money(amount), currency()?),
            b"flower" if matches!(self.values[CURRENCY], Value::Null) => Gift::Flowers(amount),
            _ => return None,
        };
        let refund_of = self.optional(REFUND_OF, 64)?;
        if refund_of.len() > 0 && !matches!(gift, Gift::Refund(..)) {
            return None;
        }
        self.optional(CHANNEL, 32)?;
        let donor = self.optional(DONOR, 64)?;
        Some(Event {
            id: Id::of(self.required(ID)?),
            gift,
            campaign: Cow::Borrowed(self.required(CAMPAIGN)?),
            donor: match donor.len() {
                0 => None,
                _ => Some(Cow::Borrowed(self.text(donor)?)),
            },
            at,
        })
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever in a text it is, and however much follows it.
    #[test]
    fn a_string_ends_with_its_quote_and_has_nothing_unusual() {
        let end = |text: &str| end_of_string(text.as_bytes(), 1);
        for before in 0..50 {
            for behind in 0..40 {
                for byte in [b'"', b'\\', 0, b'\n', 0x1f, b' ', b'!', b'[', b']', 0x7f] {
                    let within = "a".repeat(before) + str::from_utf8(&[byte]).unwrap();
                    let text = format!("\"{within}\"{}", "\"\\".repeat(behind));
                    let place = match byte {
                        b'"' => Some(before + 1),
                        b' ' | b'!' | b'[' | b']' => Some(before + 2),
                        _ => None,
                    };
                    // No event is shorter than a window.
                    let place = place.filter(|_| text.len() >= WINDOW);
                    assert_eq!(end(&text), place, "{text:?}");
                }
            }
            assert_eq!(end(&format!("\"{}", "a".repeat(before))), None);
        }
        for character in '\u{80}'..='\u{ff}' {
            let text = format!("\"a string with {character}\"");
            assert_eq!(end(&text).is_some(), character >= '\u{c0}', "{text}");
        }
    }

    #[test]
    fn digits_are_read_up_to_what_is_none() {
        for count in 0..=8 {
            for other in (0..=0x7f).filter(|it: &u8| !it.is_ascii_digit()) {
                let mut text = "90817263"[..count].to_owned();
                let number = text.parse().unwrap_or(0);
                text.extend(std::iter::repeat_n(char::from(other), 8 - count));
                let eight = text.as_bytes().first_chunk().unwrap();
                assert_eq!(digits(*eight), (count, number), "{text:?}");
            }
        }
        assert_eq!(digits(*b"1\xff345678"), (1, 1));
        assert_eq!(digits(*b"12\x80\xff\xff\xff\xff\xff"), (2, 12));
    }
}
