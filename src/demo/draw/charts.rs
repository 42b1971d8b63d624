//! Three charts side by side, one second a column: money, events, latency.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Sparkline};

use super::{EVENTS, LATENCY, LINES, MONEY, Picture, QUIET, rate, seconds};
use crate::demo::board::{Point, cny};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let thirds = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    let [money, events, latency]: [Rect; 3] = thirds;
    let given = picture.points.last().map_or(0, |point| point.money);
    // Whole units: nobody reads fen off a rate.
    let given = cny().format((given / 100 * 100).into());
    let given = given.split('.').next().unwrap_or_default().to_owned();
    chart(
        frame,
        money,
        picture,
        Chart {
            titles: vec![vec![(given.clone(), "a second")], vec![(given, "")]],
            color: MONEY,
            value: |point| point.money,
        },
    );
    chart(
        frame,
        events,
        picture,
        Chart {
            titles: ["events a second", "events/s", ""]
                .map(|word| vec![(rate(picture), word)])
                .into(),
            color: EVENTS,
            value: |point| point.events,
        },
    );
    let p50_p99 = picture.latency.as_ref().map(|latency| {
        let [p50, p99] = [latency.p50_ms, latency.p99_ms].map(seconds);
        [(p50, "p50"), (p99, "p99")]
    });
    let word = (String::new(), "latency");
    chart(
        frame,
        latency,
        picture,
        Chart {
            titles: match p50_p99 {
                None => vec![vec![word]],
                Some([p50, p99]) => vec![
                    vec![word, p50.clone(), p99.clone()],
                    vec![p50, p99.clone()],
                    vec![p99],
                ],
            },
            color: LATENCY,
            value: |point| point.p99_ms,
        },
    );
}

struct Chart {
    /// Figures, each with the word behind it: the first title that fits is shown.
    titles: Vec<Vec<(String, &'static str)>>,
    color: Color,
    value: fn(&Point) -> u64,
}

fn chart(frame: &mut Frame<'_>, area: Rect, picture: &Picture, chart: Chart) {
    // Two columns are the corners.
    let fits = |title: &Line<'_>| title.width() + 2 <= area.width.into();
    let titles = chart.titles.into_iter();
    let title = titles
        .map(|parts| title(parts, chart.color))
        .find(fits)
        .unwrap_or_default();
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(LINES))
        .title(title);
    let wide = block.inner(area).width.into();
    let points = &picture.points;
    let shown = &points[points.len().saturating_sub(wide)..];
    let mut data: Vec<u64> = vec![0; wide - shown.len()];
    data.extend(shown.iter().map(chart.value));
    let max = data.iter().max().copied().unwrap_or(0);
    let spark = Sparkline::default()
        .data(data)
        // Some air above, so that a steady rate is no wall.
        .max((max + max / 4).max(1))
        .style(Style::new().fg(chart.color))
        .block(block);
    frame.render_widget(spark, area);
}

fn title(parts: Vec<(String, &'static str)>, color: Color) -> Line<'static> {
    let mut title = Line::from(" ");
    for (figure, word) in parts {
        let figure = Span::from(figure).fg(color).bold();
        for part in [figure, Span::from(word).fg(QUIET)] {
            if !part.content.is_empty() {
                title.push_span(part);
                title.push_span(" ");
            }
        }
    }
    title
}
