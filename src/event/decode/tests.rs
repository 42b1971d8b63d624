//! Events of the usual form against the general decoder.

use proptest::prelude::*;

use super::time::{any_rfc3339, usual_rfc3339};
use super::*;
use crate::generate::{Record, Settings, Traffic};

/// Whether an event is of the usual form; if so, it is the same in general.
fn is_usual(text: &str) -> bool {
    let Some(event) = usual::usual(text) else {
        return false;
    };
    assert_eq!(Ok(event), super::any(text), "{text}");
    true
}

#[test]
fn all_that_is_no_fault_is_usual() {
    let settings = Settings::new(7, 20_000);
    let (mut usual, mut events) = (0, 0);
    let (mut traffic, mut record) = (Traffic::new(&settings).unwrap(), Record::new());
    while traffic.next(&mut record) {
        let text = String::from_utf8_lossy(record.payload());
        usual += u32::from(is_usual(&text));
        events += u32::from(decode(Some(text.as_bytes())).is_ok());
    }
    assert!(events > 19_900 && usual == events, "{usual} of {events}");
}

/// Tokens of events and what else may stand in a text, right and wrong.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "\n",
    "\t",
    "\u{a0}",
    "\0",
    "\u{7f}",
    "\u{85}",
    "é",
    "山",
    "\"id\"",
    "\"campaign\"",
    "\"donor\"",
    "\"amount\"",
    "\"currency\"",
    "\"at\"",
    "\"kind\"",
    "\"refund_of\"",
    "\"channel\"",
    "\"other\"",
    "\"i\\u0064\"",
    "\"\"",
    "\"a\"",
    "\"CNY\"",
    "\"refund\"",
    "\"flower\"",
    "\"2022-09-09T10:00:00+08:00\"",
    "\"",
    "\\",
    "\"山区\u{85}\"",
    "\"a\u{7f}\"",
    "\"\u{e9}\"",
    "0",
    "-0",
    "00",
    "7",
    "990",
    "1.5",
    "1e3",
    "-3",
    "999999999999999999",
    "1000000000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "1662688800000",
    "null",
    "true",
    "false",
    "nul",
    "nullx",
];

#[test]
fn the_usual_form_of_a_time_is_read_as_any_other() {
    let mut read = 0;
    for date in [
        "2022-09-09",
        "2000-02-29",
        "1900-02-29",
        "2022-13-01",
        "0000-01-01",
        "9999-12-31",
        "2022-1-01",
    ] {
        for time in [
            "T00:00:00",
            "T23:59:59",
            "T23:59:60",
            "T24:00:00",
            "t10:00:00",
            " 10:00:00",
            "T1a:00:00",
        ] {
            for fraction in ["", ".", ".5", ".123", ".1239", ".9999999999", ",5"] {
                for offset in [
                    "Z", "z", "+08:00", "-03:30", "+23:59", "+24:00", "-00:60", "", "+0800", "Z ",
                ] {
                    let text = format!("{date}{time}{fraction}{offset}");
                    if let Some(at) = usual_rfc3339(&text) {
                        assert_eq!(Some(at), any_rfc3339(&text), "{text}");
                        read += 1;
                    }
                }
            }
        }
    }
    assert_eq!(read, 2 * 2 * 5 * 4, "times are of this form");
}

const EVENT: &str = r#"{"id":"a1","kind":"donation","campaign":"山区学校","donor":"d","amount":990,"currency":"CNY","at":"2022-09-09T10:00:00.123+08:00","channel":"wechat_pay"}"#;

const EVENT_FIELDS: [(&str, &str); 8] = [
    ("\"id\"", "\"a1\""),
    ("\"kind\"", "\"donation\""),
    ("\"campaign\"", "\"山区学校\""),
    ("\"donor\"", "null"),
    ("\"amount\"", "990"),
    ("\"currency\"", "\"CNY\""),
    ("\"at\"", "1662688800000"),
    ("\"channel\"", "\"wechat_pay\""),
];

