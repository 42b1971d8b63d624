//! Amounts as people give them, and how they are made to add up.
//!
//! Most gifts are round, or lucky numbers, or just below a round one; a few are
//! odd to the fen, and a long tail reaches hundreds of thousands of yuan.
//! [`Purse`] makes a given number of such amounts add up to a given sum: it
//! keeps to the average by drawing from a modest or a generous mix, whichever
//! is called for, and the last gift is what is left.

use super::random::Random;
use super::settings::AMOUNT_MIN;

/// An amount in fen, and how many of 1,024 gifts are of it in the modest and in
/// the generous mix. The average of the giving day of 2022, 56.74 yuan, lies
/// between the averages of the two.
const GIVEN: [(i64, u16, u16); 32] = [
    (100, 120, 46),
    (200, 50, 22),
    (500, 110, 56),
    (520, 8, 6),
    (666, 20, 12),
    (880, 16, 10),
    (990, 110, 70),
    (1_000, 150, 110),
    (1_680, 16, 14),
    (1_800, 10, 10),
    (1_990, 20, 20),
    (2_000, 104, 100),
    (3_000, 30, 40),
    (5_000, 80, 110),
    (5_200, 16, 24),
    (6_600, 14, 20),
    (6_666, 4, 8),
    (8_800, 12, 20),
    (9_900, 38, 70),
    (9_999, 4, 6),
    (10_000, 44, 106),
    (16_800, 4, 12),
    (18_800, 2, 10),
    (20_000, 6, 38),
    (30_000, 2, 14),
    (36_500, 1, 6),
    (50_000, 3, 20),
    (52_000, 1, 6),
    (66_600, 0, 4),
    (88_800, 0, 3),
    (99_900, 0, 4),
    (100_000, 1, 8),
];
/// How many of 1,024 are of the long tail; the rest is odd to the fen.
const TAIL: [u16; 2] = [2, 5];

/// What stands in a mix for an amount that is drawn anew each time.
const ODD: i64 = -1;
const LONG_TAIL: i64 = -2;

/// First figures of the tail's amounts, in thousandths of a power of ten.
const TAIL_FIGURES: [i64; 16] = [
    1000, 1000, 1000, 1200, 1500, 1680, 1880, 2000, 2000, 3000, 3650, 5000, 5000, 5200, 6660, 8880,
];

/// Draws single amounts.
pub(super) struct Amounts {
    mixes: [Vec<i64>; 2],
}

/// Which mix to draw from.
#[derive(Clone, Copy)]
enum Mix {
    Modest = 0,
    Generous = 1,
}

impl Amounts {
    pub(super) fn new() -> Amounts {
        Amounts {
            mixes: [mix(|given| given.1, TAIL[0]), mix(|given| given.2, TAIL[1])],
        }
    }

    /// An amount in minor units, at least [`AMOUNT_MIN`], at most a million yuan.
    pub(super) fn draw(&self, random: &mut Random) -> i64 {
        let mix = if random.bits() >> 63 == 0 {
            Mix::Modest
        } else {
            Mix::Generous
        };
        self.draw_from(mix, random)
    }

    fn draw_from(&self, mix: Mix, random: &mut Random) -> i64 {
        let bits = random.bits();
        match self.mixes[mix as usize][(bits >> 54) as usize] {
            ODD => AMOUNT_MIN + (((bits & 0xffff_ffff) * 6_000) >> 32) as i64,
            LONG_TAIL => {
                let figure = TAIL_FIGURES[(bits & 15) as usize];
                // 1,000 yuan; ten and a hundred times that with 1/16 and 1/256.
                let power = match bits >> 4 & 0xff {
                    0 => 10_000,
                    1..=15 => 1_000,
                    _ => 100,
                };
                figure * power
            }
            amount => amount,
        }
    }
}

fn mix(weight: impl Fn(&(i64, u16, u16)) -> u16, tail: u16) -> Vec<i64> {
    let mut slots = vec![LONG_TAIL; tail.into()];
    for given in &GIVEN {
        slots.extend(std::iter::repeat_n(given.0, weight(given).into()));
    }
    debug_assert!(slots.len() < 1024);
    slots.resize(1024, ODD);
    slots
}

