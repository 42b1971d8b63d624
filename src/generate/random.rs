//! Randomness from a seed, in whole numbers only.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// A stream of random bits that depends on the seed alone.
pub(super) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// 64 random bits.
    #[inline]
    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`. The bias of at most `bound / 2^64` is far below
    /// what any test of ours could see.
    #[inline]
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }
}

/// A share as a threshold for 32 random bits: they lie below it that often.
pub(super) fn threshold(share: f64) -> u64 {
    (share * 4_294_967_296.0).round() as u64
}
