//! Where one message ends and the next begins (RFC 9112 sections 6 and 11.2): what can be read in two ways is refused,
//! or goes on in one way only, and what follows on the connection is read as itself.
//!
//! Each case sends its raw bytes and further requests right behind them. Either the bytes are refused, the connection ends
//! and nothing is dialled; or the backend sees one well-framed request, and then the next one as itself or not at all.

mod answers;
mod chunks;
mod passed;
mod refused;
mod targets;

use crate::support::{Backend, Client, OK, TestProxy, start};

const HEAD: &str = "host: p\r\nx-kagent-host: s.ns\r\n";
/// What a smuggler would like to have executed, and a request that is meant.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
const MARKER: &str = "GET /marker HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";

/// A head with Host and target, these fields, and what follows it.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /first HTTP/1.1\r\n{HEAD}{fields}\r\n{rest}")
}

/// Sends the bytes and what may not be read any more; the answer must be one refusal, and nothing may have been dialled.
async fn is_refused(proxy: &TestProxy, request: &str, status: &str) -> String {
    let answer = proxy.ask(&format!("{request}{HIDDEN}{MARKER}")).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answer:?}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("event=\"opened\"} 0"), "{request:?} was dialled: {metrics}");
    answer
}

/// What the backend read of the first request up to `end`, and of the marker; the second is empty if the proxy ended the
/// client's connection in between.
async fn is_passed(request: &str, end: &str) -> (String, String) {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(&format!("{request}{MARKER}")).await;
    let mut call = backend.accept().await;
    let first = call.until(end).await;
    call.send(OK).await;
    let closes = client.until("ok").await.to_ascii_lowercase().contains("connection: close");
    let marker = if closes {
        assert_eq!(client.rest().await, "");
        String::new()
    } else {
        let marker = second(&mut call, &backend).await;
        client.until("ok").await;
        marker
    };
    drop(client);
    proxy.stop().await;
    (first, marker)
}

/// The next request, on the same connection or, where the proxy has let that go, on another.
async fn second(call: &mut Client, backend: &Backend) -> String {
    let mut other = None;
    let marker = tokio::select! {
        marker = call.until("\r\n\r\n") => marker,
        mut fresh = backend.accept() => {
            let marker = fresh.until("\r\n\r\n").await;
            other = Some(fresh);
            marker
        }
    };
    other.as_mut().unwrap_or(call).send(OK).await;
    marker
}

fn is_marker(head: &str) -> bool {
    head.starts_with("GET /marker HTTP/1.1\r\n") && head.matches("HTTP/1.1").count() == 1
}

/// The head in lower case, and the body as the backend read it.
fn split(message: &str) -> (String, &str) {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body)
}
