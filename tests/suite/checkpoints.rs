//! Restarts from checkpoints, in a folder and in a bucket: the totals are exact
//! whatever has become of them, and what cannot be restored is said.

mod handover;
mod logs;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::place::{Place, offset};
use crate::process::{Finished, Running};
use crate::s3::S3;
use crate::trouble::{AT, donation};
use crate::wait::{SOON, wait_until};

const PARTITIONS: usize = 12;

#[track_caller]
fn assert_says(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code(), code, "{finished}");
    for word in words {
        let said = finished.stdout.contains(word) || finished.stderr.contains(word);
        assert!(said, "{word:?} is not in: {finished}");
    }
}

fn stop(run: Running) {
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
}

/// A day that is counted, with three checkpoints of each partition.
fn counted(kafka: &Kafka, place: &Place, hint: &str) -> Day {
    let day = Day::on(kafka, hint);
    kafka.create_topic(&day.topic("donations"), PARTITIONS as i32, &[]);
    let traffic = day.traffic(15_000);
    let mut run = place.run(&day);
    run.wait_until(DEADLINE, "there are three checkpoints each", |_| {
        place.partitions_with(3) == PARTITIONS
    });
    traffic.end();
    stop(run);
    place.counts_all(&day);
    day
}

/// A day of a few events, counted to its end and kept.
fn kept(kafka: &Kafka, place: &Place, hint: &str) -> Day {
    let day = Day::on(kafka, hint);
    day.write(10_000, &[]);
    // A busy machine may be too slow for the last checkpoint of some.
    wait_until(DEADLINE, "all partitions are kept", || {
        place.counts_all(&day);
        place.partitions_with(1) == PARTITIONS
    });
    day
}

fn a_killed_process_is_followed_from_its_checkpoints(place: &Place) {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "kept");
    kafka.create_topic(&day.topic("donations"), PARTITIONS as i32, &[]);
    let traffic = day.traffic(12_000);
    let mut run = place.run(&day);
    run.wait_until(DEADLINE, "all partitions have checkpoints", |_| {
        place.partitions_with(2) == PARTITIONS
    });
    run.signal(Signal::KILL);
    drop(run);
    let left: Vec<_> = (0..PARTITIONS as i32)
        .map(|partition| offset(place.manifests(partition).last().expect("one at least")))
        .collect();

    let mut run = place.run(&day);
    run.wait_for_output(DEADLINE, "publishing");
    for (partition, left) in left.into_iter().enumerate() {
        let line = format!("partition {partition}: restored at offset ");
        let said = run.stderr();
        let (_, rest) = said.split_once(&line).expect("it is restored");
        let offset = rest.split(':').next().and_then(|it| it.parse().ok());
        // A write that was on its way to a bucket may have come after the kill.
        assert!(offset >= Some(left), "{left} was kept: {run}");
    }
    traffic.end();
    stop(run);
    place.counts_all(&day);
    day.assert_nothing_fell(kafka);

    let list = place.checkpoints(&day, "list", &[]);
    assert_says(&list, 0, &["valid; partitions without any: none"]);
    assert!(!list.stdout.contains("not valid"), "{list}");
    let verify = place.checkpoints(&day, "verify", &[]);
    assert_says(&verify, 0, &["all 12 equal the fold of the log"]);
    let equal = verify.stdout.matches(": equal at offset ").count();
    assert_eq!(equal, PARTITIONS, "{verify}");
}

#[test]
fn a_killed_process_is_followed_from_its_folder() {
    a_killed_process_is_followed_from_its_checkpoints(&Place::folder());
}

#[test]
fn a_killed_process_is_followed_from_its_bucket() {
    a_killed_process_is_followed_from_its_checkpoints(&Place::bucket(S3::shared()));
}

