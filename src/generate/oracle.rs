//! What the stream must add up to, counted while it is made.
//!
//! It knows each event before it is bytes, and shares no code with the fold
//! that will read them: two programs that agree to the fen are both right.

use std::collections::BTreeMap;

use super::campaigns::Campaigns;
use super::draft::{CNY, CURRENCIES, Draft, Kind};
use super::settings::Millis;
use crate::expected::{Expected, ExpectedCampaign};
use crate::money::Currency;
use crate::publish::records::MoneyTotal;

/// The counts and sums so far.
pub(super) struct Oracle {
    records: u64,
    duplicates: u64,
    dead_letters: u64,
    campaigns: Vec<Sums>,
    /// By campaign and currency other than CNY; few, so a tree will do.
    others: BTreeMap<(u32, u8), MoneyTotal>,
    /// One bit a donor: distinct ones are counted at the end, exactly.
    donors: Vec<u64>,
}

/// One campaign, in one line of the processor's cache. The sums cannot overflow:
/// 10^10 records of at most 10^8 minor units, but for a purse's last gift.
#[derive(Clone, Copy)]
struct Sums {
    events: u64,
    gifts: u64,
    flowers: i64,
    gross: i64,
    refunded: i64,
    matched: i64,
    first_at: Millis,
    last_at: Millis,
}

impl Sums {
    const NONE: Sums = Sums {
        events: 0,
        gifts: 0,
        flowers: 0,
        gross: 0,
        refunded: 0,
        matched: 0,
        first_at: Millis::MAX,
        last_at: Millis::MIN,
    };
}

impl Oracle {
    pub(super) fn new(campaigns: usize) -> Oracle {
        Oracle {
            records: 0,
            duplicates: 0,
            dead_letters: 0,
            campaigns: vec![Sums::NONE; campaigns],
            others: BTreeMap::new(),
            donors: Vec::new(),
        }
    }

    /// Counts an event that is sent for the first time.
    pub(super) fn count(&mut self, event: &Draft) {
        self.records += 1;
        let sums = &mut self.campaigns[event.campaign as usize];
        sums.events += 1;
        sums.first_at = sums.first_at.min(event.at);
        sums.last_at = sums.last_at.max(event.at);
        match event.kind {
            Kind::Donation => sums.gifts += 1,
            Kind::Flower => sums.flowers += event.amount,
            Kind::Refund | Kind::Match => {}
        }
        if event.currency == CNY {
            match event.kind {
                Kind::Donation => sums.gross += event.amount,
                Kind::Refund => sums.refunded += event.amount,
                Kind::Match => sums.matched += event.amount,
                Kind::Flower => {}
            }
        } else {
            let money = self
                .others
                .entry((event.campaign, event.currency))
                .or_default();
            match event.kind {
                Kind::Donation => money.gross += i128::from(event.amount),
                Kind::Refund => money.refunded += i128::from(event.amount),
                Kind::Match => money.matched += i128::from(event.amount),
                Kind::Flower => {}
            }
        }
        if let Some(donor) = event.donor {
            let word = (donor / 64) as usize;
            if word >= self.donors.len() {
                self.donors.resize(word + 1, 0);
            }
            self.donors[word] |= 1 << (donor % 64);
        }
    }

    /// Counts an event that is sent again.
    pub(super) fn count_repeat(&mut self) {
        self.records += 1;
        self.duplicates += 1;
    }

    /// Counts a record that cannot be counted by others.
    pub(super) fn count_malformed(&mut self) {
        self.records += 1;
        self.dead_letters += 1;
    }

    /// All of it, under the campaigns' names.
    pub(super) fn expected(&self, campaigns: &Campaigns) -> Expected {
        let mut expected = Expected {
            events: self.records,
            duplicates: self.duplicates,
            dead_letters: self.dead_letters,
            donors: self
                .donors
                .iter()
                .map(|word| u64::from(word.count_ones()))
                .sum(),
            ..Expected::default()
        };
        for (number, sums) in (0..).zip(&self.campaigns) {
            if sums.events == 0 {
                continue;
            }
            let campaign = self.expected_campaign(number, sums);
            expected.gifts += campaign.gifts;
            expected.flowers += campaign.flowers;
            for (currency, money) in &campaign.money {
                add(expected.money.entry(*currency).or_default(), money);
            }
            expected
                .campaigns
                .insert(campaigns.name(number).to_owned(), campaign);
        }
        for money in expected.money.values_mut() {
            money.net = money.gross - money.refunded;
        }
        expected
    }

    fn expected_campaign(&self, number: u32, sums: &Sums) -> ExpectedCampaign {
        let mut money = BTreeMap::new();
        let in_cny = MoneyTotal {
            gross: sums.gross.into(),
            refunded: sums.refunded.into(),
            net: 0,
            matched: sums.matched.into(),
        };
        let others = self.others.range((number, 0)..=(number, u8::MAX));
        let by_currency = others.map(|((_, currency), total)| (*currency, *total));
        for (currency, mut total) in by_currency.chain([(CNY, in_cny)]) {
            total.net = total.gross - total.refunded;
            // Amounts are positive: where all is zero there was no money at all.
            let code = Currency::parse(CURRENCIES[usize::from(currency)]);
            if let Some(code) = code.filter(|_| total != MoneyTotal::default()) {
                money.insert(code, total);
            }
        }
        ExpectedCampaign {
            events: sums.events,
            gifts: sums.gifts,
            flowers: sums.flowers.into(),
            donors: None,
            money,
            first_at_ms: sums.first_at,
            last_at_ms: sums.last_at,
        }
    }
}

fn add(sum: &mut MoneyTotal, other: &MoneyTotal) {
    sum.gross += other.gross;
    sum.refunded += other.refunded;
    sum.matched += other.matched;
}
