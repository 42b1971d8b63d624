//! `tally99 checkpoints list`

use std::fmt::Write as _;
use std::io::Write;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::{Error, ListArgs, Site};
use crate::checkpoint::{self, Inspected, Inspector, Manifest, StoreError};
use crate::event::Millis;
use crate::kafka::clock::now_ms;
use crate::money::grouped;
use crate::offset::{Offset, Partition};
use crate::totals::Verdict;
use crate::totals::text::{Column, ago, columns, harmless};

/// One checkpoint.
#[derive(Debug, Serialize)]
struct Row {
    partition: Partition,
    /// `None`: its manifest cannot be read.
    #[serde(flatten)]
    told: Option<Told>,
    /// Whether it can be restored.
    valid: bool,
    /// Why not.
    why: Option<String>,
    /// Its manifest.
    url: String,
}

/// What a manifest says.
#[derive(Debug, Serialize)]
struct Told {
    offset: Offset,
    written_at_ms: Millis,
    /// What it consists of; checkpoints share most of their objects.
    bytes: u64,
    ids: u64,
    writer: String,
}

impl From<Manifest> for Told {
    fn from(manifest: Manifest) -> Told {
        Told {
            offset: manifest.offset,
            written_at_ms: manifest.written_at,
            bytes: manifest.bytes(),
            ids: manifest.id_count(),
            writer: manifest.writer,
        }
    }
}

pub(super) fn run(site: &Site, args: &ListArgs, out: &mut dyn Write) -> Result<Verdict, Error> {
    let partitions = site.partitions()?;
    let (mut rows, mut stored) = (Vec::new(), 0);
    for &partition in &partitions {
        let found = site.wait(site.folder(partition).list(""))?;
        stored += found.iter().map(|it| it.bytes).sum::<u64>();
        for row in site.wait(rows_of(site, partition))? {
            if args.json {
                serde_json::to_writer(&mut *out, &row).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            rows.push(row);
        }
    }
    if !args.json {
        match rows.is_empty() {
            true => writeln!(out, "{}", site.nothing()?)?,
            false => write!(out, "{}", table(&rows, stored, now_ms()))?,
        }
    }
    out.flush()?;
    let is_lost = |partition: &Partition| {
        let mut own = rows.iter().filter(|row| row.partition == *partition);
        own.clone().next().is_some() && !own.any(|row| row.valid)
    };
    Ok(Verdict::of(!partitions.iter().any(is_lost)))
}

/// The checkpoints of a partition, the newest first.
async fn rows_of(site: &Site, partition: Partition) -> Result<Vec<Row>, StoreError> {
    let folder = site.folder(partition);
    let mut inspector = Inspector::new(&folder, &site.about, partition, &site.rules);
    let mut rows = Vec::new();
    for name in checkpoint::manifests(&folder).await? {
        let Inspected { manifest, why } = inspector.inspect(&name).await;
        rows.push(Row {
            partition,
            told: manifest.map(Told::from),
            valid: why.is_none(),
            why,
            url: folder.url_of(&name),
        });
    }
    Ok(rows)
}

fn table(rows: &[Row], stored: u64, now: Millis) -> String {
    let column = |title: &str, right, cell: &dyn Fn(&Row) -> String| Column {
        title: title.into(),
        right,
        cells: rows.iter().map(cell).collect(),
    };
    let told =
        |cell: fn(&Told) -> String| move |row: &Row| row.told.as_ref().map_or("?".to_owned(), cell);
    let age = move |row: &Row| {
        let told = row.told.as_ref();
        told.map_or("?".into(), |told| ago(now - told.written_at_ms))
    };
    let mut text = columns(&[
        column("partition", true, &|row| row.partition.to_string()),
        column("offset", true, &told(|it| grouped(it.offset.0))),
        column("written", true, &age),
        column("size", true, &told(|it| BinaryBytes(it.bytes).to_string())),
        column("ids", true, &told(|it| grouped(it.ids))),
        column("writer", false, &told(|it| harmless(&it.writer))),
        column("", false, &|row| match &row.why {
            None => "valid".to_owned(),
            Some(why) => format!("not valid: {}", harmless(why)),
        }),
    ]);
    let valid = rows.iter().filter(|row| row.valid).count();
    let _ = writeln!(
        text,
        "{valid} of {} valid; partitions without any: {}; {} in the store",
        rows.len(),
        without(rows),
        BinaryBytes(stored)
    );
    text
}

/// The partitions up to the highest that is known of which none can be restored.
fn without(rows: &[Row]) -> String {
    let highest = rows.iter().map(|row| row.partition).max().unwrap_or(-1);
    let has_any = |it: &Partition| rows.iter().any(|row| row.valid && row.partition == *it);
    let without = (0..=highest).filter(|it| !has_any(it));
    let without: Vec<_> = without.map(|it| it.to_string()).collect();
    match without.is_empty() {
        true => "none".to_owned(),
        false => without.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_is_valid_and_what_is_missing() {
        let row = |partition, offset, why: Option<&str>| Row {
            partition,
            told: Some(Told {
                offset: Offset(offset),
                written_at_ms: 1_000,
                bytes: 3 << 20,
                ids: 65_536,
                writer: "host-7-19a".into(),
            }),
            valid: why.is_none(),
            why: why.map(str::to_owned),
            url: "file:///x".into(),
        };
        let mut rows = [row(0, 48_211, None), row(2, 7, Some("it is cut short"))];
        let text = table(&rows, 5 << 20, 13_500);
        assert_eq!(
            text,
            "partition  offset   written      size     ids  writer\n        \
             0  48,211  12 s ago  3.00 MiB  65,536  host-7-19a  valid\n        \
             2       7  12 s ago  3.00 MiB  65,536  host-7-19a  not valid: it is cut short\n\
             1 of 2 valid; partitions without any: 1, 2; 5.00 MiB in the store\n"
        );
        rows[1].told = None;
        assert!(table(&rows, 0, 0).contains("2       ?"));
        let json = serde_json::to_string(&rows[0]).unwrap();
        assert_eq!(
            json,
            r#"{"partition":0,"offset":48211,"written_at_ms":1000,"bytes":3145728,"ids":65536,"writer":"host-7-19a","valid":true,"why":null,"url":"file:///x"}"#
        );
    }
}
