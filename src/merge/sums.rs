//! Adding up shards, in 128 bits.

use crate::money::{ByCurrency, Currency, MoneyTotal};
use crate::shard::{Counts, Figures, Tally};

/// What was given, over all time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Donations.
    pub gifts: u64,
    /// Flowers.
    pub flowers: i128,
    /// Money by currency.
    pub money: ByCurrency<MoneyTotal>,
}

impl Sums {
    /// A row of some shard had the figures `old` and has `new` ones.
    pub(super) fn replace(&mut self, currency: Option<Currency>, old: &Figures, new: &Figures) {
        let change = |old: i64, new: i64| i128::from(new) - i128::from(old);
        let gross = change(old.gross.0, new.gross.0);
        let Some(currency) = currency else {
            self.flowers += gross;
            return;
        };
        self.gifts = self.gifts + new.gifts - old.gifts;
        let money = self.money.of(currency);
        money.gross += gross;
        money.refunded += change(old.refunded.0, new.refunded.0);
        money.matched += change(old.matched.0, new.matched.0);
        money.net = money.gross - money.refunded;
    }
}

/// A shard had the counts `old` of a campaign and has `new` ones.
pub(super) fn replace_counts(total: &mut Counts, old: &Counts, new: &Counts) {
    let replace = |total: &mut u64, old: u64, new: u64| *total = *total + new - old;
    replace(&mut total.seen, old.seen, new.seen);
    replace(&mut total.counted, old.counted, new.counted);
    replace(&mut total.duplicates, old.duplicates, new.duplicates);
    replace(&mut total.dead_letters, old.dead_letters, new.dead_letters);
    replace(&mut total.late, old.late, new.late);
    // A longer prefix only has an earlier first and a later last event.
    total.first_at = total.first_at.min(new.first_at);
    total.last_at = total.last_at.max(new.last_at);
}

pub(super) fn add_tally(total: &mut Tally, more: &Tally) {
    total.seen += more.seen;
    total.counted += more.counted;
    total.duplicates += more.duplicates;
    total.late += more.late;
    for (total, more) in total.dead_letters.iter_mut().zip(more.dead_letters) {
        *total += more;
    }
}
