//! Checks totals against what a log must add up to: pure.
//!
//! Everything counted must be equal to the last unit. Only donors are an
//! estimate, and checked within the bound that its method promises.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use super::Verdict;
use super::seen::Seen;
use super::text::harmless;
use crate::expected::{Expected, ExpectedCampaign};
use crate::money::{Currency, MoneyTotal, group_thousands, grouped};
use crate::publish::records::CampaignTotal;

/// How many differences are printed; the rest is counted.
const SHOWN: usize = 50;

/// The sketch over all campaigns has 2^14 registers; its relative standard
/// error is 1.04 / √registers. Four of them: right 15,999 times in 16,000.
const DONORS_ERROR: f64 = 4.0 * 1.04 / 128.0;

/// The sketch of a campaign has 2^11 registers.
const CAMPAIGN_DONORS_ERROR: f64 = 4.0 * 1.04 / 45.254_833_995_939_04;

/// So few donors a sketch keeps one by one.
const DONORS_EXACT: u64 = 8;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Report {
    shown: Vec<String>,
    differences: usize,
    campaigns: usize,
    equal_campaigns: usize,
    summary: String,
    /// What a difference in the number of events usually means.
    likely: &'static str,
}

impl Report {
    /// Whether there is no difference at all.
    pub fn is_equal(&self) -> bool {
        self.differences == 0
    }

