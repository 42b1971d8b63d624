//! Records that cannot be counted are kept, whatever happens to their topic.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::process::Signal;

use crate::day::{DEADLINE, Day};
use crate::kafka::Kafka;
use crate::place::{Place, offset};
use crate::trouble::{AT, donation};

#[test]
fn odd_records_become_dead_letters_with_their_bytes() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "odd");
    let topic = day.topic("donations");
    kafka.create_topic(&topic, 1, &[]);
    // A topic that takes less than what is to be kept.
    kafka.create_topic(
        &day.topic("dead-letters"),
        1,
        &[("max.message.bytes", "100000")],
    );
    // Letters that do not compress: what counts is what the producer sends.
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let large: String = (0..900_000)
        .map(|_| random.random_range('A'..='z'))
        .collect();
    let values = [large.as_bytes(), b"", b"\xff", br#"{"id":"a"}"#];
    kafka.produce(&topic, values.map(|value| (0, "key", value)));
    day.run_until_end();

    let letters = kafka.read_all(&day.topic("dead-letters"));
    let header = |record: &crate::kafka::Record, name: &str| {
        let (_, value) = record.headers.iter().find(|(key, _)| key == name)?;
        String::from_utf8(value.clone()?).ok()
    };
    let mut found: Vec<_> = letters
        .iter()
        .map(|letter| {
            (
                header(letter, "offset").unwrap(),
                header(letter, "reason").unwrap(),
                letter,
            )
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let reasons: Vec<_> = found.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["too_large", "empty", "not_utf8", "missing_field"]);
    let truncated = found[0].2;
    assert_eq!(
        header(truncated, "truncated-from").as_deref(),
        Some("900000")
    );
    let kept = truncated.value.as_deref().unwrap();
    assert!(kept.len() > 10_000 && large.as_bytes().starts_with(kept));
    assert_eq!(found[2].2.value.as_deref(), Some(&b"\xff"[..]));
    let last = day.cuts(kafka).pop().unwrap();
    assert_eq!(last["dead_letters_by_reason"]["too_large"], 1);
    assert_eq!(
        (&last["events"], &last["dead_letters"]),
        (&4.into(), &4.into())
    );
}

#[test]
fn dead_letters_outlive_their_topic() {
    let kafka = Kafka::shared();
    let day = Day::on(kafka, "letters");
    let (topic, letters) = (day.topic("donations"), day.topic("dead-letters"));
    kafka.create_topic(&topic, 1, &[]);
    let mut run = day.run();
    run.wait_for_output(DEADLINE, "publishing");
    kafka.produce(&topic, [(0, "first", "rubbish")]);
    run.wait_until(DEADLINE, "the first is there", |_| {
        kafka.read_all(&letters).len() == 1
    });
    kafka.delete_topic(&letters);
    kafka.produce(&topic, [(0, "second", "rubbish")]);
    run.wait_until(DEADLINE, "both are counted", |_| {
        let cuts = day.cuts(kafka);
        cuts.iter()
            .any(|cut| cut["dead_letters"].as_u64() == Some(2))
    });
    if !kafka.has_topic(&letters) {
        kafka.create_topic(&letters, 1, &[("cleanup.policy", "compact")]);
    }
    let key = format!("{topic}/0/1").into_bytes();
    run.wait_until(DEADLINE, "the second is there", |_| {
        let found = kafka.read_all(&letters);
        found.iter().any(|letter| letter.key.as_ref() == Some(&key))
    });
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
}

/// Who restores a checkpoint does not send the dead letters before it again. Another
/// partition, which has none, is kept meanwhile, twice.
#[test]
fn a_checkpoint_waits_for_the_dead_letters_of_its_partition() {
    let kafka = Kafka::shared();
    let place = Place::folder();
    let day = Day::on(kafka, "waits");
    let (topic, letters) = (day.topic("donations"), day.topic("dead-letters"));
    kafka.create_topic(&topic, 2, &[]);
    kafka.create_topic(&letters, 1, &[("max.message.bytes", "1")]);
    kafka.produce(&topic, [(0, "bad", "rubbish")]);
    let mut run = place.run(&day);
    let what = format!("dead letters to {letters} are not delivered");
    run.wait_for_output(DEADLINE, &what);
    for kept in 1..=2 {
        let event = donation(&format!("good-{kept}"), AT);
        kafka.produce(&topic, [(1, "good", event)]);
        run.wait_until(DEADLINE, "the other partition is kept", |_| {
            place.manifests(1).iter().any(|it| offset(it) == kept)
        });
    }
    assert_eq!(place.manifests(0), [], "{run}");

    // With another in its place, which takes them.
    kafka.delete_topic(&letters);
    kafka.create_topic(&letters, 1, &[("cleanup.policy", "compact")]);
    run.wait_until(DEADLINE, "it is kept", |_| !place.manifests(0).is_empty());
    assert_eq!(kafka.read_all(&letters).len(), 1, "{run}");
    run.signal(Signal::TERM);
    run.wait(DEADLINE).succeeded();
}
