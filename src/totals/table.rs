//! Totals for people: a table, or one line for each cut.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::By;
use super::seen::Seen;
use super::text::{Column, ago, columns, harmless};
use super::view::View;
use crate::money::{Currency, MoneyTotal, group_thousands, grouped};
use crate::publish::records::{CampaignTotal, CompleteCut, CutRecord};

/// The title of the names' column.
pub(super) const NAME: &str = "campaign";

/// The whole table, with the cut above and what was left out below. Times are
/// those of `zone`.
pub(super) fn table(view: &View<'_>, seen: &Seen, zone: &TimeZone, now_ms: i64) -> String {
    let foot = foot(view, view.missing.len());
    joined(&head(seen, zone, now_ms), &campaign_columns(view), &foot)
}

/// The whole of it, line by line.
pub(super) fn joined(head: &[String], cells: &[Column], foot: &[String]) -> String {
    let mut out = head.join("\n");
    out.push_str("\n\n");
    if cells.iter().any(|column| !column.cells.is_empty()) {
        out.push_str(&columns(cells));
        out.push('\n');
    }
    out.push_str(&foot.join("\n"));
    out.push('\n');
    out
}

/// What stands above the campaigns: the cut and its sums.
pub(super) fn head(seen: &Seen, zone: &TimeZone, now_ms: i64) -> Vec<String> {
    let mut lines = vec![cut_line(seen, zone, now_ms)];
    if let Some(complete) = &seen.complete {
        lines.extend([sums(&complete.record), records(&complete.record)]);
    }
    lines
}

/// What stands below them, with the names of as many campaigns that have no total.
pub(super) fn foot(view: &View<'_>, named: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if !view.rows.is_empty() {
        lines.push(footer(view));
    } else if view.missing.is_empty() {
        lines.push("No campaign has a total yet.".into());
    }
    let named = view.missing.iter().take(named);
    let left = view.missing.len() - named.len();
    lines.extend(named.map(|name| format!("No total for campaign {}.", harmless(name))));
    if left > 0 {
        lines.push(format!("No total for {} more.", grouped(left as u64)));
    }
    lines
}

/// One cut in one line, for output that scrolls.
pub(super) fn line(view: &View<'_>, seen: &Seen, zone: &TimeZone) -> String {
    let Some(complete) = &seen.complete else {
        return "no cut is complete yet\n".into();
    };
    let cut = &complete.record;
    let mut out = format!("cut {}", grouped(cut.id.cut));
    if let Some(at) = &cut.as_of {
        let _ = write!(out, " · as of {}", local(at, zone));
    }
    let _ = write!(out, " · {}", sums(cut));
    if let (Some(first), Some(column)) = (view.rows.first(), leading_column(view)) {
        let value = column.cells.first().map_or("", String::as_str);
        let _ = write!(
            out,
            " · top: {} {value} {}",
            harmless(&first.campaign),
            column.title
        );
    }
    out.push('\n');
    out
}

fn cut_line(seen: &Seen, zone: &TimeZone, now_ms: i64) -> String {
    let Some(newest) = &seen.newest else {
        return "No cut yet: nothing was published.".into();
    };
    let state = match &newest.record {
        CutRecord::Complete(_) => "complete",
        CutRecord::Open(_) => "open: being published, some totals are newer than the sums below",
        CutRecord::Abandoned(_) => {
            "abandoned by its publisher, the next cut publishes every total again"
        }
    };
    let mut out = format!("Cut {}, {state}", grouped(newest.record.id().cut));
    if let Some(written) = newest.written_ms {
        let _ = write!(out, " · published {}", ago(now_ms.saturating_sub(written)));
    }
    match &seen.complete {
        Some(complete) => {
            let cut = &complete.record;
            if cut.id.cut != newest.record.id().cut {
                let _ = write!(out, " · sums of cut {}", grouped(cut.id.cut));
            }
            if let Some(at) = &cut.as_of {
                let _ = write!(out, " · as of {}", local(at, zone));
            }
        }
        None => out.push_str(" · no cut is complete yet"),
    }
    out
}

