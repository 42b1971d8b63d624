//! `tally99 generate`: a stream into its sink, at its pace, until it ends or
//! somebody stops it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::GenerateArgs;
use super::expect::{self, ExpectFile};
use super::kafka::{KafkaSink, KafkaSinkError};
use super::pace::Pace;
use super::progress::Progress;
use super::settings::{Millis, SettingsError};
use super::traffic::{Record, Traffic};
use crate::config::Config;
use crate::expected::Expected;
use crate::money::grouped;
use crate::shutdown::Shutdown;

/// How many records are made between two looks at clock, brokers and signals.
const CHUNK: u64 = 512;
/// How long a stopped run waits for outstanding acknowledgements.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How many partitions a topic gets unless somebody says so.
const PARTITIONS: i32 = 12;
const DAY_MS: Millis = 86_400_000;

/// Why a stream was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The flags make no stream.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Kafka did not take it.
    #[error(transparent)]
    Kafka(#[from] KafkaSinkError),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which file; `-` is standard output.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Whoever reads the events has seen enough of them, but the sums were asked
    /// for, too, and are written once all events are. It has no source, since a
    /// closed pipe among the sources says that no harm was done.
    #[error(
        "the reader of {} has gone after {} events, so {} is not written: \
         let it read all of them, or leave out --expect",
        out.display(), grouped(*made), expect.display()
    )]
    ReaderGone {
        /// Where events were written to; `-` is standard output.
        out: PathBuf,
        /// How many events were made, some of them unread.
        made: u64,
        /// The file that is not written.
        expect: PathBuf,
    },
    /// One would be written over the other.
    #[error("--out and --expect name the same file, {}: give two", .0.display())]
    SameFile(PathBuf),
    /// Kafka stamps records with the time at which they are sent, and an event
    /// from after that time is a dead letter.
    #[error(
        "the day after --start is not over yet, and events ahead of the clock would not be \
         counted: give an earlier day, or --live"
    )]
    StartAhead,
}

impl Error {
    /// Whether it is the flags that are at fault, and nothing outside.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Error::Settings(_) | Error::StartAhead | Error::SameFile(_)
        )
    }
}

/// Makes the stream that the flags ask for. Once `stop` is wished, what was made
/// is written out, and the run ends like a complete one, only earlier.
pub fn run(config: &Config, args: &GenerateArgs, stop: &Shutdown) -> Result<(), Error> {
    let settings = args.settings()?;
    let traffic = Traffic::new(&settings)?;
    if args.out.is_none() && !args.live && settings.start + DAY_MS > now_ms() {
        return Err(Error::StartAhead);
    }
    if let (Some(out), Some(expect)) = (&args.out, &args.expect)
        && expect::is_same(out, expect)
    {
        return Err(Error::SameFile(expect.clone()));
    }
    // Before the sink, whose opening may empty a file or make a topic.
    let expect = match &args.expect {
        Some(path) => Some(ExpectFile::open(path).map_err(|source| cannot_write(path, source))?),
        None => None,
    };
    let mut sink = Sink::open(config, args)?;

    let mut progress = Progress::new(traffic.counts().total());
    if let (Sink::Kafka(kafka), Some(asked)) = (&sink, args.partitions)
        && asked != kafka.partitions()
    {
        let (topic, partitions) = (kafka.topic(), kafka.partitions());
        progress.warn(&format!(
            "topic {topic} is there already and keeps its {partitions} partitions"
        ));
    }
    let pace = args.rate.map(|rate| Pace::new(rate, now_ms()));
    let mut drive = Drive {
        traffic,
        pace,
        is_live: args.live,
        stop,
    };
    let result = drive
        .all(&mut sink, &mut progress)
        .and_then(|()| sink.flush(drive.is_stopped()));
    let took = progress.finish();
    result.map_err(|error| match (error, &args.expect) {
        (Error::File { path, source }, Some(expect))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Error::ReaderGone {
                out: path,
                made: drive.traffic.made(),
                expect: expect.clone(),
            }
        }
        (error, _) => error,
    })?;

    let expected = drive.traffic.expected();
    if let (Some(file), Some(path)) = (expect, &args.expect) {
        let written = file.write(&expected);
        written.map_err(|source| cannot_write(path, source))?;
    }
    let summary = summary(&expected, &drive, &sink.name(), took);
    // Nobody may be left to read it; all is written.
    let _ = writeln!(io::stderr(), "{summary}");
    Ok(())
}

/// A stream on its way.
struct Drive<'a> {
    traffic: Traffic,
    pace: Option<Pace>,
    is_live: bool,
    stop: &'a Shutdown,
}