fn damaged_checkpoints_are_named_and_skipped(place: &Place) {
    let kafka = Kafka::shared();
    let day = counted(kafka, place, "rot");
    // The newest of three partitions, each in another way.
    let newest = |partition| place.manifests(partition).pop().expect("one at least");
    let before = |partition| place.manifests(partition).into_iter().nth_back(1);
    // What sorts last may be older, and named by older ones alone.
    let named = |partition, kind: &str| {
        let manifest = place.read(&newest(partition));
        let manifest = String::from_utf8_lossy(&manifest).into_owned();
        let objects = place.names(&format!("/{partition:05}/{kind}/"));
        let is_named = |it: &Path| manifest.contains(it.filename().expect("a name"));
        let last = objects.into_iter().rfind(is_named);
        last.expect("one at least")
    };
    place.flip(&newest(0));
    place.truncate(&named(1, "counters"));
    place.delete(&named(2, "ids"));
    let damaged: Vec<_> = [0, 1, 2].into_iter().map(newest).collect();
    let list = place.checkpoints(&day, "list", &[]);
    let whys = [
        "does not match its checksum",
        "bytes of content where",
        "is not there",
    ];
    assert_says(&list, 0, &whys);

    let older = before(0).expect("three were kept");
    let run = place.counts_all(&day);
    for manifest in &damaged {
        let named = format!("{manifest} is skipped");
        assert!(run.stderr.contains(&named), "{named:?} is not in {run}");
    }
    let line = format!("partition 0: restored at offset {}:", offset(&older));
    assert!(run.stderr.contains(&line), "{line:?} is not in {run}");
    day.assert_nothing_fell(kafka);
    // What was skipped is written anew.
    let verify = place.checkpoints(&day, "verify", &[]);
    assert_says(&verify, 0, &["all 12 equal the fold of the log"]);

    // Then all of them, in all ways.
    for (number, name) in place.names("/").iter().enumerate() {
        match number % 3 {
            0 => place.flip(name),
            1 => place.truncate(name),
            _ if name.as_ref().contains("/manifests/") => place.flip(name),
            _ => place.delete(name),
        }
    }
    let damaged = place.names("/manifests/");
    let list = place.checkpoints(&day, "list", &[]);
    assert_says(&list, 1, &["0 of ", "partitions without any: 0, 1, 2, "]);
    assert_says(&place.checkpoints(&day, "verify", &[]), 1, &[]);
    let run = place.counts_all(&day);
    for manifest in &damaged {
        let named = format!("{manifest} is skipped");
        assert!(run.stderr.contains(&named), "{named:?} is not in {run}");
    }
    assert!(!run.stderr.contains("restored at offset"), "{run}");
    day.assert_nothing_fell(kafka);
}

#[test]
fn damage_in_a_folder_is_named_and_skipped() {
    damaged_checkpoints_are_named_and_skipped(&Place::folder());
}

#[test]
fn damage_in_a_bucket_is_named_and_skipped() {
    damaged_checkpoints_are_named_and_skipped(&Place::bucket(S3::shared()));
}

/// What makes a store fail, and work again.
trait Fault {
    fn begin(&mut self);
    fn end(&mut self);
}

struct Stopped(S3);

impl Fault for Stopped {
    fn begin(&mut self) {
        self.0.stop();
    }
    fn end(&mut self) {
        self.0.start();
    }
}

/// A file where the folder of the topic should be.
struct InTheWay(PathBuf);

impl Fault for InTheWay {
    fn begin(&mut self) {
        fs::rename(&self.0, self.0.with_extension("aside")).expect("moved away");
        fs::write(&self.0, "in the way").expect("written");
    }
    fn end(&mut self) {
        fs::remove_file(&self.0).expect("removed");
        // Unless somebody was quicker to make a folder there, and to write into it.
        while fs::rename(self.0.with_extension("aside"), &self.0).is_err() {
            fs::remove_dir_all(&self.0).expect("removed");
        }
    }
}

fn a_store_that_fails_is_said_and_waited_for(place: &Place, day: &Day, fault: &mut dyn Fault) {
    let kafka = Kafka::shared();
    let topic = day.topic("donations");
    let newest = |events: u64| day.cuts(kafka).iter().any(|cut| cut["events"] == events);
    fault.begin();
    let mut run = place.run(day);
    run.wait_for_output(DEADLINE, "waits for its checkpoint");
    assert!(!run.stderr().contains("publishing"), "{run}");
    fault.end();
    run.wait_for_output(DEADLINE, "publishing");
    assert!(run.stderr().contains("restored at offset"), "{run}");

    fault.begin();
    kafka.produce(&topic, [(3, "k", donation("meanwhile", AT))]);
    run.wait_until(DEADLINE, "it is counted", |_| newest(10_001));
    run.wait_for_output(DEADLINE, "/3 is written:");
    fault.end();
    run.wait_for_output(DEADLINE, "checkpoints are written again");
    stop(run);
    let finished = place.until_end(day).succeeded();
    let end = kafka.end_offsets(&topic)[3];
    let line = format!("partition 3: restored at offset {end}: ");
    assert!(finished.stderr.contains(&line), "{finished}");
    day.assert_nothing_fell(kafka);
}

