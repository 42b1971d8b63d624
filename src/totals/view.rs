//! Which campaigns are printed, in which order, in which currency: pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::seen::Seen;
use super::{By, TotalsArgs};
use crate::money::Currency;
use crate::publish::records::CampaignTotal;

/// How many campaigns are printed unless somebody says.
const TOP: usize = 20;

/// The selected campaigns in their order.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub rows: Vec<&'a CampaignTotal>,
    /// How many were selected before `--top` cut the rest off.
    pub of: usize,
    pub by: By,
    /// What net is ordered and shown by; `None` if no campaign has money.
    pub currency: Option<Currency>,
    /// Campaigns asked for that have no total.
    pub missing: Vec<&'a str>,
}

impl<'a> View<'a> {
    /// Selects and orders. Equal ones stand in the order of their names, so
    /// that the same totals always print the same.
    pub fn of(seen: &'a Seen, args: &'a TotalsArgs) -> View<'a> {
        let currency = args.currency.or_else(|| usual_currency(seen));
        let named: BTreeSet<&str> = args.campaigns.iter().map(String::as_str).collect();
        let mut rows: Vec<&CampaignTotal> = if named.is_empty() {
            seen.totals.values().collect()
        } else {
            named
                .iter()
                .filter_map(|name| seen.totals.get(*name))
                .collect()
        };
        rows.sort_by_cached_key(|&total| {
            let value = match args.by {
                By::Net => currency
                    .and_then(|currency| total.money.get(&currency))
                    .map(|m| m.net),
                By::Gifts => Some(total.gifts.into()),
                By::Donors => Some(total.donors.into()),
                By::Flowers => Some(total.flowers),
            };
            (Reverse(value), total.campaign.as_str())
        });
        let of = rows.len();
        let top = args.top.unwrap_or(if named.is_empty() { TOP } else { 0 });
        if top > 0 {
            rows.truncate(top);
        }
        let missing = named
            .into_iter()
            .filter(|name| !seen.totals.contains_key(*name))
            .collect();
        View {
            rows,
            of,
            by: args.by,
            currency,
            missing,
        }
    }
}

/// The currency that most campaigns have; of several, CNY, else the first by
/// its code.
fn usual_currency(seen: &Seen) -> Option<Currency> {
    let mut campaigns: BTreeMap<Currency, usize> = BTreeMap::new();
    for total in seen.totals.values() {
        for currency in total.money.keys() {
            *campaigns.entry(*currency).or_default() += 1;
        }
    }
    let cny = Currency::parse("CNY");
    campaigns
        .into_iter()
        .min_by_key(|&(currency, count)| (Reverse(count), Some(currency) != cny, currency))
        .map(|(currency, _)| currency)
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::super::seen::tests::{cny, total};
    use super::*;
    use crate::money::MoneyTotal;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TotalsArgs,
    }

    pub fn args(line: &str) -> TotalsArgs {
        Line::parse_from(std::iter::once("totals").chain(line.split_whitespace())).args
    }

    fn names(seen: &Seen, line: &str) -> Vec<String> {
        View::of(seen, &args(line))
            .rows
            .iter()
            .map(|row| row.campaign.clone())
            .collect()
    }

    fn usd(net: i128) -> (Currency, MoneyTotal) {
        (
            Currency::parse("USD").unwrap(),
            MoneyTotal {
                net,
                gross: net,
                ..MoneyTotal::default()
            },
        )
    }

    #[test]
    fn order_and_top() {
        let mut dollars = total("d", 4, 0);
        dollars.money = BTreeMap::from([usd(1_000)]);
        let mut flowers = total("f", 1, -5);
        flowers.flowers = i128::from(u64::MAX) * 2;
        let totals = [
            total("b", 3, 70),
            total("a", 3, 70),
            total("c", 9, 10),
            dollars,
            flowers,
        ];
        let seen = Seen::with(&totals, &[]);
        // Without any of the currency comes after below zero.
        assert_eq!(names(&seen, ""), ["a", "b", "c", "f", "d"]);
        assert_eq!(names(&seen, "--currency USD --top 1"), ["d"]);
        assert_eq!(names(&seen, "--by gifts --top 3"), ["c", "d", "a"]);
        assert_eq!(names(&seen, "--by donors --top 1"), ["c"]);
        assert_eq!(names(&seen, "--by flowers --top 2"), ["f", "a"]);
    }

    #[test]
    fn twenty_unless_told_and_all_that_are_named() {
        let totals: Vec<_> = (0..30).map(|i| total(&format!("c{i:02}"), 1, i)).collect();
        let seen = Seen::with(&totals, &[]);
        assert_eq!(names(&seen, "").len(), 20);
        assert_eq!(names(&seen, "--top 0").len(), 30);
        let named: String = (0..30).map(|i| format!("--campaign c{i:02} ")).collect();
        assert_eq!(names(&seen, &named).len(), 30);
        let asked = args("--campaign c01 --campaign nobody --campaign c01");
        let view = View::of(&seen, &asked);
        assert_eq!(
            (view.rows.len(), view.of, view.missing),
            (1, 1, vec!["nobody"])
        );
    }

    #[test]
    fn the_usual_currency_is_what_most_campaigns_have() {
        let with = |name: &str, money: &[(Currency, MoneyTotal)]| {
            let mut total = total(name, 1, 0);
            total.money = money.iter().copied().collect();
            total
        };
        let usual = |totals: &[CampaignTotal]| {
            usual_currency(&Seen::with(totals, &[])).map(|currency| currency.to_string())
        };
        let aud = (Currency::parse("AUD").unwrap(), MoneyTotal::default());
        assert_eq!(usual(&[]), None);
        assert_eq!(usual(&[with("a", &[aud, usd(1), cny(1)])]).unwrap(), "CNY");
        assert_eq!(usual(&[with("a", &[usd(1), aud])]).unwrap(), "AUD");
        assert_eq!(
            usual(&[with("a", &[usd(1)]), with("b", &[usd(1), cny(1)])]).unwrap(),
            "USD"
        );
    }
}
