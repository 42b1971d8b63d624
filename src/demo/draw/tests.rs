use std::collections::BTreeSet;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

/// The screen as a terminal of this size shows it, without colours.
fn screen(picture: &Picture, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).expect("a test backend");
    terminal.draw(|frame| draw(frame, picture)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..lines {
        let mut x = 0;
        let mut line = String::new();
        while x < columns {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // The second cell of a wide character shows nothing of its own.
            x += width(symbol).max(1) as u16;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(campaign: &str, net: i128) -> Row {
    Row {
        campaign: campaign.into(),
        net,
        last_minute: net / 3,
        gifts: net.unsigned_abs() as u64 / 2_000,
        donors: net.unsigned_abs() as u64 / 3_000,
    }
}

fn figures(seconds: i128) -> Figures {
    let seconds_u64 = seconds as u64;
    Figures {
        cut: 5 * seconds_u64,
        net: 98_765_432 * seconds,
        matched: 1_234_567 * seconds,
        gifts: 15_000 * seconds_u64,
        flowers: 4_321 * seconds,
        donors: 10_203 * seconds_u64,
        campaigns: 20_000,
        events: 20_000 * seconds_u64,
        repeats: 201 * seconds_u64,
        dead_letters: 19 * seconds_u64,
        late: 21 * seconds_u64,
    }
}

/// A demo after 42 of 60 seconds.
fn live() -> Picture {
    let point = |second: u64| Point {
        money: 90_000_000 + second * 1_000_000,
        events: 19_000 + second % 5 * 500,
        p99_ms: 200 + second % 7 * 20,
    };
    Picture {
        phase: Phase::Live,
        elapsed: Duration::from_secs(42),
        duration: Duration::from_secs(60),
        figures: figures(42),
        minute_ago: figures(2),
        rows: vec![
            row("乡村儿童大病救助", 412_345_678),
            row("Clean water for a village", 98_765_432),
            row("免费午餐", 55_443_322),
            row("refunded more than it got", -1_250),
        ],
        points: (0..42).map(point).collect(),
        rate: Some(19_987),
        latency: Some(Latency {
            p50_ms: 187,
            p99_ms: 331,
            max_ms: 402,
        }),
        on_the_way: 3_456,
        held_back: Duration::ZERO,
        partitions: 12,
        workers: 2,
        warning: None,
    }
}

/// A demo before its first event.
fn starting() -> Picture {
    Picture {
        phase: Phase::Starting,
        elapsed: Duration::ZERO,
        figures: Figures::default(),
        minute_ago: Figures::default(),
        rows: Vec::new(),
        points: Vec::new(),
        rate: None,
        latency: None,
        on_the_way: 0,
        ..live()
    }
}

/// The same demo, in trouble.
fn in_trouble() -> Picture {
    Picture {
        held_back: Duration::from_millis(1_250),
        warning: Some("no Kafka broker answers (127.0.0.1:1: Connection\u{1b}[2J refused)".into()),
        ..live()
    }
}

#[test]
fn a_screen_of_usual_size() {
    insta::assert_snapshot!(screen(&live(), 120, 30));
}

#[test]
fn the_smallest_terminal_that_anybody_has() {
    insta::assert_snapshot!(screen(&live(), 80, 24));
}

#[test]
fn a_corner_of_a_screen_has_figures_in_the_place_of_charts() {
    insta::assert_snapshot!(screen(&live(), 50, 14));
}

#[test]
fn before_the_first_event() {
    insta::assert_snapshot!(screen(&starting(), 80, 24));
}

#[test]
fn a_warning_takes_the_last_line_and_moves_no_cursor() {
    let text = screen(&in_trouble(), 100, 24);
    let last = text.lines().last().expect("there are lines");
    assert_eq!(
        last,
        " ! no Kafka broker answers (127.0.0.1:1: Connection\\u{1b}[2J refused)"
    );
    assert!(text.contains("1.2 s held back"), "{text}");
}

#[test]
fn the_end_is_announced() {
    for (phase, said) in [
        (Phase::Draining, "letting the rest through"),
        (Phase::Checking, "checking every total"),
    ] {
        let picture = Picture { phase, ..live() };
        let text = screen(&picture, 80, 24);
        assert!(text.contains(said), "{text}");
        assert!(text.contains("Ctrl-C again ends it at once"), "{text}");
    }
}

/// Whatever looks like a number in the text.
fn numbers(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, ',' | '.' | ':');
    text.split(|c| !is_part(c))
        .filter(|part| part.contains(|c: char| c.is_ascii_digit()))
        .collect()
}

/// A terminal of any size shows numbers whole or not at all.
#[test]
fn no_number_is_cut_off() {
    let mut picture = live();
    // More rows than any of the screens has lines, all with the same figures, so
    // that the large one shows every number that a small one may show.
    picture.rows = vec![row("免费午餐", 55_443_322); 99];
    let full = screen(&picture, 220, 110);
    let allowed = numbers(&full);
    for columns in 1..=160 {
        for lines in [1, 2, 3, 5, 8, 13, 24, 40, 60] {
            let text = screen(&picture, columns, lines);
            for number in numbers(&text) {
                assert!(
                    allowed.contains(number),
                    "{number} at {columns} x {lines}:\n{text}"
                );
            }
            screen(&starting(), columns, lines);
            screen(&in_trouble(), columns, lines);
        }
    }
}
