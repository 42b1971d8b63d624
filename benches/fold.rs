//! What an event costs in the pure core: decoding, folding, flushing, merging.
//!
//! `cargo bench` measures all of it, `cargo bench -- decode` a part. Figures of
//! two builds are worth comparing only when they are taken in turn on one
//! machine (see CONTRIBUTING.md).

// `criterion_group!` makes a public function.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tally99::event::decode;
use tally99::generate::{GIVING_DAY_2022, Record as Made, Settings, Traffic};
use tally99::merge::Merge;
use tally99::shard::{Calendar, Outcome, Record, Rules, Shard};

/// How many records a shard has folded before anything is measured: a tenth of
/// a million ids, nearly every campaign known.
const WARM: usize = 100_000;
/// How many records one measured step takes in.
const STEP: usize = 10_000;

fn rules() -> Rules {
    Rules {
        calendar: Calendar::of_zone("Asia/Shanghai").expect("a zone of the database"),
        dedup_horizon_s: 72 * 3_600,
        max_ahead_ms: 300_000,
    }
}

/// The values of the first records of a giving day.
fn payloads(count: usize) -> Vec<Vec<u8>> {
    let settings = Settings::new(1, count as u64);
    let mut traffic = Traffic::new(&settings).expect("valid settings");
    let mut made = Made::new();
    let mut payloads = Vec::with_capacity(count);
    while traffic.next(&mut made) {
        payloads.push(made.payload().to_vec());
    }
    payloads
}

fn fold(shard: &mut Shard, payloads: &[Vec<u8>]) {
    let from = shard.offset().0;
    // Every event lies within a day of the first, so none is ahead of this.
    let timestamp = Some(GIVING_DAY_2022 + 24 * 3_600_000);
    for (offset, payload) in (from..).zip(payloads) {
        let outcome = shard.apply(Record {
            offset,
            timestamp,
            payload: Some(payload),
        });
        debug_assert!(!matches!(outcome, Outcome::DeadLetter(r) if r.reason.code() == "ahead"));
    }
}

fn warm_shard(payloads: &[Vec<u8>]) -> Shard {
    let mut shard = Shard::new(0, rules());
    fold(&mut shard, &payloads[..WARM]);
    shard
}

fn decoding(criterion: &mut Criterion) {
    let donation = r#"{"id":"01GCFAHJ6Z4Q8W5N2R7T9V3X1Y","kind":"donation","campaign":"c-000017","donor":"d-000000123456","amount":990,"currency":"CNY","at":1662688800000,"channel":"wechat_pay"}"#;
    let kinds = [
        ("a donation", donation.to_owned()),
        (
            "a time as text",
            donation.replace("1662688800000", r#""2022-09-09T10:00:00.123+08:00""#),
        ),
        (
            "an escaped name",
            donation.replace("c-000017", r"\u4e61\u6751 17"),
        ),
        (
            "fields that we do not know",
            donation.replace('}', r#","app":{"version":[3,1,4],"os":"none"}}"#),
        ),
        (
            "an amount that is text",
            donation.replace("990", r#""990""#),
        ),
        ("cut off", donation[..donation.len() / 2].to_owned()),
    ];
    let mut group = criterion.benchmark_group("decode");
    for (name, text) in &kinds {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| black_box(decode(black_box(Some(text.as_bytes())))).is_ok());
        });
    }
    group.finish();
}

fn folding(criterion: &mut Criterion) {
    let payloads = payloads(WARM + STEP);
    let new = &payloads[WARM..];
    let mut group = criterion.benchmark_group("shard");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(STEP as u64));
    group.bench_function("apply", |b| {
        let shard = || warm_shard(&payloads);
        b.iter_batched_ref(shard, |shard| fold(shard, new), BatchSize::PerIteration);
    });
    group.bench_function("flush", |b| {
        let changed = || {
            let mut shard = warm_shard(&payloads);
            shard.flush();
            fold(&mut shard, new);
            shard
        };
        b.iter_batched_ref(changed, |shard| shard.flush(), BatchSize::PerIteration);
    });
    group.finish();
}

fn merging(criterion: &mut Criterion) {
    let payloads = payloads(WARM + STEP);
    let mut shard = warm_shard(&payloads);
    let whole = shard.full_flush();
    fold(&mut shard, &payloads[WARM..]);
    let changes = shard.flush();
    let held = || {
        let mut merge = Merge::new();
        merge.apply(&whole);
        merge.close_cut();
        merge
    };
    let mut group = criterion.benchmark_group("merge");
    let campaigns = Throughput::Elements(changes.campaigns.len() as u64);
    group.sample_size(20).throughput(campaigns);
    group.bench_function("apply", |b| {
        b.iter_batched_ref(held, |merge| merge.apply(&changes), BatchSize::PerIteration);
    });
    group.bench_function("close a cut", |b| {
        let merged = || {
            let mut merge = held();
            merge.apply(&changes);
            merge
        };
        b.iter_batched_ref(merged, |merge| merge.close_cut(), BatchSize::PerIteration);
    });
    group.finish();
}

fn keeping(criterion: &mut Criterion) {
    let payloads = payloads(20 * WARM);
    let mut shard = Shard::new(0, rules());
    let (before, after) = payloads.split_at(18 * WARM);
    fold(&mut shard, before);
    // A few records before each snapshot, so that time goes on.
    let mut after = after.chunks(500);
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    let whole = shard.full_snapshot();
    let campaigns = shard.campaign_count() as u64;
    group.throughput(Throughput::Elements(campaigns));
    group.bench_function("take, whole", |b| {
        b.iter_custom(|snapshots| {
            let mut taken = Duration::ZERO;
            for _ in 0..snapshots {
                fold(&mut shard, after.next().unwrap_or_default());
                let since = Instant::now();
                black_box(shard.full_snapshot());
                taken += since.elapsed();
            }
            taken
        });
    });
    group.bench_function("restore", |b| {
        let restore =
            || Shard::restore(0, rules(), [&whole.counters[..]], whole.ids.clone()).is_ok();
        b.iter(restore);
    });
    group.finish();
}

criterion_group!(benches, decoding, folding, merging, keeping);
criterion_main!(benches);
