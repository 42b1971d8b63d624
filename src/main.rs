//! The `tally99` command: parses, loads the configuration, calls the library,
//! and turns errors into one calm message and an exit code.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tally99::bench::{self, BenchCommand};
use tally99::cli::{Cli, Command, ConfigCommand};
use tally99::config::{Config, ConfigError};
use tally99::logging::Logging;
use tally99::run::{self, RunOptions};
use tally99::shutdown::Shutdown;
use tally99::totals::{self, Verdict};
use tally99::{checkpoints, demo, generate, native};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a process that is ended at once: 128 + SIGINT, as shells have it.
const ENDED_AT_ONCE: i32 = 130;

/// Why a command did not end well; each has its exit code.
enum Failure {
    /// A check found a difference, and has said so.
    Differs,
    /// What went wrong was told to whoever asked.
    Told,
    /// The configuration is not valid.
    Config(ConfigError),
    /// The flags ask for something that cannot be.
    Usage(Box<dyn Error>),
    /// Something outside failed.
    Runtime(Box<dyn Error>),
}

fn main() -> ExitCode {
    native::set_up_memory();
    let cli = Cli::parse();
    // The demo says itself what goes on, and so does who measures.
    let log_level = match cli.command {
        Command::Demo(_) | Command::Bench(BenchCommand::Measure) => "warn",
        _ => "info",
    };
    let logging = Logging::start(cli.log_format, log_level);
    match execute(cli.command, &logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Differs) => ExitCode::from(1),
        Err(Failure::Told) => ExitCode::from(3),
        Err(Failure::Config(error)) => fail(&error, 2),
        Err(Failure::Usage(error)) => fail(error.as_ref(), 2),
        Err(Failure::Runtime(error)) => fail(error.as_ref(), 3),
    }
}

fn execute(command: Command, logging: &Logging) -> Result<(), Failure> {
    let out = &mut io::stdout();
    match command {
        Command::Run(args) => {
            let config = args.load()?.config;
            let shutdown = shutdown_on_signals().map_err(runtime)?;
            let options = RunOptions {
                until_end: args.until_end,
                standby: args.standby,
            };
            let running = run::run(&config, options, &shutdown, Default::default());
            let tokio = tokio::runtime::Runtime::new().map_err(runtime)?;
            let ran = tokio.block_on(running).map_err(runtime);
            // What a store does not answer is not waited for.
            tokio.shutdown_timeout(Duration::from_secs(1));
            ran
        }
        Command::Generate { generate, settings } => {
            let config = settings.load()?.config;
            let shutdown = shutdown_on_signals().map_err(runtime)?;
            let made = generate::run(&config, &generate, &shutdown);
            if_read(made.map_err(|error| match error.is_usage() {
                true => Failure::Usage(error.into()),
                false => runtime(error),
            }))
        }
        Command::Totals { totals, settings } => {
            let config = settings.load()?.config;
            // Only what goes on until it is stopped needs to hear of the signal.
            let shutdown = match totals.follow {
                true => shutdown_on_signals().map_err(runtime)?,
                false => Shutdown::default(),
            };
            let terminal = io::stdout().is_terminal();
            let verdict = totals::run(&config, &totals, &shutdown, out, terminal);
            if_read(verdict.map_err(runtime).and_then(judge))
        }
        Command::Demo(args) => {
            let shutdown = shutdown_on_signals().map_err(runtime)?;
            let terminal = io::stdout().is_terminal();
            match demo::run(&args, &shutdown, logging, out, terminal) {
                Ok(verdict) => judge(verdict),
                Err(error) if error.is_usage() => Err(Failure::Usage(error.into())),
                Err(error) => Err(runtime(error)),
            }
        }
        Command::Bench(BenchCommand::Measure) => match bench::measure() {
            true => Ok(()),
            false => Err(Failure::Told),
        },
        Command::Bench(command) => {
            let config = match command.settings() {
                Some(settings) => settings.load()?.config,
                None => Config::default(), // It needs none.
            };
            let shutdown = shutdown_on_signals().map_err(runtime)?;
            match bench::run(&config, &command, &shutdown, out) {
                Err(error) if error.is_usage() => Err(Failure::Usage(error.into())),
                verdict => verdict.map_err(runtime).and_then(judge),
            }
        }
        Command::Checkpoints(command) => {
            let config = command.settings().load()?.config;
            match checkpoints::run(&config, &command, out) {
                Err(error) if error.is_usage() => Err(Failure::Usage(error.into())),
                verdict => verdict.map_err(runtime).and_then(judge),
            }
        }
        Command::Config(ConfigCommand::Show(settings)) => {
            let text = settings.load()?.to_toml();
            if_read(out.write_all(text.as_bytes()).map_err(runtime))
        }
        Command::Config(ConfigCommand::Check(settings)) => {
            settings.load()?;
            if_read(writeln!(out, "configuration is valid").map_err(runtime))
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(error)
    }
}

fn runtime(error: impl Error + 'static) -> Failure {
    Failure::Runtime(error.into())
}

/// The error with what caused it, on standard error.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut message = format!("tally99: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !message.contains(&why) {
            message.push_str(&format!("\n  because: {why}"));
        }
        cause = error.source();
    }
    // Nobody may be left to read it; the exit code still tells.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(code)
}

fn judge(verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Fine => Ok(()),
        Verdict::Differs => Err(Failure::Differs),
    }
}

/// No failure where whoever read the output has seen enough (`tally99 totals |
/// head`). Only for what prints: a check that did not run has not passed.
fn if_read(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::Runtime(error)) if is_broken_pipe(error.as_ref()) => Ok(()),
        printed => printed,
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Begins the shutdown at the first SIGINT (Ctrl-C) or SIGTERM, and ends the
/// process at once at the second.
fn shutdown_on_signals() -> io::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let begin = shutdown.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if begin.has_begun() {
                        demo::restore_terminal();
                        std::process::exit(ENDED_AT_ONCE);
                    }
                    tracing::info!("ending; a second signal ends it at once");
                    begin.begin();
                }
            });
        })?;
    Ok(shutdown)
}
