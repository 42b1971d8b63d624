//! What an event costs: decoding, knowing its id, folding, flushing, merging, keeping and
//! publishing.
//!
//! `cargo bench` measures all of it, `cargo bench -- decode` a part. Figures of
//! two builds are worth comparing only when they are taken in turn on one
//! machine (see CONTRIBUTING.md).

// `criterion_group!` makes a public function.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tally99::event::{Id, Rejected, decode};
use tally99::generate::{GIVING_DAY_2022, Record as Made, Settings, Traffic};
use tally99::merge::Merge;
use tally99::native::set_up_memory;
use tally99::publish::records::{campaign_total, campaign_windows};
use tally99::publish::sender::upsert;
use tally99::shard::{Calendar, IdSet, Names, Record, Rules, Shard};

/// That of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

/// Folds records in, as many at once as a worker takes.
fn fold(shard: &mut Shard, names: &mut Names, payloads: &[Vec<u8>]) {
    let from = shard.offset().0;
    // Every event lies within a day of the first, so none is ahead of this.
    let timestamp = Some(GIVING_DAY_2022 + 24 * 3_600_000);
    for (offset, payloads) in (from..).step_by(512).zip(payloads.chunks(512)) {
        let records = (offset..).zip(payloads).map(|(offset, payload)| Record {
            offset,
            timestamp,
            payload: Some(payload),
        });
        let ahead = |_, rejected: Rejected| debug_assert!(rejected.reason.code() != "ahead");
        shard.apply_all(records, names, ahead);
    }
}

fn warm_shard(payloads: &[Vec<u8>]) -> (Shard, Names) {
    let (mut shard, mut names) = (Shard::new(0, rules()), Names::default());
    fold(&mut shard, &mut names, &payloads[..WARM]);
    (shard, names)
}

fn decoding(criterion: &mut Criterion) {
    set_up_memory(); // It is the first.
    let donation = r#"{"id":"01GCFAHJ6Z4Q8W5N2R7T9V3X1Y","kind":"donation","campaign":"c-000017","donor":"d-000000123456","amount":990,"currency":"CNY","at":1662688800000,"channel":"wechat_pay"}"#;
    let kinds = [
        ("a donation", donation.to_owned()),
        (
            "a refund",
            donation
                .replace("donation", "refund")
                .replace('}', r#","refund_of":"01GCFAHJ6Z4Q8W5N2R7T9V3X1Y"}"#),
        ),
        ("a match", donation.replace("donation", "match")),
        (
            "a flower",
            donation
                .replace("donation", "flower")
                .replace(r#""currency":"CNY","#, ""),
        ),
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
    for (name, text) in &kinds[..4] {
        assert!(decode(Some(text.as_bytes())).is_ok(), "{name}");
    }
    let mut group = criterion.benchmark_group("decode");
    for (name, text) in &kinds {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| black_box(decode(black_box(Some(text.as_bytes())))).is_ok());
        });
    }
    group.finish();
}

/// By what sizes an event may have: a short one, one with a long name, one with much that
/// we do not know.
fn decoding_by_size(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode, by bytes");
    for padding in [0, 64, 256, 1_024, 16_384] {
        let padding = "x".repeat(padding);
        let text = format!(
            r#"{{"id":"01GCFAHJ6Z4Q8W5N2R7T9V3X1Y","campaign":"c-000017","amount":990,"currency":"CNY","at":1662688800000,"note":"{padding}"}}"#
        );
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(text.len().to_string(), |b| {
            b.iter(|| black_box(decode(black_box(Some(text.as_bytes())))).is_ok());
        });
    }
    group.finish();
}

