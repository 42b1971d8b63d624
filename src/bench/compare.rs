//! `tally99 bench compare`: two reports, side by side.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::Error;
use super::args::CompareArgs;
use super::report::RESULT;
use super::result::{Document, FORMAT, Kind};
use super::stats::median;
use super::table::{columns, row};
use crate::money::grouped;
use crate::totals::Verdict;

/// The figures of both, what each of B is as a part of that of A, and whether both are valid.
pub(super) fn compare(args: &CompareArgs) -> Result<(String, Verdict), Error> {
    let [before, after] = [&args.before, &args.after].map(|path| read(path));
    let (before, after) = (before?, after?);
    let (mut out, mut rows) = (differences(&before, &after), Vec::new());
    for (name, figure) in figures(&before) {
        let others = figures(&after);
        let Some((_, other)) = others.into_iter().find(|(other, _)| *other == name) else {
            continue;
        };
        let part = match figure {
            0.0 => "-".into(),
            _ => format!("{:.3}", other / figure),
        };
        rows.push(vec![name, number(figure), number(other), part]);
    }
    if rows.is_empty() {
        return Err(Error::Usage(format!(
            "there is nothing to compare: A is of `bench {}`, B of `bench {}`, and no figure is \
             in both",
            before.command, after.command
        )));
    }
    rows.insert(0, row(["", "A", "B", "B / A"]));
    out.push_str(&columns(&rows));
    let mut are_valid = true;
    for (name, document) in [("A", &before), ("B", &after)] {
        for failure in document.failures() {
            are_valid = false;
            let _ = writeln!(out, "\n{name} is NOT VALID: {}", failure.trim_end());
        }
    }
    Ok((out, Verdict::of(are_valid)))
}

fn number(figure: f64) -> String {
    match figure.abs() {
        0.0..10.0 => format!("{figure:.3}"),
        _ => grouped(figure.round() as i64),
    }
}

/// What tells how to read the rest.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn read(path: &Path) -> Result<Document, Error> {
    let path = match path.is_dir() {
        true => path.join(RESULT),
        false => path.to_owned(),
    };
    let failed = |what| {
        let path = path.clone();
        move |source| Error::File { what, path, source }
    };
    let text = fs::read_to_string(&path).map_err(failed("cannot read"))?;
    let is_none = "this is no result of `tally99 bench`:";
    let format = serde_json::from_str(&text).map_err(io::Error::from);
    let Format { format } = format.map_err(failed(is_none))?;
    if format != FORMAT {
        let why = format!("it has format {format}, and this program knows {FORMAT}");
        return Err(failed("cannot compare")(io::Error::other(why)));
    }
    let document = serde_json::from_str(&text).map_err(io::Error::from);
    document.map_err(failed(is_none))
}

