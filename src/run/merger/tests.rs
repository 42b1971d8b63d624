//! When cuts are due.

use std::sync::mpsc::{Sender, channel, sync_channel};

use super::*;
use crate::config::Config;

const NEVER: Duration = Duration::from_secs(3_600);

/// A merger of one worker, what that tells it, and what the publisher does.
fn merger() -> (Merger, SyncSender<FromWorker>, Sender<Report>) {
    let (tell, from_workers) = sync_channel(10);
    let (report, reports) = channel();
    let ends = MergerEnds {
        from_workers,
        call: Arc::default(),
        jobs: sync_channel(1).0,
        reports,
        membership: Arc::new(Membership::new(NEVER)),
        partitions: Arc::default(),
        view: Arc::default(),
        shutdown: Shutdown::default(),
    };
    let config = RunConfig {
        publish_interval: NEVER,
        workers: 1,
        ..Config::default().run
    };
    let merger = Merger::new(&config, None, BTreeMap::new(), ends);
    (merger, tell, report)
}

#[test]
fn a_cut_that_took_longer_than_its_interval_is_followed_at_once() {
    for is_late in [true, false] {
        let (mut merger, _tell, report) = merger();
        if !is_late {
            merger.tick();
        }
        merger.state = State::Publishing(Arc::new(Merge::new().close_cut()));
        if is_late {
            merger.tick();
        }
        assert!(merger.publish_at > Instant::now());
        report.send(Report::Complete(1)).unwrap();
        merger.take_reports();
        assert_eq!(merger.publish_at <= Instant::now(), is_late);
    }
}

#[test]
fn a_cut_waits_for_the_answers_to_its_own_call_but_not_for_ever() {
    let (mut merger, tell, _report) = merger();
    let call = merger.ends.call.clone();
    for number in 1..=3 {
        assert!(!merger.is_answered());
        assert_eq!(call.newest(), number);
        // One that was late for the call before.
        tell.send(FromWorker::Answer(number - 1)).unwrap();
        merger.take_in();
        assert!(!merger.is_answered() || has_waited(&merger));
        tell.send(FromWorker::Answer(number)).unwrap();
        merger.take_in();
        assert!(merger.is_answered());
        merger.tick();
    }
    assert!(!merger.is_answered());
    while !has_waited(&merger) {
        assert!(!merger.is_answered() || has_waited(&merger));
        merger.take_in();
    }
    assert!(merger.is_answered());
}

fn has_waited(merger: &Merger) -> bool {
    let called = merger.called.as_ref();
    called.is_some_and(|called| called.at.elapsed() >= HELD_UP)
}
