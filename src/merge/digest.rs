//! The digest of a cut: it proves what the totals were when their upserts are
//! long compacted away.

use std::fmt;
use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_128;

use super::Total;

/// The sum modulo 2^128 of the campaigns' own digests. A sum needs no order and
/// is kept up to date by what changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u128);

impl Digest {
    /// One campaign's digest was `old` and is `new`.
    pub(super) fn replace(&mut self, old: Digest, new: Digest) {
        self.0 = self.0.wrapping_sub(old.0).wrapping_add(new.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The digest of one campaign's counted figures: XXH3 at 128 bits of
///
/// ```text
/// campaign ⏎ counted ⏎ gifts ⏎ flowers ⏎ first_at ⏎ last_at ⏎
/// CNY gross refunded matched ⏎        (a line a currency, in their order)
/// ```
///
/// with times in milliseconds and amounts in minor units, all in decimal. Names
/// hold no line feed, so no two totals have the same text. Estimates are left out.
pub fn campaign_digest(total: &Total) -> Digest {
    let (counts, sums) = (&total.counts, &total.sums);
    let mut text = String::with_capacity(160);
    let _ = writeln!(text, "{}\n{}", total.campaign, counts.counted);
    let _ = writeln!(text, "{}\n{}", sums.gifts, sums.flowers);
    let _ = writeln!(text, "{}\n{}", counts.first_at, counts.last_at);
    for (currency, money) in sums.money.iter() {
        let (gross, refunded, matched) = (money.gross, money.refunded, money.matched);
        let _ = writeln!(text, "{currency} {gross} {refunded} {matched}");
    }
    Digest(xxh3_128(text.as_bytes()))
}
