//! `tally99 demo`: as a pipe sees it, and as a terminal does.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::day::DEADLINE;
use crate::process::{self, Running, tally99};
use crate::wait::wait_until;

/// A small demo of so many seconds, in a folder of its own.
fn demo(folder: &Path, seconds: u32) -> Command {
    let duration = seconds.to_string();
    let mut command = tally99(["demo", "--duration", &duration, "--rate", "3000"]);
    command.args(["--campaigns", "200", "--partitions", "3"]);
    command
        .current_dir(folder)
        .env("HOME", folder)
        .env("TMPDIR", folder);
    command
}

fn assert_empty(folder: &Path) {
    let left: Vec<_> = folder.read_dir().expect("the folder is there").collect();
    assert!(left.is_empty(), "it left {left:?} behind");
}

/// What it wrote on standard error, but for how long its group takes to form: the
/// embedded broker has the first member wait for others.
fn complaints(stderr: &str) -> String {
    let lines = stderr.lines();
    lines
        .filter(|line| !line.contains("nothing is published: "))
        .collect()
}

#[test]
fn a_pipe_sees_lines_and_whether_every_total_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let finished = process::run(&mut demo(folder.path(), 3), DEADLINE).succeeded();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    for part in [
        "embedded Kafka is up: 3 partitions",
        "making events for 3 s",
        "checking every total",
        " events in ",
        "latency, from due to emitted: p50 ",
        " repeats counted once, ",
        "200 of 200 campaigns equal, and all sums, to the generator's own",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(part)),
            "{part:?} is not in: {finished}"
        );
    }
    assert!(!finished.stdout.contains('\u{1b}'), "{finished}");
    assert_eq!(complaints(&finished.stderr), "");
    assert_empty(folder.path());
}

#[test]
fn it_reads_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = demo(folder.path(), 1);
    command.env("TALLY99_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1");
    command.env("TALLY99_RUN_WORKERS", "none");
    process::run(&mut command, DEADLINE).succeeded();
}

#[test]
fn a_signal_ends_it_early_and_what_was_made_is_checked() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start(&mut demo(folder.path(), 600));
        running.wait_for_output(DEADLINE, "making events for 600 s");
        running.wait_until(DEADLINE, "events are counted", |it| {
            it.stdout()
                .lines()
                .any(|line| line.contains(" s  ") && !line.contains("  0 events"))
        });
        running.signal(signal);
        let finished = running.wait(DEADLINE).succeeded();
        assert!(
            finished.stdout.contains("events/s, stopped early\n"),
            "{finished}"
        );
        assert!(
            finished.stdout.contains(" campaigns equal, and all sums"),
            "{finished}"
        );
        assert_empty(folder.path());
    }
}

#[test]
fn a_signal_before_the_first_event_ends_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::start(&mut demo(folder.path(), 600));
    running.wait_for_output(DEADLINE, "joining the consumer group");
    running.signal(Signal::INT);
    let finished = running.wait(DEADLINE).succeeded();
    assert!(
        finished.stdout.contains("stopped before the first event"),
        "{finished}"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    for (flag, value, said) in [
        ("--duration", "soon", "60s, 5m, 1h30m"),
        ("--duration", "0", "at least 1s"),
        ("--rate", "0", "1..=10000000"),
        ("--partitions", "65", "1..=64"),
        ("--campaigns", "0", "campaigns"),
    ] {
        let finished = process::run(&mut tally99(["demo", flag, value]), DEADLINE);
        assert_eq!(finished.code(), 2, "{flag} {value}: {finished}");
        assert!(finished.stderr.contains(said), "{flag} {value}: {finished}");
    }
}

#[test]
fn a_reader_that_leaves_does_not_end_it_before_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut child = demo(folder.path(), 3)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(complaints(&String::from_utf8_lossy(&output.stderr)), "");
    assert!(begun.elapsed() >= Duration::from_secs(3), "it ended early");
}