/// Ids that are known and those that are not, among so many: of one partition, and of a
/// giving day in one.
fn probing(criterion: &mut Criterion) {
    let at = GIVING_DAY_2022;
    let id = |number: u64| {
        let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Id(spread)
    };
    let (mut ids, mut count) = (IdSet::new(u32::MAX), 0);
    let mut group = criterion.benchmark_group("dedup");
    group.sample_size(10);
    for millions in [1, 10, 60] {
        while count < millions * 1_000_000 {
            ids.insert(id(count), at);
            count += 1;
        }
        let mut number = 0;
        group.bench_function(format!("a known id of {millions} million"), |b| {
            b.iter(|| {
                number = (number + 7_919) % count; // Anywhere among them.
                ids.contains(black_box(id(number)), at)
            });
        });
        group.bench_function(format!("an unknown id, {millions} million known"), |b| {
            b.iter(|| {
                number += 1;
                ids.contains(black_box(id(u64::MAX - number)), at)
            });
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
        let fold = |(shard, names): &mut (Shard, Names)| fold(shard, names, new);
        b.iter_batched_ref(shard, fold, BatchSize::PerIteration);
    });
    group.bench_function("flush", |b| {
        let changed = || {
            let (mut shard, mut names) = warm_shard(&payloads);
            shard.flush();
            fold(&mut shard, &mut names, new);
            shard
        };
        b.iter_batched_ref(changed, |shard| shard.flush(), BatchSize::PerIteration);
    });
    group.finish();
}

fn merging(criterion: &mut Criterion) {
    let payloads = payloads(WARM + STEP);
    let (mut shard, mut names) = warm_shard(&payloads);
    let whole = shard.full_flush();
    fold(&mut shard, &mut names, &payloads[WARM..]);
    let flush = shard.flush();
    let held = || {
        let mut merge = Merge::new();
        merge.apply(&whole);
        merge.close_cut();
        merge
    };
    let mut group = criterion.benchmark_group("merge");
    let campaigns = Throughput::Elements(flush.changes.len() as u64);
    group.sample_size(20).throughput(campaigns);
    group.bench_function("apply", |b| {
        b.iter_batched_ref(held, |merge| merge.apply(&flush), BatchSize::PerIteration);
    });
    group.bench_function("close a cut", |b| {
        let merged = || {
            let mut merge = held();
            merge.apply(&flush);
            merge
        };
        b.iter_batched_ref(merged, |merge| merge.close_cut(), BatchSize::PerIteration);
    });
    group.finish();
}

fn keeping(criterion: &mut Criterion) {
    let payloads = payloads(20 * WARM);
    let (mut shard, mut names) = (Shard::new(0, rules()), Names::default());
    let (before, after) = payloads.split_at(18 * WARM);
    fold(&mut shard, &mut names, before);
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
                fold(&mut shard, &mut names, after.next().unwrap_or_default());
                let since = Instant::now();
                black_box(shard.full_snapshot());
                taken += since.elapsed();
            }
            taken
        });
    });
    let ids = whole.ids.segments().next().expect("ids");
    let bytes = ids.to_bytes().len() as u64;
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("encode a segment of ids", |b| {
        b.iter(|| ids.to_bytes().len())
    });
    group.throughput(Throughput::Elements(campaigns));
    group.bench_function("restore", |b| {
        let restore =
            || Shard::restore(0, rules(), [&whole.counters[..]], whole.ids.clone()).is_ok();
        b.iter(restore);
    });
    group.finish();
}

fn publishing(criterion: &mut Criterion) {
    let payloads = payloads(WARM);
    let (mut shard, _) = warm_shard(&payloads);
    let mut merge = Merge::new();
    merge.apply(&shard.full_flush());
    let cut = merge.close_cut();
    let mut group = criterion.benchmark_group("publish");
    group.sample_size(20);
    group.throughput(Throughput::Elements(cut.changed.len() as u64));
    group.bench_function("encode totals", |b| {
        b.iter(|| {
            let upserts = cut.changed.iter().map(|total| {
                let record = campaign_total(total, 1, 1);
                upsert("campaign-totals", &total.campaign, &record)
            });
            black_box(upserts.collect::<Vec<_>>()).len()
        });
    });
    let windows = merge.take_changed_windows(usize::MAX);
    group.throughput(Throughput::Elements(windows.len() as u64));
    group.bench_function("encode windows", |b| {
        b.iter(|| {
            let upserts = windows.iter().map(|campaign| {
                let record = campaign_windows(campaign, 1, cut.as_of);
                upsert("campaign-windows", &campaign.campaign, &record)
            });
            black_box(upserts.collect::<Vec<_>>()).len()
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    decoding,
    decoding_by_size,
    probing,
    folding,
    merging,
    keeping,
    publishing
);
criterion_main!(benches);
