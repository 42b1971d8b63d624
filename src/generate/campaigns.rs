//! Campaigns: their names, and who draws how much.
//!
//! Zipf with exponent 1: the campaign at rank `r` draws in proportion to `1/r`,
//! except that the first draws a tenth of all gifts, or more where there are so
//! few campaigns that its weight alone is more. A campaign's number is its rank.

use super::random::Random;

/// What Chinese charities raise money for.
const THEMES: [&str; 24] = [
    "乡村助学",
    "大病救助",
    "山区营养午餐",
    "留守儿童陪伴",
    "抗震救灾",
    "清洁饮水",
    "女童保护",
    "孤独症关爱",
    "乡村图书室",
    "老兵关怀",
    "荒漠植树",
    "长者食堂",
    "先天性心脏病救助",
    "乡村教师培训",
    "残障人士就业",
    "流浪动物救助",
    "江豚保护",
    "雪豹守护",
    "困境妇女帮扶",
    "乡村医生",
    "冬衣计划",
    "古村落保护",
    "听障儿童语训",
    "急救培训",
];

/// The names and the drawing.
pub(super) struct Campaigns {
    names: Vec<Box<str>>,
    /// Walker's alias table: one look decides between a campaign and its alias.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Of 2^32: how often the slot's own campaign is meant.
    own: u64,
    alias: u32,
}

impl Campaigns {
    pub(super) fn new(count: u32) -> Campaigns {
        let names = (0..count as usize)
            .map(|i| format!("{}-{:05}", THEMES[i % THEMES.len()], i + 1).into())
            .collect();
        Campaigns {
            names,
            slots: alias_table(&weights(count)),
        }
    }

    pub(super) fn name(&self, campaign: u32) -> &str {
        &self.names[campaign as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Draws a campaign by its weight.
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        let bits = random.bits();
        let index = ((bits >> 32) * self.slots.len() as u64) >> 32;
        let slot = self.slots[index as usize];
        if bits & 0xffff_ffff < slot.own {
            index as u32
        } else {
            slot.alias
        }
    }
}

/// Whole numbers in proportion to how much each campaign draws.
fn weights(count: u32) -> Vec<u64> {
    let mut weights: Vec<u64> = (1..=u64::from(count))
        .map(|rank| (1 << 40) / rank)
        .collect();
    let others: u64 = weights[1..].iter().sum();
    // A ninth of the others is a tenth of all.
    weights[0] = weights[0].max(others / 9);
    weights
}

/// Walker's method in whole numbers, so that it comes out the same everywhere.
fn alias_table(weights: &[u64]) -> Vec<Slot> {
    let count = weights.len() as u128;
    let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    // Scaled so that the average is `sum`, which is one full slot.
    let mut scaled: Vec<u128> = weights.iter().map(|w| u128::from(*w) * count).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..scaled.len()).partition(|i| scaled[*i] < sum);
    let mut slots: Vec<Slot> = (0..scaled.len())
        .map(|i| Slot {
            own: 1 << 32,
            alias: i as u32,
        })
        .collect();
    while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
        slots[less] = Slot {
            own: ((scaled[less] << 32) / sum) as u64,
            alias: more as u32,
        };
        scaled[more] -= sum - scaled[less];
        if scaled[more] < sum {
            large.pop();
            small.push(more);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(count: u32, draws: u32) -> Vec<u32> {
        let campaigns = Campaigns::new(count);
        let mut random = Random::new(1);
        let mut drawn = vec![0; count as usize];
        for _ in 0..draws {
            drawn[campaigns.draw(&mut random) as usize] += 1;
        }
        drawn
    }

    #[test]
    fn the_first_of_many_draws_a_tenth_and_the_others_by_rank() {
        let drawn = drawn(20_000, 1_000_000);
        assert!((98_000..102_000).contains(&drawn[0]), "{}", drawn[0]);
        // Rank 2 draws 0.9 / (H(20000) - 1) / 2 = 4.74%, rank 20 a tenth of it.
        assert!((46_000..49_000).contains(&drawn[1]), "{}", drawn[1]);
        assert!((4_400..5_100).contains(&drawn[19]), "{}", drawn[19]);
        assert!(drawn.iter().filter(|n| **n > 0).count() > 15_000);
    }

    #[test]
    fn a_few_campaigns_follow_their_ranks() {
        assert_eq!(drawn(1, 10), [10]);
        let drawn = drawn(3, 110_000);
        for (drawn, share) in drawn.iter().zip([60_000u32, 30_000, 20_000]) {
            assert!(drawn.abs_diff(share) < 1_500, "{drawn} for {share}");
        }
    }

    #[test]
    fn names_are_distinct_and_short_enough() {
        let campaigns = Campaigns::new(100_000);
        let names: std::collections::HashSet<_> = campaigns.names.iter().collect();
        assert_eq!(names.len(), 100_000);
        assert!(names.iter().all(|name| name.len() <= 64));
        assert_eq!(campaigns.name(0), "乡村助学-00001");
    }
}
