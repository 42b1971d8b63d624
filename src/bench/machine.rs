//! What a bench ran on: as far as it is told, and nothing that names the machine.

use std::fs;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::child::this_program;
use super::cpu::kilobytes;

/// Machine and versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// Memory in bytes, if it is told.
    pub memory_bytes: Option<u64>,
    /// The operating system and its version.
    pub system: String,
    /// tally99's version, what tells this build from others, and whether it is built for
    /// speed.
    pub tally99: String,
    /// librdkafka's version.
    pub librdkafka: String,
}

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Machine {
        let uname = rustix::system::uname();
        let [name, release, architecture] =
            [uname.sysname(), uname.release(), uname.machine()].map(|it| it.to_string_lossy());
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let processor = processor.and_then(|line| line.split_once(": "));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let build = match cfg!(debug_assertions) {
            true => " (a debug build: its figures say nothing)",
            false => "",
        };
        Machine {
            processor: processor
                .map_or(architecture.as_ref(), |(_, name)| name)
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes(&memory, "MemTotal:").map(|kilobytes| kilobytes << 10),
            system: format!("{name} {release} {architecture}"),
            tally99: format!("{}{}{build}", env!("CARGO_PKG_VERSION"), digest()),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
        }
    }

    /// Each with its name.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let memory = self.memory_bytes.map_or("not known".into(), |bytes| {
            format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
        });
        vec![
            (
                "processor",
                format!("{}, {} cores", self.processor, self.cores),
            ),
            ("memory", memory),
            ("system", self.system.clone()),
            ("tally99", self.tally99.clone()),
            ("librdkafka", self.librdkafka.clone()),
        ]
    }
}

/// A digest of this program's file: two builds of one version can be told apart by it.
fn digest() -> String {
    let bytes = this_program().and_then(fs::read);
    bytes.map_or(String::new(), |bytes| {
        format!(", build {:08x}", xxh3_64(&bytes) >> 32)
    })
}
