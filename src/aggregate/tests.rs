//! A worker on librdkafka's mock cluster.

use std::ops::Range;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::JoinHandle;

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;
use crate::config::{self, Flags};
use crate::shard::Calendar;

const DEADLINE: Duration = Duration::from_secs(120);
/// When all events happened.
const AT: i64 = 1_662_652_800_000;

/// A topic of one partition with so many records, each of which a fetch brings alone.
fn log_of(records: usize) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("donations", 1, 1).unwrap();
    append_to(&cluster, 0..records);
    cluster
}

fn append_to(cluster: &MockCluster<'_, DefaultProducerContext>, ids: Range<usize>) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .unwrap();
    for id in ids {
        let event = format!(
            r#"{{"id":"{id}","campaign":"c","donor":"{id}","amount":1,"currency":"CNY","at":{AT}}}"#
        );
        let record = BaseRecord::<str, str>::to("donations").partition(0);
        producer.send(record.payload(&event)).unwrap();
        producer.flush(DEADLINE).unwrap();
    }
}

/// A worker at work.
struct AtWork {
    worker: JoinHandle<Result<(), WorkerError>>,
    flushes: Receiver<FromWorker>,
    call: Arc<Call>,
    shutdown: Shutdown,
    /// It ends when nobody can tell it anything any more.
    _commands: Sender<Command>,
}

/// A worker that reads the partition up to an offset.
fn start(cluster: &MockCluster<'_, DefaultProducerContext>, until: Offset) -> AtWork {
    let flags = Flags {
        settings: [("kafka.bootstrap_servers", cluster.bootstrap_servers())].into(),
        properties: Vec::new(),
    };
    let config = config::load(None, [], &flags).unwrap().config;
    let (health, shutdown) = (Arc::default(), Shutdown::default());
    let call = Arc::new(Call::default());
    let (commands, obey) = channel();
    let (output, flushes) = sync_channel(100);
    let ends = WorkerEnds {
        commands: obey,
        output,
        call: call.clone(),
        dead_letters: DeadLetters::new(&config.kafka, "dead-letters", &health).unwrap(),
        checkpoints: None,
        health,
        shutdown: shutdown.clone(),
    };
    let rules = Rules {
        calendar: Calendar::of_zone("Asia/Shanghai").unwrap(),
        dedup_horizon_s: 1,
        max_ahead_ms: 1,
    };
    let worker = Worker::new(&config, rules, Some([(0, until)].into()), ends).unwrap();
    commands.send(Command::Assign(vec![0])).unwrap();
    AtWork {
        worker: std::thread::spawn(move || worker.run()),
        flushes,
        call,
        shutdown,
        _commands: commands,
    }
}

/// Two records are there where a run began to read up to five.
#[test]
fn an_end_that_was_lost_ends_the_run() {
    let cluster = log_of(2);
    let at_work = start(&cluster, Offset(5));
    let began = Instant::now();
    while !at_work.worker.is_finished() {
        assert!(began.elapsed() < DEADLINE, "it waits for what is not there");
        let _ = at_work.flushes.recv_timeout(IDLE);
    }
    let error = at_work.worker.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("is to end at 5"), "{error}");
    assert!(error.contains("goes from 0 to 2"), "{error}");
}

/// The second record comes after a silence, also when it comes again.
#[test]
fn a_log_that_is_slow_is_read_to_its_end() {
    is_read_to_its_end(Duration::from_millis(1_200));
}

/// No question for its ends is answered in time, and none may stop what is on its way.
#[test]
fn a_log_that_is_so_slow_that_it_is_asked_for_is_read_to_its_end() {
    is_read_to_its_end(Duration::from_secs(3));
}

fn is_read_to_its_end(slow: Duration) {
    let cluster = log_of(2);
    cluster.broker_round_trip_time(1, slow).unwrap();
    let at_work = start(&cluster, Offset(2));
    let began = Instant::now();
    let mut reached = Offset::START;
    while reached < Offset(2) {
        assert!(began.elapsed() < DEADLINE, "it got as far as {reached}");
        at_work.call.make();
        if let Ok(FromWorker::Flush(flush)) = at_work.flushes.recv_timeout(IDLE) {
            reached = flush.to;
        }
    }
    at_work.shutdown.begin();
    at_work.worker.join().unwrap().unwrap();
}

/// Each call is answered once, behind the flush that it brings; donors come in their turn.
#[test]
fn flushes_are_called_for() {
    let cluster = log_of(1);
    let at_work = start(&cluster, Offset(10));
    let began = Instant::now();
    let (mut reached, mut donors) = (Offset::START, Offset::START);
    let mut call = || {
        let number = at_work.call.make();
        loop {
            match at_work.flushes.recv_timeout(DEADLINE).unwrap() {
                FromWorker::Flush(flush) => reached = flush.to,
                FromWorker::Donors(flush) => donors = flush.to,
                FromWorker::Answer(to) => break assert_eq!(to, number),
            }
        }
        assert!(began.elapsed() < DEADLINE, "{reached}, donors {donors}");
        reached.min(donors)
    };
    while call() < Offset(1) {}
    // By then it knows that it is at the end, of which it tells uncalled.
    for _ in 0..3 {
        call();
    }
    append_to(&cluster, 1..2);
    let uncalled = at_work.flushes.recv_timeout(Duration::from_millis(500));
    assert!(uncalled.is_err(), "{uncalled:?}");
    while call() < Offset(2) {}
    at_work.shutdown.begin();
    at_work.worker.join().unwrap().unwrap();
}
