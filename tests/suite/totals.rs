//! `tally99 totals` on the real binary, reading from librdkafka's mock cluster
//! what these tests have written there.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rustix::process::Signal;
use tally99::expected::{Expected, ExpectedCampaign};
use tally99::money::{Currency, MoneyTotal};
use tally99::offset::Offset;
use tally99::publish::records::{CampaignTotal, CompleteCut, CutId, CutRecord};

use crate::day::DEADLINE;
use crate::demo::OnTerminal;
use crate::process::{self, Running, tally99};

/// 2022-09-09T00:00:00Z.
const FIRST_MS: i64 = 1_662_681_600_000;

struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Kafka {
    fn empty() -> Kafka {
        let cluster = MockCluster::new(1).unwrap();
        let mut settings = ClientConfig::new();
        let producer = settings
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .unwrap();
        Kafka { cluster, producer }
    }

    fn with_topics() -> Kafka {
        let kafka = Kafka::empty();
        kafka.cluster.create_topic("campaign-totals", 3, 1).unwrap();
        kafka.cluster.create_topic("cuts", 1, 1).unwrap();
        kafka
    }

    fn write(&self, topic: &str, key: &str, value: &[u8]) {
        self.producer
            .send(BaseRecord::to(topic).key(key).payload(value))
            .unwrap();
    }

    fn write_totals(&self, totals: &[CampaignTotal]) {
        for total in totals {
            self.write(
                "campaign-totals",
                &total.campaign,
                &serde_json::to_vec(total).unwrap(),
            );
        }
        self.producer.flush(DEADLINE).unwrap();
    }

    fn write_cut(&self, cut: &CutRecord) {
        self.write_cuts(std::slice::from_ref(cut));
    }

    fn write_cuts(&self, cuts: &[CutRecord]) {
        for cut in cuts {
            self.write(
                "cuts",
                &cut.id().cut.to_string(),
                &serde_json::to_vec(cut).unwrap(),
            );
        }
        self.producer.flush(DEADLINE).unwrap();
    }

    fn totals(&self, args: &[&str]) -> (i32, String, String) {
        let servers = self.cluster.bootstrap_servers();
        run(tally99(["totals", "--bootstrap-servers", &servers]).args(args))
    }
}

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let finished = process::run(command, DEADLINE);
    (finished.code(), finished.stdout, finished.stderr)
}

