//! The file of `--expect`: written whole or not at all.
//!
//! Until all events are out, whatever stood in its place stays there. Then the
//! sums go to a temporary file beside it, which takes its name once it is on disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::expected::Expected;

/// Where the sums go at the end.
pub(super) enum ExpectFile {
    /// A file, and the temporary one that becomes it.
    Replaced { path: PathBuf, temporary: PathBuf },
    /// A pipe or a device: nothing may take its place.
    Written(File),
}

impl ExpectFile {
    /// Finds out whether the file can be written, so that a run of hours does not
    /// end with "no permission". Changes nothing.
    pub fn open(path: &Path) -> io::Result<ExpectFile> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Ok(ExpectFile::Written(
                OpenOptions::new().write(true).open(path)?,
            ));
        }
        let path = resolve(path);
        let Some(name) = path.file_name() else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(hidden);
        // Not kept meanwhile: a process that is killed would leave it behind.
        File::create(&temporary)?;
        fs::remove_file(&temporary)?;
        Ok(ExpectFile::Replaced { path, temporary })
    }

    /// Writes the sums.
    pub fn write(self, expected: &Expected) -> io::Result<()> {
        let (path, temporary) = match self {
            ExpectFile::Written(file) => return write(&file, expected),
            ExpectFile::Replaced { path, temporary } => (path, temporary),
        };
        let written = File::create(&temporary).and_then(|file| {
            write(&file, expected)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        });
        if written.is_err() {
            // Half of it is of no use to anybody.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn write(file: &File, expected: &Expected) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, expected)?;
    writeln!(file)?;
    file.flush()
}

/// Whether `--out` and `--expect` name one file, which may not be there yet.
pub(super) fn is_same(out: &Path, expect: &Path) -> bool {
    let resolved_out = match out == Path::new("-") {
        true => resolve(Path::new("/dev/stdout")),
        false => resolve(out),
    };
    out == expect || resolved_out == resolve(expect)
}

/// The path without symbolic links and `..`, as far as there is something.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}
