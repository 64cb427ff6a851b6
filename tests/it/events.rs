//! Event streams: comments, endings, the legacy `endpoint` event, limits.

use std::time::Duration;

use kagent_proxy::config::{Config, SessionMode};

use crate::support::{Backend, Client, TestProxy, start, start_with};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    transfer-encoding: chunked\r\n\r\n";
const COMMENT: &str = ": keep-alive\n\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A stream whose heads have passed both ways; `request` is the request line and further fields.
async fn open(proxy: &TestProxy, backend: &Backend, request: &str, head: &str) -> (Client, Client) {
    let mut client = proxy.connect().await;
    client.send(&request.replacen("\r\n", "\r\nhost: p\r\nx-kagent-host: s.ns\r\n", 1)).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(head).await;
    client.until("\r\n\r\n").await;
    (client, call)
}

const SESSION: &str = "GET /mcp HTTP/1.1\r\naccept: text/event-stream\r\nmcp-session-id: 1\r\n\r\n";
const LEGACY: &str = "GET /sse HTTP/1.1\r\naccept: text/event-stream\r\n\r\n";

#[tokio::test]
async fn a_silent_stream_gets_comments_between_events_only() {
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.keep_alive = Duration::from_millis(50)).await;
    let (mut client, mut call) = open(&proxy, &backend, SESSION, HEAD).await;
    let mut all = client.until(COMMENT).await;
    all += &client.until(COMMENT).await;
    call.send(&chunk("data: {\"ha")).await;
    let seen = client.until("data: {\"ha").await;
    all += &seen;
    // Longer than several keep-alive times: silence inside an event must bring nothing.
    tokio::time::sleep(Duration::from_millis(250)).await;
    call.send(&chunk("lf\":1}\n\n")).await;
    let rest = client.until("lf\":1}\n\n").await;
    // Between the halves stands what frames the second one, and nothing else.
    let event = format!("{}{rest}", seen.rsplit("data: ").next().unwrap());
    assert!(event.starts_with("{\"ha\r\n8\r\nlf\":1}\n\n"), "{event:?}");
    all += &rest;
    all += &client.until(COMMENT).await;
    call.send("0\r\n\r\n").await;
    all += &client.until("0\r\n\r\n").await;
    // Each is a piece of its own and has not a byte more (D15).
    let comments = all.matches(&format!("E\r\n{COMMENT}\r\n")).count();
    assert_eq!(comments, all.matches("keep-alive").count(), "{all:?}");
    assert!(comments >= 3, "{all:?}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_events_total{route=\"s.ns\"} 1\n"), "{metrics}");
    let counted = format!("kagent_proxy_keep_alive_comments_total{{route=\"s.ns\"}} {comments}\n");
    assert!(metrics.contains(&counted), "no {counted} in {metrics}");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn no_comment_goes_into_another_status_a_length_an_encoding_or_a_legacy_start() {
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.keep_alive = Duration::from_millis(20)).await;
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for (request, status, extra) in [
        (SESSION, "200 OK", "content-length: 9\r\n\r\n"),
        (SESSION, "200 OK", "content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"),
        (SESSION, "201 Created", chunked),
        (SESSION, "500 Internal Server Error", chunked),
        (LEGACY, "200 OK", chunked),
    ] {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\n{extra}");
        let (mut client, mut call) = open(&proxy, &backend, request, &head).await;
        // Ten keep-alive times of silence, in which nothing may come.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let event = "data: 1\n\n";
        let sized = extra.starts_with("content-length");
        let bytes = if sized { event.to_owned() } else { chunk(event) };
        call.send(&bytes).await;
        let seen = client.until(event).await;
        assert!(!seen.contains("keep-alive"), "{status}, {extra}: {seen:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_legacy_endpoint_event_keeps_its_client_on_the_proxy() {
    let passing = |config: &mut Config| {
        // What `sessions.rs` shows put in would stand behind the URL.
        config.routes[0].to.sessions = SessionMode::Pass;
        config.routes[0].to.keep_alive = Duration::from_millis(50);
    };
    let (proxy, backend) = start_with(passing).await;
    let (mut client, mut call) = open(&proxy, &backend, LEGACY, HEAD).await;
    let event = format!(
        "event: endpoint\r\ndata: http://127.0.0.1:{}/messages/?session_id=a%2Fb\r\n\r\n",
        backend.port()
    );
    let (first, second) = event.split_at(30);
    call.send(&chunk(first)).await;
    call.send(&chunk(second)).await;
    client.until("event: endpoint\r\ndata: /messages/?session_id=a%2Fb\r\n\r\n").await;
    client.until(COMMENT).await;
    // Only the first event is looked at.
    let later = format!("event: endpoint\ndata: http://127.0.0.1:{}/x\n\n", backend.port());
    call.send(&chunk(&later)).await;
    client.until(&later).await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_session_s_stream_that_breaks_between_events_ends_cleanly() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = open(&proxy, &backend, SESSION, HEAD).await;
    call.send(&chunk("data: 1\n\n")).await;
    client.until("data: 1\n\n").await;
    drop(call);
    client.until("0\r\n\r\n").await;
    let (mut client, mut call) = open(&proxy, &backend, SESSION, HEAD).await;
    call.send(&chunk("data: 1\n")).await;
    client.until("data: 1\n").await;
    drop(call);
    assert!(!client.rest().await.ends_with("0\r\n\r\n"), "an abort inside an event");
    let (mut client, mut call) = open(&proxy, &backend, LEGACY, HEAD).await;
    call.send(&chunk("data: 1\n\n")).await;
    client.until("data: 1\n\n").await;
    drop(call);
    assert!(!client.rest().await.ends_with("0\r\n\r\n"), "an abort without a session");
    let metrics = proxy.admin("/metrics").await;
    let aborts = "kagent_proxy_aborts_total{route=\"s.ns\",side=\"upstream\"} 3";
    assert!(metrics.contains(aborts), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_drain_ends_a_session_s_stream_between_events_and_lets_calls_finish() {
    let (proxy, backend) = start().await;
    let (mut idle, _idle_call) = open(&proxy, &backend, SESSION, HEAD).await;
    let (mut busy, mut busy_call) = open(&proxy, &backend, SESSION, HEAD).await;
    let post = "POST /mcp HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
    let (mut call, mut call_call) = open(&proxy, &backend, post, HEAD).await;
    busy_call.send(&chunk("data: 1\n")).await;
    busy.until("data: 1\n").await;
    proxy.drain();
    assert!(idle.rest().await.ends_with("0\r\n\r\n"), "ended cleanly at once");
    busy_call.send(&chunk("\n")).await;
    assert!(busy.rest().await.ends_with("\n\r\n0\r\n\r\n"), "ended behind its event");
    call_call.send(&chunk("data: 2\n\n")).await;
    call.until("data: 2\n\n").await;
    call_call.send("0\r\n\r\n").await;
    call.until("0\r\n\r\n").await;
    proxy.stop().await;
}

/// The kernel has the event, and the runtime has not heard of it: nothing is awaited in between.
#[tokio::test]
async fn a_drain_ends_a_session_s_stream_behind_an_event_that_has_come() {
    let (proxy, backend) = start().await;
    let (mut client, call) = open(&proxy, &backend, SESSION, HEAD).await;
    let event = chunk("data: 1\n\n");
    assert_eq!(call.0.try_write(event.as_bytes()).unwrap(), event.len());
    proxy.close();
    let seen = client.rest().await;
    assert!(seen.ends_with(&format!("{event}0\r\n\r\n")), "{seen:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_limit_breaks_the_stream_off_and_comments_do_not_reset_it() {
    let (proxy, backend) = start_with(|config| {
        config.routes[0].to.keep_alive = Duration::from_millis(20);
        config.routes[0].to.timeouts.stream.idle = Some(Duration::from_millis(200));
    })
    .await;
    let (mut client, mut call) = open(&proxy, &backend, SESSION, HEAD).await;
    let seen = client.rest().await;
    assert!(seen.contains(COMMENT) && !seen.ends_with("0\r\n\r\n"), "{seen:?}");
    assert_eq!(call.rest().await, "", "the backend's connection is closed");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("outcome=\"idle_timeout\"} 1"), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_total_limit_covers_the_wait_for_the_head_and_the_body() {
    let (proxy, backend) = start_with(|config| {
        config.routes[0].to.timeouts.unary.total = Some(Duration::from_millis(150));
    })
    .await;
    let post = "POST /mcp HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let (mut client, mut call) = open(&proxy, &backend, post, head).await;
    assert_eq!(client.rest().await, "", "broken off without its body");
    assert_eq!(call.rest().await, "");
    let mut client = proxy.connect().await;
    client
        .send("GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n")
        .await;
    let _silent = backend.accept().await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 504 head_timeout"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn comments_of_the_backend_pass_before_the_first_event() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = open(&proxy, &backend, LEGACY, HEAD).await;
    for _ in 0..3 {
        call.send(&chunk(": ping\n\n")).await;
        client.until(": ping\n\n").await;
    }
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_event_is_found_behind_whatever_stands_before_it() {
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.sessions = SessionMode::Pass).await;
    let host = format!("127.0.0.1:{}", backend.port());
    for before in [
        "retry: 3000\n\n",
        "id: 1\n\n",
        "id: 1\nretry: 3000\r\n",
        "event: ping\ndata: 1\n\n",
        "event: ping\n\n: hi\n\ndata\n\n",
        "event: endpoint\rretry: 1\r\rdata: {\"jsonrpc\":\"2.0\"}\r\r",
        "\u{feff}",
        "\u{feff}: hi\n\n",
        "event: message\n",
        "data: {\ndata: }\n\n",
    ] {
        let (mut client, mut call) = open(&proxy, &backend, LEGACY, HEAD).await;
        if before.ends_with("\n\n") || before.ends_with("\r\r") {
            call.send(&chunk(before)).await;
            client.until(before).await;
        }
        let ahead = if before.ends_with("\n\n") || before.ends_with("\r\r") { "" } else { before };
        call.send(&chunk(&format!("{ahead}event: endpoint\ndata: http://{host}/m?s=1\n"))).await;
        call.send(&chunk("\ndata: 1\n\n")).await;
        let seen = client.until("data: 1\n\n").await;
        assert!(!seen.contains(&host) && seen.contains("data: /m?s=1\n"), "{before:?}: {seen:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_event_before_the_endpoint_event_is_not_late() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = open(&proxy, &backend, LEGACY, HEAD).await;
    call.send(&chunk("retry: 3000\n")).await;
    client.until("retry: 3000\n").await;
    call.send(&chunk("\nevent: ping\ndata: 1\r\n\r")).await;
    client.until("event: ping\ndata: 1\r\n\r").await;
    call.send(&chunk("\nevent: message\ndata: {\"half")).await;
    client.until("data: {\"half").await;
    call.send(&chunk("\"}\n\n")).await;
    client.until("\"}\n\n").await;
    drop(client);
    proxy.stop().await;
}