    /// What a command that compares ends with.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::of(self.is_equal())
    }

    /// How many campaigns were compared: expected, or found, or both.
    pub fn campaigns(&self) -> usize {
        self.campaigns
    }

    /// How many of them are equal in every figure that is expected; donors,
    /// which are estimated, within their bound.
    pub fn equal_campaigns(&self) -> usize {
        self.equal_campaigns
    }

    fn add(&mut self, difference: impl FnOnce() -> String) {
        self.differences += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(difference());
        }
    }

    fn number(&mut self, what: &dyn Fn() -> String, expected: i128, found: i128) {
        if expected != found {
            let [e, f, off] = [expected, found, found.saturating_sub(expected)].map(grouped);
            let sign = if found > expected { "+" } else { "" };
            self.add(|| format!("{}: expected {e}, found {f} ({sign}{off})", what()));
        }
    }

    fn money(
        &mut self,
        what: &dyn Fn() -> String,
        expected: &BTreeMap<Currency, MoneyTotal>,
        found: &BTreeMap<Currency, MoneyTotal>,
    ) {
        let currencies: BTreeSet<Currency> = expected.keys().chain(found.keys()).copied().collect();
        for currency in currencies {
            // A currency that is not there and one whose sums are all zero are
            // the same money.
            let [e, f] =
                [expected, found].map(|money| money.get(&currency).copied().unwrap_or_default());
            for (name, e, f) in [
                ("gross", e.gross, f.gross),
                ("refunded", e.refunded, f.refunded),
                ("net", e.net, f.net),
                ("matched", e.matched, f.matched),
            ] {
                if e != f {
                    let [wanted, got, off] =
                        [e, f, f.saturating_sub(e)].map(|amount| currency.format(amount));
                    let sign = if f > e { "+" } else { "" };
                    self.add(|| {
                        format!(
                            "{}: {name} {currency}: expected {wanted}, found {got} ({sign}{off})",
                            what()
                        )
                    });
                }
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.shown {
            writeln!(f, "{difference}")?;
        }
        let rest = self.differences - self.shown.len();
        if rest > 0 {
            writeln!(f, "… and {} more", group_thousands(rest as u128))?;
        }
        match self.differences {
            0 => writeln!(f, "equal: {}", self.summary),
            1 => writeln!(f, "different: 1 difference; compared {}", self.summary),
            n => {
                let n = group_thousands(n as u128);
                writeln!(f, "different: {n} differences; compared {}", self.summary)
            }
        }?;
        f.write_str(self.likely)
    }
}

/// Compares every campaign, and the sums of the newest complete cut.
pub(super) fn compare(expected: &Expected, seen: &Seen) -> Report {
    let mut report = Report::default();
    overall(&mut report, expected, seen);
    if let Some(first) = &seen.first_unreadable {
        let count = seen.unreadable;
        report.add(|| format!("{count} records are not what tally99 writes; the first: {first}"));
    }
    let names: BTreeSet<&String> = expected
        .campaigns
        .keys()
        .chain(seen.totals.keys())
        .collect();
    report.campaigns = names.len();
    for name in names {
        let before = report.differences;
        match (expected.campaigns.get(name), seen.totals.get(name)) {
            (Some(expected), Some(found)) => campaign(&mut report, name, expected, found),
            (Some(expected), None) => report.add(|| {
                let events = grouped(expected.events);
                format!(
                    "campaign {}: has no total, expected one of {events} events",
                    harmless(name)
                )
            }),
            (None, Some(found)) => report.add(|| {
                let events = grouped(found.version);
                format!(
                    "campaign {}: has a total of {events} events, expected none",
                    harmless(name)
                )
            }),
            (None, None) => {}
        }
        report.equal_campaigns += usize::from(report.differences == before);
    }
    report
}

fn overall(report: &mut Report, expected: &Expected, seen: &Seen) {
    let [campaigns, events] =
        [expected.campaigns.len() as u128, expected.events.into()].map(group_thousands);
    report.summary = format!("{campaigns} campaigns, {events} events");
    let Some(complete) = &seen.complete else {
        report.add(|| "overall: no cut is complete, so there are no sums to compare".into());
        return;
    };
    let cut = &complete.record;
    report.likely = match cut.events.cmp(&expected.events) {
        Ordering::Less => {
            "Fewer events are counted than the file was written for: is `tally99 run` still at \
             it?\n"
        }
        Ordering::Equal => "",
        Ordering::Greater => {
            "More events are counted than the file was written for: the topic holds those of \
             others, or of an earlier run. Compare on a topic of its own (--topic, and new names \
             for the topics of totals)\n"
        }
    };
    let of = |name: &'static str| move || format!("overall: {name}");
    report.number(&of("events"), expected.events.into(), cut.events.into());
    report.number(
        &of("duplicates"),
        expected.duplicates.into(),
        cut.duplicates.into(),
    );
    report.number(
        &of("dead letters"),
        expected.dead_letters.into(),
        cut.dead_letters.into(),
    );
    report.number(
        &of("campaigns"),
        expected.campaigns.len() as i128,
        cut.campaigns.into(),
    );
    report.number(&of("gifts"), expected.gifts.into(), cut.gifts.into());
    report.number(&of("flowers"), expected.flowers, cut.flowers);
    report.money(&|| "overall".into(), &expected.money, &cut.money);
    donors(report, expected.donors, cut.donors);
}

fn donors(report: &mut Report, expected: u64, found: u64) {
    let [e, f] = [expected, found].map(grouped);
    let percent = DONORS_ERROR * 100.0;
    if is_estimate(found, expected, DONORS_ERROR) {
        let text =
            format!(", donors estimated as {f} where {e} is exact (allowed: {percent:.2} %)");
        report.summary.push_str(&text);
    } else {
        report.add(|| format!("overall: donors: expected {e} within {percent:.2} %, found {f}"));
    }
}

/// Whether a sketch of this error may say `found` of so many donors.
fn is_estimate(found: u64, exact: u64, error: f64) -> bool {
    let bound = match exact {
        ..=DONORS_EXACT => 0,
        _ => (exact as f64 * error).ceil() as u64,
    };
    exact.abs_diff(found) <= bound
}

fn campaign(report: &mut Report, name: &str, expected: &ExpectedCampaign, found: &CampaignTotal) {
    let of = |field: &'static str| move || format!("campaign {}: {field}", harmless(name));
    report.number(&of("events"), expected.events.into(), found.version.into());
    report.number(&of("gifts"), expected.gifts.into(), found.gifts.into());
    report.number(&of("flowers"), expected.flowers, found.flowers);
    report.money(
        &|| format!("campaign {}", harmless(name)),
        &expected.money,
        &found.money,
    );
    if let Some(exact) = expected.donors
        && !is_estimate(found.donors, exact, CAMPAIGN_DONORS_ERROR)
    {
        let [e, f] = [exact, found.donors].map(grouped);
        let percent = match exact {
            ..=DONORS_EXACT => String::new(),
            _ => format!(" within {:.2} %", CAMPAIGN_DONORS_ERROR * 100.0),
        };
        report.add(|| format!("{}: expected {e}{percent}, found {f}", of("donors")()));
    }
    for (field, expected, found) in [
        ("first_at", expected.first_at_ms, &found.first_at),
        ("last_at", expected.last_at_ms, &found.last_at),
    ] {
        if found.parse::<Timestamp>().ok() != Timestamp::from_millisecond(expected).ok() {
            report.add(|| {
                let expected = Timestamp::from_millisecond(expected)
                    .map_or_else(|_| format!("{expected} ms"), |at| at.to_string());
                format!(
                    "campaign {}: {field}: expected {expected}, found {}",
                    harmless(name),
                    harmless(found)
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::tests::{HERE, cny, complete, total};
    use super::*;
    use crate::publish::records::CutRecord;

    const MS_0: i64 = 1_662_681_600_000;

    /// A log of two campaigns, and the totals that it must have.
    fn both() -> (Expected, Vec<CampaignTotal>, CutRecord) {
        let campaign = |events: u64, net: i128| ExpectedCampaign {
            events,
            gifts: events,
            flowers: 2,
            donors: None,
            money: BTreeMap::from([cny(net)]),
            first_at_ms: MS_0,
            last_at_ms: MS_0 + 7_200_250,
        };
        let expected = Expected {
            events: 1_010,
            duplicates: 7,
            dead_letters: 3,
            donors: 890,
            gifts: 1_000,
            flowers: 4,
            money: BTreeMap::from([cny(330_000_000_000)]),
            campaigns: BTreeMap::from([
                ("免费午餐".into(), campaign(600, 300_000_000_000)),
                ("water".into(), campaign(400, 30_000_000_000)),
            ]),
        };
        let totals = vec![
            total("免费午餐", 600, 300_000_000_000),
            total("water", 400, 30_000_000_000),
        ];
        (expected, totals, CutRecord::Complete(complete(5)))
    }

    fn differences(expected: &Expected, totals: &[CampaignTotal], cut: &CutRecord) -> Vec<String> {
        let report = compare(expected, &Seen::with(totals, std::slice::from_ref(cut)));
        assert_eq!(report.is_equal(), report.shown.is_empty());
        report.shown
    }

    #[test]
    fn equal_is_equal() {
        let (mut expected, totals, cut) = both();
        assert_eq!(differences(&expected, &totals, &cut), [""; 0]);
        // Sums of zero are no money.
        let usd = Currency::parse("USD").unwrap();
        expected
            .campaigns
            .get_mut("water")
            .unwrap()
            .money
            .insert(usd, MoneyTotal::default());
        assert_eq!(differences(&expected, &totals, &cut), [""; 0]);
        let report = compare(&expected, &Seen::with(&totals, &[cut]));
        assert_eq!(
            report.to_string(),
            "equal: 2 campaigns, 1,010 events, donors estimated as 900 where 890 is exact (allowed: 3.25 %)\n"
        );
        assert_eq!((report.campaigns(), report.equal_campaigns()), (2, 2));
    }

    #[test]
    fn every_figure_of_a_campaign_counts() {
        let (expected, totals, cut) = both();
        let changed = |change: &dyn Fn(&mut CampaignTotal)| {
            let mut totals = totals.clone();
            change(&mut totals[1]);
            differences(&expected, &totals, &cut)
        };
        assert_eq!(
            changed(&|t| t.version = 399),
            ["campaign water: events: expected 400, found 399 (-1)"]
        );
        assert_eq!(
            changed(&|t| t.gifts = 1_400),
            ["campaign water: gifts: expected 400, found 1,400 (+1,000)"]
        );
        assert_eq!(
            changed(&|t| t.flowers = 0),
            ["campaign water: flowers: expected 2, found 0 (-2)"]
        );
        let money = |pick: fn(&mut MoneyTotal) -> &mut i128| {
            changed(&|t| *pick(t.money.values_mut().next().unwrap()) -= 1)
        };
        assert_eq!(
            money(|m| &mut m.net),
            ["campaign water: net CNY: expected ¥300,000,000.00, found ¥299,999,999.99 (-¥0.01)"]
        );
        assert_eq!(money(|m| &mut m.gross).len(), 1);
        assert_eq!(money(|m| &mut m.refunded).len(), 1);
        assert_eq!(money(|m| &mut m.matched).len(), 1);
        assert_eq!(
            changed(&|t| t.first_at = "2022-09-09T00:00:00.001Z".into()),
            [
                "campaign water: first_at: expected 2022-09-09T00:00:00Z, found 2022-09-09T00:00:00.001Z"
            ]
        );
        assert_eq!(changed(&|t| t.last_at = "soon".into()).len(), 1);
        assert_eq!(changed(&|t| t.money.clear()).len(), 4);
    }

    #[test]
    fn donors_of_a_campaign_are_within_their_bound() {
        let (mut expected, mut totals, cut) = both();
        let mut of = |exact, found| {
            expected.campaigns.get_mut("water").unwrap().donors = exact;
            totals[1].donors = found;
            differences(&expected, &totals, &cut)
        };
        assert_eq!(of(None, 7), [""; 0]);
        assert_eq!(of(Some(8), 8), [""; 0]);
        assert_eq!(
            of(Some(8), 9),
            ["campaign water: donors: expected 8, found 9"]
        );
        // 9.19 % of 1,000 is 91.9.
        assert_eq!(of(Some(1_000), 1_092), [""; 0]);
        assert_eq!(
            of(Some(1_000), 907),
            ["campaign water: donors: expected 1,000 within 9.19 %, found 907"]
        );
    }

    #[test]
    fn a_campaign_too_few_and_one_too_many() {
        let (expected, mut totals, cut) = both();
        totals[1].campaign = "wat\u{7}er".into();
        let report = compare(&expected, &Seen::with(&totals, std::slice::from_ref(&cut)));
        assert_eq!((report.campaigns(), report.equal_campaigns()), (3, 1));
        assert_eq!(
            differences(&expected, &totals, &cut),
            [
                "campaign wat\\u{7}er: has a total of 400 events, expected none",
                "campaign water: has no total, expected one of 400 events",
            ]
        );
    }

    #[test]
    fn every_sum_of_the_cut_counts() {
        let (expected, totals, _) = both();
        let changed = |change: &dyn Fn(&mut crate::publish::records::CompleteCut)| {
            let mut cut = complete(5);
            change(&mut cut);
            differences(&expected, &totals, &CutRecord::Complete(cut))
        };
        assert_eq!(
            changed(&|c| c.events += 1),
            ["overall: events: expected 1,010, found 1,011 (+1)"]
        );
        assert_eq!(
            changed(&|c| c.duplicates = 0),
            ["overall: duplicates: expected 7, found 0 (-7)"]
        );
        assert_eq!(
            changed(&|c| c.dead_letters = 4),
            ["overall: dead letters: expected 3, found 4 (+1)"]
        );
        assert_eq!(changed(&|c| c.campaigns = 3).len(), 1);
        assert_eq!(changed(&|c| c.gifts = 3).len(), 1);
        assert_eq!(changed(&|c| c.flowers = 3).len(), 1);
        assert_eq!(changed(&|c| c.money = BTreeMap::from([cny(1)])).len(), 2);
        // 3.25 % of 890 is 28.9.
        assert_eq!(changed(&|c| c.donors = 890 + 29), [""; 0]);
        assert_eq!(
            changed(&|c| c.donors = 890 - 30),
            ["overall: donors: expected 890 within 3.25 %, found 860"]
        );
    }

    #[test]
    fn without_a_complete_cut_nothing_is_equal() {
        let (expected, totals, _) = both();
        let report = compare(&expected, &Seen::with(&totals, &[]));
        assert_eq!(
            report.shown,
            ["overall: no cut is complete, so there are no sums to compare"]
        );
        let (_, _, cut) = both();
        let mut seen = Seen::with(&totals, &[cut]);
        seen.total(HERE, Some(b"x"), Some(b"?"));
        assert!(!compare(&expected, &seen).is_equal());
    }

    #[test]
    fn many_differences_are_counted_not_printed() {
        let (mut expected, totals, cut) = both();
        for i in 0..1_200 {
            expected
                .campaigns
                .insert(format!("c{i}"), ExpectedCampaign::default());
        }
        let text = compare(&expected, &Seen::with(&totals, &[cut])).to_string();
        // One of them is the number of campaigns.
        assert!(
            text.contains("… and 1,151 more\ndifferent: 1,201 differences;"),
            "{text}"
        );
        assert_eq!(text.lines().count(), SHOWN + 2);
    }

    #[test]
    fn another_number_of_events_is_explained() {
        let (expected, totals, cut) = both();
        let text = |events: u64| {
            let CutRecord::Complete(mut complete) = cut.clone() else {
                panic!("a complete cut");
            };
            complete.events = events;
            let seen = Seen::with(&totals, &[CutRecord::Complete(complete)]);
            compare(&expected, &seen).to_string()
        };
        assert!(text(expected.events + 1).contains("of an earlier run"));
        assert!(text(expected.events - 1).contains("still at it?"));
        assert!(text(expected.events).starts_with("equal"));
    }
}
