//! The table on a terminal that is drawn over, for `--follow`: it fits, and says
//! what log lines would say, since those would be drawn over.

use jiff::tz::TimeZone;

use super::By;
use super::seen::Seen;
use super::table::{NAME, campaign_columns, foot, head, joined, leading};
use super::text::{Column, harmless, shortened, wrapped};
use super::view::View;

/// A cut that was written longer ago than this is old for whoever follows: a
/// new one comes every publish interval, a quarter of a second.
const OLD_MS: i64 = 10_000;

/// What is said of an old cut.
pub(super) const OLD: &str =
    "No newer cut for over 10 s: no events come in, or `tally99 run` has stopped.";

/// How many columns of a name are kept before a column of figures goes.
const NAME_COLUMNS: usize = 20;

/// How many campaigns without a total are named on a screen.
const MISSING_SHOWN: usize = 3;

/// Whether the newest cut is old.
pub(super) fn is_old(seen: &Seen, now_ms: i64) -> bool {
    let written = seen.newest.as_ref().and_then(|cut| cut.written_ms);
    written.is_some_and(|written| now_ms.saturating_sub(written) > OLD_MS)
}

/// The table on a screen of so many columns and lines, without anything that
/// would make it scroll, and with what is said to whoever follows: log lines
/// would be drawn over.
pub(super) fn fitted(
    mut view: View<'_>,
    seen: &Seen,
    trouble: Option<&str>,
    zone: &TimeZone,
    now_ms: i64,
    (columns, lines): (usize, usize),
) -> String {
    let wrap = |lines: Vec<String>| -> Vec<String> {
        let wrapped = lines.iter().flat_map(|line| wrapped(line, columns));
        wrapped.collect()
    };
    let mut head = head(seen, zone, now_ms);
    if is_old(seen, now_ms) {
        head.push(OLD.into());
    }
    head.extend(trouble.map(harmless));
    head.extend(seen.left_out().as_deref().map(harmless));
    let head = wrap(head);
    let foot_of = |view: &View<'_>| wrap(foot(view, MISSING_SHOWN));
    // Two blank lines, the titles, and the line that the cursor stays on.
    let around = head.len() + foot_of(&view).len() + 4;
    view.rows.truncate(lines.saturating_sub(around).max(1));
    let mut cells = campaign_columns(&view);
    fit(&mut cells, view.by, columns);
    let text = joined(&head, &cells, &foot_of(&view));
    // A screen that is too small for all this loses the end of it.
    let shown = text.split_inclusive('\n').take(lines.saturating_sub(1));
    shown.collect()
}