/// Gives out a sum in a number of gifts, exactly.
pub(super) struct Purse {
    gifts: u64,
    sum: i64,
    gifts_left: u64,
    sum_left: i64,
}

impl Purse {
    /// `sum` must be at least `gifts` times [`AMOUNT_MIN`].
    pub(super) fn new(gifts: u64, sum: i64) -> Purse {
        Purse {
            gifts,
            sum,
            gifts_left: gifts,
            sum_left: sum,
        }
    }

    /// The next gift; to be asked for `gifts` times.
    ///
    /// It never takes so much that the others could not be of the smallest
    /// amount, and never more than half of what is left, so that the last one
    /// is no tiny rest; a purse that is far from empty is not strained at all.
    pub(super) fn next(&mut self, amounts: &Amounts, random: &mut Random) -> i64 {
        let others = self.gifts_left.saturating_sub(1) as i64;
        let amount = if others == 0 {
            self.sum_left
        } else {
            let usual = self.sum_left / self.gifts_left as i64;
            let most = (self.sum_left / 64)
                .max(8 * usual)
                .min(self.sum_left / 2)
                .min(self.sum_left - AMOUNT_MIN * others);
            self.draw_at_most(most, amounts, random)
        };
        self.gifts_left = others as u64;
        self.sum_left -= amount;
        amount
    }

    fn draw_at_most(&self, most: i64, amounts: &Amounts, random: &mut Random) -> i64 {
        // More left for each gift than planned: behind, so people get generous.
        let is_behind = i128::from(self.sum_left) * i128::from(self.gifts)
            > i128::from(self.sum) * i128::from(self.gifts_left);
        let mut mix = if is_behind {
            Mix::Generous
        } else {
            Mix::Modest
        };
        for _ in 0..8 {
            let amount = amounts.draw_from(mix, random);
            if amount <= most {
                return amount;
            }
            mix = Mix::Modest;
        }
        AMOUNT_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_of_the_giving_day_lies_well_between_the_mixes() {
        let amounts = Amounts::new();
        let mut random = Random::new(1);
        let mut average = |mix| {
            (0..4_000_000)
                .map(|_| amounts.draw_from(mix, &mut random))
                .sum::<i64>()
                / 4_000_000
        };
        let (modest, generous) = (average(Mix::Modest), average(Mix::Generous));
        assert!((2_000..4_500).contains(&modest), "{modest}");
        assert!((7_000..12_000).contains(&generous), "{generous}");
    }

    #[test]
    fn a_purse_is_empty_after_its_last_gift_and_no_gift_is_out_of_reason() {
        let amounts = Amounts::new();
        for (gifts, sum) in [
            (1, 100),
            (2, 200),
            (6, 33_000),
            (58, 330_000),
            (5_816, 33_000_000),
        ] {
            for seed in 0..200 {
                let mut random = Random::new(seed);
                let mut purse = Purse::new(gifts, sum);
                let given: Vec<i64> = (0..gifts)
                    .map(|_| purse.next(&amounts, &mut random))
                    .collect();
                assert_eq!(given.iter().sum::<i64>(), sum, "{gifts} gifts, seed {seed}");
                assert!(given.iter().all(|amount| *amount >= AMOUNT_MIN));
                // The rest that the last one gives is no fortune either.
                assert!(
                    given[given.len() - 1] <= 100 * (sum / gifts as i64),
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn a_purse_keeps_to_its_line() {
        let amounts = Amounts::new();
        let mut random = Random::new(1);
        let (gifts, average) = (581_600, 5_674);
        let mut purse = Purse::new(gifts, 3_300_000_000);
        let (mut given, mut worst, mut round) = (0, 0, 0u64);
        for i in 1..=gifts as i64 {
            let amount = purse.next(&amounts, &mut random);
            given += amount;
            worst = worst.max((given - average * i).abs());
            round += u64::from(GIVEN.iter().any(|known| known.0 == amount));
        }
        // Never further off than 5% of the whole, and still as people give.
        assert!(worst < 165_000_000, "{worst}");
        assert!(round * 100 > gifts * 90, "{round}");
    }
}
