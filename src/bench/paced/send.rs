//! The sender: each event when it is due, and not before. It waits for nobody: what is late
//! is sent as soon as it can be, and how late each was is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::account::Event;
use super::ahead::Block;
use crate::bench::latency::{histogram, us};
use crate::bench::measure::now_ns;
use crate::generate::{KafkaSink, KafkaSinkError};
use crate::shutdown::Shutdown;

/// How many events are sent between two looks at the clock.
const CHUNK: usize = 64;
/// The shortest sleep: at high rates some hundred events become due meanwhile.
const SLEEP_MIN: Duration = Duration::from_micros(500);
/// The longest: so soon is an end seen that is wished.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// So late, a generator does not catch up any more.
const GIVES_UP_NS: u64 = 10_000_000_000;
/// How long brokers may take to acknowledge the last events.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);

/// What was sent, and how late.
pub(super) struct Sent {
    /// Of the events after the warm-up.
    pub lateness: Histogram<u64>,
    /// Each second from the first event on.
    pub by_second: Vec<SentSecond>,
    /// How late the last one was sent.
    pub last_late_ns: u64,
    /// How long nothing was sent because as many waited for brokers as a producer holds.
    pub blocked_ns: u64,
    /// How long brokers took to acknowledge all of them once the last was sent.
    pub acknowledging_ns: u64,
    /// Whether it was so late that it gave up.
    pub gave_up: bool,
}

/// What the generator did in a second.
#[derive(Clone, Copy, Default)]
pub(super) struct SentSecond {
    pub sent: u64,
    /// The most events that brokers had not acknowledged.
    pub unacknowledged: u64,
}

/// Where events go, and when they begin to.
pub(super) struct Sending<'a> {
    pub sink: &'a KafkaSink,
    pub start_ns: u64,
    pub warmup_ns: u64,
    pub account: Sender<Event>,
    /// How many are sent.
    pub count: &'a AtomicU64,
    pub stop: &'a Shutdown,
}

impl Sending<'_> {
    /// Sends all blocks, and waits until the brokers have them.
    pub fn send(&self, blocks: &Receiver<Block>) -> Result<Sent, KafkaSinkError> {
        let mut sent = Sent {
            lateness: histogram(),
            by_second: Vec::new(),
            last_late_ns: 0,
            blocked_ns: 0,
            acknowledging_ns: 0,
            gave_up: false,
        };
        for block in blocks {
            // Before the first is sent, so that no cut can hold one that is not known.
            let _ = self.account.send(Event::Sent(block.plan.clone()));
            if !self.block(&block, &mut sent)? {
                break;
            }
        }
        let since = Instant::now();
        self.sink.flush_unless(Some(FLUSH_PATIENCE), || {
            self.look(&mut sent);
            self.stop.has_begun()
        })?;
        sent.acknowledging_ns = since.elapsed().as_nanos() as u64;
        Ok(sent)
    }

    /// Sends a block; false if it is to be the last.
    fn block(&self, block: &Block, sent: &mut Sent) -> Result<bool, KafkaSinkError> {
        let due = &block.plan.due_ns;
        let mut next = 0;
        while next < block.len() {
            if self.stop.has_begun() {
                return Ok(false);
            }
            self.sink.poll(Duration::ZERO)?;
            let now = self.now_ns();
            let is_due = due[next..]
                .iter()
                .take(CHUNK)
                .take_while(|&&it| it <= now)
                .count();
            if is_due == 0 || now_ns() < self.start_ns {
                let wait = (self.start_ns + due[next]).saturating_sub(now_ns());
                std::thread::sleep(Duration::from_nanos(wait).clamp(SLEEP_MIN, SLEEP_MAX));
                continue;
            }
            for place in next..next + is_due {
                self.one(block, place, sent)?;
            }
            let now = self.now_ns();
            for &due_ns in &due[next..next + is_due] {
                sent.last_late_ns = now.saturating_sub(due_ns);
                if due_ns >= self.warmup_ns {
                    sent.lateness.saturating_record(us(sent.last_late_ns));
                }
            }
            self.look(sent).sent += is_due as u64;
            self.count.fetch_add(is_due as u64, Ordering::Relaxed);
            next += is_due;
            if sent.last_late_ns > GIVES_UP_NS {
                sent.gave_up = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn one(&self, block: &Block, place: usize, sent: &mut Sent) -> Result<(), KafkaSinkError> {
        let (key, value) = block.event(place);
        let partition = block.plan.partitions[place];
        if self.sink.try_send_to(partition, key, value)? {
            return Ok(());
        }
        let since = Instant::now();
        while !self.sink.try_send_to(partition, key, value)? {
            self.sink.poll(Duration::from_millis(1))?;
            self.look(sent);
            if self.stop.has_begun() {
                return Ok(()); // The run is over, and nothing of it counts.
            }
            if since.elapsed() > FLUSH_PATIENCE {
                self.sink.flush(Some(Duration::ZERO))?; // It says what is missing, if anything is.
            }
        }
        sent.blocked_ns += since.elapsed().as_nanos() as u64;
        Ok(())
    }

    /// This second, with what brokers have not acknowledged.
    fn look<'s>(&self, sent: &'s mut Sent) -> &'s mut SentSecond {
        let second = (self.now_ns() / 1_000_000_000) as usize;
        if sent.by_second.len() <= second {
            sent.by_second.resize(second + 1, SentSecond::default());
        }
        let of_second = &mut sent.by_second[second];
        of_second.unacknowledged = of_second.unacknowledged.max(self.sink.in_flight());
        of_second
    }

    /// Since the start.
    fn now_ns(&self) -> u64 {
        now_ns().saturating_sub(self.start_ns)
    }
}
