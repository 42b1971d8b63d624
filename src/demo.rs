//! `tally99 demo`: a giving day in one process, on the embedded broker.
//!
//! ```text
//! source ──▶ embedded broker ──▶ run ──▶ embedded broker
//!  │ what was sent, and when      │ cuts
//!  ▼                              ▼
//!  in flight ◀───────────────── view ──▶ board ──▶ screen, or lines
//! ```
//!
//! The path of an event is that of a real Kafka: the same client code, group,
//! workers, merge and emission ([`crate::run`]). Only the broker is another, and
//! what the demo itself adds stands beside that path: the generator's pace, and
//! readers of the view.
//!
//! Invariant: it says "equal" only when every campaign's total, as the broker
//! acknowledged it, and the sums of the last cut are those of the generator.

mod args;
mod board;
mod broker;
mod draw;
mod in_flight;
mod report;
mod screen;
mod source;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rustix::process::{Signal, getpid, kill_process};

use crate::config::Config;
use crate::generate::{KafkaSink, KafkaSinkError, SettingsError, Traffic};
use crate::logging::Logging;
use crate::publish::records::{CutId, campaign_total, complete_cut};
use crate::run::{self, RunError, RunOptions};
use crate::shutdown::Shutdown;
use crate::totals::{self, Comparison, Verdict};
use crate::view::TotalsView;
pub use args::DemoArgs;
use board::Board;
use broker::Broker;
use draw::{Phase, Picture};
use report::{Lines, Summary};
pub use screen::restore_terminal;
use screen::{Key, Screen};
use source::{Made, Shared, Source};

