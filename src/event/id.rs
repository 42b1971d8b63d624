//! Ids at 128 bits.

use xxhash_rust::xxh3::xxh3_128;

/// An event's id, whole at 128 bits: a UUID or a ULID in its canonical form as
/// it is, anything else as the XXH3 hash of its bytes.
///
/// Canonical (a UUID in lower case with hyphens, a ULID in upper case) because
/// two strings that differ are two ids: merchants' order numbers may differ in
/// case only. So within each of the three forms the mapping is one-to-one, but
/// for the hash, where one pair among 58 million ids meets by chance with a
/// probability of about 5e-24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u128);

impl Id {
    /// The id of a text.
    ///
    /// ```
    /// use tally99::event::Id;
    /// let uuid = Id::of("01831fb5-98a0-7c4e-8f3b-2a5d6c7e8f90");
    /// assert_eq!(uuid, Id(0x01831fb5_98a0_7c4e_8f3b_2a5d6c7e8f90));
    /// assert_eq!(Id::of("00000000000000000000000010"), Id(32));
    /// assert_ne!(Id::of("order-1"), Id::of("ORDER-1"));
    /// ```
    pub fn of(text: &str) -> Id {
        let bytes = text.as_bytes();
        let own_form = match bytes.len() {
            26 => ulid(bytes),
            36 => uuid(bytes),
            _ => None,
        };
        Id(own_form.unwrap_or_else(|| xxh3_128(bytes)))
    }
}

/// 26 letters of Crockford's base 32; the first holds 3 bits only.
fn ulid(bytes: &[u8]) -> Option<u128> {
    if bytes[0] > b'7' {
        return None;
    }
    // In parts that fit into 64 bits, and checked once: shifting 128 bits costs twice as much.
    let mut all = 0;
    let mut part = |letters: &[u8]| {
        letters.iter().fold(0, |value: u64, &letter| {
            let digit = CROCKFORD[letter as usize];
            all |= digit;
            value << 5 | u64::from(digit)
        })
    };
    let (high, middle, low) = (part(&bytes[..2]), part(&bytes[2..14]), part(&bytes[14..]));
    (all < 32).then(|| u128::from(high) << 120 | u128::from(middle) << 60 | u128::from(low))
}

/// `8-4-4-4-12` hexadecimal digits.
fn uuid(bytes: &[u8]) -> Option<u128> {
    let mut value = 0u128;
    for (i, &letter) in bytes.iter().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if letter != b'-' {
                return None;
            }
            continue;
        }
        let digit = match letter {
            b'0'..=b'9' => letter - b'0',
            b'a'..=b'f' => letter - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u128::from(digit);
    }
    Some(value)
}

/// The value of each letter, 255 for what is none. The alphabet leaves out
/// I, L, O and U (<https://www.crockford.com/base32.html>).
const CROCKFORD: [u8; 256] = {
    let alphabet = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut table = [255; 256];
    let mut i = 0;
    while i < alphabet.len() {
        table[alphabet[i] as usize] = i as u8;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_forms_are_taken_as_they_are() {
        let hashed = |text: &str| Id(xxh3_128(text.as_bytes()));
        for text in [
            "01831FB5-98a0-7c4e-8f3b-2a5d6c7e8f90", // a UUID with upper case
            "01831fb5x98a0-7c4e-8f3b-2a5d6c7e8f90", // no hyphen
            "81GCFAHJ6Z0000000000000000",           // more than 128 bits
            "01gcfahj6z0000000000000000",           // a ULID in lower case
            "01GCFAHJ6I0000000000000000",           // not in the alphabet
            "四五六七八九十一二三四五",             // 36 bytes, none of them ASCII
            "",
        ] {
            assert_eq!(Id::of(text), hashed(text), "{text}");
        }
        assert_eq!(Id::of("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"), Id(u128::MAX));
        assert_eq!(
            Id::of("ffffffff-ffff-ffff-ffff-ffffffffffff"),
            Id(u128::MAX)
        );
    }
}