/// Leaves out the least telling columns, but not the one that the order goes by,
/// and shortens names, until the lines fit.
fn fit(cells: &mut Vec<Column>, by: By, columns: usize) {
    const LEAST_TELLING: &[&str] = &[
        "net in others",
        "matched",
        "refunded",
        "flowers",
        "gifts",
        "≈ donors",
        "net ",
    ];
    let all_but_names = |cells: &[Column]| -> usize {
        let others = cells.iter().filter(|column| column.title != NAME);
        others.map(|column| column.width() + 2).sum()
    };
    for title in LEAST_TELLING.iter().filter(|title| **title != leading(by)) {
        let names = cells.iter().find(|column| column.title == NAME);
        let names = names.map_or(0, |column| column.width().min(NAME_COLUMNS));
        if all_but_names(cells) + names <= columns {
            break;
        }
        cells.retain(|column| !column.title.starts_with(title));
    }
    let room = columns.saturating_sub(all_but_names(cells));
    for column in cells.iter_mut().filter(|column| column.title == NAME) {
        for name in &mut column.cells {
            *name = shortened(name, room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::tests::{HERE, complete, total};
    use super::super::table::tests::shanghai;
    use super::super::text::width;
    use super::super::view::tests::args;
    use super::*;
    use crate::publish::records::CutRecord;

    #[test]
    fn a_screen_is_never_overrun() {
        // A giving day's figures, long names in two scripts, and names that nobody has.
        let totals: Vec<_> = (0..60)
            .map(|i| {
                let name = [
                    "免费午餐".repeat(5),
                    "Clean-water-for-all-villages-".repeat(2),
                ];
                let net = 330_000_000_000 - i as i128;
                total(&format!("{}{i}", name[i % 2]), 58_160_000, net)
            })
            .collect();
        let mut cut = complete(1_204_000);
        (cut.gifts, cut.events, cut.donors) = (58_160_000, 99_000_000, 101_000_000);
        let mut seen = Seen::with(&totals, &[CutRecord::Complete(cut)]);
        seen.total(HERE, Some(b"x"), Some(b"not ours"));
        let names: String = totals
            .iter()
            .map(|t| format!("--campaign={} ", t.campaign))
            .collect();
        let missing: String = (0..30).map(|i| format!("--campaign=nobody{i} ")).collect();
        for by in ["net", "gifts", "donors", "flowers"] {
            let args = args(&format!("--by={by} {names}{missing}"));
            for size in [(80, 24), (132, 50), (60, 24), (40, 26)] {
                let text = fitted(
                    View::of(&seen, &args),
                    &seen,
                    None,
                    &shanghai(),
                    36_000,
                    size,
                );
                assert!(text.lines().count() < size.1, "{size:?}\n{text}");
                let widest = text.lines().map(width).max().unwrap();
                assert!(widest <= size.0, "{size:?}: {widest}\n{text}");
                assert!(
                    text.lines()
                        .any(|line| line.trim_start().starts_with("1  "))
                );
                assert!(text.contains("No total for 27 more."), "{text}");
                let lead = leading(by_of(by));
                assert!(
                    text.lines()
                        .any(|line| line.contains("campaign ") && line.contains(lead))
                );
            }
        }
        let args = args("");
        let text = fitted(
            View::of(&seen, &args),
            &seen,
            None,
            &shanghai(),
            36_000,
            (30, 10),
        );
        assert!(text.lines().count() == 9 && text.starts_with("Cut 1,204,000"));
        let text = fitted(
            View::of(&seen, &args),
            &seen,
            None,
            &shanghai(),
            36_000,
            (80, 24),
        );
        assert!(
            text.contains("\n 1  免费午餐免费午餐免费午…   58,160,000  ¥3,300,000,000.00"),
            "{text}"
        );
    }

    fn by_of(by: &str) -> By {
        clap::ValueEnum::from_str(by, false).unwrap()
    }

    #[test]
    fn what_stands_still_is_said_to_be_old() {
        let seen = Seen::with(&[total("a", 1, 1)], &[CutRecord::Complete(complete(7))]);
        let args = args("--follow");
        let at = |now_ms| {
            fitted(
                View::of(&seen, &args),
                &seen,
                None,
                &shanghai(),
                now_ms,
                (80, 24),
            )
        };
        assert!(at(11_000).contains("published 10 s ago") && !at(11_000).contains(OLD));
        assert!(at(12_000).contains("published 11 s ago"));
        assert!(
            at(12_000).replace('\n', " ").contains(OLD),
            "{}",
            at(12_000)
        );
        assert!(!is_old(&Seen::default(), 12_000));
    }

    #[test]
    fn what_is_wrong_is_told_on_a_screen_too() {
        let mut seen = Seen::with(&[total("a", 1, 1)], &[CutRecord::Complete(complete(7))]);
        seen.total(HERE, Some(b"x"), Some(b"not ours"));
        let args = args("--follow");
        let trouble = Some("no Kafka broker answers");
        let text = fitted(
            View::of(&seen, &args),
            &seen,
            trouble,
            &shanghai(),
            1_000,
            (200, 24),
        );
        assert!(text.contains("\nno Kafka broker answers\n"), "{text}");
        assert!(
            text.contains("\n1 records are not what tally99 writes"),
            "{text}"
        );
    }
}