/// How often the screen is drawn anew.
const TICK: Duration = Duration::from_millis(100);
/// How long nothing may arrive after the end before the rest counts as lost.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no demo, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The flags make no stream.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The embedded broker does not start.
    #[error("the embedded broker does not start: is a port on 127.0.0.1 to be had?")]
    Broker(#[source] KafkaError),
    /// The generator's events did not get to the broker.
    #[error(transparent)]
    Generate(#[from] KafkaSinkError),
    /// Counting ended early.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Counting ended before the generator did, and said nothing.
    #[error("counting ended before the events did; this is a bug")]
    RunEnded,
    /// The system gives no thread, or the screen cannot be drawn.
    #[error("the demo cannot go on")]
    System(#[from] io::Error),
    /// A bug.
    #[error("the {0} ended unexpectedly; this is a bug")]
    Panic(&'static str),
}

impl Error {
    /// Whether it is the flags that are at fault, and nothing outside.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Settings(_))
    }
}

/// Runs the demo until its time is over or `stop` is wished, shows it on the
/// screen if standard output is a `terminal`, else as lines to `out`, and says
/// how it ended.
///
/// # Errors
///
/// When it cannot be run to the comparison. Differences are no error but
/// [`Verdict::Differs`].
pub fn run(
    args: &DemoArgs,
    stop: &Shutdown,
    logging: &Logging,
    out: &mut dyn Write,
    terminal: bool,
) -> Result<Verdict, Error> {
    let settings = args.settings()?;
    let traffic = Traffic::new(&settings)?;
    let mut config = broker::config(args);
    // Dropped last, when all its clients are gone.
    let broker = Broker::start(&config, args.partitions).map_err(Error::Broker)?;
    config.kafka.bootstrap_servers = broker.bootstrap_servers();

    let mut show = Show::open(logging, out, terminal);
    let mut demo = Demo::start(args, config, stop)?;
    let made = demo.make_events(traffic, &mut show);
    let ended = demo.end(&mut show, made.is_ok());
    drop(show);
    let Some(made) = made? else {
        ended?;
        writeln!(out, "stopped before the first event")?;
        return Ok(Verdict::Fine);
    };
    ended?;
    let comparison = demo.compare(&made);
    let summary = Summary {
        made: &made,
        rate: args.rate,
        was_stopped: stop.has_begun(),
        held_back: demo.shared.held_back(),
        latency: demo.shared.in_flight().latency(),
        comparison: &comparison,
    };
    Ok(comparison.verdict().print(out, &summary)?)
}

/// A demo under way.
struct Demo<'a> {
    args: &'a DemoArgs,
    config: Config,
    stop: &'a Shutdown,
    /// Ends counting; not before the last event has arrived.
    end_run: Shutdown,
    run: Option<JoinHandle<Result<(), RunError>>>,
    view: Arc<TotalsView>,
    shared: Arc<Shared>,
    board: Arc<Mutex<Board>>,
    /// When the first event was due.
    begun: Option<Instant>,
    /// How long events were made, once they are.
    took: Option<Duration>,
}

impl<'a> Demo<'a> {
    /// Starts to count, before there is anything to count.
    fn start(args: &'a DemoArgs, config: Config, stop: &'a Shutdown) -> io::Result<Demo<'a>> {
        let end_run = Shutdown::default();
        let view = Arc::new(TotalsView::default());
        let shared = Shared::new(args.partitions);
        let board = Arc::new(Mutex::new(Board::default()));
        let watch = watch(view.clone(), shared.clone(), board.clone());
        let tokio = tokio::runtime::Runtime::new()?;
        let run = {
            let (config, end_run, view) = (config.clone(), end_run.clone(), view.clone());
            std::thread::Builder::new()
                .name("run".into())
                .spawn(move || {
                    tokio.spawn(watch);
                    tokio.block_on(run::run(&config, RunOptions::default(), &end_run, view))
                })?
        };
        Ok(Demo {
            args,
            config,
            stop,
            end_run,
            run: Some(run),
            view,
            shared,
            board,
            begun: None,
            took: None,
        })
    }

    /// Waits for the first cut, then makes events; `None` if the end is wished
    /// before that.
    fn make_events(
        &mut self,
        traffic: Traffic,
        show: &mut Show<'_>,
    ) -> Result<Option<Made>, Error> {
        // Early, since an idempotent producer needs half a second to begin.
        let sink = KafkaSink::open(&self.config, self.args.partitions)?;
        let newest = self.view.newest();
        while newest.borrow().is_none() {
            show.tick(|| self.picture(Phase::Starting), self.stop)?;
            if self.stop.has_begun() {
                return Ok(None);
            }
            self.check_run()?;
        }
        let source = Source {
            traffic,
            sink,
            rate: self.args.rate,
            duration: self.args.duration,
        };
        let (shared, stop_source) = (self.shared.clone(), Shutdown::default());
        let source = {
            let stop = stop_source.clone();
            let thread = std::thread::Builder::new().name("source".into());
            thread.spawn(move || source.run(&shared, &stop))?
        };
        self.begun = Some(Instant::now());
        let mut watched = Ok(());
        while !source.is_finished() {
            if self.stop.has_begun() || watched.is_err() {
                stop_source.begin();
            }
            if watched.is_ok() {
                let ticked = show.tick(|| self.picture(Phase::Live), self.stop);
                watched = ticked.map_err(Error::from).and_then(|()| self.check_run());
            } else {
                std::thread::sleep(TICK);
            }
        }
        let made = source.join().map_err(|_| Error::Panic("generator"))?;
        watched?;
        let made = made?;
        self.took = Some(made.took);
        Ok(Some(made))
    }

    /// Lets what was sent arrive, then ends counting. Without `is_made` there is
    /// nothing to wait for.
    fn end(&mut self, show: &mut Show<'_>, is_made: bool) -> Result<(), Error> {
        let mut left = self.shared.in_flight().count();
        let mut moved_at = Instant::now();
        let mut shown = Ok(());
        while is_made && left > 0 && moved_at.elapsed() < DRAIN_PATIENCE && shown.is_ok() {
            if self.run.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            shown = show.tick(|| self.picture(Phase::Draining), self.stop);
            let now = self.shared.in_flight().count();
            if now != left {
                (left, moved_at) = (now, Instant::now());
            }
        }
        self.end_run.begin();
        while self.run.as_ref().is_some_and(|run| !run.is_finished()) {
            if shown.is_ok() {
                shown = show.tick(|| self.picture(Phase::Checking), self.stop);
            } else {
                std::thread::sleep(TICK);
            }
        }
        self.join_run()?;
        shown.map_err(Error::from)
    }

    /// An error if counting has ended.
    fn check_run(&mut self) -> Result<(), Error> {
        if self.run.as_ref().is_some_and(|run| !run.is_finished()) {
            return Ok(());
        }
        self.join_run()?;
        Err(Error::RunEnded)
    }

    fn join_run(&mut self) -> Result<(), Error> {
        match self.run.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => Ok(result?),
            Some(Err(_)) => Err(Error::Panic("count")),
        }
    }

    /// Compares what was emitted with what was made. The view holds what the
    /// broker acknowledged; reading it back would prove nothing more, and the
    /// embedded broker forgets the oldest of it.
    fn compare(&self, made: &Made) -> Comparison {
        let newest = self.view.newest().borrow().clone();
        let totals = self.view.totals();
        let (number, epoch) = (
            newest.as_ref().map_or(0, |cut| cut.number),
            self.config.run.epoch,
        );
        let totals = totals
            .iter()
            .map(|total| campaign_total(total, number, epoch));
        let cut = newest.map(|newest| {
            let id = CutId {
                cut: newest.number,
                epoch,
                offsets: newest.cut.offsets.clone(),
                ..CutId::default()
            };
            complete_cut(id, &newest.cut)
        });
        totals::compare(&made.expected, totals, cut)
    }

    fn picture(&self, phase: Phase) -> Picture {
        let in_flight = self.shared.in_flight();
        let (latency, on_the_way) = (in_flight.recent_latency(), in_flight.count());
        drop(in_flight);
        let elapsed = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let board = lock(&self.board);
        Picture {
            phase,
            elapsed: self.took.unwrap_or(elapsed).min(self.args.duration),
            duration: self.args.duration,
            figures: board.figures.clone(),
            minute_ago: board.minute_ago(),
            rows: board.rows.clone(),
            points: board.points.iter().copied().collect(),
            rate: board.rate(),
            latency,
            on_the_way,
            held_back: self.shared.held_back(),
            partitions: self.args.partitions,
            workers: self.config.run.workers,
            warning: None,
        }
    }
}

