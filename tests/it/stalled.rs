//! Clients that stop reading: hyper does not poll their answers any more, and limits hold all the same.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kagent_proxy::config::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{BOUND, Backend, Client, TestProxy, start, start_with};

const LIMIT: Option<Duration> = Some(Duration::from_millis(200));
const GET: &str =
    "GET /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nmcp-session-id: 1\r\n\r\n";
const ENDLESS: &str = "HTTP/1.1 200 OK\r\n\r\n";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Takes a call and answers without end, until its connection is closed.
async fn flood(backend: &Backend) {
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(ENDLESS).await;
    let block = vec![b'x'; 1 << 20];
    let closed = async { while call.0.write_all(&block).await.is_ok() {} };
    tokio::time::timeout(BOUND, closed).await.expect("the backend's connection is still open");
}

/// Counted is in the order of things a little later than closed.
async fn counts(proxy: &TestProxy, words: &str) {
    let counted = async { while !proxy.admin("/metrics").await.contains(words) {} };
    tokio::time::timeout(BOUND, counted).await.unwrap_or_else(|_| panic!("no {words}"));
}

#[tokio::test]
async fn limits_end_an_answer_that_nobody_reads() {
    let limits = |idle, total| Limits { idle, total, ..Limits::default() };
    for (limits, outcome) in
        [(limits(None, LIMIT), "total_timeout"), (limits(LIMIT, None), "idle_timeout")]
    {
        let (proxy, backend) =
            start_with(|config| config.routes[0].to.timeouts.unary = limits).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        flood(&backend).await;
        counts(&proxy, &format!("outcome=\"{outcome}\"}} 1")).await;
        // What was on its way may still be read; the connection is closed behind it.
        assert!(client.rest().await.starts_with("HTTP/1.1 200 OK"));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn limits_end_a_stream_that_nobody_reads_and_leave_its_connection_alone() {
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.timeouts.unary.total = LIMIT).await;
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let request = || {
        let request = http::Request::get(format!("http://{}/", proxy.address));
        request.header("x-kagent-host", "s.ns").body(Empty::<Bytes>::new()).unwrap()
    };
    let (unread, ()) = tokio::join!(sender.send_request(request()), flood(&backend));
    counts(&proxy, "outcome=\"total_timeout\"} 1").await;
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (answer, _) = tokio::join!(sender.send_request(request()), backend.answer(ok));
    let body = answer.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "ok", "on the same connection");
    assert!(unread.unwrap().into_body().collect().await.is_err(), "the stream was reset");
    drop(sender);
    proxy.stop().await;
}

#[tokio::test]
async fn a_drain_leaves_a_session_s_stream_to_a_client_that_reads_on() {
    // More than all buffers between the two ends hold.
    const MANY: usize = 64 << 20;
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut call: Client = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(EVENTS).await;
    let event = format!("data: {}\n\n", "x".repeat(65_528));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len()).repeat(16);
    let events = tokio::spawn(async move {
        let mut sent = 0;
        // The stream may leave in any pause between two events.
        while sent < MANY && call.0.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        call
    });
    client.until("data: ").await;
    // One that reads: when it has ended, the drain has come to the streams.
    let mut reader = proxy.connect().await;
    reader.send(GET).await;
    let mut read: Client = backend.accept().await;
    read.until("\r\n\r\n").await;
    read.send(EVENTS).await;
    read.send("9\r\ndata: 1\n\n\r\n").await;
    reader.until("data: 1").await;
    proxy.drain();
    assert!(reader.rest().await.ends_with("0\r\n\r\n"), "a clean end");
    // Whatever ended with it is counted by now; a connection given up would end its sender.
    counts(&proxy, "outcome=\"drained\"} 1").await;
    assert!(!events.is_finished(), "nobody reads, so nobody may end it");
    assert!(client.rest().await.ends_with("\n\r\n0\r\n\r\n"), "a clean end");
    drop(events.await.unwrap());
    proxy.stop().await;
}
