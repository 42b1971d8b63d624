//! What checkpoints rest on: the `object_store` crate against a real S3 server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};

use crate::kafka::unique;
use crate::s3::{S3, block_on};
use crate::wait::{SOON, wait_until};

/// An object's name that no other test has.
fn name() -> Path {
    Path::from(unique("store"))
}

fn built(client: AmazonS3Builder) -> AmazonS3 {
    client.build().expect("valid settings")
}

/// A client that waits no longer than this for an answer, and tries once.
fn impatient(s3: &S3, timeout: Duration) -> AmazonS3 {
    let options = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(timeout);
    let once = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    built(s3.client().with_client_options(options).with_retry(once))
}

async fn create(store: &AmazonS3, name: &Path, bytes: &[u8]) -> Result<(), Error> {
    let payload = PutPayload::from(bytes.to_vec());
    let put = store.put_opts(name, payload, PutMode::Create.into()).await;
    put.map(drop)
}

async fn read(store: &AmazonS3, name: &Path) -> Result<Vec<u8>, Error> {
    Ok(store.get(name).await?.bytes().await?.to_vec())
}

#[test]
fn what_exists_is_not_created_again() {
    let store = built(S3::shared().client());
    block_on(async {
        let name = name();
        create(&store, &name, b"first").await.expect("a new object");
        let again = create(&store, &name, b"second").await;
        assert!(
            matches!(again, Err(Error::AlreadyExists { .. })),
            "{again:?}"
        );
        assert_eq!(read(&store, &name).await.expect("it exists"), b"first");

        store.delete(&name).await.expect("deleted");
        let gone = read(&store, &name).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
        let twice = store.delete(&name).await;
        twice.expect("to delete what is gone is no error");
        create(&store, &name, b"third").await.expect("free again");
    });
}

#[test]
fn a_url_and_the_environment_are_all_it_takes() {
    let s3 = S3::shared();
    let url = s3.new_url("store").parse().expect("a URL");
    s3.client(); // it chooses the process's cryptography
    let (store, prefix) = object_store::parse_url_opts(&url, s3.env()).expect("valid settings");
    block_on(async {
        let name = prefix.clone().join("object");
        let put = store.put(&name, "of this prefix".into()).await;
        put.expect("written");
        let listed: Vec<_> = store
            .list(Some(&prefix))
            .try_collect()
            .await
            .expect("listed");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location, name);
    });
}

#[test]
fn all_objects_of_a_prefix_are_listed() {
    const COUNT: usize = 2500; // more than two pages of S3's
    let store = built(S3::shared().client());
    block_on(async {
        let (prefix, other) = (name(), name().join("object"));
        create(&store, &other, b"not ours").await.expect("created");
        let names: Vec<_> = (0..COUNT)
            .map(|number| prefix.clone().join(format!("{number:04}")))
            .collect();
        stream::iter(&names)
            .map(|name| create(&store, name, b"one of many"))
            .buffer_unordered(16)
            .try_collect::<()>()
            .await
            .expect("created");
        let list = || store.list(Some(&prefix)).map_ok(|object| object.location);
        let listed: Vec<_> = list().try_collect().await.expect("listed");
        assert!(listed == names, "{} of {COUNT} listed", listed.len());

        let deleted = store.delete_stream(list().boxed()).count().await;
        assert_eq!(deleted, COUNT);
        assert_eq!(list().count().await, 0);
        let other = read(&store, &other).await;
        assert_eq!(other.expect("still there"), b"not ours");
    });
}

#[test]
fn a_big_object_comes_back_as_it_was() {
    let store = built(S3::shared().client());
    let bytes: Vec<u8> = (0..10u32 << 20).flat_map(u32::to_le_bytes).collect();
    block_on(async {
        let name = name();
        create(&store, &name, &bytes).await.expect("created");
        let size = store.head(&name).await.expect("it exists").size;
        assert_eq!(size, bytes.len() as u64);
        let read = read(&store, &name).await.expect("it exists");
        assert!(read == bytes, "{} bytes read that differ", read.len());
    });
}

#[test]
fn a_wrong_secret_is_refused() {
    let client = S3::shared().client();
    let store = built(client.with_secret_access_key("of somebody else"));
    let refused = block_on(create(&store, &name(), b"forged"));
    assert!(
        matches!(refused, Err(Error::PermissionDenied { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_server_comes_back_with_its_data() {
    let mut s3 = S3::own();
    let store = impatient(&s3, SOON);
    block_on(async {
        let name = name();
        create(&store, &name, b"kept").await.expect("created");
        s3.stop();
        let refused = read(&store, &name).await;
        assert!(matches!(refused, Err(Error::Generic { .. })), "{refused:?}");
        s3.start();
        assert_eq!(read(&store, &name).await.expect("it exists"), b"kept");
        let again = create(&store, &name, b"anew").await;
        assert!(
            matches!(again, Err(Error::AlreadyExists { .. })),
            "{again:?}"
        );
    });
}

#[test]
fn a_put_that_ran_out_of_time_may_have_succeeded() {
    let mut s3 = S3::own();
    let hasty = impatient(&s3, Duration::from_secs(3));
    let patient = impatient(&s3, SOON);
    let name = name();
    s3.freeze();
    let late = block_on(create(&hasty, &name, b"late"));
    assert!(matches!(late, Err(Error::Generic { .. })), "{late:?}");
    s3.thaw();
    wait_until(SOON, "the server has done what it was asked", || {
        block_on(patient.head(&name)).is_ok()
    });
    let again = block_on(create(&patient, &name, b"late"));
    assert!(
        matches!(again, Err(Error::AlreadyExists { .. })),
        "{again:?}"
    );
    assert_eq!(block_on(read(&patient, &name)).expect("it exists"), b"late");
}

/// Whoever finds its own object there has to read it: the first try wrote it, its
/// answer was lost on the way, and the client tried again by itself.
#[test]
fn a_put_whose_answer_was_lost_says_that_the_object_exists() {
    let s3 = S3::shared();
    let (endpoint, relay) = lose_the_first_answer(s3.endpoint().to_owned());
    let through = built(s3.client().with_endpoint(endpoint));
    let name = name();
    let put = block_on(create(&through, &name, b"once"));
    assert!(matches!(put, Err(Error::AlreadyExists { .. })), "{put:?}");
    relay.join().expect("two requests relayed");
    let direct = built(s3.client());
    assert_eq!(block_on(read(&direct, &name)).expect("it exists"), b"once");
}

/// Relays two connections with one request each: waits for the answer to the
/// first and drops it, hands on the one to the second.
fn lose_the_first_answer(server: String) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = server.trim_start_matches("http://").to_owned();
    let relay = std::thread::spawn(move || {
        for answers in [false, true] {
            let (mut client, _) = listener.accept().expect("a client");
            let request = read_request(&client);
            let mut upstream = TcpStream::connect(&server).expect("the server listens");
            upstream.write_all(&request).expect("relayed");
            upstream.shutdown(Shutdown::Write).expect("connected");
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).expect("an answer");
            if answers {
                client.write_all(&answer).expect("relayed");
            }
        }
    });
    (format!("http://{address}"), relay)
}

/// One HTTP request, whose body is as long as its head says.
fn read_request(client: &TcpStream) -> Vec<u8> {
    let mut client = BufReader::new(client);
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        client.read_line(&mut line).expect("a line of the head");
        request.extend_from_slice(line.as_bytes());
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let head = request.len();
    request.resize(head + length, 0);
    client.read_exact(&mut request[head..]).expect("the body");
    request
}
