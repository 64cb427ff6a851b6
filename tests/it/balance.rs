//! Which of several endpoints a call goes to.

use std::net::SocketAddr;

use kagent_proxy::config::{Scheme, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{BOUND, Backend, Client, GET, TestProxy, config, route};

#[tokio::test]
async fn open_streams_spread_over_two_endpoints_one_by_one() {
    let (a, b) = (Backend::start().await, Backend::start().await);
    let routes = vec![route("s.ns", "/", Scheme::Http, &[a.port(), b.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let mut streams = Vec::new();
    let mut counts = [0_usize, 0];
    for _ in 0..10 {
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let (at, mut call) = tokio::select! {
            call = a.accept() => (0, call),
            call = b.accept() => (1, call),
        };
        counts[at] += 1;
        call.until("\r\n\r\n").await;
        call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        // With two endpoints both are always compared, so the counts can differ by one only.
        assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
        streams.push((client, call));
    }
    drop(streams);
    proxy.stop().await;
}

/// A listener whose queue is full: the kernel drops what else wants to connect, as a node that is gone
/// does.
async fn black_hole() -> (u16, tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, listener, queued) = fill(socket).await;
    (address.port(), listener, queued)
}

/// Connects to this socket, which accepts nobody, until the kernel answers no more.
async fn fill(
    socket: tokio::net::TcpSocket,
) -> (SocketAddr, tokio::net::TcpListener, Vec<tokio::net::TcpStream>) {
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let brief = std::time::Duration::from_millis(200);
    while let Ok(stream) =
        tokio::time::timeout(brief, tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream.unwrap());
    }
    (address, listener, queued)
}

#[tokio::test]
async fn an_endpoint_that_swallows_connections_is_overtaken_and_left_out() {
    let (dead, _listener, _queued) = black_hole().await;
    overtaken(("127.0.0.1", dead)).await;
}

#[tokio::test]
async fn a_dead_ipv6_address_is_overtaken_by_a_live_ipv4_one() {
    let socket = tokio::net::TcpSocket::new_v6().unwrap();
    // A machine without IPv6 has no such address to be wrong about.
    if socket.bind("[::1]:0".parse().unwrap()).is_err() {
        return;
    }
    let (dead, _listener, _queued) = fill(socket).await;
    overtaken(("::1", dead.port())).await;
}

/// Calls go through beside an address that swallows connections, also those that tried it first, and it
/// is left out in the end.
async fn overtaken((dead, port): (&str, u16)) {
    let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let live = alive.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let mut stream = alive.accept().await.unwrap().0;
            let mut head = [0; 1024];
            let _read = stream.read(&mut head).await;
            let close = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            stream.write_all(close).await.unwrap();
        }
    });
    let mut route = route("s.ns", "/", Scheme::Http, &[]);
    let target = |host: &str, port| Target { scheme: Scheme::Http, host: host.to_owned(), port };
    route.to.targets = vec![target(dead, port), target("127.0.0.1", live)];
    // What waited for it would fail.
    route.to.timeouts.connect = BOUND;
    let proxy = TestProxy::start(config(vec![route])).await;
    let ejected = async {
        loop {
            let mut client: Client = proxy.connect().await;
            client.send(GET).await;
            client.until("\r\n\r\nok").await;
            let routes = proxy.admin("/routes").await;
            if routes.contains("\"ejected\":true") {
                return;
            }
        }
    };
    tokio::time::timeout(BOUND, ejected).await.expect("it is never left out");
    proxy.stop().await;
    serving.abort();
}

#[tokio::test]
async fn a_dial_that_nobody_answers_is_held_too_and_ends_with_the_hold() {
    let (dead, _listener, _queued) = black_hole().await;
    let mut route = route("s.ns", "/", Scheme::Http, &[dead]);
    route.to.timeouts.connect = std::time::Duration::from_millis(100);
    route.to.hold.request = std::time::Duration::from_millis(400);
    let proxy = TestProxy::start(config(vec![route])).await;
    let before = std::time::Instant::now();
    let answer = proxy.ask(&GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 504 connect_timeout"), "{answer}");
    // Not a matter of speed: before the hold is over it must not give up.
    assert!(before.elapsed() >= std::time::Duration::from_millis(400));
    proxy.stop().await;
}