/// What is another machine, version or setting: then the ratios say something else.
fn differences(before: &Document, after: &Document) -> String {
    let mut out = String::new();
    let mut differ = |name: &str, a: &str, b: &str| {
        if a != b {
            let _ = writeln!(out, "differs: {name}: {a} | {b}");
        }
    };
    differ("command", &before.command, &after.command);
    for ((name, a), (_, b)) in before.machine.rows().iter().zip(after.machine.rows()) {
        differ(name, a, &b);
    }
    let names = before.settings.keys().chain(after.settings.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let of = |document: &Document| document.settings.get(name).cloned();
        let [a, b] = [of(before), of(after)].map(|it| it.unwrap_or("not set".into()));
        differ(name, &a, &b);
    }
    let events = |document: &Document| {
        let drained = document.drain.as_ref().map(|drain| drain.events);
        let sent = || document.paced.as_ref().map(|paced| paced.events);
        drained.or_else(sent).unwrap_or(0).to_string()
    };
    differ("events", &events(before), &events(after));
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// Each figure that can be compared, with its name.
fn figures(document: &Document) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    let mut add = |name: String, figure: Option<f64>| {
        figures.extend(figure.map(|figure| (name, figure)));
    };
    if let Some(drain) = &document.drain {
        for kind in Kind::ALL {
            let name = kind.name();
            let Some(of) = drain.medians(kind) else {
                continue;
            };
            add(format!("{name}: events/s"), Some(of.rate));
            add(format!("{name}: MB/s"), of.megabytes_a_second);
            for (part, seconds) in of.cpu_parts.iter().flatten() {
                add(format!("{name}: CPU s/M, {part}"), Some(*seconds));
            }
            add(format!("{name}: CPU s/M"), of.cpu);
            let memory = of.peak_memory_bytes;
            let memory = memory.map(|bytes| bytes / f64::from(1 << 20));
            add(format!("{name}: peak MiB"), memory);
        }
        for kind in [Kind::RawPoll, Kind::RawBatch] {
            add(
                format!("tally99 to {}", kind.name()),
                median(drain.ratios(kind)),
            );
        }
    }
    if let Some(paced) = &document.paced {
        add("events/s".into(), Some(paced.rate as f64));
        for (what, latency) in [("readable", &paced.readable), ("visible", &paced.visible)] {
            for (name, us) in latency.figures() {
                add(format!("{what}, {name}, ms"), Some(us as f64 / 1_000.0));
            }
        }
        let (events, late) = (paced.sent as f64 / 1e6, paced.lateness.p99_us);
        add("late sent, p99, ms".into(), Some(late as f64 / 1_000.0));
        add(
            "CPU s/M".into(),
            paced.cpu.as_ref().map(|cpu| cpu.total_s() / events),
        );
        let memory = paced
            .peak_memory_bytes
            .map(|bytes| bytes as f64 / (1 << 20) as f64);
        add("peak MiB".into(), memory);
    }
    if let Some(sweep) = &document.sweep {
        for step in &sweep.steps {
            let (rate, p99_us) = (grouped(step.paced.rate), step.paced.readable.p99_us);
            add(
                format!("p99 at {rate} events/s, ms"),
                Some(p99_us as f64 / 1_000.0),
            );
        }
        add("knee, events/s".into(), sweep.knee.map(|knee| knee as f64));
    }
    figures
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::result::tests::{document, drain, paced};
    use super::*;

    /// What comparing these two files says.
    fn compare_files(before: &str, after: &str) -> Result<(String, Verdict), Error> {
        let folder = tempfile::tempdir().unwrap();
        let [before, after] = [("a.json", before), ("b.json", after)].map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        });
        compare(&CompareArgs { before, after })
    }

    fn json(document: &Document) -> String {
        serde_json::to_string(document).unwrap()
    }

    fn drained() -> Document {
        Document {
            drain: Some(drain()),
            ..document("drain")
        }
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let other = Document {
            paced: Some(paced(100)),
            ..document("paced")
        };
        let newer = Document {
            format: FORMAT + 1,
            ..drained()
        };
        for (other, says) in [
            (json(&other), "A is of `bench drain`, B of `bench paced`"),
            (json(&newer), "it has format 2, and this program knows 1"),
            (r#"{"format":3,"else":[]}"#.into(), "it has format 3"),
            ("no JSON".into(), "b.json"),
            ("{}".into(), "this is no result of `tally99 bench`"),
        ] {
            let error = compare_files(&json(&drained()), &other).unwrap_err();
            let source = std::error::Error::source(&error);
            let told = format!(
                "{error} {}",
                source.map_or(String::new(), |it| it.to_string())
            );
            assert!(told.contains(says), "{told}");
        }
        let nothing = PathBuf::from("/nothing/is/here");
        let error = compare(&CompareArgs {
            before: nothing.clone(),
            after: nothing,
        });
        assert!(error.unwrap_err().to_string().contains("/nothing/is/here"));
    }

    #[test]
    fn what_is_not_valid_is_told_and_an_exit_code() {
        let (out, verdict) = compare_files(&json(&drained()), &json(&drained())).unwrap();
        assert_eq!(verdict, Verdict::Fine, "{out}");
        let mut other = drained();
        other.drain.as_mut().unwrap().runs[1].events -= 1;
        let (out, verdict) = compare_files(&json(&drained()), &json(&other)).unwrap();
        assert_eq!(verdict, Verdict::Differs);
        assert!(
            out.contains("B is NOT VALID") && !out.contains("A is NOT"),
            "{out}"
        );
    }
}
