//! The process that measures, as the command sees it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::Error;
use super::measure::now_ns;
use super::message::{Job, Measured, Message};
use crate::shutdown::Shutdown;

/// How long it may take to end once it is told to; it sees to that itself.
const END_WITHIN: Duration = Duration::from_secs(70);
/// How often it is looked whether the end is wished.
const TICK: Duration = Duration::from_millis(50);

/// A measurement under way. Dropped, it is ended.
pub(super) struct Child {
    process: std::process::Child,
    /// Closed, it withdraws the job.
    stdin: Option<ChildStdin>,
    messages: Receiver<Message>,
    started_ns: u64,
}

/// What a child has to say.
pub(super) enum Next {
    Message(Message),
    Nothing,
    Ended,
}

impl Child {
    /// Starts a process and gives it its job.
    pub fn start(job: &Job) -> Result<Child, Error> {
        let started_ns = now_ns();
        let mut process = Command::new(this_program()?)
            // What `ps` shows: whose it is.
            .arg0(format!(
                "tally99 bench measure ({})",
                job.config.kafka.group
            ))
            .args(["bench", "measure"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C is for the parent, which ends it in order.
            .process_group(0)
            .spawn()?;
        let mut stdin = process.stdin.take().ok_or_else(no_pipe)?;
        let stdout = process.stdout.take().ok_or_else(no_pipe)?;
        let (tell, messages) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // What others print on standard output is none of ours.
                if let Ok(message) = serde_json::from_str(&line)
                    && tell.send(message).is_err()
                {
                    return;
                }
            }
        });
        let mut line = serde_json::to_vec(job).map_err(io::Error::from)?;
        line.push(b'\n');
        let mut child = Child {
            process,
            stdin: None,
            messages,
            started_ns,
        };
        stdin.write_all(&line)?;
        child.stdin = Some(stdin);
        Ok(child)
    }

    /// What it says next.
    pub fn next(&self, patience: Duration) -> Next {
        match self.messages.recv_timeout(patience) {
            Ok(message) => Next::Message(message),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }

    /// Lets it end in order.
    pub fn withdraw(&mut self) {
        self.stdin = None;
    }

    /// Listens until it has measured. `hear` is told of all else, and how often time passes.
    pub fn finish(
        self,
        stop: &Shutdown,
        mut hear: impl FnMut(Option<Message>),
    ) -> Result<Finished, Error> {
        loop {
            match self.next(TICK) {
                Next::Message(Message::Measured(measured)) => {
                    return Ok(Finished {
                        measured,
                        whole_s: (now_ns() - self.started_ns) as f64 / 1e9,
                    });
                }
                Next::Message(Message::Failed(why)) => return Err(Error::Measure(why)),
                Next::Message(message) => hear(Some(message)),
                Next::Nothing => hear(None),
                Next::Ended => return Err(Error::Died),
            }
            if stop.has_begun() {
                return Err(Error::Stopped);
            }
        }
    }
}

/// What came out of a process.
pub(super) struct Finished {
    pub measured: Measured,
    /// From its start to its last word.
    pub whole_s: f64,
}

impl Drop for Child {
    fn drop(&mut self) {
        self.withdraw();
        let since = Instant::now();
        while let Ok(None) = self.process.try_wait() {
            if since.elapsed() > END_WITHIN {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// This program, even if the file that it was started from is another one by now.
pub(super) fn this_program() -> io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    match running.exists() {
        true => Ok(running),
        false => std::env::current_exe(),
    }
}

fn no_pipe() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