#[test]
fn a_folder_that_fails_is_said_and_waited_for() {
    let place = Place::folder();
    let day = kept(Kafka::shared(), &place, "blocked");
    let mut fault = InTheWay(place.path().join(day.topic("donations")));
    a_store_that_fails_is_said_and_waited_for(&place, &day, &mut fault);
}

#[test]
fn a_bucket_that_fails_is_said_and_waited_for() {
    let s3 = S3::own();
    let place = Place::bucket(&s3);
    let day = kept(Kafka::shared(), &place, "unreachable");
    a_store_that_fails_is_said_and_waited_for(&place, &day, &mut Stopped(s3));
}

#[test]
fn without_checkpoints_it_begins_at_the_beginning() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = kept(kafka, &place, "without");
    let run = day.run_until_end();
    assert!(!run.stderr.contains("restored"), "{run}");
    day.compare().succeeded();
    day.assert_nothing_fell(kafka);
}

fn what_is_not_needed_is_pruned(place: &Place) {
    let kafka = Kafka::shared();
    let day = counted(kafka, place, "pruned");
    let all = place.names("/");
    let would = place.checkpoints(&day, "prune", &["--keep", "1", "--dry-run"]);
    assert_says(&would, 0, &["older than the newest 1", "would be deleted"]);
    assert_eq!(place.names("/"), all);
    place
        .checkpoints(&day, "prune", &["--keep", "1"])
        .succeeded();
    for partition in 0..PARTITIONS as i32 {
        assert_eq!(place.manifests(partition).len(), 1, "{partition}");
    }
    let again = place.checkpoints(&day, "prune", &["--keep", "1"]);
    assert_says(&again, 0, &["0 objects with"]);
    let list = place.checkpoints(&day, "list", &["--json"]).succeeded();
    let rows: Vec<serde_json::Value> = list
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(rows.len(), PARTITIONS);
    assert!(
        rows.iter()
            .all(|row| row["valid"] == true && row["offset"].as_u64() > Some(0))
    );
    let run = place.counts_all(&day);
    assert_eq!(run.stderr.matches("restored at offset").count(), PARTITIONS);
}

#[test]
fn what_is_not_needed_is_pruned_from_a_folder() {
    what_is_not_needed_is_pruned(&Place::folder());
}

#[test]
fn what_is_not_needed_is_pruned_from_a_bucket() {
    what_is_not_needed_is_pruned(&Place::bucket(S3::shared()));
}

/// A write that is cut short by a `kill -9` leaves a file that the store hides.
#[test]
fn what_a_killed_process_left_behind_is_deleted() {
    let place = Place::folder();
    let day = kept(Kafka::shared(), &place, "left-over");
    let folder = place
        .path()
        .join(day.topic("donations"))
        .join("epoch-1/00003");
    let leave = |name: &str, age: Duration| {
        let path = folder.join(name);
        let file = fs::File::create(&path).expect("created");
        file.set_modified(SystemTime::now() - age)
            .expect("an older file");
        path
    };
    let old = Duration::from_secs(3_700);
    let young = leave("ids/5-6.writer-1#1", SOON);
    let left = leave("ids/0-5.writer-1#1", old);
    place.until_end(&day).succeeded();
    assert!(young.exists() && !left.exists(), "at the start");
    let left = leave("manifests/7.writer-1#1", old);
    let would = place.checkpoints(&day, "prune", &["--dry-run"]);
    assert_says(
        &would,
        0,
        &["manifests/7.writer-1#1: a write was cut short"],
    );
    assert!(left.exists());
    place.checkpoints(&day, "prune", &[]).succeeded();
    assert!(young.exists() && !left.exists(), "by prune");
}

#[test]
fn checkpoints_say_what_they_need() {
    let day = Day::at("127.0.0.1:1", "nowhere");
    for subcommand in ["list", "verify", "prune"] {
        let mut command = day.command(&format!("checkpoints {subcommand}"));
        let refused = crate::process::run(&mut command, SOON);
        assert_says(&refused, 2, &["--checkpoints file:///folder"]);
        command.args(["--checkpoints", "file:///no/such/folder"]);
        let refused = crate::process::run(&mut command, SOON);
        assert_says(&refused, 2, &["there is no folder /no/such/folder"]);
    }
    let place = Place::folder();
    let nothing = place.checkpoints(&day, "list", &[]);
    assert_says(&nothing, 0, &["no checkpoints of topic"]);
    assert_says(
        &place.checkpoints(&day, "verify", &[]),
        1,
        &["no checkpoints of"],
    );
}
