//! A relay in front of one broker, or of the store: the link that a test can cut, freeze or slow
//! down, for all clients or for those of one process, and restore.
//!
//! What is cut keeps its port: connections are taken and closed at once, since a
//! port that is given up may be gone when it is wanted back. What is frozen keeps
//! the bytes that are under way and passes them on later, even to a broker that
//! has long heard of others: as networks do at their worst.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// What the link does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Passes them on.
    Open,
    /// Connections are dropped, and no new one is let through.
    Cut,
    /// Connections stand, and nothing passes: a cable pulled out.
    Frozen,
    /// Every piece that passes comes so much later.
    Slow(Duration),
}

/// A relay; its threads end with the process.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    link: Link,
    /// Clients with this in their names are concerned: empty, all of them.
    whose: String,
    /// The broker's own port, once it is known.
    target: Option<u16>,
    /// All connections that stand, to drop them.
    connections: Vec<Connection>,
}

struct Connection {
    client: TcpStream,
    broker: TcpStream,
    name: Name,
}

/// What the client calls itself, once it has said so.
type Name = Arc<OnceLock<String>>;

impl State {
    /// What the link does for a client.
    fn link_of(&self, name: &Name) -> Link {
        let said = name.get().map_or("", String::as_str);
        match said.contains(&self.whose) {
            true => self.link,
            false => Link::Open,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a relay panicked")
    }

    /// Waits while nothing passes; how late to pass on, `None` if cut.
    fn pass(&self, name: &Name) -> Option<Duration> {
        let frozen = |state: &mut State| state.link_of(name) == Link::Frozen;
        let state = self.changed.wait_while(self.state(), frozen);
        match state.expect("a relay panicked").link_of(name) {
            Link::Cut => None,
            Link::Slow(by) => Some(by),
            Link::Open | Link::Frozen => Some(Duration::ZERO),
        }
    }
}

impl Proxy {
    /// A relay at a port of its own that goes nowhere yet.
    pub fn new() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = State {
            link: Link::Open,
            whose: String::new(),
            target: None,
            connections: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let relay = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let relay = relay.clone();
                // It may have to wait, and others must not wait for it.
                std::thread::spawn(move || connect(&relay, client));
            }
        });
        Proxy { port, shared }
    }

    /// Where clients come.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Relays to this port of 127.0.0.1 from now on.
    pub fn set_target(&self, port: u16) {
        self.shared.state().target = Some(port);
    }

    /// What the link does from now on, for clients with `whose` in their names,
    /// or with an empty one for all; it is open for the others.
    pub fn set(&self, link: Link, whose: &str) {
        let mut state = self.shared.state();
        (state.link, state.whose) = (link, whose.to_owned());
        for it in &state.connections {
            if state.link_of(&it.name) == Link::Cut {
                close(&it.client, &it.broker);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// An error means that it is closed already.
fn close(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn connect(relay: &Arc<Shared>, client: TcpStream) {
    let name = Name::default();
    if relay.pass(&name).is_none() {
        return;
    }
    let Some(target) = relay.state().target else {
        return;
    };
    // A broker that is down refuses, and so do we by dropping the client.
    let Ok(broker) = TcpStream::connect(("127.0.0.1", target)) else {
        return;
    };
    let clone = |stream: &TcpStream| stream.try_clone().expect("a handle more");
    for stream in [&client, &broker] {
        let _ = stream.set_nodelay(true);
    }
    let mut state = relay.state();
    if state.link_of(&name) == Link::Cut {
        return;
    }
    let stands = |it: &Connection| it.client.peer_addr().is_ok();
    state.connections.retain(stands);
    state.connections.push(Connection {
        client: clone(&client),
        broker: clone(&broker),
        name: name.clone(),
    });
    drop(state);
    let back = (relay.clone(), clone(&broker), clone(&client), name.clone());
    std::thread::spawn(move || pump(&back.0, back.1, back.2, &back.3));
    pump(relay, client, broker, &name);
}

/// Passes on what comes until either side closes, and closes both.
fn pump(relay: &Shared, mut from: TcpStream, mut to: TcpStream, name: &Name) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        // The client speaks first, so this is its first request.
        name.get_or_init(|| client_id(&piece[..length]));
        let Some(later) = relay.pass(name) else { break };
        std::thread::sleep(later);
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    close(&from, &to);
}

/// The client's name in the header of a request of Kafka's protocol: behind its
/// length, kind, version and number, with a length of its own.
fn client_id(request: &[u8]) -> String {
    let length = request.get(12..14).map_or(0, |length| {
        usize::from(u16::from_be_bytes([length[0], length[1]]))
    });
    let name = request.get(14..14 + length).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[test]
fn a_link_is_cut_frozen_slow_and_restored_for_all_or_for_one() {
    let echo = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Proxy::new();
    proxy.set_target(echo.local_addr().expect("it is bound").port());
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("it listens");
        let patience = Some(Duration::from_millis(200));
        stream.set_read_timeout(patience).expect("a timeout");
        stream
    };
    let read = |stream: &mut TcpStream| stream.read_exact(&mut [0; 4]);
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"ping")?;
        read(stream)
    };

    let mut stream = connect();
    ask(&mut stream).expect("an open link passes");
    proxy.set(Link::Frozen, "");
    ask(&mut stream).expect_err("a frozen link passes nothing");
    ask(&mut connect()).expect_err("nor for whoever comes now");
    proxy.set(Link::Open, "");
    read(&mut stream).expect("it was kept");
    proxy.set(Link::Slow(Duration::from_millis(50)), "");
    let begun = std::time::Instant::now();
    ask(&mut stream).expect("slow is not cut");
    assert!(begun.elapsed() >= Duration::from_millis(100), "both ways");
    proxy.set(Link::Cut, "");
    ask(&mut stream).expect_err("a cut link drops connections");
    ask(&mut connect()).expect_err("and lets nobody through");
    proxy.set(Link::Open, "");
    ask(&mut connect()).expect("a restored link passes");

    proxy.set(Link::Cut, "one");
    let request = |name: &str| {
        let length = name.len() as u16;
        [[0; 12].as_slice(), &length.to_be_bytes(), name.as_bytes()].concat()
    };
    for (name, passes) in [("client one", false), ("client two", true)] {
        let mut stream = connect();
        stream.write_all(&request(name)).expect("it takes it");
        assert_eq!(read(&mut stream).is_ok(), passes, "{name}");
    }
}
