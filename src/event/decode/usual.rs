//! A flat object taken apart in one pass: what nearly every event is.
//!
//! Where anything stands that it does not know (an escape, a nested value, a fraction, a
//! fault), it gives up, and the general decoder says what that is. So it decides nothing: what it takes, both take,
//! and as the same. A property test holds one against the other.

use std::borrow::Cow;

use super::{Field, Fields, Raw};

/// Puts in the fields of a flat object; `None`: the general decoder is to be asked.
pub(super) fn scan<'a>(text: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    let mut cursor = Cursor { text, at: 0 };
    fields.has_no_controls = true;
    cursor.expect(b'{')?;
    loop {
        let name = cursor.string()?;
        cursor.expect(b':')?;
        let value = cursor.value()?;
        fields.take(Field::of(name), value);
        match cursor.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    cursor.skip_space();
    (cursor.at == text.len()).then_some(())
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A string without escapes and [control characters](super::has_control).
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(&word) = bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let special = special(u64::from_le_bytes(word));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                break;
            }
            self.at += 8;
        }
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' | 0..0x20 | 0x7f | 0xc2 => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        // Both ends are beside a quote, so they are borders of characters.
        self.text.get(start..self.at - 1)
    }

    #[inline]
    fn value(&mut self) -> Option<Raw<'a>> {
        self.skip_space();
        match self.peek()? {
            b'"' => self.string().map(|text| Raw::Text(Cow::Borrowed(text))),
            b'0'..=b'9' => self.integer(),
            b'n' => self.literal("null", Raw::Null),
            b't' => self.literal("true", Raw::BOOLEAN),
            b'f' => self.literal("false", Raw::BOOLEAN),
            _ => None,
        }
    }

    /// A whole number of up to 18 digits: those of 64 bits have up to 19.
    fn integer(&mut self) -> Option<Raw<'a>> {
        let (start, mut value) = (self.at, 0i64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.wrapping_mul(10).wrapping_add((digit - b'0').into());
            self.at += 1;
        }
        let digits = &self.text.as_bytes()[start..self.at];
        let is_whole = !matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        let is_canonical = digits.len() == 1 || digits[0] != b'0';
        (is_whole && is_canonical && digits.len() <= 18).then_some(Raw::Integer(value))
    }

    fn literal(&mut self, word: &str, value: Raw<'a>) -> Option<Raw<'a>> {
        let is_it = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        is_it.then_some(value)
    }
}

/// Marks, by their highest bit, the bytes of a word at which a plain string ends: quotes,
/// backslashes, controls below 0x20 and 0x7f, and 0xc2, which those above begin with. The
/// lowest mark is always right; those above may be wrong.
///
/// The borrow of a subtraction marks a byte (Sean Eron Anderson, "Bit Twiddling Hacks",
/// "Determine if a word has a byte less than n").
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let less = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word;
    let equal = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    let marks = less(word, 0x20) | equal(b'"') | equal(b'\\') | equal(0x7f) | equal(0xc2);
    marks & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_which_a_string_may_end_is_found_first() {
        for byte in 0..=u8::MAX {
            let ends = matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f | 0xc2);
            for place in 0..8 {
                // Whatever stands behind it.
                for behind in [b'a', b'"', 0, 0xff] {
                    let mut word = [b'a'; 8];
                    word[place] = byte;
                    word[place + 1..].fill(behind);
                    let found = special(u64::from_le_bytes(word)).trailing_zeros() as usize / 8;
                    match ends {
                        true => assert_eq!(found, place, "{word:?}"),
                        false => assert!(found > place, "{word:?}"),
                    }
                }
            }
        }
    }
}
