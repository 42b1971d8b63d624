//! Ids: ULIDs, 26 characters of Crockford's base 32, unique within a stream by
//! construction.

use super::settings::Millis;

/// A ULID's text.
pub(super) type IdText = [u8; 26];

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Every ten bits as two characters.
static PAIRS: [[u8; 2]; 1024] = {
    let mut pairs = [[0; 2]; 1024];
    let mut i = 0;
    while i < 1024 {
        pairs[i] = [ALPHABET[i >> 5], ALPHABET[i & 31]];
        i += 1;
    }
    pairs
};

/// Makes the ids of one stream.
pub(super) struct Ulids {
    salt: u64,
    run: u16,
}

impl Ulids {
    pub(super) fn new(seed: u64) -> Ulids {
        // Mixed twice, so that neighbouring seeds share neither salt nor run.
        let salt = mix(seed);
        Ulids {
            salt,
            run: mix(salt) as u16,
        }
    }

    /// The id of record number `sequence`. Mixing is a bijection, so two
    /// numbers never make the same id, whatever the time.
    pub(super) fn make(&self, at: Millis, sequence: u64) -> IdText {
        let time = (at as u64 & 0xffff_ffff_ffff) as u128;
        let value = time << 80 | u128::from(self.run) << 64 | u128::from(mix(sequence ^ self.salt));
        let mut text = [0; 26];
        for (i, pair) in text.chunks_exact_mut(2).enumerate() {
            pair.copy_from_slice(&PAIRS[(value >> (120 - 10 * i)) as usize & 1023]);
        }
        text
    }
}

/// SplitMix64's finalizer: a bijection on 64 bits.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_in_front_and_sorts() {
        let ulids = Ulids::new(1);
        // The example of the ULID specification: 1469918176385 is 01ARYZ6S41.
        assert_eq!(&ulids.make(1_469_918_176_385, 7)[..10], b"01ARYZ6S41");
        assert!(ulids.make(1_000, 9) < ulids.make(1_001, 3));
    }

    #[test]
    fn the_largest_time_stays_canonical() {
        assert_eq!(&Ulids::new(1).make((1 << 48) - 1, 7)[..10], b"7ZZZZZZZZZ");
    }
}
