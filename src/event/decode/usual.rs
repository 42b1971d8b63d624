//! Events as nearly all are: flat objects without escapes and faults.
//!
//! Where anything stands that is not known here (an escape, a nested value, a fraction, a
//! fault), the general decoder is asked, and says what that is. So nothing is decided here:
//! what is taken both would take, and as the same. Property tests hold one against the other.

use std::borrow::Cow;

use wide::u8x16;

use super::time;
use crate::event::{AT_END, AT_MIN, Event, Gift, Id, Millis};
use crate::money::{Currency, Money};

/// The event of a text of the usual form; `None`: the general decoder is to be asked.
pub(super) fn usual(text: &str) -> Option<Event<'_>> {
    let bytes = text.as_bytes();
    let mut quotes = [0; MOST_QUOTES];
    // Without escapes, every other quote begins a string, and the next one ends it.
    let (strings, []) = find_quotes(bytes, &mut quotes)?.as_chunks() else {
        return None;
    };
    let mut cursor = Cursor {
        bytes,
        at: 0,
        strings: strings.iter(),
    };
    let mut fields = Fields::default();
    cursor.expect(b'{')?;
    loop {
        cursor.next()?;
        let name = cursor.string()?;
        cursor.expect(b':')?;
        let value = cursor.value()?;
        fields.take(bytes, name, value)?;
        match cursor.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    match cursor.next() {
        None => fields.event(text),
        Some(_) => None,
    }
}

/// How many quotes are looked for: an event has 32.
const MOST_QUOTES: usize = 64;

/// How long a text may be.
const MOST_BYTES: usize = 4_096;

/// How many bytes are looked at together.
const BLOCK: usize = 64;

/// Where the quotes of a text are; `None` if there is anything that is not known here.
fn find_quotes<'a>(text: &[u8], places: &'a mut [u16; MOST_QUOTES]) -> Option<&'a [u16]> {
    if text.len() > MOST_BYTES {
        return None;
    }
    let mut count = 0;
    for start in (0..text.len()).step_by(BLOCK) {
        let left = &text[start..];
        // Of the last block there is a part only: it has something of that before, too.
        let (block, seen) = match (left.first_chunk(), text.last_chunk()) {
            (Some(block), _) => (*block, 0),
            (None, Some(block)) => (*block, BLOCK - left.len()),
            (None, None) => {
                let mut block = [b' '; BLOCK];
                block[..left.len()].copy_from_slice(left);
                (block, 0)
            }
        };
        let (marks, is_unusual) = look(&block);
        let mut marks = marks >> seen;
        if is_unusual || count + marks.count_ones() as usize > MOST_QUOTES {
            return None;
        }
        while marks != 0 {
            places[count] = start as u16 + marks.trailing_zeros() as u16;
            marks &= marks - 1;
            count += 1;
        }
    }
    Some(&places[..count])
}

/// Marks the quotes of a block by bits, and says whether there is a byte that is not known
/// here or begins what is not: an escape, spaces that are none, and [control
/// characters](super::has_control), of which those above 0x7f begin with 0xc2.
#[inline]
fn look(block: &[u8; BLOCK]) -> (u64, bool) {
    let (mut quotes, mut unusual) = (0, u8x16::ZERO);
    for (number, part) in block.as_chunks().0.iter().enumerate() {
        let bytes = u8x16::new(*part);
        let equal = |byte| bytes.simd_eq(u8x16::splat(byte));
        quotes |= u64::from(equal(b'"').to_bitmask()) << (16 * number);
        let below_space = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
        unusual |= below_space | equal(b'\\') | equal(0x7f) | equal(0xc2);
    }
    (quotes, unusual.any())
}

/// Where something stands in the text.
#[derive(Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    #[inline]
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }

    #[inline]
    fn text(self, text: &str) -> Option<&str> {
        text.get(self.start..self.end)
    }

    #[inline]
    fn len(self) -> usize {
        self.end - self.start
    }
}

#[derive(Clone, Copy)]
enum Value {
    Text(Span),
    Integer(i64),
    Null,
    Boolean,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The quotes before and behind each string that it has not passed.
    strings: std::slice::Iter<'a, [u16; 2]>,
}

impl Cursor<'_> {
    /// Passes the next byte that is no space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if byte != b' ' {
                return Some(byte);
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// The string whose first quote has just been passed, if it was one.
    #[inline]
    fn string(&mut self) -> Option<Span> {
        let [quote, end] = self.strings.next()?.map(usize::from);
        let start = quote + 1;
        let is_here = start == self.at;
        self.at = end + 1;
        is_here.then_some(Span { start, end })
    }

    #[inline]
    fn value(&mut self) -> Option<Value> {
        match self.next()? {
            b'"' => self.string().map(Value::Text),
            b'0'..=b'9' => self.integer(),
            b'n' => self.literal(b"null", Value::Null),
            b't' => self.literal(b"true", Value::Boolean),
            b'f' => self.literal(b"false", Value::Boolean),
            _ => None,
        }
    }

    /// A whole number of up to 18 digits (those of 64 bits have up to 19), the first of which
    /// has just been passed.
    #[inline]
    fn integer(&mut self) -> Option<Value> {
        self.at -= 1;
        let (mut digits, mut value) = (0, 0i64);
        let from_here = &self.bytes[self.at..];
        while let Some(digit @ b'0'..=b'9') = from_here.get(digits) {
            value = value.wrapping_mul(10).wrapping_add((digit - b'0').into());
            digits += 1;
        }
        self.at += digits;
        let is_whole = !matches!(from_here.get(digits), Some(b'.' | b'e' | b'E'));
        let is_canonical = digits == 1 || from_here[0] != b'0';
        (is_whole && is_canonical && digits <= 18).then_some(Value::Integer(value))
    }

    #[cold]
    fn literal(&mut self, word: &[u8], value: Value) -> Option<Value> {
        self.at -= 1;
        let is_it = self.bytes[self.at..].starts_with(word);
        self.at += word.len();
        is_it.then_some(value)
    }
}

