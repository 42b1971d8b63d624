//! The campaigns, by total.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType};

use super::header::change;
use super::{ACCENT, LINES, Phase, Picture, QUIET, fit, inset};
use crate::demo::board::{Row, cny};
use crate::money::group_thousands;
use crate::totals::text::width;

/// Columns between two columns.
const GAP: usize = 2;
/// A name gets at least this many columns.
const NAME_MIN: usize = 12;
/// A bar below this says nothing; beyond the other, nothing more.
const BAR_MIN: usize = 8;
const BAR_MAX: usize = 40;

/// A column of figures, standing to the right.
struct Column {
    title: &'static str,
    cells: Vec<(String, Style)>,
}

impl Column {
    fn wide(&self) -> usize {
        let cells = self.cells.iter().map(|(text, _)| width(text));
        cells.max().unwrap_or(0).max(width(self.title))
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let campaigns = group_thousands(picture.figures.campaigns.into());
    let mut title = Line::from(Span::from(" campaigns by total ").reset().bold());
    let of = Span::from(format!("of {campaigns} ")).fg(QUIET);
    if title.width() + of.width() + 2 <= area.width.into() {
        title.push_span(of);
    }
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(LINES))
        .title(title);
    let inner = inset(block.inner(area));
    frame.render_widget(block, area);
    let mut lines = inner.rows();
    let Some(titles) = lines.next() else { return };
    let rows = &picture.rows[..picture
        .rows
        .len()
        .min(usize::from(inner.height.saturating_sub(1)))];
    if rows.is_empty() {
        let text = match picture.phase {
            Phase::Starting => "the first events come in a moment",
            _ => "nothing is counted yet",
        };
        frame.render_widget(Line::styled(text, Style::new().fg(QUIET)), titles);
        return;
    }
    let table = Table::of(rows, inner.width.into());
    frame.render_widget(table.titles(), titles);
    for (number, area) in (0..rows.len()).zip(lines) {
        frame.render_widget(table.line(number), area);
    }
}

struct Table<'a> {
    rows: &'a [Row],
    columns: Vec<Column>,
    rank: usize,
    name: usize,
    bar: usize,
}

impl Table<'_> {
    /// As many columns as fit into `wide`; the rest goes to the bars.
    fn of(rows: &[Row], wide: usize) -> Table<'_> {
        let mut columns = columns(rows);
        let rank = rows.len().to_string().len();
        let names = rows.iter().map(|row| width(&row.campaign));
        let longest = names.max().unwrap_or(0).max(NAME_MIN);
        let taken = |columns: &[Column]| {
            let figures: usize = columns.iter().map(|column| column.wide() + GAP).sum();
            rank + GAP + figures
        };
        let rest = |columns: &[Column]| wide.saturating_sub(taken(columns));
        // Donors first, then gifts; total and last minute stay.
        while columns.len() > 2 && rest(&columns) < longest {
            columns.pop();
        }
        while (columns.len() > 1 && rest(&columns) < NAME_MIN) || taken(&columns) > wide {
            if columns.pop().is_none() {
                break;
            }
        }
        let rest = rest(&columns);
        let name = longest.min(rest);
        let bar = (rest - name).saturating_sub(GAP).min(BAR_MAX);
        Table {
            rows,
            columns,
            rank,
            name: if bar < BAR_MIN { rest } else { name },
            bar: if bar < BAR_MIN { 0 } else { bar },
        }
    }

    fn titles(&self) -> Line<'static> {
        let mut text = format!(
            "{:>rank$}{:GAP$}{}",
            "#",
            "",
            pad("campaign", self.name),
            rank = self.rank
        );
        if self.bar > 0 {
            text.push_str(&" ".repeat(GAP + self.bar));
        }
        for column in &self.columns {
            let blanks = GAP + column.wide() - width(column.title);
            text.push_str(&" ".repeat(blanks));
            text.push_str(column.title);
        }
        Line::styled(text, Style::new().fg(QUIET))
    }

    fn line(&self, number: usize) -> Line<'static> {
        let row = &self.rows[number];
        let rank = format!("{:>wide$}{:GAP$}", number + 1, "", wide = self.rank);
        let first = |style: Style| if number == 0 { style.bold() } else { style };
        let mut line = Line::from(vec![
            Span::styled(rank, Style::new().fg(QUIET)),
            Span::styled(
                pad(&fit(&row.campaign, self.name), self.name),
                first(Style::new()),
            ),
        ]);
        if self.bar > 0 {
            let (bar, rest) = bar(row.net, self.rows[0].net, self.bar);
            line.push_span(" ".repeat(GAP));
            line.push_span(Span::from(bar).fg(ACCENT));
            line.push_span(rest);
        }
        for column in &self.columns {
            let (text, style) = &column.cells[number];
            line.push_span(" ".repeat(GAP + column.wide() - width(text)));
            line.push_span(Span::styled(text.clone(), first(*style)));
        }
        line
    }
}

/// The columns of figures, the most telling first.
fn columns(rows: &[Row]) -> Vec<Column> {
    let plain = Style::new();
    let quiet = Style::new().fg(Color::Indexed(250));
    let column = |title, cell: &dyn Fn(&Row) -> (String, Style)| Column {
        title,
        cells: rows.iter().map(cell).collect(),
    };
    let count = |number: u64| (group_thousands(number.into()), quiet);
    vec![
        column("total", &|row| (cny().format(row.net), plain)),
        column("last minute", &|row| {
            let (text, color) = change(row.last_minute, |amount| cny().format(amount));
            (text, Style::new().fg(color))
        }),
        column("gifts", &|row| count(row.gifts)),
        column("donors", &|row| count(row.donors)),
    ]
}

/// The text with blanks behind it, up to so many columns.
fn pad(text: &str, columns: usize) -> String {
    let text = if width(text) > columns { "" } else { text };
    format!("{text}{}", " ".repeat(columns - width(text)))
}

/// A bar as long as its part of the leader's, in eighths of a column, and the
/// blanks behind it.
fn bar(net: i128, leader: i128, columns: usize) -> (String, String) {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let part = (net.max(0) as f64 / leader.max(1) as f64).min(1.0);
    let eighths = (part * columns as f64 * 8.0).round() as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    let blanks = " ".repeat(columns - width(&bar));
    (bar, blanks)
}