fn sums(cut: &CompleteCut) -> String {
    let mut parts = vec![format!("{} gifts", grouped(cut.gifts))];
    for (currency, money) in &cut.money {
        // Several currencies may share a sign, so the code goes with each.
        let code = if cut.money.len() > 1 {
            format!("{currency} ")
        } else {
            String::new()
        };
        parts.push(format!("{code}{} net", currency.format(money.net)));
        if money.matched != 0 {
            parts.push(format!("{code}{} matched", currency.format(money.matched)));
        }
    }
    parts.push(format!("{} flowers", grouped(cut.flowers)));
    parts.push(format!("about {} donors", grouped(cut.donors)));
    parts.join(" · ")
}

fn records(cut: &CompleteCut) -> String {
    let [events, duplicates, dead, late] =
        [cut.events, cut.duplicates, cut.dead_letters, cut.late].map(grouped);
    format!(
        "{events} events: {duplicates} repeats, {dead} dead letters; {late} too late for the windows"
    )
}

fn footer(view: &View<'_>) -> String {
    let [shown, of] = [view.rows.len(), view.of].map(|n| group_thousands(n as u128));
    let by = match (view.by, view.currency) {
        (By::Net, Some(currency)) => format!("net in {currency}"),
        (By::Net, None) => "net".into(),
        (By::Gifts, _) => "gifts".into(),
        (By::Donors, _) => "donors (estimated)".into(),
        (By::Flowers, _) => "flowers".into(),
    };
    format!("{shown} of {of} campaigns, by {by}.")
}

pub(super) fn campaign_columns(view: &View<'_>) -> Vec<Column> {
    let rows = &view.rows;
    let column = |title: &str, right: bool, cells: Vec<String>| Column {
        title: title.into(),
        right,
        cells,
    };
    let mut columns = vec![
        column(
            "#",
            true,
            (1..=rows.len())
                .map(|rank| group_thousands(rank as u128))
                .collect(),
        ),
        column(
            NAME,
            false,
            rows.iter().map(|row| harmless(&row.campaign)).collect(),
        ),
        column(
            "gifts",
            true,
            rows.iter().map(|row| grouped(row.gifts)).collect(),
        ),
    ];
    if let Some(currency) = view.currency {
        let amounts = |pick: fn(&MoneyTotal) -> i128| {
            let amount = |row: &&CampaignTotal| {
                row.money
                    .get(&currency)
                    .map_or("–".into(), |money| currency.format(pick(money)))
            };
            rows.iter().map(amount).collect()
        };
        columns.push(column(
            &format!("net {currency}"),
            true,
            amounts(|money| money.net),
        ));
        columns.push(column("refunded", true, amounts(|money| money.refunded)));
        columns.push(column("matched", true, amounts(|money| money.matched)));
        let others: Vec<String> = rows.iter().map(|row| other_money(row, currency)).collect();
        if others.iter().any(|text| !text.is_empty()) {
            columns.push(column("net in others", true, others));
        }
    }
    columns.push(column(
        "flowers",
        true,
        rows.iter().map(|row| grouped(row.flowers)).collect(),
    ));
    columns.push(column(
        "≈ donors",
        true,
        rows.iter().map(|row| grouped(row.donors)).collect(),
    ));
    columns
}

/// The column that the order goes by.
fn leading_column(view: &View<'_>) -> Option<Column> {
    campaign_columns(view)
        .into_iter()
        .find(|column| column.title.starts_with(leading(view.by)))
}

/// What its title begins with.
pub(super) fn leading(by: By) -> &'static str {
    match by {
        By::Net => "net ",
        By::Gifts => "gifts",
        By::Donors => "≈ donors",
        By::Flowers => "flowers",
    }
}

fn other_money(row: &CampaignTotal, shown: Currency) -> String {
    let others = row.money.iter().filter(|(currency, _)| **currency != shown);
    let texts: Vec<String> = others
        .map(|(currency, money)| format!("{currency} {}", currency.format(money.net)))
        .collect();
    texts.join(", ")
}

