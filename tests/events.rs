//! Hostile and odd input: every row of the tables in `docs/events.md` is true.

use tally99::event::{AT_END, AT_MIN, MAX_EVENT_BYTES, Reason, decode};
use tally99::shard::{Calendar, Names, Outcome, Record, Rules, Shard};

const AT: i64 = 1_662_688_800_000;

fn shard() -> Shard {
    let calendar = Calendar::of_zone("Asia/Shanghai").unwrap();
    Shard::new(
        0,
        Rules {
            calendar,
            dedup_horizon_s: 259_200,
            max_ahead_ms: 300_000,
        },
    )
}

/// The outcome of one record in an empty shard: `counted` or the reason.
fn outcome(payload: Option<&[u8]>, timestamp: Option<i64>) -> &'static str {
    let mut shard = shard();
    let record = Record {
        offset: 0,
        timestamp,
        payload,
    };
    let outcome = shard.apply(record, &mut Names::default());
    let tally = shard.tally();
    assert_eq!(tally.seen, 1);
    assert_eq!(tally.seen, tally.counted + tally.duplicates + tally.dead());
    match outcome {
        Outcome::Counted => "counted",
        Outcome::Duplicate => "duplicate",
        Outcome::DeadLetter(rejected) => {
            assert_eq!(tally.dead_letters[rejected.reason as usize], 1);
            assert!(!rejected.detail.is_empty());
            rejected.reason.code()
        }
    }
}