/// Exit code and standard error of a command whose output nobody reads.
fn unread(command: &mut Command) -> (Option<i32>, String) {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

fn cny(net: i128) -> BTreeMap<Currency, MoneyTotal> {
    let money = MoneyTotal {
        gross: net,
        net,
        ..MoneyTotal::default()
    };
    BTreeMap::from([(Currency::parse("CNY").unwrap(), money)])
}

fn total(campaign: &str, version: u64, net: i128) -> CampaignTotal {
    CampaignTotal {
        campaign: campaign.into(),
        epoch: 1,
        version,
        cut: 1,
        gifts: version,
        flowers: 0,
        donors: version,
        money: cny(net),
        first_at: "2022-09-09T00:00:00Z".into(),
        last_at: "2022-09-09T00:00:01Z".into(),
    }
}

fn open(cut: u64) -> CutId {
    CutId {
        cut,
        epoch: 1,
        publisher: "test".into(),
        offsets: BTreeMap::from([(0, Offset(9))]),
        ..CutId::default()
    }
}

/// A cut whose sums are those of the totals, without repeats or dead letters.
fn complete(cut: u64, totals: &[CampaignTotal]) -> CutRecord {
    let events = totals.iter().map(|total| total.version).sum();
    let net = totals
        .iter()
        .flat_map(|total| total.money.values())
        .map(|money| money.net)
        .sum();
    CutRecord::Complete(CompleteCut {
        id: open(cut),
        as_of: Some("2022-09-09T00:00:01Z".into()),
        events,
        duplicates: 0,
        dead_letters: 0,
        dead_letters_by_reason: BTreeMap::new(),
        late: 0,
        donors: events,
        campaigns: totals.len() as u64,
        gifts: events,
        flowers: 0,
        money: cny(net),
        digest: "00".repeat(16),
    })
}

fn expected(totals: &[CampaignTotal]) -> Expected {
    let events = totals.iter().map(|total| total.version).sum();
    let net = totals
        .iter()
        .flat_map(|total| total.money.values())
        .map(|money| money.net)
        .sum();
    let campaign = |total: &CampaignTotal| ExpectedCampaign {
        events: total.version,
        gifts: total.gifts,
        flowers: 0,
        donors: Some(total.donors),
        money: total.money.clone(),
        first_at_ms: FIRST_MS,
        last_at_ms: FIRST_MS + 1_000,
    };
    Expected {
        events,
        donors: events,
        gifts: events,
        money: cny(net),
        campaigns: totals
            .iter()
            .map(|total| (total.campaign.clone(), campaign(total)))
            .collect(),
        ..Expected::default()
    }
}

/// Names in several scripts, and upserts of which only the newest counts.
fn published() -> (Kafka, Vec<CampaignTotal>) {
    let kafka = Kafka::with_topics();
    let totals: Vec<CampaignTotal> = (0..200)
        .map(|i| total(&format!("campaign {i}"), 1 + i, 100 * i128::from(i)))
        .chain([total("免费午餐", 5_000, 330_000_000_000)])
        .collect();
    let older: Vec<CampaignTotal> = totals
        .iter()
        .map(|t| total(&t.campaign, t.version - 1, -1))
        .collect();
    kafka.write_totals(&older);
    kafka.write_cut(&CutRecord::Open(open(7)));
    kafka.write_totals(&totals);
    kafka.write_cut(&complete(7, &totals));
    // What an evicted publisher writes when it wakes up.
    kafka.write_totals(&older[..50]);
    (kafka, totals)
}

#[test]
fn the_same_totals_as_table_json_and_csv() {
    let (kafka, totals) = published();
    let (code, table, err) = kafka.totals(&["--top", "2"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(table.starts_with("Cut 7, complete · published "), "{table}");
    assert!(
        table.contains(" · as of 2022-09-09 08:00:01 +08:00\n"),
        "{table}"
    );
    assert!(
        table.contains("\n1  免费午餐      5,000  ¥3,300,000,000.00 "),
        "{table}"
    );
    assert!(
        table.contains("\n2  campaign 199    200            ¥199.00 "),
        "{table}"
    );
    assert!(
        table.ends_with("2 of 201 campaigns, by net in CNY.\n"),
        "{table}"
    );

    let (code, json, err) = kafka.totals(&["--top", "0", "--format", "json", "--by", "gifts"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    let printed: Vec<CampaignTotal> =
        serde_json::from_value(document["campaigns"].clone()).unwrap();
    let mut by_gifts = totals.clone();
    by_gifts.sort_by_key(|total| std::cmp::Reverse(total.gifts));
    assert_eq!(printed, by_gifts);

    let args = [
        "--format",
        "csv",
        "--campaign",
        "免费午餐",
        "--campaign",
        "campaign 3",
    ];
    let (code, csv, err) = kafka.totals(&args);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        csv,
        "campaign,cut,epoch,version,gifts,flowers,donors,currency,gross,refunded,net,matched,first_at,last_at\r\n\
         免费午餐,1,1,5000,5000,0,5000,CNY,3300000000.00,0.00,3300000000.00,0.00,2022-09-09T00:00:00Z,2022-09-09T00:00:01Z\r\n\
         campaign 3,1,1,4,4,0,4,CNY,3.00,0.00,3.00,0.00,2022-09-09T00:00:00Z,2022-09-09T00:00:01Z\r\n"
    );
}

#[test]
fn compare_is_0_when_all_is_equal_and_1_when_not() {
    let (kafka, totals) = published();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("expected.json");
    let path = file.to_str().unwrap();
    let mut wanted = expected(&totals);
    std::fs::write(&file, serde_json::to_vec(&wanted).unwrap()).unwrap();
    let (code, out, err) = kafka.totals(&["--compare", path]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.starts_with("equal: 201 campaigns, 25,100 events"),
        "{out}"
    );

    wanted.campaigns.get_mut("免费午餐").unwrap().gifts -= 1;
    wanted.campaigns.remove("campaign 5");
    std::fs::write(&file, serde_json::to_vec(&wanted).unwrap()).unwrap();
    let (code, out, err) = kafka.totals(&["--compare", path]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    assert_eq!(
        out,
        "overall: campaigns: expected 200, found 201 (+1)\n\
         campaign campaign 5: has a total of 6 events, expected none\n\
         campaign 免费午餐: gifts: expected 4,999, found 5,000 (+1)\n\
         different: 3 differences; compared 200 campaigns, 25,100 events, donors estimated as 25,100 where \
         25,100 is exact (allowed: 3.25 %)\n"
    );

    // Nobody reads why: it differs all the same.
    let servers = kafka.cluster.bootstrap_servers();
    let args = ["totals", "--bootstrap-servers", &servers, "--compare", path];
    assert_eq!(unread(&mut tally99(args)), (Some(1), String::new()));

    // A file of something else is found out before Kafka is asked.
    std::fs::write(&file, "{}").unwrap();
    let (code, _, err) = kafka.totals(&["--compare", path]);
    assert_eq!(code, 3);
    assert!(
        err.contains("is not a file of expected totals") && err.contains("because: missing field"),
        "{err}"
    );
}

#[test]
fn what_is_missing_is_said_calmly() {
    let kafka = Kafka::empty();
    let (code, out, err) = kafka.totals(&["--cuts-topic", "kuts"]);
    assert_eq!((code, out.as_str()), (3, ""));
    let servers = kafka.cluster.bootstrap_servers();
    assert_eq!(
        err,
        format!(
            "tally99: there is no topic kuts at {servers}. `tally99 run` makes it when it starts; if it has, \
             check --cuts-topic\n"
        )
    );

    // Port 1 is never a broker.
    let (code, _, err) = run(&mut tally99([
        "totals",
        "--bootstrap-servers",
        "127.0.0.1:1",
    ]));
    assert_eq!(code, 3);
    assert!(
        err.starts_with("tally99: no Kafka broker answers at 127.0.0.1:1: "),
        "{err}"
    );
    assert!(
        err.contains("Connection refused") && err.lines().count() == 1,
        "{err}"
    );

    let kafka = Kafka::with_topics();
    let (code, out, err) = kafka.totals(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "No cut yet: nothing was published.\n\nNo campaign has a total yet.\n"
    );
}

#[test]
fn what_kafkas_client_quotes_of_a_secret_is_not_shown() {
    let mut command = tally99(["totals", "--bootstrap-servers", "127.0.0.1:1"]);
    for property in [
        "enable.sasl.oauthbearer.unsecure.jwt=true",
        "sasl.mechanism=OAUTHBEARER",
        "security.protocol=sasl_plaintext",
        "sasl.oauthbearer.config=hunter2 x",
    ] {
        command.args(["--kafka-property", property]);
    }
    let (code, out, err) = run(command.env("RUST_LOG", "debug"));
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("beginning at: ***"), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn cuts_are_read_from_the_end() {
    let kafka = Kafka::with_topics();
    let totals = [total("a", 1, 100)];
    kafka.write_totals(&totals);
    // Never read: it lies before what it takes.
    kafka.write("cuts", "x", b"not ours");
    let both = |cut| [CutRecord::Open(open(cut)), complete(cut, &totals)];
    kafka.write_cuts(&(1..=200).flat_map(both).collect::<Vec<_>>());
    let (code, out, err) = kafka.totals(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("Cut 200, complete · "), "{out}");

    // Without a complete one near the end it goes on, back to the beginning.
    let abandoned = |cut| CutRecord::Abandoned(open(cut));
    kafka.write_cuts(&(201..=500).map(abandoned).collect::<Vec<_>>());
    let (code, out, err) = kafka.totals(&[]);
    assert_eq!(code, 0);
    assert!(out.starts_with("Cut 500, abandoned"), "{out}");
    assert!(out.contains(" · sums of cut 200 · "), "{out}");
    assert!(
        err.contains("1 records are not what tally99 writes"),
        "{err}"
    );
}

#[test]
fn records_of_others_are_left_out_and_told() {
    let (kafka, _) = published();
    kafka.write("campaign-totals", "x", b"not ours");
    kafka.producer.flush(DEADLINE).unwrap();
    let (code, out, err) = kafka.totals(&["--top", "1"]);
    assert_eq!(code, 0);
    assert!(out.contains("1 of 201 campaigns"), "{out}");
    assert!(err.contains("1 records are not what tally99 writes and are left out; the first: topic campaign-totals"), "{err}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (kafka, _) = published();
    let servers = kafka.cluster.bootstrap_servers();
    let args = [
        "totals",
        "--top",
        "0",
        "--format",
        "json",
        "--bootstrap-servers",
        &servers,
    ];
    assert_eq!(unread(&mut tally99(args)), (Some(0), String::new()));
}

#[test]
fn follow_prints_each_new_cut_and_ends_on_ctrl_c() {
    let (kafka, mut totals) = published();
    let servers = kafka.cluster.bootstrap_servers();
    let args = ["totals", "--follow", "--campaign", "免费午餐"];
    let mut follow = Running::start(tally99(args).args(["--bootstrap-servers", &servers]));
    // Line by line: each has the upsert that belongs to its cut, not the one
    // before.
    follow.wait_for_output(
        DEADLINE,
        "cut 7 · as of 2022-09-09 08:00:01 +08:00 · 25,100 gifts · ",
    );
    for cut in 8..11 {
        kafka.write_cut(&CutRecord::Open(open(cut)));
        let lunch = totals.last_mut().unwrap();
        *lunch = total("免费午餐", lunch.version + 1, i128::from(cut) * 100);
        kafka.write_totals(std::slice::from_ref(lunch));
        kafka.write_cut(&complete(cut, &totals));
        follow.wait_for_output(DEADLINE, &format!(" · top: 免费午餐 ¥{cut}.00 net CNY\n"));
        let printed = follow.stdout();
        let line = printed.lines().last().unwrap();
        assert!(line.starts_with(&format!("cut {cut} · ")), "{printed}");
    }
    // What cannot be read later is told with the next cut.
    kafka.write("campaign-totals", "x", b"not ours");
    kafka.producer.flush(DEADLINE).unwrap();
    kafka.write_cut(&complete(11, &totals));
    follow.wait_for_output(DEADLINE, "1 records are not what tally99 writes");
    // And that nothing comes any more, once.
    follow.wait_for_output(DEADLINE, "No newer cut for over 10 s");
    follow.signal(Signal::INT);
    let finished = follow.wait(DEADLINE);
    assert_eq!(finished.code(), 0, "{finished}");
    assert_eq!(finished.stdout.lines().count(), 5, "{finished}");
}

#[test]
fn follow_on_a_terminal_says_when_nothing_comes_any_more() {
    let (kafka, _) = published();
    let servers = kafka.cluster.bootstrap_servers();
    let args = ["totals", "--follow", "--bootstrap-servers", &servers];
    let mut follow = OnTerminal::start(&mut tally99(args));
    follow.wait_for("Cut 7, complete");
    follow.wait_for(" of 201 campaigns, by net in CNY.");
    follow.wait_for("No newer cut for over 10 s");
    follow.signal(Signal::INT);
    assert_eq!(follow.wait(), Some(0));
}

/// On a real broker, which goes away in the middle.
#[test]
fn follow_goes_on_when_its_broker_comes_back() {
    let kafka = crate::kafka::Kafka::own(1);
    kafka.create_topic("campaign-totals", 2, &[("cleanup.policy", "compact")]);
    kafka.create_topic("cuts", 1, &[]);
    let publish = |cut: u64| {
        let totals = [total("免费午餐", cut, i128::from(cut) * 100)];
        let value = serde_json::to_vec(&totals[0]).unwrap();
        kafka.produce("campaign-totals", [(1, "免费午餐", value)]);
        let value = serde_json::to_vec(&complete(cut, &totals)).unwrap();
        kafka.produce("cuts", [(0, "1", value)]);
    };
    publish(1);
    let mut follow = Running::start(&mut tally99([
        "totals",
        "--follow",
        "--bootstrap-servers",
        kafka.bootstrap(),
    ]));
    follow.wait_for_output(DEADLINE, "¥1.00 net CNY\n");
    kafka.kill_broker(1);
    follow.wait_for_output(DEADLINE, "no Kafka broker answers (");
    kafka.start_broker(1);
    publish(2);
    follow.wait_for_output(DEADLINE, "top: 免费午餐 ¥2.00 net CNY\n");
    follow.wait_for_output(DEADLINE, "Kafka answers again");
    follow.signal(Signal::TERM);
    assert_eq!(follow.wait(DEADLINE).code(), 0);
}

/// `run` and `totals` with the same flags, on a real broker: what was published
/// adds up to what was given, counted here by hand.
#[test]
fn what_run_publishes_compares_equal() {
    let kafka = crate::kafka::Kafka::shared();
    let donations = kafka.new_topic("donations", 3);
    let names = ["totals", "cuts", "windows", "dead"].map(crate::kafka::unique);
    let group = crate::kafka::unique("group");
    let flags = [
        ["--bootstrap-servers", kafka.bootstrap()],
        ["--topic", &donations],
        ["--group", &group],
        ["--totals-topic", &names[0]],
        ["--cuts-topic", &names[1]],
        ["--windows-topic", &names[2]],
        ["--dead-letters-topic", &names[3]],
    ]
    .concat();

    let campaigns = ["免费午餐", "Clean water", "大病救助"];
    let mut wanted = Expected::default();
    let mut records: Vec<(i32, String, String)> = Vec::new();
    for i in 0..3_000_i64 {
        let (campaign, partition) = (campaigns[i as usize % 3], (i % 7 % 3) as i32);
        let (at_ms, amount) = (FIRST_MS + i * 10, 100 + i);
        let event = format!(
            r#"{{"id":"e{i}","campaign":"{campaign}","donor":"d{}","amount":{amount},"currency":"CNY","at":{at_ms}}}"#,
            i % 700
        );
        records.push((partition, format!("e{i}"), event.clone()));
        wanted.events += 1;
        if i % 100 == 0 {
            records.push((partition, format!("e{i}"), event));
            wanted.events += 1;
            wanted.duplicates += 1;
        }
        let sums = wanted
            .campaigns
            .entry(campaign.into())
            .or_insert_with(|| ExpectedCampaign {
                first_at_ms: at_ms,
                ..ExpectedCampaign::default()
            });
        sums.events += 1;
        sums.gifts += 1;
        sums.last_at_ms = at_ms;
        for money in [&mut sums.money, &mut wanted.money] {
            let money = money.entry(Currency::parse("CNY").unwrap()).or_default();
            money.gross += i128::from(amount);
            money.net += i128::from(amount);
        }
        wanted.gifts += 1;
    }
    records.push((1, "bad".into(), "{".into()));
    wanted.events += 1;
    wanted.dead_letters = 1;
    wanted.donors = 700;
    kafka.produce(&donations, records);

    process::run(tally99(["run", "--until-end"]).args(&flags), DEADLINE).succeeded();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("expected.json");
    std::fs::write(&file, serde_json::to_vec(&wanted).unwrap()).unwrap();
    let (code, out, err) = run(tally99(["totals"]).args(&flags).arg("--compare").arg(&file));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.starts_with("equal: 3 campaigns, 3,031 events, donors estimated as "),
        "{out}"
    );
    let (_, table, _) = run(tally99(["totals"]).args(&flags));
    assert!(
        table.contains("\n3,031 events: 30 repeats, 1 dead letters; "),
        "{table}"
    );
    assert!(
        table.contains("\n1  大病救助     1,000  ¥16,005.00 "),
        "{table}"
    );
}