fn token() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(TOKENS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn usual_or_not_an_object_of_any_fields_is_the_same(
        fields in proptest::collection::vec((token(), token(), token()), 0..12),
    ) {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value, before)| match *before {
                " " | "\n" | "\t" => format!("{before}{name}{before}:{before}{value}{before}"),
                _ => format!("{name}:{value}"),
            })
            .collect();
        is_usual(&format!("{{{}}}", fields.join(",")));
    }

    /// In any order, some left out, with other values, twice, with spaces or others between.
    #[test]
    fn usual_or_not_an_event_of_changed_fields_is_the_same(
        fields in Just(EVENT_FIELDS.to_vec()).prop_shuffle(),
        left_out in proptest::option::of(0..EVENT_FIELDS.len()),
        changes in proptest::collection::vec((0..12usize, token(), token()), 0..3),
        spaces in proptest::collection::vec(0..3usize, 4),
    ) {
        let [before_colon, behind_colon, before_comma, behind_comma] =
            [0, 1, 2, 3].map(|at| " ".repeat(spaces[at]));
        let mut fields: Vec<_> = fields
            .into_iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != left_out)
            .map(|(_, field)| field)
            .collect();
        for (at, name, value) in changes {
            match at {
                // Another value, or one more field.
                0..5 => fields[at].1 = value,
                5..9 => fields.insert(at - 3, fields[at - 5]),
                _ => fields.insert(at - 8, (name, value)),
            }
        }
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| format!("{name}{before_colon}:{behind_colon}{value}"));
        let fields: Vec<_> = fields.collect();
        is_usual(&format!("{{{}}}", fields.join(&format!("{before_comma},{behind_comma}"))));
    }

    #[test]
    fn usual_or_not_an_event_with_a_fault_is_the_same(
        from in 0..EVENT.len(),
        len in 0..4usize,
        put in proptest::collection::vec(token(), 0..3),
    ) {
        let (from, to) = (
            EVENT.floor_char_boundary(from),
            EVENT.ceil_char_boundary((from + len).min(EVENT.len())),
        );
        is_usual(&format!("{}{}{}", &EVENT[..from], put.concat(), &EVENT[to..]));
    }
}

/// As programs write them: with spaces or without, in any order, with fields of their own.
#[test]
fn what_producers_write_is_usual() {
    let fields: Vec<&str> = EVENT[1..EVENT.len() - 1].split(',').collect();
    let others = [
        r#""source":"app""#,
        r#""retry":true"#,
        r#""memo":null"#,
        r#""n":7"#,
    ];
    for first in 0..fields.len() {
        let mut fields = fields.clone();
        fields.rotate_left(first);
        for (place, other) in others.iter().enumerate() {
            let mut fields = fields.clone();
            fields.insert(2 * place, other);
            for (before_colon, behind_colon, behind_comma, within) in [
                ("", "", "", ""),
                ("", " ", " ", ""),
                (" ", " ", " ", ""),
                ("", " ", " ", " "),
                ("  ", "   ", "  ", "  "),
            ] {
                let colon = format!("\"{before_colon}:{behind_colon}");
                let text = fields.join(&format!(",{behind_comma}"));
                let text = format!("{{{within}{}{within}}}", text.replace("\":", &colon));
                assert!(is_usual(&text), "{text}");
                assert_eq!(
                    decode(Some(text.as_bytes())),
                    decode(Some(EVENT.as_bytes()))
                );
            }
        }
        fields.reverse();
        assert!(is_usual(&format!("{{{}}}", fields.join(","))));
    }
}

#[test]
fn what_is_not_usual_is_read_all_the_same() {
    let plain = EVENT.to_owned();
    assert!(is_usual(&plain));
    for (part, other) in [
        (r#""id""#, r#""i\u0064""#),
        (r#""a1""#, r#""\u0061\u0031""#),
        ("990", "990,\"extra\":[{\"deep\":[]}]"),
    ] {
        let other = plain.replace(part, other);
        assert!(!is_usual(&other), "{other}");
        assert_eq!(
            decode(Some(other.as_bytes())),
            decode(Some(plain.as_bytes()))
        );
    }
}
