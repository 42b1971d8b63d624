//! The active process and its standby, which change roles as they die.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{self, Finished, Running, tally99};
use crate::store::Checkpoints;

/// Ids are forgotten so soon that some repeats come after that.
pub const HORIZON_S: i64 = 45;
/// `kafka.session_timeout_ms`: the shortest that brokers allow.
pub const SESSION: Duration = Duration::from_secs(6);

/// Gives a process what makes an unwritable folder unwritable, and a full disk an
/// error and no end: root may write anywhere (CAP_DAC_OVERRIDE), and whoever
/// writes beyond RLIMIT_FSIZE is ended by a signal, unless it is ignored. In its
/// place, so that the process id stays.
const AS_OTHERS_RUN_IT: &str = r#"
trap "" XFSZ
if [ "$(id -u)" = 0 ]; then
    exec setpriv --bounding-set=-dac_override --inh-caps=-all "$@"
fi
exec "$@"
"#;

/// The command, run as a user without rights over others' files would run it.
pub fn unprivileged(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", AS_OTHERS_RUN_IT, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// The processes, and how they are started again. Dropped by a test that fails,
/// they leave all that they logged in files.
pub struct Processes {
    bootstrap: String,
    pub checkpoints: Checkpoints,
    running: Vec<Process>,
    /// Ends of their own that the situation explained.
    pub explained: u64,
    pub started: u64,
    /// What those logged that have ended, by number.
    logs: BTreeMap<u64, String>,
}

struct Process {
    /// How many were started before it, and itself.
    number: u64,
    running: Running,
    /// Stopped, or cut off: others are to do its work.
    is_away: bool,
}

/// How many processes run: the active one and its standby.
const WANTED: usize = 2;

impl Processes {
    pub fn new(bootstrap: String, checkpoints: Checkpoints) -> Processes {
        Processes {
            bootstrap,
            checkpoints,
            running: Vec::new(),
            explained: 0,
            started: 0,
            logs: BTreeMap::new(),
        }
    }

    fn command(&self) -> Command {
        let mut run = tally99(["run", "--bootstrap-servers", &self.bootstrap]);
        run.args(["--workers", "2", "--standby"]);
        run.env(
            "TALLY99_KAFKA_SESSION_TIMEOUT_MS",
            SESSION.as_millis().to_string(),
        );
        if let Some(filter) = std::env::var_os("CHAOS_LOG") {
            run.env("RUST_LOG", filter);
        }
        run.env("TALLY99_CHECKPOINTS_INTERVAL_MS", "2000");
        unprivileged(self.configured(&mut run))
    }

    /// With what says which checkpoints are meant.
    fn configured<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.checkpoints.configure(command);
        command.env("TALLY99_COUNTING_DEDUP_HORIZON_S", HORIZON_S.to_string())
    }

    /// Starts what is missing, and looks at what has ended: fails the test where
    /// nothing explains it.
    pub fn tend(&mut self) {
        for place in (0..self.running.len()).rev() {
            if self.running[place].running.is_running() {
                continue;
            }
            let Process {
                number, running, ..
            } = self.running.remove(place);
            let ended = running.wait(Duration::ZERO);
            self.logs.insert(number, ended.stderr.clone());
            // Both say that the group has others now.
            let is_explained = ended.status.code() == Some(3)
                && [
                    "others have taken over",
                    "has live members of another process",
                ]
                .iter()
                .any(|words| ended.stderr.contains(words));
            assert!(is_explained, "a process ended by itself: {ended}");
            self.explained += 1;
        }
        while self.running.iter().filter(|it| !it.is_away).count() < WANTED {
            self.started += 1;
            self.running.push(Process {
                number: self.started,
                running: Running::start(&mut self.command()),
                is_away: false,
            });
        }
    }

    /// The place of the process that has this name as a publisher, if it runs.
    pub fn of_publisher(&self, publisher: &str) -> Option<usize> {
        let is_it = |it: &Process| {
            let pid = it.running.pid().as_raw_nonzero();
            publisher.contains(&format!("-{pid}-"))
        };
        self.running.iter().position(is_it)
    }

    /// The place of one that is not this one, if there is any.
    pub fn other_than(&self, place: usize) -> Option<usize> {
        (0..self.running.len()).find(|other| *other != place)
    }

    /// kill -9.
    pub fn kill(&mut self, place: usize) {
        let killed = self.running.remove(place);
        self.logs.insert(killed.number, killed.running.stderr());
    }

    /// The same by its number, if it still runs.
    pub fn kill_number(&mut self, number: u64) {
        if let Some(place) = self.running.iter().position(|it| it.number == number) {
            self.kill(place);
        }
    }

    /// SIGSTOP; says the number of it.
    pub fn stop(&mut self, place: usize) -> u64 {
        let it = &mut self.running[place];
        it.running.signal(Signal::STOP);
        it.is_away = true;
        it.number
    }

    /// It is cut off; what its clients have in their names.
    pub fn isolate(&mut self, place: usize) -> String {
        let it = &mut self.running[place];
        it.is_away = true;
        format!("-{}-", it.running.pid().as_raw_nonzero())
    }

    /// Whoever was stopped goes on, and nobody is cut off any more.
    pub fn wake(&mut self) {
        for it in self.running.iter_mut().filter(|it| it.is_away) {
            if it.running.is_running() {
                it.running.signal(Signal::CONT);
            }
            it.is_away = false;
        }
    }

    /// How large files may get that they write; `None`: as large as they want.
    #[cfg(target_os = "linux")]
    pub fn limit_files(&self, bytes: Option<u64>) {
        use rustix::process::{Resource, Rlimit, prlimit};
        for it in &self.running {
            let limit = Rlimit {
                current: bytes,
                maximum: None,
            };
            // An error means that it has ended, which is looked at elsewhere.
            let _ = prlimit(Some(it.running.pid()), Resource::Fsize, limit);
        }
    }

    /// No other system can limit a process that runs.
    #[cfg(not(target_os = "linux"))]
    pub fn limit_files(&self, _: Option<u64>) {}

    /// Ends all of them as a person does, and waits.
    pub fn end(&mut self, deadline: Duration) {
        for it in &self.running {
            it.running.signal(Signal::TERM);
        }
        for it in self.running.drain(..) {
            let ended = it.running.wait(deadline).succeeded();
            self.logs.insert(it.number, ended.stderr);
        }
    }

    /// How often any of them, also of those that have ended, said these words.
    pub fn count_said(&self, words: &str) -> usize {
        let running: Vec<_> = self.running.iter().map(|it| it.running.stderr()).collect();
        let all = self.logs.values().chain(&running);
        all.map(|log| log.matches(words).count()).sum()
    }

    /// Folds the log once more up to the newest checkpoints, and compares.
    pub fn verify(&self, deadline: Duration) -> Finished {
        let args = ["checkpoints", "verify", "--bootstrap-servers"];
        process::run(
            self.configured(tally99(args).arg(&self.bootstrap)),
            deadline,
        )
    }

    /// What they printed last.
    pub fn last_words(&self) -> String {
        let words = self.running.iter().map(|it| it.running.to_string());
        words.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let running = self.running.iter();
        let logs = running.map(|it| (it.number, it.running.stderr()));
        self.logs.extend(logs);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos");
        let _ = std::fs::remove_dir_all(&folder); // Of the failure before.
        let made = std::fs::create_dir_all(&folder);
        let written = made.and_then(|()| {
            let mut logs = self.logs.iter();
            logs.try_for_each(|(number, log)| {
                std::fs::write(folder.join(format!("process-{number}.log")), log)
            })
        });
        eprintln!(
            "what every process logged: {} ({written:?})",
            folder.display()
        );
    }
}
