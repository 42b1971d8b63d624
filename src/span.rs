//! Spans of time, as people type them.

use std::time::Duration;

use jiff::SignedDuration;

/// A number of seconds, or a span with units: `90`, `60s`, `5m`, `1h30m`, `250ms`.
///
/// # Errors
///
/// What to type instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    let advice = "give seconds, or a time like 60s, 5m, 1h30m";
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => {
            let span: SignedDuration = text.parse().map_err(|_| advice.to_owned())?;
            Duration::try_from(span).map_err(|_| advice.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("0", 0.0),
            ("90", 90.0),
            ("60s", 60.0),
            ("5m", 300.0),
            ("1h30m", 5_400.0),
            ("1h 30m", 5_400.0),
            ("2.5s", 2.5),
            ("1500ms", 1.5),
        ] {
            let read = parse(text).map(|span| span.as_secs_f64());
            assert_eq!(read, Ok(seconds), "{text}");
        }
        for text in ["", "soon", "-5s", "5 moons"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