fn lock(board: &Mutex<Board>) -> std::sync::MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often the board takes all campaigns in; each cut moves the sums.
const TOTALS_EVERY: Duration = Duration::from_millis(500);

/// Takes every complete cut in, for latency and board. Apart from the screen, so
/// that a terminal that stands still does not look like a slow fold.
async fn watch(view: Arc<TotalsView>, shared: Arc<Shared>, board: Arc<Mutex<Board>>) {
    let mut newest = view.newest();
    let mut totals_at: Option<Instant> = None;
    while newest.changed().await.is_ok() {
        let Some(published) = newest.borrow_and_update().clone() else {
            continue;
        };
        let p99_ms = {
            let in_flight = &mut *shared.in_flight();
            in_flight.arrived(&published.cut.offsets, published.at);
            in_flight
                .recent_latency()
                .map_or(0, |latency| latency.p99_ms)
        };
        lock(&board).take(published.number, &published.cut, published.at, p99_ms);
        if totals_at.is_none_or(|at| at.elapsed() >= TOTALS_EVERY) {
            totals_at = Some(Instant::now());
            let totals = view.totals();
            lock(&board).take_totals(&totals, published.at);
        }
    }
}

/// Where the demo is shown.
enum Show<'a> {
    Screen(Box<Screen>),
    Lines(Lines<'a>),
    /// Nobody reads the lines any more; what is checked at the end still counts.
    Nowhere,
}

impl<'a> Show<'a> {
    fn open(logging: &Logging, out: &'a mut dyn Write, terminal: bool) -> Show<'a> {
        if terminal {
            match Screen::open(logging) {
                Ok(screen) => return Show::Screen(Box::new(screen)),
                // One that does not control us cannot be taken over, say.
                Err(error) => tracing::warn!("no live screen on this terminal: {error}"),
            }
        }
        Show::Lines(Lines::new(out))
    }

    /// Shows the picture, if it is time, and waits a moment.
    fn tick(&mut self, picture: impl Fn() -> Picture, stop: &Shutdown) -> io::Result<()> {
        match self {
            Show::Screen(screen) => {
                screen.draw(picture())?;
                match screen.wait(TICK) {
                    // Whoever hears signals ends the process.
                    Some(Key::Interrupt) if stop.has_begun() => {
                        kill_process(getpid(), Signal::INT).map_err(io::Error::from)?;
                    }
                    Some(_) => stop.begin(),
                    None => {}
                }
            }
            Show::Lines(lines) => {
                if lines.show(picture).is_err() {
                    *self = Show::Nowhere;
                }
                std::thread::sleep(TICK);
            }
            Show::Nowhere => std::thread::sleep(TICK),
        }
        Ok(())
    }
}
