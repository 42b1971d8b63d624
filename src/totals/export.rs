//! Totals for programs and spreadsheets: JSON and CSV.

use std::fmt::Write;

use serde::Serialize;

use super::seen::Seen;
use super::view::View;
use crate::money::{Currency, MoneyTotal};
use crate::publish::records::{CampaignTotal, CompleteCut, CutRecord};

/// The JSON document: the records as they were published.
#[derive(Serialize)]
struct Document<'a> {
    /// The newest record of `cuts`.
    cut: Option<&'a CutRecord>,
    /// When it was written, milliseconds since the epoch.
    published_ms: Option<i64>,
    /// The newest complete cut, with the sums.
    complete: Option<&'a CompleteCut>,
    /// What net was ordered by.
    currency: Option<Currency>,
    /// How many campaigns were selected, printed or not.
    of: usize,
    /// The printed ones in their order.
    campaigns: &'a [&'a CampaignTotal],
    /// Campaigns that were asked for and have no total.
    missing: &'a [&'a str],
}

impl<'a> Document<'a> {
    fn of(view: &'a View<'_>, seen: &'a Seen) -> Document<'a> {
        Document {
            cut: seen.newest.as_ref().map(|cut| &cut.record),
            published_ms: seen.newest.as_ref().and_then(|cut| cut.written_ms),
            complete: seen.complete.as_ref().map(|cut| &cut.record),
            currency: view.currency,
            of: view.of,
            campaigns: &view.rows,
            missing: &view.missing,
        }
    }
}

/// One document over many lines.
pub(super) fn json(view: &View<'_>, seen: &Seen) -> String {
    with_newline(serde_json::to_string_pretty(&Document::of(view, seen)))
}

/// One document on one line.
pub(super) fn json_line(view: &View<'_>, seen: &Seen) -> String {
    with_newline(serde_json::to_string(&Document::of(view, seen)))
}

fn with_newline(text: serde_json::Result<String>) -> String {
    // Strings and numbers under string keys: there is nothing that could fail.
    let mut text = text.unwrap_or_else(|error| unreachable!("totals are always JSON: {error}"));
    text.push('\n');
    text
}

/// One line for each currency of each campaign, one with empty money for a
/// campaign without any; `header` only at the beginning.
pub(super) fn csv(view: &View<'_>, header: bool) -> String {
    let mut out = String::new();
    if header {
        out.push_str("campaign,cut,epoch,version,gifts,flowers,donors,currency,gross,refunded,net,matched,first_at,last_at\r\n");
    }
    for row in &view.rows {
        if row.money.is_empty() {
            csv_line(&mut out, row, None);
        }
        for (currency, money) in &row.money {
            csv_line(&mut out, row, Some((*currency, money)));
        }
    }
    out
}

fn csv_line(out: &mut String, row: &CampaignTotal, money: Option<(Currency, &MoneyTotal)>) {
    let CampaignTotal {
        campaign,
        cut,
        epoch,
        version,
        gifts,
        flowers,
        donors,
        ..
    } = row;
    let _ = write!(
        out,
        "{},{cut},{epoch},{version},{gifts},{flowers},{donors},",
        quoted(campaign)
    );
    match money {
        Some((
            currency,
            MoneyTotal {
                gross,
                refunded,
                net,
                matched,
            },
        )) => {
            let [gross, refunded, net, matched] =
                [gross, refunded, net, matched].map(|amount| currency.decimal(*amount));
            let _ = write!(out, "{currency},{gross},{refunded},{net},{matched},");
        }
        None => out.push_str(",,,,,"),
    }
    let _ = write!(
        out,
        "{},{}\r\n",
        quoted(&row.first_at),
        quoted(&row.last_at)
    );
}

/// As RFC 4180 has it. Names come from strangers, and a spreadsheet takes text
/// that begins like a formula for one: a `'` before it keeps it text.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = &format!("{}{text}", if formula { "'" } else { "" });
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::seen::tests::{cny, complete, open, total};
    use super::super::view::tests::args;
    use super::*;

    #[test]
    fn csv_has_a_line_for_each_currency() {
        let mut both = total("a, \"b\"", 9, 0);
        let dinar = MoneyTotal {
            gross: 1_500,
            refunded: 2_000,
            net: -500,
            matched: 7,
        };
        both.money = BTreeMap::from([cny(100_000), (Currency::parse("KWD").unwrap(), dinar)]);
        let mut flowers = total("花", 1, 0);
        flowers.money.clear();
        let seen = Seen::with(&[both, flowers], &[]);
        let args = args("");
        let view = View::of(&seen, &args);
        assert_eq!(
            csv(&view, true),
            "campaign,cut,epoch,version,gifts,flowers,donors,currency,gross,refunded,net,matched,first_at,last_at\r\n\
             \"a, \"\"b\"\"\",4,1,9,9,2,9,CNY,1000.05,0.05,1000.00,0.01,2022-09-09T00:00:00Z,2022-09-09T02:00:00.25Z\r\n\
             \"a, \"\"b\"\"\",4,1,9,9,2,9,KWD,1.500,2.000,-0.500,0.007,2022-09-09T00:00:00Z,2022-09-09T02:00:00.25Z\r\n\
             花,4,1,1,1,2,1,,,,,,2022-09-09T00:00:00Z,2022-09-09T02:00:00.25Z\r\n"
        );
        assert!(!csv(&view, false).contains("campaign,cut"));
    }

    #[test]
    fn no_name_is_a_formula_of_a_spreadsheet() {
        for name in ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\tx"] {
            assert_eq!(quoted(name), format!("'{name}"));
        }
        assert_eq!(quoted("=A1,\"x\""), "\"'=A1,\"\"x\"\"\"");
        assert_eq!(quoted("\r=1"), "\"'\r=1\"");
        assert_eq!(quoted("a=1"), "a=1");
        // Figures stay figures.
        let seen = Seen::with(&[total("-", 1, -250)], &[]);
        let args = args("");
        let text = csv(&View::of(&seen, &args), false);
        assert!(
            text.starts_with("'-,4,1,1,1,2,1,CNY,-2.45,0.05,-2.50,"),
            "{text}"
        );
    }

    #[test]
    fn json_has_the_records_as_they_were_published() {
        let one = total("免费午餐", 9, i128::from(i64::MAX) * 4);
        let cuts = [CutRecord::Complete(complete(6)), CutRecord::Open(open(7))];
        let seen = Seen::with(std::slice::from_ref(&one), &cuts);
        let args = args("--campaign 免费午餐 --campaign x");
        let view = View::of(&seen, &args);
        let line = json_line(&view, &seen);
        assert_eq!(line.lines().count(), 1);
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            document,
            serde_json::from_str::<serde_json::Value>(&json(&view, &seen)).unwrap()
        );
        assert_eq!(document["cut"]["state"], "open");
        assert_eq!(document["cut"]["offsets"]["11"], 7);
        assert_eq!(document["published_ms"], 1_000);
        assert_eq!(document["complete"]["cut"], 6);
        assert_eq!(document["complete"]["gifts"], 1_000);
        assert_eq!(document["currency"], "CNY");
        assert_eq!(document["missing"], serde_json::json!(["x"]));
        // 128-bit sums are whole numbers in the text.
        let net = format!("\"net\":{}", i128::from(i64::MAX) * 4);
        assert!(line.contains(&net), "{line}");
        let back: CampaignTotal =
            serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(back, one);
    }
}
