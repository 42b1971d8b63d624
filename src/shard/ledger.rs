//! Sums that never drop an event: one row for each business day and currency.
//!
//! All-time totals are the sum of the rows and are stored nowhere, so the days
//! of a campaign always add up to its total.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Day;
use crate::event::Gift;
use crate::money::{Currency, Money};

/// The sums of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// How many donations (in a row of flowers: how many times flowers were given).
    pub gifts: u64,
    /// What was donated; in a row of flowers their number.
    pub gross: Money,
    /// What was paid back.
    pub refunded: Money,
    /// What sponsors added.
    pub matched: Money,
}

impl Figures {
    fn checked_add(&self, change: &Figures) -> Option<Figures> {
        Some(Figures {
            gifts: self.gifts + change.gifts,
            gross: self.gross.checked_add(change.gross)?,
            refunded: self.refunded.checked_add(change.refunded)?,
            matched: self.matched.checked_add(change.matched)?,
        })
    }
}

/// What a gift adds, and to the row of which currency.
#[inline]
fn change_by(gift: Gift) -> (Option<Currency>, Figures) {
    let none = Figures::default();
    match gift {
        Gift::Donation(gross, currency) => {
            let gifts = 1;
            (
                Some(currency),
                Figures {
                    gifts,
                    gross,
                    ..none
                },
            )
        }
        Gift::Refund(refunded, currency) => (Some(currency), Figures { refunded, ..none }),
        Gift::Match(matched, currency) => (Some(currency), Figures { matched, ..none }),
        Gift::Flowers(number) => {
            let (gifts, gross) = (1, Money(number));
            (
                None,
                Figures {
                    gifts,
                    gross,
                    ..none
                },
            )
        }
    }
}

/// The figures of one business day in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The business day.
    pub day: Day,
    /// The currency; `None` is the row of flowers.
    pub currency: Option<Currency>,
    /// The sums.
    pub figures: Figures,
    #[serde(skip)]
    changed: bool,
}

/// The rows of one campaign in one shard, by day and currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ledger {
    rows: SmallVec<[Row; 1]>,
}

impl Ledger {
    /// Whether a gift can be added without a sum passing [`Money::SUM_MAX`].
    pub fn has_room_for(&self, day: Day, gift: Gift) -> bool {
        let (currency, change) = change_by(gift);
        let old = match self.find(day, currency) {
            Ok(place) => self.rows[place].figures,
            Err(_) => Figures::default(),
        };
        old.checked_add(&change).is_some()
    }

    /// Adds a gift.
    ///
    /// # Panics
    /// If there is [no room](Ledger::has_room_for) for it.
    #[inline]
    pub fn add(&mut self, day: Day, gift: Gift) {
        let (currency, change) = change_by(gift);
        let place = self.find(day, currency).unwrap_or_else(|place| {
            let row = Row {
                day,
                currency,
                figures: Figures::default(),
                changed: true,
            };
            self.rows.insert(place, row);
            place
        });
        let row = &mut self.rows[place];
        row.changed = true;
        let sums = row.figures.checked_add(&change);
        row.figures = sums.expect("the sums have room");
    }

    /// No sum is higher than this: the sum of all that was ever added, 2^64 - 1 at most.
    pub(super) fn sum_of_all(&self) -> u64 {
        self.rows.iter().fold(0, |all, row| {
            let Figures {
                gross,
                refunded,
                matched,
                ..
            } = row.figures;
            let sums = [gross, refunded, matched].map(|sum| sum.0.unsigned_abs());
            sums.into_iter().fold(all, u64::saturating_add)
        })
    }

    /// Puts a row in its place; returns the figures that stood there.
    pub fn set(&mut self, row: Row) -> Figures {
        match self.find(row.day, row.currency) {
            Ok(place) => std::mem::replace(&mut self.rows[place], row).figures,
            Err(place) => {
                self.rows.insert(place, row);
                Figures::default()
            }
        }
    }

    /// The rows, by day and currency.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether every row stands in its place, as it does unless somebody else made it.
    pub(super) fn is_in_order(&self) -> bool {
        let place = |row: &Row| (row.day, row.currency);
        self.rows.is_sorted_by(|a, b| place(a) < place(b))
    }

    /// Appends the rows that were set since this was asked last.
    pub(super) fn take_changed(&mut self, taken: &mut Vec<Row>) {
        self.take(taken, |row| row.changed);
    }

    /// Appends all rows.
    pub(super) fn take_all(&mut self, taken: &mut Vec<Row>) {
        self.take(taken, |_| true);
    }

    fn take(&mut self, taken: &mut Vec<Row>, wanted: impl Fn(&Row) -> bool) {
        for row in self.rows.iter_mut().filter(|row| wanted(row)) {
            row.changed = false;
            taken.push(*row);
        }
    }

    /// The place of a row, or where it would stand. From the end: most events
    /// belong to the newest day.
    #[inline]
    fn find(&self, day: Day, currency: Option<Currency>) -> Result<usize, usize> {
        for (place, row) in self.rows.iter().enumerate().rev() {
            match (row.day, row.currency).cmp(&(day, currency)) {
                std::cmp::Ordering::Equal => return Ok(place),
                std::cmp::Ordering::Less => return Err(place + 1),
                std::cmp::Ordering::Greater => {}
            }
        }
        Err(0)
    }
}
