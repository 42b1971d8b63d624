//! Where checkpoints are, a folder or a bucket, and its faults.
//!
//! Three kinds touch files that are there, as a disk does that rots: a byte
//! flipped, a file cut off, a file gone. Two make writing fail: folders without
//! the right to write, and files that may not grow ([`Processes::limit_files`]),
//! which tears what is being written as a full disk does (EFBIG for ENOSPC).
//! A slow disk has no honest likeness without a file system of one's own; a slow
//! object store has, and one that is not reached: a relay in front of an S3 server.
//!
//! [`Processes::limit_files`]: crate::processes::Processes::limit_files

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::Rng;
use tempfile::TempDir;

use crate::proxy::{Link, Proxy};
use crate::s3::S3;

/// The checkpoints of one test.
pub struct Checkpoints {
    url: String,
    env: Vec<(&'static str, String)>,
    /// Where the files are.
    path: PathBuf,
    kind: Kind,
}

/// What holds them, until this is dropped.
enum Kind {
    Folder { _folder: TempDir },
    Bucket { _server: S3, relay: Proxy },
}

impl Checkpoints {
    /// In a folder of this machine.
    pub fn in_folder() -> Checkpoints {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Checkpoints {
            url: format!("file://{}", folder.path().display()),
            env: Vec::new(),
            path: folder.path().to_owned(),
            kind: Kind::Folder { _folder: folder },
        }
    }

    /// In a bucket, which processes reach by a relay.
    pub fn in_bucket() -> Checkpoints {
        let (server, relay) = (S3::own(), Proxy::new());
        let url = server.new_url("checkpoints");
        let (_, port) = server.endpoint().rsplit_once(':').expect("it has a port");
        relay.set_target(port.parse().expect("a port"));
        let env = server.env().map(|(name, value)| match name {
            "AWS_ENDPOINT" => (name, format!("http://127.0.0.1:{}", relay.port())),
            _ => (name, value.to_owned()),
        });
        Checkpoints {
            path: server.folder_of(&url),
            url,
            env: env.to_vec(),
            kind: Kind::Bucket {
                _server: server,
                relay,
            },
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has a command use them.
    pub fn configure(&self, command: &mut Command) {
        command.args(["--checkpoints", &self.url]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    /// The way to the bucket, if it is one.
    pub fn link(&self) -> Option<&Proxy> {
        match &self.kind {
            Kind::Folder { .. } => None,
            Kind::Bucket { relay, .. } => Some(relay),
        }
    }

    /// What that does from now on.
    pub fn set_link(&self, link: Link) {
        self.link().expect("a bucket").set(link, "");
    }
}

/// What may become of a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    Flip,
    Truncate,
    Delete,
}

/// All files below a folder. What goes away meanwhile is left out.
pub fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => drop(found.insert(entry.path())),
            Err(_) => {}
        }
    }
    found
}

/// Damages a file of every folder that has some: so no partition is spared, nor
/// any kind of object. Says how many; those that went away meanwhile do not count.
pub fn damage(folder: &Path, damage: Damage, random: &mut impl Rng) -> usize {
    let all = files(folder);
    let folders: BTreeSet<_> = all.iter().filter_map(|file| file.parent()).collect();
    let damaged = folders.into_iter().filter(|folder| {
        let here: Vec<_> = all
            .iter()
            .filter(|file| file.parent() == Some(folder))
            .collect();
        // Names rise with offsets: half of the time the newest, which is used first.
        let place = match random.random_bool(0.5) {
            true => here.len() - 1,
            false => random.random_range(0..here.len()),
        };
        damage_file(here[place], damage, random).is_ok()
    });
    damaged.count()
}

fn damage_file(file: &Path, damage: Damage, random: &mut impl Rng) -> std::io::Result<()> {
    if let Damage::Delete = damage {
        return fs::remove_file(file);
    }
    let mut bytes = fs::read(file)?;
    if bytes.is_empty() {
        return fs::remove_file(file); // Nothing to flip or to cut off.
    }
    let place = random.random_range(0..bytes.len());
    match damage {
        Damage::Flip => bytes[place] ^= 1 << random.random_range(0..8),
        _ => bytes.truncate(place),
    }
    fs::write(file, bytes)
}

/// Takes or gives the right to make files below a folder, in every folder of it.
pub fn set_writable(folder: &Path, writable: bool) {
    let mode = if writable { 0o755 } else { 0o555 };
    // What goes away meanwhile has no mode to set.
    let _ = fs::set_permissions(folder, Permissions::from_mode(mode));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            set_writable(&entry.path(), writable);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;
    use crate::process::{self, Finished};
    use crate::processes::unprivileged;
    use crate::wait::SOON;

    fn sh(script: &str, folder: &Path) -> Finished {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(folder);
        process::run(&mut unprivileged(&command), SOON)
    }

    #[test]
    fn damage_hits_one_file_a_folder_and_is_damage() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for kind in [Damage::Flip, Damage::Truncate, Damage::Delete] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            for name in ["a/ids/1", "a/ids/2", "b/counters/1"] {
                let file = folder.path().join(name);
                fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                fs::write(file, [7; 100]).expect("a file");
            }
            assert_eq!(damage(folder.path(), kind, &mut random), 2, "{kind:?}");
            let whole = files(folder.path()).into_iter();
            let whole = whole.filter(|file| fs::read(file).expect("a file") == [7; 100]);
            assert_eq!(whole.count(), 1, "{kind:?}");
        }
    }

    /// Also where the tests are run by root.
    #[test]
    fn nobody_makes_files_where_nobody_may() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let below = folder.path().join("below");
        fs::create_dir(&below).expect("a folder");
        let write = r#"echo text >"$1/below/file""#;
        set_writable(folder.path(), false);
        assert_ne!(sh(write, folder.path()).code(), 0, "it was written");
        set_writable(folder.path(), true);
        sh(write, folder.path()).succeeded();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_may_not_grow_is_an_error_and_no_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = r#"ulimit -f 1; head -c 100000 /dev/zero >"$1/file"; echo "went on""#;
        let ended = sh(script, folder.path()).succeeded();
        assert!(ended.stdout.contains("went on"), "{ended}");
        let length = fs::metadata(folder.path().join("file"))
            .expect("it was begun")
            .len();
        assert!(length < 100_000, "it was written");
    }
}