/// The input of a row, with its abbreviations written out.
fn written_out(input: &str) -> String {
    let mut text = input.to_owned();
    for length in [32, 33, 64, 65] {
        text = text.replace(&format!("x×{length}"), &"x".repeat(length));
    }
    let mut fields = vec![
        ("id", r#""id":"a""#),
        ("campaign", r#""campaign":"c""#),
        ("amount", r#""amount":990"#),
        ("currency", r#""currency":"CNY""#),
        ("at", r#""at":1662688800000"#),
    ];
    // A row that names a field replaces it, but where doubling it is the point.
    if text != r#"{…,"amount":990}"# {
        fields.retain(|(name, _)| !text.contains(&format!("\"{name}\":")));
    }
    let fields: Vec<_> = fields.into_iter().map(|(_, field)| field).collect();
    text.replace('…', &fields.join(","))
}

#[test]
fn the_documentation_tells_every_outcome() {
    let mut rows = 0;
    let (_, tables) = include_str!("../docs/events.md")
        .split_once("## Counted")
        .unwrap();
    let (tables, _) = tables.split_once("Some inputs cannot stand").unwrap();
    for line in tables.lines() {
        let is_head = line.starts_with("|---") || line.starts_with("| what |");
        if !line.starts_with('|') || is_head {
            continue;
        }
        // | what | `input` | outcome |
        let parts = line
            .split_once(" | `")
            .and_then(|(_, rest)| rest.rsplit_once("` | "));
        let (input, outcome_and_bar) = parts.unwrap_or_else(|| panic!("no row: {line}"));
        let expected = outcome_and_bar.trim_end_matches(" |").trim_matches('`');
        let payload = written_out(input);
        // What is allowed at the time itself, whatever the time is.
        let timestamp = decode(Some(payload.as_bytes())).map_or(AT, |event| event.at);
        let found = outcome(Some(payload.as_bytes()), Some(timestamp));
        assert_eq!(found, expected, "{payload}");
        rows += 1;
    }
    assert!(rows > 85, "only {rows} rows were found");
}

#[test]
fn what_cannot_stand_in_a_table() {
    let valid = br#"{"id":"a","campaign":"c","amount":990,"currency":"CNY","at":1662688800000}"#;
    let at = Some(AT);
    assert_eq!(outcome(Some(valid), at), "counted");
    assert_eq!(outcome(None, at), "empty");
    assert_eq!(outcome(Some(b""), at), "empty");
    assert_eq!(outcome(Some(b"\xff\xfe"), at), "not_utf8");
    let ignored_but_not_utf8 = [&valid[..valid.len() - 1], b",\"note\":\"\xc3\x28\"}"].concat();
    assert_eq!(outcome(Some(&ignored_but_not_utf8), at), "not_utf8");

    let marked = [b"\xef\xbb\xbf", &valid[..]].concat();
    assert_eq!(outcome(Some(&marked), at), "not_json");

    let padded = |bytes: usize| [valid.to_vec(), vec![b' '; bytes - valid.len()]].concat();
    assert_eq!(outcome(Some(&padded(MAX_EVENT_BYTES)), at), "counted");
    assert_eq!(outcome(Some(&padded(MAX_EVENT_BYTES + 1)), at), "too_large");
    assert_eq!(outcome(Some(&vec![b'{'; 1 << 20]), at), "too_large");

    let long = format!("\"{}\"", "\u{e0001}".repeat(16_000));
    let rejected = decode(Some(long.as_bytes())).unwrap_err();
    assert_eq!(rejected.reason, Reason::NotJson);
    assert!(
        rejected.detail.len() < 310,
        "{} bytes",
        rejected.detail.len()
    );

    let deep = |field: &str| {
        let arrays = "[".repeat(20_000) + &"]".repeat(20_000);
        String::from_utf8_lossy(valid).replace('}', &format!(",\"{field}\":{arrays}}}"))
    };
    assert_eq!(outcome(Some(deep("note").as_bytes()), at), "counted");
    assert_eq!(outcome(Some(deep("donor").as_bytes()), at), "bad_donor");

    assert_eq!(outcome(Some(valid), None), "no_timestamp");
    assert_eq!(outcome(Some(valid), Some(AT - 300_000)), "counted");
    assert_eq!(outcome(Some(valid), Some(AT - 300_001)), "ahead");
    assert_eq!(outcome(Some(valid), Some(i64::MIN)), "ahead");
}

/// The same event in every partition's order: once counted, then a repeat; and
/// one that is a dead letter does not make the next of its id a repeat.
#[test]
fn a_repeat_is_counted_once_and_a_dead_letter_is_no_first_time() {
    let (mut shard, mut names) = (shard(), Names::default());
    let mut apply = |offset: i64, amount: &str| {
        let payload =
            format!(r#"{{"id":"a","campaign":"c","amount":{amount},"currency":"CNY","at":{AT}}}"#);
        let record = Record {
            offset,
            timestamp: Some(AT),
            payload: Some(payload.as_bytes()),
        };
        shard.apply(record, &mut names)
    };
    assert!(matches!(apply(0, "\"990\""), Outcome::DeadLetter(_)));
    assert_eq!(apply(1, "990"), Outcome::Counted);
    assert_eq!(apply(2, "990"), Outcome::Duplicate);
    assert!(matches!(apply(3, "0"), Outcome::DeadLetter(_)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    /// Whatever the bytes, nothing panics.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        proptest::prop_assert!(decode(Some(&bytes)).is_err());
    }

    /// Whatever its fields hold, it is an event within its bounds or rejected.
    #[test]
    fn an_event_is_within_its_bounds(
        id in ".{0,70}", campaign in ".{0,70}", donor in ".{0,70}",
        amount: i64, at: i64, is_near: bool,
    ) {
        let at = if is_near { at % (2 * AT) } else { at };
        let json = serde_json::json!({
            "id": id, "campaign": campaign, "donor": donor, "amount": amount,
            "currency": "CNY", "at": at,
        });
        let json = json.to_string();
        match decode(Some(json.as_bytes())) {
            Ok(event) => {
                proptest::prop_assert!((1..=64).contains(&id.len()));
                proptest::prop_assert!((1..=64).contains(&event.campaign.len()));
                proptest::prop_assert!(event.donor.is_none_or(|d| (1..=64).contains(&d.len())));
                proptest::prop_assert!(amount > 0 && (AT_MIN..AT_END).contains(&event.at));
            }
            Err(rejected) => proptest::prop_assert!(rejected.detail.len() < 310),
        }
    }

    /// Nor do bytes panic that nearly are an event.
    #[test]
    fn no_damaged_event_panics(place in 0usize..120, byte: u8, cut in 0usize..120) {
        let mut bytes = br#"{"id":"a","kind":"refund","campaign":"c","donor":"d","amount":990,"currency":"CNY","at":"2022-09-09T10:00:00+08:00"}"#.to_vec();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Err(rejected) = decode(Some(&bytes)) {
            assert!(Reason::ALL.contains(&rejected.reason));
        }
        bytes.truncate(cut);
        assert!(decode(Some(&bytes)).is_err() || cut >= 115);
    }
}
