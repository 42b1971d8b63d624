//! CPU by thread, and memory, of this process: what Linux tells in `/proc/self`.
//!
//! Threads are told apart by their names. What a thread used stays known when it has ended, up to the
//! last look at it; what it used after that counts as `other`, so the sum is always that of
//! the process.

use std::collections::HashMap;
use std::fs;

use serde::{Deserialize, Serialize};

use super::measure::READER;
use crate::run::Thread;

/// Seconds of CPU, by what they were used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Polling, decoding and folding: the workers, or whoever reads raw.
    pub fold_s: f64,
    /// librdkafka's own threads, of all clients: network, compression, CRC.
    pub librdkafka_s: f64,
    /// Merging, and closing cuts.
    pub merge_s: f64,
    /// Sending what is emitted.
    pub publish_s: f64,
    /// All else: checkpoints, the group, starting, measuring.
    pub other_s: f64,
}

impl Cpu {
    /// All of it.
    pub fn total_s(&self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }

    /// Each with its name.
    pub fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("fold", self.fold_s),
            ("librdkafka", self.librdkafka_s),
            ("merge", self.merge_s),
            ("publish", self.publish_s),
            ("other", self.other_s),
        ]
    }

    /// The part that a thread of this name belongs to.
    fn part_of(&mut self, thread: &str) -> &mut f64 {
        let is = |name: &str| thread.split('-').next() == Some(name);
        match () {
            () if is(Thread::Worker(0).name()) || is(READER) => &mut self.fold_s,
            () if thread.starts_with("rdk:") => &mut self.librdkafka_s,
            () if is(Thread::Merger.name()) => &mut self.merge_s,
            () if is(Thread::Publisher.name()) => &mut self.publish_s,
            () => &mut self.other_s,
        }
    }
}

/// The threads of this process, as far as they were seen.
#[derive(Default)]
pub(super) struct Threads {
    /// By thread id: name, and seconds of CPU.
    seen: HashMap<String, (String, f64)>,
    /// Of threads whose id was given to another one.
    ended: Cpu,
}

impl Threads {
    /// Looks at all threads. `None` where the system does not tell.
    pub fn look(&mut self) -> Option<Cpu> {
        let process = seconds_of(&fs::read_to_string("/proc/self/stat").ok()?)?.1;
        for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
            // It may have ended just now.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            if let Some((name, seconds)) = seconds_of(&stat) {
                self.take(
                    entry.file_name().to_string_lossy().into_owned(),
                    name,
                    seconds,
                );
            }
        }
        Some(self.cpu(process))
    }

    fn take(&mut self, id: String, name: String, seconds: f64) {
        let before = self.seen.insert(id, (name, seconds));
        if let Some((name, before)) = before.filter(|(_, before)| *before > seconds) {
            *self.ended.part_of(&name) += before;
        }
    }

    /// By what it was used for, of so many seconds of the whole process.
    fn cpu(&self, process: f64) -> Cpu {
        let mut cpu = self.ended;
        for (name, seconds) in self.seen.values() {
            *cpu.part_of(name) += seconds;
        }
        cpu.other_s = 0.0;
        cpu.other_s = (process - cpu.total_s()).max(0.0);
        cpu
    }
}

/// Name and seconds of CPU of a process or thread, from its `stat`: user and system time are
/// fields 14 and 15, in hundredths (`USER_HZ`, the same on all Linux machines). The name
/// stands in parentheses and may hold anything.
fn seconds_of(stat: &str) -> Option<(String, f64)> {
    let (name, rest) = (stat.find('(')?, stat.rfind(')')?);
    let fields = stat[rest + 1..].split_whitespace();
    let mut ticks = fields.skip(11).map_while(|field| field.parse::<u64>().ok());
    let ticks = ticks.next()? + ticks.next()?;
    Some((stat[name + 1..rest].to_owned(), ticks as f64 / 100.0))
}

/// Memory of this process in bytes: what is resident, and what was at most.
pub(super) fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((
        kilobytes(&status, "VmRSS:")? << 10,
        kilobytes(&status, "VmHWM:")? << 10,
    ))
}

/// The number behind a name, in `/proc/self/status` and `/proc/meminfo`.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, user: u64, system: u64) -> String {
        format!("7 ({name}) S 1 7 7 0 -1 4194560 1 0 0 0 {user} {system} 0 0 20 0 9 0 1 2 3")
    }

    #[test]
    fn a_thread_is_read_whatever_it_is_called() {
        assert_eq!(
            seconds_of(&stat("rdk:main", 150, 25)),
            Some(("rdk:main".into(), 1.75))
        );
        assert_eq!(
            seconds_of(&stat("a) b (c", 0, 1)),
            Some(("a) b (c".into(), 0.01))
        );
        assert_eq!(seconds_of("7 (x"), None);
    }

    #[test]
    fn all_that_the_process_used_is_accounted_for() {
        let mut threads = Threads::default();
        for (id, name, seconds) in [
            ("1", "worker-0", 2.0),
            ("2", "rdk:broker1", 1.0),
            ("3", "merger", 0.5),
            ("4", "publisher", 0.25),
            ("5", "tokio-rt-worker", 0.125),
        ] {
            threads.take(id.into(), name.into(), seconds);
        }
        let cpu = threads.cpu(4.0);
        assert_eq!((cpu.fold_s, cpu.librdkafka_s), (2.0, 1.0));
        assert_eq!((cpu.merge_s, cpu.publish_s, cpu.other_s), (0.5, 0.25, 0.25));
        // Another thread of the same id.
        threads.take("1".into(), "worker-1".into(), 0.5);
        assert_eq!(threads.cpu(5.0).fold_s, 2.5);
        assert_eq!(threads.cpu(5.0).total_s(), 5.0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen() {
        let (resident, peak) = memory().unwrap();
        assert!(resident > 1 << 20 && peak >= resident);
        assert!(Threads::default().look().unwrap().total_s() >= 0.0);
    }
}
