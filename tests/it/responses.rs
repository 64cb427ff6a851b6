//! What a backend's response says of its own end (RFC 9112 section 6.3): what can be read in two ways is
//! refused and its connection closed, all else reaches the client in one framing.
//!
//! Every backend writes raw bytes. A client asks twice on one connection, so that bytes of the first
//! response that would be read as the second one are seen.

mod broken;
mod heads;
mod records;
mod tls;

use crate::support::{Client, start};

const SECOND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond";

fn get(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n")
}

/// What a client reads of this response, to the end of `end`; whether the backend's connection was
/// used again; and what the client reads of the next response on its connection.
async fn twice(method: &str, response: &str, end: &str) -> (String, bool, String) {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(&get(method, "/first")).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(response).await;
    let first = client.until(end).await;
    client.send(&get("GET", "/second")).await;
    let mut other = None;
    let reused = tokio::select! {
        head = next_head(&mut call) => head.starts_with("GET /second "),
        mut fresh = backend.accept() => {
            assert!(fresh.until("\r\n\r\n").await.starts_with("GET /second "));
            other = Some(fresh);
            false
        }
    };
    other.as_mut().unwrap_or(&mut call).send(SECOND).await;
    let second = client.until("second").await;
    drop(client);
    proxy.stop().await;
    (first, reused, second)
}

/// The next head on a connection; waits for ever if it is closed instead.
async fn next_head(call: &mut Client) -> String {
    let mut some = [0; 1024];
    match tokio::io::AsyncReadExt::read(&mut call.0, &mut some).await {
        Ok(read) if read > 0 => String::from_utf8_lossy(&some[..read]).into_owned(),
        _ => std::future::pending().await,
    }
}

#[tokio::test]
async fn what_two_readers_could_read_in_two_ways_is_refused_and_its_connection_closed() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (fields, body) in [
        ("content-length: 3\r\ntransfer-encoding: chunked\r\n", chunks),
        ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", chunks),
        ("content-length: 3\r\ncontent-length: 5\r\n", "hello"),
        ("content-length: 3, 5\r\n", "hello"),
        ("content-length: +5\r\n", "hello"),
        ("content-length: -5\r\n", "hello"),
        ("content-length: 5 5\r\n", "hello"),
        ("content-length: 5,\r\n", "hello"),
        ("content-length: \r\n", "hello"),
        ("content-length: 18446744073709551616\r\n", "hello"),
        ("transfer-encoding: gzip, chunked\r\n", chunks),
        ("transfer-encoding: identity\r\n", "hello"),
        ("transfer-encoding: identity\r\ncontent-length: 5\r\n", "hello"),
        ("transfer-encoding: chunked, chunked\r\n", chunks),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", chunks),
        ("transfer-encoding: chunked, identity\r\n", chunks),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
        let (first, reused, second) = twice("GET", &response, "\"action\"").await;
        assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n"), "{fields:?}: {first}");
        assert!(!first.contains("hel"), "{fields:?}: {first}");
        assert!(!reused, "{fields:?}");
        assert!(second.contains("HTTP/1.1 200 OK\r\n"), "{fields:?}: {second}");
    }
    let old = format!("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    let (first, reused, _) = twice("GET", &old, "\"action\"").await;
    assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n") && !reused, "{first}");
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_with_the_response_under_the_id_of_the_call() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    let post = format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{call}",
        call.len()
    );
    client.send(&post).await;
    let mut taken = backend.accept().await;
    taken.until(call).await;
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    taken.send(both).await;
    let answer = client.rest().await;
    assert!(answer.contains(r#""id":7"#), "{answer}");
    assert!(answer.contains("it has both Content-Length and Transfer-Encoding"), "{answer}");
    assert_eq!(taken.rest().await, "", "the connection is closed");
    proxy.stop().await;
}

#[tokio::test]
async fn equal_lengths_are_one_length() {
    for fields in [
        "content-length: 2, 2\r\n",
        "content-length: 2\r\ncontent-length: 2\r\n",
        "content-length: 2 ,2\r\n",
        "content-length: 02\r\n",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\nok");
        let (first, reused, _) = twice("GET", &response, "ok").await;
        assert_eq!(first.matches("content-length").count(), 1, "{fields:?}: {first}");
        assert!(first.contains("\r\ncontent-length: 2\r\n"), "{fields:?}: {first}");
        assert!(reused, "{fields:?}");
    }
    let old = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
    let (first, reused, _) = twice("GET", old, "ok").await;
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && reused, "{first}");
}

