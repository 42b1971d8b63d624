//! The first lines: what this is, how far it is, and the figures that everybody
//! looks at.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use super::{ACCENT, FALL, LINES, MONEY, Phase, Picture, QUIET, RISE};
use crate::demo::board::{Figures, cny};
use crate::money::group_thousands;
use crate::totals::text::width;

/// The longest progress bar, in columns.
const BAR: usize = 24;

pub(super) fn head(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let state = match picture.phase {
        Phase::Starting => Span::from("○ joining the consumer group").fg(QUIET),
        Phase::Live => Span::from("● live").fg(ACCENT).bold(),
        Phase::Draining => Span::from("◐ letting the rest through").fg(MONEY),
        Phase::Checking => Span::from("◑ checking every total").fg(MONEY),
    };
    let badge = " tally99 ";
    let mut line = Line::from(vec![
        Span::from(badge).fg(Color::Indexed(231)).bg(ACCENT).bold(),
        "  ".into(),
        state,
    ]);
    let clock = clock(
        picture,
        usize::from(area.width).saturating_sub(line.width() + 3),
    );
    let gap = usize::from(area.width).saturating_sub(line.width() + clock.width() + 1);
    if gap >= 2 {
        line.push_span(" ".repeat(gap));
        line.extend(clock);
    }
    frame.render_widget(line, area);
}

/// `0:42 ━━━━━━━━━━━━──── 1:00`
fn clock(picture: &Picture, columns: usize) -> Line<'static> {
    let [now, end] = [picture.elapsed, picture.duration].map(minutes);
    let room = columns.saturating_sub(width(&now) + width(&end) + 2);
    let bar = room.min(BAR);
    let part = picture.elapsed.as_secs_f64() / picture.duration.as_secs_f64().max(0.001);
    let done = (bar as f64 * part.min(1.0)).round() as usize;
    Line::from(vec![
        Span::from(now).bold(),
        " ".into(),
        Span::from("━".repeat(done)).fg(ACCENT),
        Span::from("━".repeat(bar - done)).fg(LINES),
        " ".into(),
        Span::from(end).fg(QUIET),
    ])
}

fn minutes(span: Duration) -> String {
    let s = span.as_secs();
    match s / 3_600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// A figure with what it is and how it changed in the last minute.
struct Card {
    title: &'static str,
    value: String,
    change: (String, Color),
}

pub(super) fn cards(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let cards = of(&picture.figures, &picture.minute_ago);
    // Columns that only grow with the figures: nothing trembles.
    let wide = |card: &Card| {
        let texts = [card.title, &card.value, &card.change.0];
        texts.map(width).into_iter().max().unwrap_or(0)
    };
    let mut shown = cards.len();
    let sum = |count: usize| cards[..count].iter().map(wide).sum::<usize>();
    while shown > 0 && sum(shown) + 3 * (shown - 1) > area.width.into() {
        shown -= 1;
    }
    if shown == 0 {
        return;
    }
    let spare = usize::from(area.width).saturating_sub(sum(shown));
    let gap = (spare / shown).clamp(3, 9);
    let mut lines = [Line::default(), Line::default(), Line::default()];
    for (place, card) in cards[..shown].iter().enumerate() {
        let color = if place == 0 { MONEY } else { Color::Reset };
        let pad = |text: &str| " ".repeat(wide(card) + gap - width(text));
        let parts = [
            Span::from(card.title).fg(QUIET),
            Span::from(card.value.clone()).fg(color).bold(),
            Span::from(card.change.0.clone()).fg(card.change.1),
        ];
        for (line, part) in lines.iter_mut().zip(parts) {
            let pad = pad(&part.content);
            line.push_span(part);
            line.push_span(pad);
        }
    }
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn of(now: &Figures, before: &Figures) -> [Card; 5] {
    let money = |title, now: i128, before: i128| Card {
        title,
        value: cny().format(now),
        change: change(now - before, |amount| cny().format(amount)),
    };
    let count = |title, now: i128, before: i128| Card {
        title,
        value: group_thousands(now.unsigned_abs()),
        change: change(now - before, |count| group_thousands(count.unsigned_abs())),
    };
    [
        money("DONATED", now.net, before.net),
        count("DONORS", now.donors.into(), before.donors.into()),
        count("GIFTS", now.gifts.into(), before.gifts.into()),
        count("FLOWERS", now.flowers, before.flowers),
        money("MATCHED BY SPONSORS", now.matched, before.matched),
    ]
}

/// A change with its sign and its colour.
pub(super) fn change(change: i128, text: impl Fn(i128) -> String) -> (String, Color) {
    match change {
        0 => ("·".into(), LINES),
        1.. => (format!("+{}", text(change)), RISE),
        _ => (format!("-{}", text(-change)), FALL),
    }
}
