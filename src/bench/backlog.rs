//! What a drain reads: a topic that is filled for it, or one that is there.

use std::time::{Duration, Instant};

use super::Error;
use super::message::Log;
use super::own::Own;
use crate::expected::Expected;
use crate::generate::progress::Progress;
use crate::generate::{KafkaSink, Record, Settings, Traffic};
use crate::kafka::topics::{self, TopicSettings};
use crate::shutdown::Shutdown;

/// How many records are made between two looks at brokers and signals.
const CHUNK: u64 = 512;

/// A log to be read, and what it must add up to, if that is known.
pub(super) struct Backlog {
    pub topic: String,
    pub log: Log,
    pub expected: Option<Expected>,
    pub filled_in_s: Option<f64>,
}

impl Backlog {
    /// How many offsets there are: as many as records, unless there are transactions.
    pub fn offsets(&self) -> u64 {
        self.log
            .values()
            .map(|(low, end)| (end.0 - low.0).unsigned_abs())
            .sum()
    }

    /// Fills a topic of its own.
    pub fn fill(
        own: &mut Own,
        settings: &Settings,
        partitions: i32,
        stop: &Shutdown,
    ) -> Result<Backlog, Error> {
        let mut traffic = Traffic::new(settings)?;
        let topic = own.make_donations(partitions)?;
        let mut config = own.config().clone();
        config.topics.donations = topic.clone();
        let sink = KafkaSink::open(&config, partitions)?;
        let events = traffic.counts().total();
        tracing::info!("filling topic {topic}");
        let mut progress = Progress::new(events);
        let (begin, mut record) = (Instant::now(), Record::new());
        let written = loop {
            if let Err(error) = write(&mut traffic, &mut record, &sink, stop) {
                break Err(error);
            }
            progress.tick(traffic.made());
            if let Some(complaint) = sink.take_complaint() {
                progress.warn(&format!("Kafka: {complaint}; trying again"));
            }
            if stop.has_begun() || traffic.made() == events {
                break Ok(());
            }
        };
        progress.finish();
        written?;
        sink.flush_unless(None, || stop.has_begun())?;
        if stop.has_begun() {
            return Err(Error::Stopped);
        }
        let filled_in_s = begin.elapsed().as_secs_f64();
        drop(sink);
        let backlog = Backlog {
            log: look_up(own, &topic)?,
            topic,
            expected: Some(traffic.expected()),
            filled_in_s: Some(filled_in_s),
        };
        match backlog.offsets() {
            written if written == events => Ok(backlog),
            written => Err(Error::Refused(format!(
                "topic {} holds {written} records instead of {events}: does somebody else write \
                 to it?",
                backlog.topic
            ))),
        }
    }

    /// Looks at a topic that is there; `is_folded`: it is not only to be read.
    pub fn existing(own: &Own, topic: &str, is_folded: bool) -> Result<Backlog, Error> {
        let log = look_up(own, topic)?;
        if let Ok(settings) = own.wait_for(TopicSettings::of(own.admin(), topic))
            && settings.is_compacted()
        {
            return Err(Error::Refused(format!(
                "topic {topic} is compacted: it forgets records, so no two runs over it need \
                 read the same. Take one with cleanup.policy=delete"
            )));
        }
        let backlog = Backlog {
            topic: topic.to_owned(),
            log,
            expected: None,
            filled_in_s: None,
        };
        if backlog.offsets() == 0 {
            return Err(Error::Refused(format!(
                "topic {topic} is empty: there is nothing to measure. Leave --topic away, and a \
                 topic is filled"
            )));
        }
        if is_folded && backlog.log.values().any(|(low, _)| low.0 > 0) {
            return Err(Error::Refused(format!(
                "the first records of topic {topic} have expired: tally99 refuses to count a log \
                 without its beginning. Take a topic that is whole, or `bench raw`"
            )));
        }
        Ok(backlog)
    }

    /// An error if the next run would not read the same: records have expired, or, if it
    /// `is_folded`, which goes on to the end, somebody has written some.
    pub fn must_be_the_same(&self, own: &Own, is_folded: bool) -> Result<(), Error> {
        let log = look_up(own, &self.topic)?;
        let begins = |log: &Log, partition| log.get(partition).map(|(low, _)| *low);
        let has_expired = self
            .log
            .keys()
            .any(|it| begins(&log, it) != begins(&self.log, it));
        let topic = &self.topic;
        let why = match () {
            () if has_expired => format!(
                "records of topic {topic} have expired while it was measured, so its runs cannot \
                 be compared: take one with a longer retention.ms"
            ),
            () if is_folded && log != self.log => format!(
                "somebody writes to topic {topic} while it is measured, or gave it partitions, so \
                 its runs cannot be compared: take one that nobody changes"
            ),
            () => return Ok(()),
        };
        Err(Error::Refused(why))
    }
}

/// Sends the next records, unless the end comes first.
fn write(
    traffic: &mut Traffic,
    record: &mut Record,
    sink: &KafkaSink,
    stop: &Shutdown,
) -> Result<(), Error> {
    sink.poll(Duration::ZERO)?;
    for _ in 0..CHUNK {
        if !traffic.next(record) {
            break;
        }
        while !sink.try_send(record)? && !stop.has_begun() {
            sink.poll(Duration::from_millis(5))?;
        }
    }
    Ok(())
}

/// Where a topic begins and ends.
fn look_up(own: &Own, topic: &str) -> Result<Log, Error> {
    let client = own.client();
    let partitions = own.ask(topic, || topics::partitions(client, topic))?;
    let Some(partitions) = partitions.filter(|&partitions| partitions > 0) else {
        return Err(Error::Refused(format!(
            "topic {topic} is not there: see `kafka-topics.sh --list`, or leave --topic away"
        )));
    };
    own.ask(topic, || topics::log_ranges(client, topic, partitions))
}
