//! Commands as a person runs them: to their end, or in the background.
//!
//! Whatever a test starts ends with the test: a [`Running`] is killed when it is
//! dropped. Every failure shows the last of what the command printed.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::holds_within;

/// How many lines of a command's output a failure shows.
const LAST_LINES: usize = 40;

/// `tally99` with these arguments, out of reach of the settings, log filters and
/// keys of whoever runs the tests.
pub fn tally99<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally99"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("TALLY99_") || text.starts_with("AWS_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// How a command ended, and all that it printed.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code; fails the test if a signal ended it.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("a signal ended it: {self}"))
    }

    /// Itself, if it exited 0; otherwise fails the test and shows its output.
    #[track_caller]
    pub fn succeeded(self) -> Finished {
        assert!(self.status.success(), "it failed: {self}");
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        show_last_lines(f, "standard output", &self.stdout)?;
        show_last_lines(f, "standard error", &self.stderr)
    }
}

/// Runs a command to its end; fails the test if it has not ended by the deadline.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Finished {
    Running::start(command).wait(deadline)
}

/// A command that runs in the background. Dropped, it is killed.
pub struct Running {
    name: String,
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts a command; its standard input is empty.
    #[track_caller]
    pub fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("piped"), Arc::clone(&stdout)),
            collect(child.stderr.take().expect("piped"), Arc::clone(&stderr)),
        ];
        Running {
            name: format!("{command:?}"),
            child,
            stdout,
            stderr,
            readers,
        }
    }

    /// What it has printed on standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("a reader panicked").clone()
    }

    /// What it has printed on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("a reader panicked").clone()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal: `STOP` and `CONT`, `TERM` and `INT`, `KILL`.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|error| panic!("{}: cannot send {signal:?}: {error}", self.name));
    }

    /// Waits until it has printed this on standard output or standard error;
    /// fails the test at the deadline, or when it ends without.
    #[track_caller]
    pub fn wait_for_output(&mut self, deadline: Duration, text: &str) {
        let what = format!("it prints {text:?}");
        self.wait_until(deadline, &what, |it| {
            it.stdout().contains(text) || it.stderr().contains(text)
        });
    }

    /// Waits until a condition holds while it runs; fails the test at the
    /// deadline, or when it ends before the condition holds.
    #[track_caller]
    pub fn wait_until(
        &mut self,
        deadline: Duration,
        what: &str,
        mut condition: impl FnMut(&Running) -> bool,
    ) {
        let mut held = false;
        let in_time = holds_within(deadline, || {
            // In this order: the last words of a process count as well.
            let running = self.is_running();
            if !running {
                self.readers.drain(..).for_each(|reader| {
                    reader.join().expect("a reader panicked");
                });
            }
            held = condition(self);
            held || !running
        });
        assert!(in_time, "waited {deadline:?} in vain until {what}: {self}");
        assert!(held, "it ended before {what}: {self}");
    }

    /// Waits for its end; fails the test if it has not ended by the deadline.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Finished {
        let ended = holds_within(deadline, || !self.is_running());
        assert!(ended, "still running after {deadline:?}: {self}");
        let status = self.child.wait().expect("our own child");
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader panicked");
        }
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        show_last_lines(f, "standard output", &self.stdout())?;
        show_last_lines(f, "standard error", &self.stderr())
    }
}

/// Appends all that comes, line by line, until the other side closes.
fn collect(stream: impl Read + Send + 'static, text: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
            let mut text = text.lock().expect("a reader panicked");
            text.push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

fn show_last_lines(f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LAST_LINES);
    write!(f, "\n--- {title}")?;
    if skipped > 0 {
        write!(f, " (the last {LAST_LINES} of {} lines)", lines.len())?;
    }
    for line in &lines[skipped..] {
        write!(f, "\n{line}")?;
    }
    Ok(())
}