/// The head ends them, whatever it says; where it tells of a body, one may follow.
#[tokio::test]
async fn responses_without_a_body_carry_no_framing_and_what_follows_is_not_read_as_a_response() {
    for (method, head, length, reused) in [
        ("GET", "204 No Content\r\ncontent-length: 0", None, true),
        ("GET", "204 No Content\r\ncontent-length: 5", None, false),
        ("GET", "204 No Content\r\ntransfer-encoding: chunked", None, false),
        ("GET", "204 No Content\r\ncontent-length: 5\r\ntransfer-encoding: chunked", None, false),
        // Its length may be told; hyper's server does not.
        ("GET", "304 Not Modified\r\ncontent-length: 5, 5", None, true),
        ("GET", "304 Not Modified\r\ntransfer-encoding: gzip, chunked", None, true),
        ("HEAD", "200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked", None, true),
        ("HEAD", "200 OK\r\ncontent-length: 5, 5", Some("content-length: 5"), true),
    ] {
        let (first, was_reused, second) =
            twice(method, &format!("HTTP/1.1 {head}\r\n\r\n"), "\r\n\r\n").await;
        let status = head.split("\r\n").next().unwrap();
        assert!(first.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head:?}: {first}");
        let told = first.lines().find(|line| line.starts_with("content-length"));
        assert_eq!(told, length, "{head:?}: {first}");
        assert!(method == "HEAD" || !first.contains("transfer-encoding"), "{head:?}: {first}");
        assert_eq!(was_reused, reused, "{head:?}");
        assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{head:?}: {second}");
    }
    for head in ["200 OK\r\ncontent-length: 5, 6", "200 OK\r\ncontent-length: +5"] {
        let (first, reused, _) =
            twice("HEAD", &format!("HTTP/1.1 {head}\r\n\r\n"), "\r\n\r\n").await;
        assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n"), "{head:?}: {first}");
        assert!(!reused, "{head:?}");
    }
}

#[tokio::test]
async fn framing_in_an_interim_response_frames_nothing() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for fields in [
        "content-length: 5\r\n",
        "content-length: 5, 5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let response = format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n{ok}");
        let (first, reused, _) = twice("GET", &response, "ok").await;
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && reused, "{fields:?}: {first}");
    }
    let response = format!("HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nhello{ok}");
    let (first, reused, _) = twice("GET", &response, "\"action\"").await;
    assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n") && !reused, "{first}");
}

#[tokio::test]
async fn a_space_behind_a_name_is_removed_and_the_field_counts() {
    for name in ["X-Foo ", "X-Foo \t", "X-Foo\t"] {
        let response = format!("HTTP/1.1 200 OK\r\n{name}: x\r\nContent-Length : 2\r\n\r\nok");
        let (first, reused, _) = twice("GET", &response, "ok").await;
        assert!(first.contains("\r\nx-foo: x\r\n"), "{name:?}: {first}");
        assert!(first.contains("\r\ncontent-length: 2\r\n") && reused, "{name:?}: {first}");
    }
    // A name that only the space makes one of its kind.
    let both = "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\ncontent-length: 3\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    let (first, reused, _) = twice("GET", both, "\"action\"").await;
    assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n") && !reused, "{first}");
    // Folded lines and spaces elsewhere stay what they are: no HTTP.
    for fields in ["x-a: 1\r\n b\r\n", "x a: 1\r\n", " x-a: 1\r\n"] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
        let (first, reused, _) = twice("GET", &response, "\"action\"").await;
        assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n"), "{fields:?}: {first}");
        assert!(!reused, "{fields:?}");
    }
}
