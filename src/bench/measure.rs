//! One measurement in a process of its own, so that peak memory and CPU are those of the
//! measurement alone.
//!
//! The job comes as one line on standard input. When that is closed, the job is withdrawn:
//! by a parent that wants it to end, or that is no more. So nothing is left behind when the
//! parent is killed.

mod fold;
mod raw;

pub(super) use raw::READER;

use std::io::{self, BufRead, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cpu::{Cpu, Threads, memory};
use super::message::{Job, Measured, Message, Sample, Work};
use crate::kafka::clock;
use crate::shutdown::Shutdown;

/// How often threads are looked at: what one used after the last look before its end counts
/// as other. A look costs about half a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many looks there are to a sample that is told.
const LOOKS_A_SAMPLE: u32 = 5;
/// How long it may take to end in order once the job is withdrawn: the last checkpoints of a
/// whole day are a gigabyte.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Exit code of a process that did not, as of one that is ended by SIGINT.
const ENDED_AT_ONCE: i32 = 130;

/// Does the job that is written to standard input, and tells on standard output how it went,
/// errors included; whether all went well.
pub fn measure() -> bool {
    // It was started by a path that tells nothing.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(c"tally99");
    let teller = Teller {
        started_ns: now_ns(),
        threads: Arc::default(),
    };
    match work(&teller) {
        Ok(measured) => {
            teller.tell(&Message::Measured(measured));
            true
        }
        Err(why) => {
            teller.tell(&Message::Failed(why));
            false
        }
    }
}

fn work(teller: &Teller) -> Result<Measured, String> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| error.to_string())?;
    let job: Job = serde_json::from_str(&line)
        .map_err(|_| "this command is for `tally99 bench` itself, which tells it what to do")?;
    let stop = end_with_input();
    teller.look_regularly();
    match job.work {
        Work::Raw { mode, log } => raw::read(&job.config, mode, &log, &stop, teller),
        Work::Fold { until_end } => fold::fold(&job.config, until_end, &stop, teller),
    }
}

/// Begins the end when standard input is closed, and sees to it that it comes.
fn end_with_input() -> Shutdown {
    let stop = Shutdown::default();
    let shared = stop.clone();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        shared.begin();
        std::thread::sleep(END_WITHIN);
        std::process::exit(ENDED_AT_ONCE);
    });
    stop
}

/// What is told to whoever wants to know.
#[derive(Clone)]
struct Teller {
    started_ns: u64,
    threads: Arc<Mutex<Threads>>,
}

impl Teller {
    fn tell(&self, message: &Message) {
        let Ok(mut line) = serde_json::to_vec(message) else {
            return;
        };
        line.push(b'\n');
        let mut out = io::stdout().lock();
        // A parent that is no more has closed standard input, too.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }

    /// Looks at the CPU of all threads.
    fn look(&self) -> Option<Cpu> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.look()
    }

    fn look_regularly(&self) {
        let teller = self.clone();
        let look = move || {
            for number in 0u32.. {
                let Some(cpu) = teller.look() else {
                    return; // Nor will it be told later.
                };
                if number.is_multiple_of(LOOKS_A_SAMPLE)
                    && let Some((resident_bytes, _)) = memory()
                {
                    teller.tell(&Message::Sample(Sample {
                        at_ns: now_ns(),
                        cpu,
                        resident_bytes,
                    }));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        };
        // Without it, CPU by thread is less exact, and all else is as it was.
        let _ = std::thread::Builder::new()
            .name("looker".into())
            .spawn(look);
    }

    /// What was found, with what the whole process used.
    fn measured(&self, began_ns: u64, ended_ns: u64, events: u64, bytes: Option<u64>) -> Measured {
        Measured {
            started_ns: self.started_ns,
            began_ns,
            ended_ns,
            events,
            bytes,
            cpu: self.look(),
            peak_memory_bytes: memory().map(|(_, peak)| peak),
        }
    }
}

/// The clock of all messages.
pub(super) fn now_ns() -> u64 {
    clock::monotonic().as_nanos() as u64
}

/// A moment of this process by that clock.
fn ns_of(at: Instant) -> u64 {
    now_ns().saturating_sub(at.elapsed().as_nanos() as u64)
}