/// A command on a terminal of its own. Dropped, it is killed.
pub struct OnTerminal {
    child: Child,
    terminal: File,
    shown: Arc<Mutex<String>>,
}

impl OnTerminal {
    /// On a terminal of 110 columns and 30 lines.
    pub fn start(command: &mut Command) -> OnTerminal {
        OnTerminal::start_reading(command, None)
    }

    /// `stdin` in the place of the terminal's keys.
    fn start_reading(command: &mut Command, stdin: impl Into<Option<Stdio>>) -> OnTerminal {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("ours");
        unlockpt(&terminal).expect("ours");
        tcsetwinsize(
            &terminal,
            Winsize {
                ws_row: 30,
                ws_col: 110,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .expect("ours");
        let name = ptsname(&terminal, Vec::new()).expect("it has a name");
        let name = name.to_str().expect("a path in ASCII").to_owned();
        let end = || {
            File::options()
                .read(true)
                .write(true)
                .open(&name)
                .expect("its other end")
        };
        let child = command
            .stdin(stdin.into().unwrap_or_else(|| end().into()))
            .stdout(end())
            .stderr(Stdio::null())
            .spawn();
        let shown = Arc::new(Mutex::new(String::new()));
        let mut reader = File::from(terminal.try_clone().expect("a second handle"));
        let collect = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The read fails when the last other end is closed.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                collect.lock().expect("nobody panicked").push_str(&text);
            }
        });
        OnTerminal {
            child: child.expect("it starts"),
            terminal: terminal.into(),
            shown,
        }
    }

    fn shows(&self, text: &str) -> bool {
        self.shown.lock().expect("nobody panicked").contains(text)
    }

    /// Waits until it has shown this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let mut ended = None;
        wait_until(DEADLINE, &format!("the terminal shows {text:?}"), || {
            // In this order: what it shows last counts as well.
            ended = self.child.try_wait().expect("our own child");
            self.shows(text) || ended.is_some()
        });
        assert!(
            self.shows(text),
            "{ended:?} before the terminal shows {text:?}"
        );
    }

    fn press(&mut self, keys: &str) {
        self.terminal
            .write_all(keys.as_bytes())
            .expect("it reads keys");
    }

    /// Whether what is typed is shown and taken line by line, as a shell leaves it.
    fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("ours").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child");
    }

    /// Waits for its end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until(DEADLINE, "it ends", || {
            let status = self.child.try_wait().expect("our own child");
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        code
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ENTER_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";

#[test]
fn a_terminal_sees_a_screen_and_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut it = OnTerminal::start(&mut demo(folder.path(), 600));
    it.wait_for(ENTER_SCREEN);
    it.wait_for("campaigns by total");
    it.wait_for("donors");
    wait_until(DEADLINE, "keys are taken one by one", || !it.is_as_before());
    it.press("q");
    it.wait_for(LEAVE_SCREEN);
    it.wait_for(" campaigns equal, and all sums");
    assert_eq!(it.wait(), Some(0));
    assert!(it.is_as_before(), "what is typed is not shown any more");
    assert_empty(folder.path());
}

#[test]
fn ctrl_c_twice_gives_the_terminal_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut it = OnTerminal::start(&mut demo(folder.path(), 600));
    it.wait_for("campaigns by total");
    it.press("\u{3}\u{3}");
    it.wait_for(LEAVE_SCREEN);
    assert_eq!(it.wait(), Some(130));
    assert!(it.is_as_before(), "what is typed is not shown any more");
}

#[test]
fn a_terminal_that_does_not_control_it_sees_lines() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(folder.path(), 1);
    // A session of its own has no terminal to read keys from.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(demo.get_program());
    command.args(demo.get_args()).current_dir(folder.path());
    let mut it = OnTerminal::start_reading(&mut command, Stdio::null());
    it.wait_for(" campaigns equal, and all sums");
    assert_eq!(it.wait(), Some(0));
    assert!(it.shows("making events for 1 s") && !it.shows(ENTER_SCREEN));
}
