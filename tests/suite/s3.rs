//! A real S3 server for the tests.
//!
//! It comes from `scripts/s3 attach` and lives no longer than this process,
//! however it ends, as brokers do (see [`crate::kafka`]). What a test does to the
//! server goes to the script as a line, and the script answers when it is done.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use object_store::aws::AmazonS3Builder;

use crate::kafka::unique;

/// What starts and stops the server.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3");

/// One server with one bucket. Dropped, it is stopped and its data is deleted.
pub struct S3 {
    attached: Child,
    answers: BufReader<ChildStdout>,
    endpoint: String,
    bucket: String,
    dir: PathBuf,
}

impl S3 {
    /// The server that the tests of this process share: take a prefix of your own.
    pub fn shared() -> &'static S3 {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(S3::own)
    }

    /// A server of your own, to stop and start.
    pub fn own() -> S3 {
        let mut attached = Command::new(SCRIPT)
            .arg("attach")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/s3 runs");
        let answers = BufReader::new(attached.stdout.take().expect("piped"));
        let mut s3 = S3 {
            attached,
            answers,
            endpoint: String::new(),
            bucket: String::new(),
            dir: PathBuf::new(),
        };
        let ready = s3.answer("READY ");
        let mut words = ready.split(' ').map(str::to_owned);
        let mut word = || words.next().expect("an endpoint, a bucket and a folder");
        (s3.endpoint, s3.bucket, s3.dir) = (word(), word(), word().into());
        s3
    }

    /// `http://host:port`
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `s3://bucket/prefix`, with a prefix that no other test has.
    pub fn new_url(&self, hint: &str) -> String {
        format!("s3://{}/{}", self.bucket, unique(hint))
    }

    /// For chaos: the folder in which the server has the objects of a [URL](S3::new_url), by their
    /// names.
    #[allow(dead_code)]
    pub fn folder_of(&self, url: &str) -> PathBuf {
        let path = url.strip_prefix("s3://").expect("one of its own");
        self.dir.join("data").join(path)
    }

    /// The environment in which a program finds this server.
    pub fn env(&self) -> [(&'static str, &str); 5] {
        [
            ("AWS_ENDPOINT", &self.endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "tally99"),
            ("AWS_SECRET_ACCESS_KEY", "tally99-secret"),
        ]
    }

    /// A client of the bucket, with the settings that [`S3::env`] gives.
    pub fn client(&self) -> AmazonS3Builder {
        // A client panics where a process has not chosen its cryptography, even
        // for plain HTTP. The second one to choose is told so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = AmazonS3Builder::new().with_bucket_name(&self.bucket);
        self.env().iter().fold(builder, |builder, (name, value)| {
            let key = name.to_lowercase().parse().expect("a setting of the store");
            builder.with_config(key, *value)
        })
    }

    /// Ends the server at once: whoever connects is refused.
    pub fn stop(&mut self) {
        self.tell("stop", "STOPPED");
    }

    /// Starts it again with the port and the data that it had.
    pub fn start(&mut self) {
        self.tell("start", "READY ");
    }

    /// Stops it in mid-air: whoever connects waits for an answer.
    pub fn freeze(&mut self) {
        self.tell("freeze", "FROZEN");
    }

    /// Lets it go on, and so answer what has come meanwhile.
    pub fn thaw(&mut self) {
        self.tell("thaw", "THAWED");
    }

    fn tell(&mut self, what: &str, expected: &str) {
        let input = self.attached.stdin.as_mut().expect("piped");
        writeln!(input, "{what}").expect("the script listens");
        self.answer(expected);
    }

    /// The rest of the script's next line. The script has its own deadline, and
    /// closes its output when it fails.
    fn answer(&mut self, expected: &str) -> String {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the script's output is text");
        let Some(rest) = line.trim_end().strip_prefix(expected) else {
            panic!("no {expected} but {line:?}: see the output of scripts/s3 attach above");
        };
        rest.to_owned()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.attached.stdin.take());
        let _ = self.attached.wait();
    }
}

/// What is asked of a store, to its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}
