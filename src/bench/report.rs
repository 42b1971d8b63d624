//! The report: one page that needs nothing else, with all numbers and the histograms beside it.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::plots::{self, Plot};
use super::result::{Document, Drain, Paced, Sweep};
use super::table;
use super::{Error, Logs};

/// The numbers, in the folder of a report.
pub(super) const RESULT: &str = "result.json";
const PAGE: &str = "index.html";
/// From due to readable, and to visible.
pub(super) const HISTOGRAMS: [&str; 2] = ["readable.hlog", "visible.hlog"];

const STYLE: &str = "\
body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}\
th,td{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}\
th:first-child,td:first-child{text-align:left}\
figure{margin:2rem 0}figcaption{font-weight:bold}\
.key{font-weight:normal;margin-left:1rem;white-space:nowrap}\
.bad{background:#fdd;padding:.5rem 1rem;white-space:pre-wrap}\
.wide{overflow-x:auto}svg{max-width:100%;height:auto}";

/// Finds out whether a report can be written there.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let tried = folder.join(".tally99-bench");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&tried, ""))
        .and_then(|()| fs::remove_file(&tried))
        .map_err(|source| failed(folder, source))
}

/// Writes page, numbers and histograms, in place of those of a report before; where the page
/// is.
pub(super) fn write(folder: &Path, document: &Document, logs: &Logs) -> Result<PathBuf, Error> {
    let json = serde_json::to_vec_pretty(document).map_err(io::Error::from)?;
    let mut files = vec![(RESULT, json), (PAGE, page(document, logs).into_bytes())];
    files.extend(logs.iter().cloned());
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    for name in HISTOGRAMS {
        let _ = fs::remove_file(folder.join(name)); // If there is one.
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|source| failed(&path, source))?;
    }
    Ok(folder.join(PAGE))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File {
        what: "cannot write",
        path: path.to_owned(),
        source,
    }
}

fn page(document: &Document, logs: &Logs) -> String {
    let mut out = String::new();
    let title = format!("tally99 bench {}", document.command);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>Began {}.</p>\n",
        text(&document.began)
    );
    for failure in document.failures() {
        let _ = writeln!(
            out,
            "<p class=\"bad\">NOT VALID: {}</p>",
            text(failure.trim_end())
        );
    }
    if let Some(drain) = &document.drain {
        of_drain(&mut out, drain);
    }
    if let Some(paced) = &document.paced {
        of_paced(&mut out, paced);
    }
    if let Some(sweep) = &document.sweep {
        of_sweep(&mut out, sweep);
    }
    let machine = document.machine.rows().into_iter();
    let machine: Vec<_> = machine
        .map(|(name, value)| vec![name.into(), value])
        .collect();
    let settings = document.settings.iter();
    let settings: Vec<_> = settings
        .map(|(name, value)| vec![name.clone(), value.clone()])
        .collect();
    out.push_str("<h2>Machine and versions</h2>\n");
    rows(&mut out, &machine, false);
    out.push_str("<h2>Settings</h2>\n");
    rows(&mut out, &settings, false);
    out.push_str("<h2>Files</h2>\n<ul>");
    let names = [RESULT]
        .into_iter()
        .chain(logs.iter().map(|(name, _)| *name));
    for name in names {
        let _ = write!(out, "<li><a href=\"{name}\">{name}</a></li>");
    }
    out.push_str("</ul>\n</body></html>\n");
    out
}

fn of_drain(out: &mut String, drain: &Drain) {
    let _ = writeln!(
        out,
        "<p>{} events in {} partitions. {}</p>",
        crate::money::grouped(drain.events),
        drain.partitions,
        text(&table::exactness_of_all(drain))
    );
    rows(out, &table::medians(drain), true);
    rows(out, &table::pairs(drain), true);
    plots::pairs(drain)
        .iter()
        .for_each(|plot| figure(out, plot));
    plots::cpu(drain).iter().for_each(|plot| figure(out, plot));
}

fn of_paced(out: &mut String, paced: &Paced) {
    let _ = writeln!(
        out,
        "<p>{}. {}</p>",
        text(&table::rate(paced)),
        text(&table::exactness(&paced.exactness))
    );
    rows(out, &table::latencies(paced), true);
    plots::percentiles(paced)
        .iter()
        .for_each(|plot| figure(out, plot));
    plots::over_time(paced)
        .iter()
        .for_each(|plot| figure(out, plot));
    plots::cpu_paced(paced)
        .iter()
        .for_each(|plot| figure(out, plot));
}

fn of_sweep(out: &mut String, sweep: &Sweep) {
    let _ = writeln!(out, "<p>{}</p>", text(&table::knee(sweep)));
    rows(out, &table::steps(sweep), true);
    plots::sweep(sweep)
        .iter()
        .for_each(|plot| figure(out, plot));
    let knee = sweep
        .steps
        .iter()
        .find(|step| Some(step.paced.rate) == sweep.knee);
    if let Some(step) = knee {
        out.push_str("<h2>At the knee</h2>\n");
        of_paced(out, &step.paced);
    }
}

fn figure(out: &mut String, plot: &Plot) {
    let _ = write!(out, "<figure><figcaption>{}", text(plot.title));
    for (name, color) in &plot.legend {
        let (r, g, b) = (color.0, color.1, color.2);
        let _ = write!(
            out,
            "<span class=\"key\"><span style=\"color:rgb({r},{g},{b})\">■</span> {}</span>",
            text(name)
        );
    }
    let _ = writeln!(out, "</figcaption>{}</figure>", plot.svg);
}

/// A table; its first row may be a head.
fn rows(out: &mut String, rows: &[Vec<String>], has_head: bool) {
    out.push_str("<div class=\"wide\"><table>\n");
    for (index, row) in rows.iter().enumerate() {
        let tag = if has_head && index == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<{tag}>{}</{tag}>", text(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// Text that is no markup.
fn text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::{document, drain};
    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_takes_no_name_for_markup() {
        let mut drain = drain();
        drain.runs[0].events = 1;
        let document = Document {
            settings: [("kafka.properties.x".into(), "<script>".into())].into(),
            drain: Some(drain),
            ..document("drain")
        };
        let page = page(&document, &vec![("readable.hlog", Vec::new())]);
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("NOT VALID") && page.contains("href=\"readable.hlog\""));
        assert!(!page.contains("<script") && !page.contains("src="));
        assert!(page.contains("0.800"), "the ratios");
    }

    #[test]
    fn a_report_takes_the_place_of_the_one_before() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("made/anew");
        let files = || {
            let entries = fs::read_dir(&folder).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|it| it.file_name()).collect();
            names.sort();
            names
        };
        let logs = HISTOGRAMS.map(|name| (name, vec![1])).to_vec();
        let document = document("paced");
        write(&folder, &document, &logs).unwrap();
        assert_eq!(files(), [PAGE, HISTOGRAMS[0], RESULT, HISTOGRAMS[1]]);
        write(&folder, &document, &Vec::new()).unwrap();
        assert_eq!(files(), [PAGE, RESULT]);
    }
}
