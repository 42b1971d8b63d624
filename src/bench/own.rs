//! What a bench makes for itself, and takes away again: topics, a group, a folder for
//! checkpoints.
//!
//! Names are noted before anything is made by them, so whatever ends the bench (but a kill, or
//! the second signal) ends with all of it deleted, or named with the way to delete it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Error;
use super::args::BenchSettings;
use crate::config::Config;
use crate::generate::KafkaSinkError;
use crate::kafka::client::{self, Context, Health};
use crate::kafka::{clock, topics};

/// How long brokers may take to answer at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long deleting may take. The member of a process that was killed is in the group until
/// its session ends.
const DELETE_WITHIN: Duration = Duration::from_secs(20);

/// What is ours, and the way to ask brokers.
pub(super) struct Own {
    /// The settings of this bench, with a group of its own.
    config: Config,
    admin: AdminClient<Context>,
    /// For questions: a client that is polled hears why brokers cannot be reached.
    asker: BaseConsumer<Context>,
    health: Arc<Health>,
    runtime: tokio::runtime::Runtime,
    /// What all names begin with.
    name: String,
    topics: Vec<String>,
    has_group: bool,
    has_folder: bool,
    folder: PathBuf,
    /// How many configurations were handed out.
    runs: u32,
}

impl Own {
    /// Names that nobody has, on these brokers. Nothing is made yet.
    pub fn new(config: &Config, settings: &BenchSettings) -> Result<Own, Error> {
        let name = format!(
            "{}-{:x}-{:x}",
            settings.prefix,
            clock::now_ms() & 0xff_ffff_ffff,
            std::process::id()
        );
        let mut config = config.clone();
        config.kafka.group = name.clone();
        config.kafka.group_instance_id = None;
        config.run.wait_for_topic = false;
        config.run.epoch = 1;
        config.topics.create = true;
        let health = Arc::new(Health::default());
        let runtime = tokio::runtime::Builder::new_current_thread();
        let folder = settings.folder.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Own {
            admin: client::admin(&config.kafka, &health)?,
            asker: client::reader(&config.kafka).create_with_context(Context {
                health: health.clone(),
            })?,
            health,
            runtime: { runtime }.build()?,
            folder: std::path::absolute(&folder)?.join(&name),
            name,
            config,
            topics: Vec::new(),
            has_group: false,
            has_folder: false,
            runs: 0,
        })
    }

    /// Makes the folder for checkpoints.
    pub fn make_folder(&mut self) -> Result<(), Error> {
        fs::create_dir(&self.folder).map_err(|source| Error::File {
            what: "checkpoints cannot be kept there; see --folder: cannot make",
            path: self.folder.clone(),
            source,
        })?;
        self.has_folder = true;
        Ok(())
    }

    /// What all names begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to reach the brokers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration of one run over this topic: with fresh topics for what it emits and
    /// a fresh place for checkpoints, since a run goes on from what is there.
    pub fn run_over(&mut self, donations: &str) -> Result<Config, Error> {
        self.runs += 1;
        let mut config = self.config.clone();
        let topic = |which: &str| format!("{}-{}-{which}", self.name, self.runs);
        config.topics.donations = donations.to_owned();
        // Not every broker may know of it yet, if it was just made.
        config.run.wait_for_topic = self.topics.iter().any(|own| own == donations);
        config.topics.totals = topic("totals");
        config.topics.cuts = topic("cuts");
        config.topics.windows = topic("windows");
        config.topics.dead_letters = topic("dead-letters");
        self.topics.extend(emitted(&config));
        self.has_group = true;
        let checkpoints = self.folder.join(format!("checkpoints-{}", self.runs));
        fs::create_dir_all(&checkpoints)?;
        config.checkpoints.url = Some(format!("file://{}", checkpoints.display()));
        Ok(config)
    }

    /// Makes a topic for events, as one would for production: stamped by the brokers.
    pub fn make_donations(&mut self, partitions: i32) -> Result<String, Error> {
        self.runs += 1;
        let topic = format!("{}-{}-donations", self.name, self.runs);
        // It says so when no broker answers, which making a topic does not.
        self.ask(&topic, || topics::partitions(self.client(), &topic))?;
        self.topics.push(topic.clone());
        let replication = self.config.topics.replication;
        let settings = [("message.timestamp.type", "LogAppendTime")];
        let partitions = partitions.unsigned_abs() as usize;
        let made = topics::make(&self.admin, &topic, partitions, replication, &settings);
        self.runtime.block_on(made).map_err(|error| {
            Error::Refused(match self.advice(&error, &topic) {
                Some(advice) => advice,
                None => format!(
                    "topic {topic} cannot be made: {error}. A topic of yours can be read with \
                     --topic"
                ),
            })
        })?;
        let since = Instant::now();
        while self.ask(&topic, || topics::partitions(self.client(), &topic))? != Some(partitions) {
            if since.elapsed() >= ANSWER_WITHIN {
                return Err(KafkaSinkError::NotReady { topic }.into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(topic)
    }

    /// The client for questions.
    pub fn client(&self) -> &Client<Context> {
        self.asker.client()
    }

    /// How many brokers there are, if they say so now.
    pub fn count_brokers(&self) -> Option<usize> {
        let metadata = self.client().fetch_metadata(None, ANSWER_WITHIN);
        Some(metadata.ok()?.brokers().len())
    }

    /// The client for questions about settings.
    pub fn admin(&self) -> &AdminClient<Context> {
        &self.admin
    }

    /// Waits for something that a client does.
    pub fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Asks until there is an answer, or it is clear that there will be none.
    pub fn ask<T>(
        &self,
        topic: &str,
        question: impl Fn() -> Result<T, KafkaError>,
    ) -> Result<T, Error> {
        let since = Instant::now();
        loop {
            let error = match question() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // That nobody has answered says little; this tells why.
            let heard = self.asker.poll(Duration::from_millis(200));
            let heard = heard.and_then(Result::err);
            let kafka = &self.config.kafka;
            let errors = [Some(&error), heard.as_ref()].into_iter().flatten();
            let advice = |error| self.advice(error, topic);
            if let Some(advice) = { errors }.find_map(advice) {
                return Err(Error::Refused(advice));
            }
            if !self.health.note(&error) {
                return Err(error.into());
            }
            if since.elapsed() >= ANSWER_WITHIN {
                let why = match self.health.last_failure() {
                    why if why.is_empty() => error.to_string(),
                    why => why,
                };
                return Err(Error::NoBroker(kafka.bootstrap_servers.clone(), why));
            }
        }
    }

    /// What to do about an error that does not go away by itself. `run` needs another thing.
    fn advice(&self, error: &KafkaError, topic: &str) -> Option<String> {
        let is_own = topic.starts_with(&self.name);
        match error.rdkafka_error_code()? {
            RDKafkaErrorCode::TopicAuthorizationFailed if is_own => Some(format!(
                "no permission for topic {topic}, which is to be made and deleted again: grant \
                 CREATE, DESCRIBE, READ, WRITE and DELETE on topics of this prefix to this user, \
                 or set another one with --prefix; `bench raw --topic` needs no topics of its own"
            )),
            RDKafkaErrorCode::TopicAuthorizationFailed => Some(format!(
                "no permission for topic {topic}: grant READ and DESCRIBE on it to this user"
            )),
            _ => client::advice(error, topic, &self.config.kafka.group),
        }
    }

    /// Deletes what a run emitted, and its checkpoints: disks are not endless.
    pub fn forget(&mut self, config: &Config) {
        self.delete(&emitted(config)); // What fails is tried again at the end.
        if let Some(url) = &config.checkpoints.url {
            let _ = fs::remove_dir_all(url.trim_start_matches("file://"));
        }
    }

    /// Deletes a topic of events of our own.
    pub fn forget_donations(&mut self, topic: &str) {
        if self.topics.iter().any(|own| own == topic) {
            self.delete(&[topic.to_owned()]);
        }
    }

    /// Deletes these topics; what could not be deleted stays noted, and why.
    fn delete(&mut self, topics: &[String]) -> Option<String> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        if names.is_empty() {
            return None;
        }
        let options = AdminOptions::new()
            .operation_timeout(Some(DELETE_WITHIN))
            .request_timeout(Some(DELETE_WITHIN));
        let deleted = self
            .runtime
            .block_on(self.admin.delete_topics(&names, &options));
        let results = match deleted {
            Ok(results) => results,
            Err(error) => return Some(error.to_string()),
        };
        let mut why = None;
        for result in results {
            match result {
                Ok(name) => self.topics.retain(|topic| *topic != name),
                Err((name, RDKafkaErrorCode::UnknownTopicOrPartition)) => {
                    self.topics.retain(|topic| *topic != name); // It never was.
                }
                Err((_, code)) => why = Some(code.to_string()),
            }
        }
        why
    }

    fn delete_group(&self) -> Result<(), String> {
        let since = Instant::now();
        let options = AdminOptions::new().request_timeout(Some(DELETE_WITHIN));
        loop {
            let group = [self.name.as_str()];
            let deleted = self
                .runtime
                .block_on(self.admin.delete_groups(&group, &options));
            let code = match deleted.map(|mut results| results.pop()) {
                Ok(None | Some(Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)))) => {
                    return Ok(());
                }
                Ok(Some(Err((_, code)))) => code.to_string(),
                Err(error) => error.to_string(),
            };
            if since.elapsed() >= DELETE_WITHIN {
                return Err(code);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Deletes all that is left. What cannot be deleted is named.
    fn clean_up(&mut self) {
        let mut is_deleted = true;
        let servers = self.config.kafka.bootstrap_servers.clone();
        let topics = self.topics.clone();
        if let Some(why) = self.delete(&topics) {
            let left = self.topics.join(",");
            is_deleted = false;
            tracing::warn!(
                "these topics could not be deleted: {why}. Delete them with: kafka-topics.sh \
                 --bootstrap-server {servers} --delete --topic '{left}'"
            );
        }
        if std::mem::take(&mut self.has_group)
            && let Err(why) = self.delete_group()
        {
            is_deleted = false;
            tracing::warn!(
                "group {0} could not be deleted: {why}. Delete it with: \
                 kafka-consumer-groups.sh --bootstrap-server {servers} --delete --group {0}",
                self.name
            );
        }
        let is_used = self.has_folder || self.runs > 0;
        if std::mem::take(&mut self.has_folder)
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            is_deleted = false;
            tracing::warn!("cannot delete {}: {error}", self.folder.display());
        }
        if is_used && is_deleted {
            tracing::info!("what was made is deleted");
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.clean_up();
    }
}

fn emitted(config: &Config) -> Vec<String> {
    let topics = &config.topics;
    [
        &topics.totals,
        &topics.cuts,
        &topics.windows,
        &topics.dead_letters,
    ]
    .map(String::clone)
    .into()
}