/// A time of the record in the zone of the business days; as it is, if it is none.
fn local(at: &str, zone: &TimeZone) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => at
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S %:z")
            .to_string(),
        Err(_) => harmless(at),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use jiff::tz::TimeZoneDatabase;

    use super::super::seen::tests::{cny, complete, open, total};
    use super::super::view::tests::args;
    use super::*;

    pub fn shanghai() -> TimeZone {
        TimeZoneDatabase::bundled().get("Asia/Shanghai").unwrap()
    }

    fn printed(seen: &Seen, line: &str) -> String {
        let args = args(line);
        table(&View::of(seen, &args), seen, &shanghai(), 36_000)
    }

    #[test]
    fn a_table_as_people_read_it() {
        let totals = [
            total("免费午餐", 1_234, 330_000_000_000),
            total("Clean water", 56, 990),
            total("evil\u{1b}[2J", 1, -250),
        ];
        let seen = Seen::with(
            &totals,
            &[
                CutRecord::Open(open(1_204)),
                CutRecord::Complete(complete(1_204)),
            ],
        );
        assert_eq!(
            printed(&seen, ""),
            r"Cut 1,204, complete · published 35 s ago · as of 2022-09-09 10:00:00 +08:00
1,000 gifts · ¥3,300,000,000.00 net · ¥0.01 matched · 4 flowers · about 900 donors
1,010 events: 7 repeats, 3 dead letters; 1 too late for the windows

#  campaign       gifts            net CNY  refunded  matched  flowers  ≈ donors
1  免费午餐       1,234  ¥3,300,000,000.00     ¥0.05    ¥0.01        2     1,234
2  Clean water       56              ¥9.90     ¥0.05    ¥0.01        2        56
3  evil\u{1b}[2J      1             -¥2.50     ¥0.05    ¥0.01        2         1

3 of 3 campaigns, by net in CNY.
"
        );
    }

    #[test]
    fn an_open_cut_is_said_to_be_open() {
        let cuts = [CutRecord::Complete(complete(7)), CutRecord::Open(open(8))];
        let text = printed(&Seen::with(&[total("a", 1, 1)], &cuts), "");
        assert!(text.starts_with("Cut 8, open: being published"), "{text}");
        assert!(
            text.contains(
                " · published 35 s ago · sums of cut 7 · as of 2022-09-09 10:00:00 +08:00\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn nothing_published_yet() {
        let text = printed(&Seen::default(), "");
        assert_eq!(
            text,
            "No cut yet: nothing was published.\n\nNo campaign has a total yet.\n"
        );
        let text = printed(
            &Seen::with(&[], &[CutRecord::Open(open(1))]),
            "--campaign x",
        );
        assert!(text.contains("no cut is complete yet"), "{text}");
        assert!(text.ends_with("No total for campaign x.\n"), "{text}");
    }

    #[test]
    fn several_currencies_are_told_apart_by_their_codes() {
        let mut both = total("a", 1, 100);
        let yen = MoneyTotal {
            net: 1_234,
            ..MoneyTotal::default()
        };
        both.money = BTreeMap::from([cny(100), (Currency::parse("JPY").unwrap(), yen)]);
        let mut cut = complete(1);
        cut.money = both.money.clone();
        let seen = Seen::with(&[both, total("b", 1, 5)], &[CutRecord::Complete(cut)]);
        assert_eq!(
            printed(&seen, ""),
            "\
Cut 1, complete · published 35 s ago · as of 2022-09-09 10:00:00 +08:00
1,000 gifts · CNY ¥1.00 net · CNY ¥0.01 matched · JPY ¥1,234 net · 4 flowers · about 900 donors
1,010 events: 7 repeats, 3 dead letters; 1 too late for the windows

#  campaign  gifts  net CNY  refunded  matched  net in others  flowers  ≈ donors
1  a             1    ¥1.00     ¥0.05    ¥0.01     JPY ¥1,234        2         1
2  b             1    ¥0.05     ¥0.05    ¥0.01                       2         1

2 of 2 campaigns, by net in CNY.
"
        );
        let text = printed(&seen, "--currency JPY");
        assert!(
            text.contains("net JPY") && text.contains("CNY ¥1.00") && text.contains('–'),
            "{text}"
        );
    }

    #[test]
    fn a_cut_in_one_line() {
        let seen = Seen::with(
            &[total("免费午餐", 3, 990)],
            &[CutRecord::Complete(complete(12))],
        );
        let args = args("--by donors");
        assert_eq!(
            line(&View::of(&seen, &args), &seen, &shanghai()),
            "cut 12 · as of 2022-09-09 10:00:00 +08:00 · 1,000 gifts · ¥3,300,000,000.00 net · ¥0.01 matched \
             · 4 flowers · about 900 donors · top: 免费午餐 3 ≈ donors\n"
        );
    }
}