/// The fields that we know. Absent, null and, where it may be, empty are the same.
#[derive(Default)]
struct Fields {
    id: Span,
    kind: Option<Span>,
    campaign: Span,
    donor: Span,
    amount: i64,
    currency: Option<Span>,
    at: Millis,
    refund_of: Span,
    /// Which of them were there.
    seen: u16,
}

impl Fields {
    #[inline]
    fn take(&mut self, bytes: &[u8], name: Span, value: Value) -> Option<()> {
        use Value::{Integer, Null, Text};
        let name = name.of(bytes);
        let field = match name.len() {
            2 if name == b"id" => {
                let Text(id) = value else { return None };
                self.id = id;
                0
            }
            2 if name == b"at" => {
                self.at = match value {
                    Integer(at) => at,
                    Text(at) => time::rfc3339(std::str::from_utf8(at.of(bytes)).ok()?)?,
                    _ => return None,
                };
                1
            }
            4 if name == b"kind" => {
                let Text(kind) = value else { return None };
                self.kind = Some(kind);
                2
            }
            5 if name == b"donor" => {
                self.donor = text_or_null(value)?;
                3
            }
            6 if name == b"amount" => {
                let Integer(amount) = value else { return None };
                self.amount = amount;
                4
            }
            7 if name == b"channel" => {
                (text_or_null(value)?.len() <= 32).then_some(())?;
                5
            }
            8 if name == b"campaign" => {
                let Text(campaign) = value else { return None };
                self.campaign = campaign;
                6
            }
            8 if name == b"currency" => {
                self.currency = match value {
                    Text(currency) => Some(currency),
                    Null => None,
                    _ => return None,
                };
                7
            }
            9 if name == b"refund_of" => {
                self.refund_of = text_or_null(value)?;
                8
            }
            _ => return Some(()),
        };
        let bit = 1 << field;
        let is_first = self.seen & bit == 0;
        self.seen |= bit;
        is_first.then_some(())
    }

    fn event<'a>(&self, text: &'a str) -> Option<Event<'a>> {
        let bytes = text.as_bytes();
        let is_name = |span: Span| (1..=64).contains(&span.len());
        let is_right = is_name(self.id)
            && is_name(self.campaign)
            && self.donor.len() <= 64
            && self.refund_of.len() <= 64
            && self.amount >= 1
            && (AT_MIN..AT_END).contains(&self.at);
        if !is_right {
            return None;
        }
        let amount = Money(self.amount);
        let currency = || Currency::parse(self.currency?.text(text)?);
        let kind = self.kind.map_or(&b"donation"[..], |kind| kind.of(bytes));
        let gift = match kind {
            b"donation" => Gift::Donation(amount, currency()?),
            b"refund" => Gift::Refund(amount, currency()?),
            b"match" => Gift::Match(amount, currency()?),
            b"flower" if self.currency.is_none() => Gift::Flowers(self.amount),
            _ => return None,
        };
        if self.refund_of.len() > 0 && !matches!(gift, Gift::Refund(..)) {
            return None;
        }
        let donor = match self.donor.len() {
            0 => None,
            _ => Some(Cow::Borrowed(self.donor.text(text)?)),
        };
        Some(Event {
            id: Id::of(self.id.text(text)?),
            gift,
            campaign: Cow::Borrowed(self.campaign.text(text)?),
            donor,
            at: self.at,
        })
    }
}

#[inline]
fn text_or_null(value: Value) -> Option<Span> {
    match value {
        Value::Text(span) => Some(span),
        Value::Null => Some(Span::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever in a text they are, however long it is.
    #[test]
    fn quotes_and_what_is_unusual_are_found() {
        let found = |text: &str| {
            let mut places = [0; MOST_QUOTES];
            let quotes = find_quotes(text.as_bytes(), &mut places);
            quotes.map(|quotes| quotes.to_vec())
        };
        for length in 1..300 {
            for place in 0..length {
                for byte in [b'"', b'\\', 0, b'\n', 0x1f, b' ', b'!', b'[', b']', 0x7f] {
                    let mut text = vec![b'a'; length];
                    text[length / 2] = b'"';
                    text[place] = byte;
                    let text = String::from_utf8(text).unwrap();
                    let unusual = text.contains(|it: char| it.is_ascii_control() || it == '\\');
                    let quotes = text.match_indices('"').map(|it| it.0 as u16).collect();
                    assert_eq!(found(&text), (!unusual).then_some(quotes), "{text:?}");
                }
            }
        }
        for character in '\u{80}'..='\u{ff}' {
            let is_known = found(&character.to_string()).is_some();
            assert_eq!(is_known, character >= '\u{c0}', "{character}");
        }
        assert_eq!(found(&"\"".repeat(MOST_QUOTES)).unwrap().len(), MOST_QUOTES);
        assert_eq!(found(&"\"".repeat(MOST_QUOTES + 1)), None);
        assert_eq!(found(&"a".repeat(MOST_BYTES)), Some(vec![]));
        assert_eq!(found(&"a".repeat(MOST_BYTES + 1)), None);
    }
}
