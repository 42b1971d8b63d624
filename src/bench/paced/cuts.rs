//! When cuts can be read: a consumer of the topic of cuts, as anybody could have one.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rdkafka::message::Message;

use super::account::Event;
use crate::bench::Error;
use crate::bench::measure::now_ns;
use crate::bench::message::CutAt;
use crate::config::Config;
use crate::kafka::client::{self, Health};
use crate::kafka::reader::Reader;
use crate::offset::Offset;
use crate::publish::records::CutRecord;
use crate::shutdown::Shutdown;

/// How long a poll waits; a record ends it.
const POLL: Duration = Duration::from_millis(50);

/// Reads the cuts that are complete, and tells when each was read, until the end is wished.
pub(super) fn read(config: &Config, tell: &Sender<Event>, end: &Shutdown) -> Result<(), Error> {
    let health = Arc::new(Health::default());
    let settings = client::reader(&config.kafka);
    let mut reader = Reader::new(&settings, &config.topics.cuts, health.clone())?;
    reader.read_from([(0, Offset::START)])?;
    while !end.has_begun() {
        let message = match reader.consumer().poll(POLL) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => continue,
            Some(Err(error)) if health.note(&error) => continue,
            Some(Err(error)) => return Err(error.into()),
        };
        let at_ns = now_ns();
        if let Ok(CutRecord::Complete(cut)) = CutRecord::parse(message.payload().unwrap_or(&[])) {
            let (events, offsets) = (cut.events, cut.id.offsets);
            let cut = CutAt {
                at_ns,
                events,
                offsets,
            };
            if tell.send(Event::Readable(cut)).is_err() {
                break;
            }
        }
    }
    Ok(())
}
