//! Every end is passed on as what it was.

use std::time::Duration;

use kagent_proxy::config::Scheme;

use crate::support::{BOUND, Backend, Client, TestProxy, config, route, start};

/// What D13 allows between the client's end and the backend's: an event, not a timing.
const WAKE_UP: Duration = Duration::from_secs(1);

const GET: &str = "GET /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    transfer-encoding: chunked\r\n\r\n";

async fn open_stream(proxy: &TestProxy, backend: &Backend) -> (Client, Client) {
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(EVENTS).await;
    client.until("\r\n\r\n").await;
    (client, call)
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_closes_the_backend_s_connection() {
    let (proxy, backend) = start().await;
    let (client, mut call) = open_stream(&proxy, &backend).await;
    drop(client);
    let end = tokio::time::timeout(WAKE_UP, call.rest()).await;
    assert_eq!(end.expect("not within a second"), "", "the backend sees the end");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_waiting_call_closes_the_backend_s_connection() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    drop(client);
    let end = tokio::time::timeout(WAKE_UP, call.rest()).await;
    assert_eq!(end.expect("not within a second"), "", "the backend sees the end");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("outcome=\"client_gone\"} 1"), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_seen_as_an_abort_after_its_last_byte() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = open_stream(&proxy, &backend).await;
    call.send("e\r\ndata: {\"json\n\n\r\n").await;
    drop(call);
    let seen = client.rest().await;
    assert!(seen.contains("data: {\"json"), "{seen:?}");
    assert!(!seen.contains("0\r\n\r\n"), "a broken stream must not end cleanly: {seen:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_drain_lets_a_stream_finish_and_is_seen_by_readiness() {
    let (proxy, backend) = start().await;
    assert!(proxy.admin("/readyz").await.starts_with("HTTP/1.1 200 "));
    let (mut client, mut call) = open_stream(&proxy, &backend).await;
    proxy.drain();
    // The phase is one value for all; the admin listener shows it as soon as it is set.
    assert!(proxy.admin("/readyz").await.starts_with("HTTP/1.1 503 "));
    call.send("9\r\ndata: x\n\n\r\n0\r\n\r\n").await;
    client.until("data: x\n\n\r\n0\r\n\r\n").await;
    proxy.stop().await;
}

/// A request that crosses our close is lost without a word, so clients are told before.
#[tokio::test]
async fn a_connection_ends_with_its_next_response_once_a_drain_has_begun() {
    let backend = Backend::start().await;
    let mut config = config(vec![route("a.ns", "/", Scheme::Http, &[backend.port()])]);
    config.drain.lag = BOUND;
    let proxy = TestProxy::start(config).await;
    let mut client = proxy.connect().await;
    let ask = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: a.ns\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    client.send(ask).await;
    backend.answer(ok).await;
    let first = client.until("ok").await;
    assert!(!first.contains("connection:"), "{first}");
    proxy.drain();
    client.send(ask).await;
    backend.answer(ok).await;
    let last = client.rest().await;
    assert!(last.contains("connection: close\r\n") && last.ends_with("ok"), "{last}");
}

#[tokio::test]
async fn the_admin_listener_starts_a_drain_on_post_only() {
    let (proxy, _backend) = start().await;
    assert!(proxy.admin("/drain").await.starts_with("HTTP/1.1 405 "));
    assert!(proxy.admin("/readyz").await.starts_with("HTTP/1.1 200 "));
    let mut admin = Client(tokio::net::TcpStream::connect(proxy.admin).await.unwrap());
    admin.send("POST /drain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await;
    admin.until("HTTP/1.1 202 ").await;
    drop(admin);
    proxy.stop().await;
}
