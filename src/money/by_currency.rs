//! Something for each of a few currencies.

use smallvec::SmallVec;

use super::Currency;

/// What there is of each currency, in the order of their codes. Nearly always there is one,
/// so it lies in place, and is looked for one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByCurrency<T>(SmallVec<[(Currency, T); 1]>);

impl<T: Default> FromIterator<(Currency, T)> for ByCurrency<T> {
    /// The last of a currency is what there is.
    fn from_iter<I: IntoIterator<Item = (Currency, T)>>(all: I) -> ByCurrency<T> {
        let mut found = ByCurrency::default();
        for (currency, it) in all {
            *found.of(currency) = it;
        }
        found
    }
}

impl<T: Default> ByCurrency<T> {
    /// What there is of a currency; if there is nothing yet, the default.
    #[inline]
    pub fn of(&mut self, currency: Currency) -> &mut T {
        let before = self.0.iter().take_while(|it| it.0 < currency).count();
        if self.0.get(before).is_none_or(|it| it.0 != currency) {
            self.0.insert(before, (currency, T::default()));
        }
        &mut self.0[before].1
    }
}

impl<T> ByCurrency<T> {
    /// What there is of a currency.
    pub fn get(&self, currency: Currency) -> Option<&T> {
        self.iter().find(|it| it.0 == currency).map(|it| it.1)
    }

    /// What there is, with its currency.
    pub fn iter(&self) -> impl Iterator<Item = (Currency, &T)> {
        self.0.iter().map(|(currency, it)| (*currency, it))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_map_in_order() {
        let (mut sums, mut expected) = (ByCurrency::<i64>::default(), BTreeMap::new());
        for (code, amount) in [("EUR", 1), ("USD", 2), ("CNY", 3), ("EUR", 4), ("JPY", 5)] {
            let currency = Currency::parse(code).unwrap();
            *sums.of(currency) += amount;
            *expected.entry(currency).or_default() += amount;
            assert_eq!(sums.get(currency), expected.get(&currency));
        }
        let again: ByCurrency<_> = expected.clone().into_iter().collect();
        assert_eq!(again, sums);
        let in_order = sums.iter().map(|(currency, sum)| (currency, *sum));
        assert!(in_order.eq(expected));
        assert_eq!(sums.get(Currency::parse("CHF").unwrap()), None);
    }
}
