//! Text in columns: its width on a terminal, and nothing in it that a terminal
//! would obey.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

/// The text with everything invisible made visible: control characters (names
/// come from strangers, and could move the cursor or set the window's title),
/// and what reverses or hides text.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // All but U+200D, which joins emoji.
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// How many columns of a terminal the text takes: two for a Chinese character.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// One column of a table.
pub(crate) struct Column {
    pub title: String,
    /// Numbers stand to the right, names to the left.
    pub right: bool,
    pub cells: Vec<String>,
}

impl Column {
    /// How many columns of a terminal it takes.
    pub fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| width(cell)).max();
        cells.unwrap_or(0).max(width(&self.title))
    }
}

/// The text in at most so many columns of a terminal, with … where something is cut off.
pub(super) fn shortened(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.into();
    }
    let ends = text.char_indices().map(|(at, _)| &text[..at]);
    let kept = ends.take_while(|kept| width(kept) < columns).last();
    match kept {
        Some(kept) => format!("{kept}…"),
        None => String::new(),
    }
}

/// The text in lines of at most so many columns, broken at blanks.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let word = shortened(word, columns);
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(&word);
        } else if width(line) + 1 + width(&word) <= columns {
            line.push(' ');
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

/// The columns side by side, two blanks between them, titles above.
pub(crate) fn columns(columns: &[Column]) -> String {
    let rows = columns
        .iter()
        .map(|column| column.cells.len())
        .max()
        .unwrap_or(0);
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    let mut out = String::new();
    let mut line = |cell: &dyn Fn(&Column) -> String| {
        let mut text = String::new();
        for (column, &wide) in columns.iter().zip(&widths) {
            let cell = cell(column);
            let blanks = " ".repeat(wide.saturating_sub(width(&cell)));
            let (before, after) = if column.right {
                (blanks.as_str(), "")
            } else {
                ("", blanks.as_str())
            };
            let _ = write!(text, "{before}{cell}{after}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&|column| column.title.clone());
    for row in 0..rows {
        line(&|column| column.cells.get(row).cloned().unwrap_or_default());
    }
    out
}

/// A span of time as people say it: `0.4 s`, `35 s`, `12 min`, `3 h`, `5 days`.
pub(crate) fn ago(ms: i64) -> String {
    match ms {
        ..100 => "just now".into(),
        100..10_000 => format!("{}.{} s ago", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s ago", ms / 1_000),
        120_000..7_200_000 => format!("{} min ago", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h ago", ms / 3_600_000),
        _ => format!("{} days ago", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_keep_columns_straight() {
        let name = |name: &str| name.to_string();
        let text = columns(&[
            Column {
                title: name("name"),
                right: false,
                cells: vec![name("免费午餐"), name("Lunch"), name("e\u{301}té 👩‍👧")],
            },
            Column {
                title: name("n"),
                right: true,
                cells: vec![name("1"), name("1,000"), name("22")],
            },
        ]);
        assert_eq!(
            text,
            "name          n\n\
             免费午餐      1\n\
             Lunch     1,000\n\
             e\u{301}té 👩‍👧       22\n"
        );
        // The right edge is the same on every line.
        for line in text.lines() {
            assert_eq!(width(line), 15, "{line}");
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        assert_eq!(harmless("\u{202e}evil\u{9b}"), "\\u{202e}evil\\u{9b}");
        assert_eq!(harmless("免费午餐 👩‍👧"), "免费午餐 👩‍👧");
        for hidden in "\u{ad}\u{3164}\u{115f}\u{1160}\u{ffa0}\u{180e}\u{200c}\u{e0041}".chars() {
            let shown = format!("a\\u{{{:x}}}b", hidden as u32);
            assert_eq!(harmless(&format!("a{hidden}b")), shown);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_off_or_broken() {
        assert_eq!(shortened("免费午餐", 8), "免费午餐");
        assert_eq!(shortened("免费午餐", 7), "免费午…");
        assert_eq!(shortened("免费午餐", 6), "免费…");
        assert_eq!(shortened("免费午餐", 0), "");
        assert_eq!(
            wrapped("one two 免费午餐 four", 9),
            ["one two", "免费午餐", "four"]
        );
        assert_eq!(wrapped("免费午餐免费 x", 5), ["免费…", "x"]);
    }

    #[test]
    fn spans_of_time() {
        let said = [-5, 99, 420, 9_999, 35_000, 720_000, 10_800_000, 432_000_000].map(ago);
        let expected = [
            "just now",
            "just now",
            "0.4 s ago",
            "9.9 s ago",
            "35 s ago",
            "12 min ago",
            "3 h ago",
            "5 days ago",
        ];
        assert_eq!(said, expected);
    }
}