impl Drive<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.has_begun()
    }

    fn all(&mut self, sink: &mut Sink, progress: &mut Progress) -> Result<(), Error> {
        let mut record = Record::new();
        while !self.is_stopped() {
            let made = self.traffic.made();
            let due = self.pace.map_or(CHUNK, |pace| pace.due(made).min(CHUNK));
            let now = now_ms();
            for index in made..made + due {
                let is_made = match (self.is_live, self.pace) {
                    (false, _) => self.traffic.next(&mut record),
                    (true, None) => self.traffic.next_at(now, &mut record),
                    (true, Some(pace)) => self.traffic.next_at(pace.due_at_ms(index), &mut record),
                };
                if !is_made {
                    return Ok(());
                }
                self.send(&record, sink, progress)?;
            }
            sink.check(progress)?;
            progress.tick(self.traffic.made());
        }
        Ok(())
    }

    /// Sends a record or fails: it is counted already. Waits for room as long as
    /// it takes; once stopped, no longer than for acknowledgements.
    fn send(&self, record: &Record, sink: &mut Sink, progress: &mut Progress) -> Result<(), Error> {
        while !sink.try_send(record)? {
            if self.is_stopped() {
                sink.flush(true)?; // Then there is room.
                continue;
            }
            sink.wait()?;
            sink.check(progress)?;
            progress.tick(self.traffic.made() - 1);
        }
        Ok(())
    }
}

/// Where records go.
enum Sink {
    Kafka(KafkaSink),
    Lines(BufWriter<Box<dyn Write>>, PathBuf),
}

impl Sink {
    fn open(config: &Config, args: &GenerateArgs) -> Result<Sink, Error> {
        if let Some(path) = &args.out {
            let out: Box<dyn Write> = if path == Path::new("-") {
                Box::new(io::stdout())
            } else {
                Box::new(File::create(path).map_err(|source| cannot_write(path, source))?)
            };
            return Ok(Sink::Lines(
                BufWriter::with_capacity(1 << 20, out),
                path.clone(),
            ));
        }
        let partitions = args.partitions.unwrap_or(PARTITIONS);
        Ok(Sink::Kafka(KafkaSink::open(config, partitions)?))
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, Error> {
        match self {
            Sink::Kafka(kafka) => Ok(kafka.try_send(record)?),
            Sink::Lines(lines, path) => lines
                .write_all(record.payload())
                .and_then(|()| lines.write_all(b"\n"))
                .map(|()| true)
                .map_err(|source| cannot_write(path, source)),
        }
    }

    /// Waits a moment for room.
    fn wait(&self) -> Result<(), Error> {
        match self {
            Sink::Kafka(kafka) => Ok(kafka.poll(Duration::from_millis(5))?),
            Sink::Lines(..) => Ok(()),
        }
    }

    /// Finds out whether all is well.
    fn check(&self, progress: &Progress) -> Result<(), Error> {
        if let Sink::Kafka(kafka) = self {
            kafka.poll(Duration::ZERO)?;
            if let Some(complaint) = kafka.take_complaint() {
                progress.warn(&format!("Kafka: {complaint}; trying again"));
            }
        }
        Ok(())
    }

    /// Waits until everything is written; not for long after a stop.
    fn flush(&mut self, is_stopped: bool) -> Result<(), Error> {
        match self {
            Sink::Kafka(kafka) => Ok(kafka.flush(is_stopped.then_some(STOP_TIMEOUT))?),
            Sink::Lines(lines, path) => lines.flush().map_err(|source| cannot_write(path, source)),
        }
    }

    fn name(&self) -> String {
        match self {
            Sink::Kafka(kafka) => {
                format!(
                    "topic {} ({} partitions)",
                    kafka.topic(),
                    kafka.partitions()
                )
            }
            Sink::Lines(_, path) if path == Path::new("-") => "standard output".to_owned(),
            Sink::Lines(_, path) => path.display().to_string(),
        }
    }
}

fn summary(expected: &Expected, drive: &Drive<'_>, sink: &str, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = (expected.events as f64 / seconds) as u64;
    let total = drive.traffic.counts().total();
    let head = if expected.events < total {
        format!(
            "stopped: {} of {}",
            grouped(expected.events),
            grouped(total)
        )
    } else {
        grouped(expected.events)
    };
    let money: Vec<String> = expected
        .money
        .iter()
        .map(|(currency, money)| currency.format(money.gross))
        .collect();
    let money = if money.is_empty() {
        "nothing".to_owned()
    } else {
        money.join(" and ")
    };
    format!(
        "{head} events written to {sink} in {seconds:.1} s, {} events/s: \
         {} gifts of {money}, {} donors, {} repeats, {} malformed",
        grouped(rate),
        grouped(expected.gifts),
        grouped(expected.donors),
        grouped(expected.duplicates),
        grouped(expected.dead_letters),
    )
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}

fn now_ms() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}
