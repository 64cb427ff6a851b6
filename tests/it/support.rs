//! What scenarios stand on: a running proxy, a backend that follows a script, and a client of bytes.
//!
//! Nothing here knows what is being tested.

use std::net::SocketAddr;
use std::time::Duration;

use kagent_proxy::app::{App, Bound};
use kagent_proxy::config::{Config, RouteConfig, RouteTarget, Scheme, Sources, Target};
use kagent_proxy::drain::{Phase, Trigger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

pub(crate) mod frames;
#[cfg(feature = "traces")]
pub(crate) mod receiver;
pub(crate) mod replicas;

/// A request of the route of [`start`], and a response; those of a connection that ends with them.
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
pub(crate) const LAST_GET: &str =
    "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(crate) const LAST_OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// Nothing in these tests takes longer; a scenario that does has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// A proxy that runs, and is ended and checked by [`TestProxy::stop`].
pub(crate) struct TestProxy {
    pub(crate) address: SocketAddr,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    /// Where everything is shown.
    pub(crate) local: SocketAddr,
    trigger: Trigger,
    running: JoinHandle<bool>,
}

/// A route from a host to loopback ports.
pub(crate) fn route(host: &str, prefix: &str, scheme: Scheme, ports: &[u16]) -> RouteConfig {
    let targets =
        ports.iter().map(|&port| Target { scheme, host: "127.0.0.1".to_owned(), port }).collect();
    let to = RouteTarget::new(targets);
    RouteConfig { host: host.to_owned(), prefix: prefix.to_owned(), to }
}

/// A configuration with these routes, on free ports, that drains without lag.
pub(crate) fn config(routes: Vec<RouteConfig>) -> Config {
    let mut config = Config { routes, ..Config::sidecar() };
    config.listeners[0].address.set_port(0);
    config.admin.address.set_port(0);
    config.admin.local.set_port(0);
    config.drain.lag = Duration::ZERO;
    config.drain.deadline = BOUND;
    config
}

/// A configuration in which `s.ns` is this backend.
pub(crate) fn before(backend: &Backend) -> Config {
    config(vec![route("s.ns", "/", Scheme::Http, &[backend.port()])])
}

/// A proxy, and the backend that is `s.ns` there.
pub(crate) async fn start() -> (TestProxy, Backend) {
    start_with(|_| {}).await
}

/// The same, configured otherwise.
pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> (TestProxy, Backend) {
    let backend = Backend::start().await;
    (TestProxy::to_with(&backend, change).await, backend)
}

impl TestProxy {
    /// One where `s.ns` is this backend, configured otherwise.
    pub(crate) async fn to_with(backend: &Backend, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = before(backend);
        change(&mut config);
        Self::start(config).await
    }

    pub(crate) async fn start(config: Config) -> Self {
        // Boxed: a configuration is large, and every scenario would carry it.
        Self::run(Box::pin(App::build(config, &Sources::default())).await.unwrap())
    }

    pub(crate) fn run(bound: Bound) -> Self {
        let (addresses, trigger) = (bound.addresses.clone(), bound.trigger());
        let (admin, local) = (bound.admin_address, bound.admin_local);
        let address = addresses[0];
        Self { address, addresses, admin, local, trigger, running: tokio::spawn(bound.run()) }
    }

    /// What the program says of a configuration it cannot start with.
    pub(crate) async fn refused(config: Config) -> String {
        let built = Box::pin(App::build(config, &Sources::default())).await;
        built.err().expect("it must not start").to_string()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// One request on a connection of its own; the whole answer as text.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }

    /// A GET of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut client = Client(TcpStream::connect(self.local).await.unwrap());
        let host = self.local;
        client
            .send(&format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
            .await;
        client.rest().await
    }

    pub(crate) fn drain(&self) {
        self.trigger.advance(Phase::Draining);
    }

    /// What a drain comes to behind its lag: nothing is accepted any more, and a session's own stream ends.
    pub(crate) fn close(&self) {
        self.trigger.advance(Phase::Closing);
    }

    /// Drains; the program must end by itself, with everything finished.
    pub(crate) async fn stop(self) {
        self.drain();
        let finished = tokio::time::timeout(BOUND, self.running).await.unwrap().unwrap();
        assert!(finished, "something was still open at the deadline");
    }
}

/// A connection of raw bytes, from either side.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn send(&mut self, bytes: &str) {
        self.send_bytes(bytes.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads until `end` has come, and returns everything up to it and what came with it.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        // For all of it: comments may go on for ever.
        let until = tokio::time::Instant::now() + BOUND;
        while !String::from_utf8_lossy(&all).contains(end) {
            let mut some = [0; 1024];
            let read = tokio::time::timeout_at(until, self.0.read(&mut some)).await;
            let seen = || String::from_utf8_lossy(&all).into_owned();
            let read = read.unwrap_or_else(|_| panic!("no {end:?} in {:?}", seen())).unwrap();
            assert_ne!(read, 0, "closed before {end:?}: {:?}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&some[..read]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Reads to the end of the connection; a reset counts as an end.
    pub(crate) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let _reset_is_an_end_too =
            tokio::time::timeout(BOUND, self.0.read_to_end(&mut all)).await.expect("no end");
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// A listener whose connections the scenario plays by hand.
pub(crate) struct Backend(TcpListener);

impl Backend {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) async fn accept(&self) -> Client {
        let accepted = tokio::time::timeout(BOUND, self.0.accept()).await.expect("no call");
        let stream = accepted.unwrap().0;
        // What is written last must not be waiting in the kernel when the connection is closed.
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// Takes one call whose head ends the message, answers with these bytes, returns the head.
    pub(crate) async fn answer(&self, bytes: &str) -> String {
        let mut call = self.accept().await;
        let head = call.until("\r\n\r\n").await;
        call.send(bytes).await;
        head
    }
}

/// A port on which nobody listens yet: it refuses connections, and no other test can take it.
pub(crate) struct Vacant(TcpSocket);

impl Vacant {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) fn listen(self) -> Backend {
        Backend(self.0.listen(64).unwrap())
    }
}

/// Waits until the admin listener answers a path with this text.
pub(crate) async fn shows(proxy: &TestProxy, path: &str, text: &str) -> String {
    let shown = async {
        loop {
            let answer = proxy.admin(path).await;
            if answer.contains(text) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // between two looks
        }
    };
    let found = tokio::time::timeout(BOUND, shown).await;
    match found {
        Ok(answer) => answer,
        Err(_) => panic!("{path} never shows {text:?}: {}", proxy.admin(path).await),
    }
}

/// Waits until this many requests wait.
pub(crate) async fn held(proxy: &TestProxy, count: usize) {
    shows(proxy, "/metrics", &format!("kagent_proxy_held_requests {count}\n")).await;
}
