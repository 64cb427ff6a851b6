//! What an HTTP/2 backend says it did not process is sent again, with its body; nothing else is (RFC 9113
//! section 8.7).
//!
//! The backend is frames written by hand: no library refuses a stream or says goodbye below it on demand.

use std::time::Duration;

use kagent_proxy::body::replay::MAX_REPLAY;
use kagent_proxy::config::Scheme;

use crate::support::frames::{Frames, INTERNAL_ERROR, REFUSED_STREAM};
use crate::support::{Backend, TestProxy, start_with};

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"message/send"}"#;

fn post(content_type: &str) -> String {
    post_of(content_type, CALL)
}

fn post_of(content_type: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A call of this length, whose bytes count up so that none can be missing or out of place.
fn call_of(length: usize) -> String {
    let start = r#"{"jsonrpc":"2.0","id":7,"method":"message/send","params":""#;
    let fill: String = (0..)
        .flat_map(|n: u32| format!("{n} ").into_bytes())
        .map(char::from)
        .take(length - start.len() - 2)
        .collect();
    format!("{start}{fill}\"}}")
}

/// Before a backend that speaks HTTP/2.
async fn start() -> (TestProxy, Backend) {
    start_with(|config| config.routes[0].to.targets[0].scheme = Scheme::H2c).await
}

async fn retries(proxy: &TestProxy) -> String {
    let metrics = proxy.admin("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("kagent_proxy_retries_total{"));
    line.unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// On a connection that has carried a request before, and on one that has not.
#[tokio::test]
async fn a_call_that_was_refused_or_came_after_the_goodbye_arrives_once_more_with_its_body() {
    for (goodbye, warm) in [(false, true), (false, false), (true, true), (true, false)] {
        let (proxy, backend) = start().await;
        let mut client = proxy.connect().await;
        client.send(&post("application/json")).await;
        let mut first = Frames::accept(&backend).await;
        let (mut stream, mut body) = first.request().await;
        if warm {
            first.no_content(stream).await;
            client.until("\r\n\r\n").await;
            client.send(&post("application/json")).await;
            (stream, body) = first.request().await;
        }
        assert_eq!(body, CALL);
        if goodbye {
            first.goaway(stream - 1, 0).await;
        } else {
            first.reset(stream, REFUSED_STREAM).await;
        }
        let mut second = Frames::accept(&backend).await;
        let (stream, body) = second.request().await;
        assert_eq!(body, CALL, "goodbye {goodbye}, warm {warm}");
        second.no_content(stream).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "goodbye {goodbye}, warm {warm}: {answer}");
        assert_eq!(retries(&proxy).await, "1", "goodbye {goodbye}, warm {warm}");
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again_and_none_at_all_is() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(&post("application/octet-stream")).await;
    let mut first = Frames::accept(&backend).await;
    let (stream, _) = first.request().await;
    first.reset(stream, REFUSED_STREAM).await;
    client.until("HTTP/1.1 502 upstream_reset").await;
    assert_eq!(retries(&proxy).await, "0");
    let mut client = proxy.connect().await;
    let empty = "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 0\r\n\r\n";
    client.send(empty).await;
    let (stream, _) = first.request().await;
    first.reset(stream, REFUSED_STREAM).await;
    let mut second = Frames::accept(&backend).await;
    let (stream, _) = second.request().await;
    second.no_content(stream).await;
    client.until("HTTP/1.1 204 ").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_call_arrives_once_more_up_to_the_bound_and_is_refused_above() {
    for (length, again) in [(300 * 1024, true), (MAX_REPLAY, true), (MAX_REPLAY + 1, false)] {
        let (proxy, backend) = start().await;
        let mut client = proxy.connect().await;
        let call = call_of(length);
        let post = post_of("application/json", &call);
        let received = async {
            let mut first = Frames::accept(&backend).await;
            let (stream, body) = first.request().await;
            (first, stream, body)
        };
        let ((mut first, stream, body), ()) = tokio::join!(received, client.send(&post));
        assert!(body == call, "{length}: {} bytes came", body.len());
        first.reset(stream, REFUSED_STREAM).await;
        if again {
            let mut second = Frames::accept(&backend).await;
            let (stream, body) = second.request().await;
            assert!(body == call, "{length}: {} bytes came again", body.len());
            second.no_content(stream).await;
            client.until("HTTP/1.1 204 ").await;
        } else {
            let response = client.until("\"action\"").await;
            assert!(response.starts_with("HTTP/1.1 502 upstream_reset\r\n"), "{response}");
            assert!(response.contains("\"id\":7"), "{response}");
        }
        assert_eq!(retries(&proxy).await, u8::from(again).to_string(), "{length}");
        drop(client);
        proxy.stop().await;
    }
}

/// What has come is remembered, and the rest follows as the client sends it. Its pauses are no backend's.
#[tokio::test]
async fn a_call_that_is_refused_while_it_is_sent_arrives_once_more_whole() {
    let call = call_of(300 * 1024);
    let (start, rest) = call.split_at(200 * 1024);
    for (goodbye, chunked) in [(false, false), (false, true), (true, false), (true, true)] {
        let (proxy, backend) = start_with(|config| {
            let to = &mut config.routes[0].to;
            to.targets[0].scheme = Scheme::H2c;
            to.timeouts.unary.head = Some(Duration::from_millis(200));
        })
        .await;
        let mut client = proxy.connect().await;
        let (head, start_sent, rest_sent) = framed(chunked, start, rest);
        let sent = head + &start_sent;
        let sent = client.send(&sent);
        let received = async {
            let mut first = Frames::accept(&backend).await;
            let (stream, body) = first.request_until(start.len()).await;
            assert!(body == start, "{} bytes came", body.len());
            (first, stream)
        };
        let ((mut first, stream), ()) = tokio::join!(received, sent);
        if goodbye {
            first.goaway(stream - 1, 0).await;
        } else {
            first.reset(stream, REFUSED_STREAM).await;
        }
        let mut second = Frames::accept(&backend).await;
        let (stream, again) = second.request_until(start.len()).await;
        assert!(again == start, "{} bytes came again", again.len());
        // Longer than the limit of a backend that has everything.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send(&rest_sent).await;
        let (_, behind) = second.request().await;
        assert!(behind == rest, "{} bytes came behind", behind.len());
        second.no_content(stream).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{goodbye}, {chunked}: {answer}");
        assert_eq!(retries(&proxy).await, "1", "{goodbye}, {chunked}");
        drop((client, first));
        proxy.stop().await;
    }
}

/// A head, and two parts of its body as they are sent.
fn framed(chunked: bool, start: &str, rest: &str) -> (String, String, String) {
    let call = post_of("application/json", &format!("{start}{rest}"));
    let head = call.split_once("\r\n\r\n").unwrap().0;
    if !chunked {
        return (format!("{head}\r\n\r\n"), start.to_owned(), rest.to_owned());
    }
    let (head, _length) = head.split_once("content-length").unwrap();
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    (format!("{head}transfer-encoding: chunked\r\n\r\n"), chunk(start), chunk(rest) + "0\r\n\r\n")
}

/// The client reads the error although it still sends.
#[tokio::test]
async fn an_upload_that_is_not_remembered_is_not_sent_again_when_it_is_refused() {
    let large = call_of(2 * MAX_REPLAY);
    let small = call_of(300 * 1024);
    for (content_type, call, come) in [
        ("application/json", &large, MAX_REPLAY + 1),
        ("application/octet-stream", &small, 200 * 1024),
    ] {
        let (proxy, backend) = start().await;
        let mut client = proxy.connect().await;
        let (start, rest) = call.split_at(come);
        let (head, start_sent, rest_sent) = framed(true, start, rest);
        let head = head.replace("application/json", content_type);
        let received = async {
            let mut first = Frames::accept(&backend).await;
            let (stream, _) = first.request_until(start.len()).await;
            first.reset(stream, REFUSED_STREAM).await;
            first
        };
        let sent = head + &start_sent;
        let (_first, ()) = tokio::join!(received, client.send(&sent));
        client.until("HTTP/1.1 502 upstream_reset").await;
        client.send(&rest_sent).await;
        assert_eq!(retries(&proxy).await, "0", "{content_type}");
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_may_have_been_processed_is_not_sent_again() {
    for above in [true, false] {
        let (proxy, backend) = start().await;
        let mut client = proxy.connect().await;
        client.send(&post("application/json")).await;
        let mut first = Frames::accept(&backend).await;
        let (stream, _) = first.request().await;
        if above {
            first.reset(stream, INTERNAL_ERROR).await;
        } else {
            // It names our stream as one that it has dealt with, and leaves.
            first.goaway(stream, 0).await;
            drop(first);
        }
        let answer = client.until("\"action\"").await;
        assert!(answer.starts_with("HTTP/1.1 502 upstream_reset\r\n"), "{answer}");
        assert!(answer.contains("\"id\":7"), "{answer}");
        assert_eq!(retries(&proxy).await, "0");
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn refused_calls_are_sent_again_within_the_budget_only() {
    let (proxy, backend) = start_with(|config| {
        config.routes[0].to.targets[0].scheme = Scheme::H2c;
        (config.upstream.retry_percent, config.upstream.retry_per_second) = (0, 0);
    })
    .await;
    let mut client = proxy.connect().await;
    client.send(&post("application/json")).await;
    let mut first = Frames::accept(&backend).await;
    let (stream, _) = first.request().await;
    first.reset(stream, REFUSED_STREAM).await;
    client.until("HTTP/1.1 502 upstream_reset").await;
    drop(client);
    proxy.stop().await;
}
