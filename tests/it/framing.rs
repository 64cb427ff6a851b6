//! Where one message ends and the next begins (RFC 9112 sections 6 and 11.2): what can be read in two
//! ways is refused, or goes on in one way only, and what follows on the connection is read as itself.

use crate::support::{OK, start};

const HEAD: &str = "host: p\r\nx-kagent-host: s.ns\r\n";
/// What a smuggler would like to have executed.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
const MARKER: &str =
    "GET /marker HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";

#[rustfmt::skip]
fn refused() -> Vec<(&'static str, String)> {
    vec![
        ("two lengths", format!("POST / HTTP/1.1\r\n{HEAD}content-length: 4\r\ncontent-length: 5\r\n\r\nabcd{HIDDEN}")),
        ("a list of lengths", format!("POST / HTTP/1.1\r\n{HEAD}content-length: 4, 5\r\n\r\nabcd{HIDDEN}")),
        ("a signed length", format!("POST / HTTP/1.1\r\n{HEAD}content-length: +4\r\n\r\nabcd{HIDDEN}")),
        ("a hexadecimal length", format!("POST / HTTP/1.1\r\n{HEAD}content-length: 0x4\r\n\r\nabcd{HIDDEN}")),
        ("a length beyond 64 bits", format!("POST / HTTP/1.1\r\n{HEAD}content-length: 99999999999999999999\r\n\r\n")),
        ("an unknown coding", format!("POST / HTTP/1.1\r\n{HEAD}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("chunked that is not last", format!("POST / HTTP/1.1\r\n{HEAD}transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("chunked in HTTP/1.0", format!("POST / HTTP/1.0\r\n{HEAD}transfer-encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("a folded field", format!("GET / HTTP/1.1\r\n{HEAD}x-a: 1\r\n continued\r\n\r\n{HIDDEN}")),
        ("a space before the colon", format!("POST / HTTP/1.1\r\n{HEAD}content-length : 4\r\n\r\nabcd{HIDDEN}")),
        ("a nul in a value", format!("GET / HTTP/1.1\r\n{HEAD}x-a: 1\02\r\n\r\n{HIDDEN}")),
        ("a lone cr in a value", format!("GET / HTTP/1.1\r\n{HEAD}x-a: 1\rx-b: 2\r\n\r\n{HIDDEN}")),
        ("a control byte in a name", format!("GET / HTTP/1.1\r\n{HEAD}x\x01a: 1\r\n\r\n{HIDDEN}")),
        ("an empty name", format!("GET / HTTP/1.1\r\n{HEAD}: 1\r\n\r\n{HIDDEN}")),
        ("no version", format!("GET /\r\n{HEAD}\r\n{HIDDEN}")),
        ("another version", format!("GET / HTTP/3.7\r\n{HEAD}\r\n{HIDDEN}")),
        ("a space in the target", format!("GET /a b HTTP/1.1\r\n{HEAD}\r\n{HIDDEN}")),
        ]
}

/// Nothing of it reaches a backend, and the connection is closed: what follows is not read.
#[tokio::test]
async fn ambiguous_messages_are_refused_and_the_connection_with_them() {
    let (proxy, backend) = start().await;
    for (name, message) in refused() {
        let answer = proxy.ask(&(message + MARKER)).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer:?}");
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("event=\"opened\"} 0"), "nothing was dialled: {metrics}");
    drop(backend);
    proxy.stop().await;
}

/// These end in the middle of the body, when the head has gone on: the backend's connection is closed
/// before the body's end, and nothing behind it is read.
#[tokio::test]
async fn a_broken_chunk_ends_the_exchange_and_the_connection() {
    let (proxy, backend) = start().await;
    for (name, body) in [
        ("a size that is no number", "zz\r\nabc\r\n0\r\n\r\n"),
        ("a size beyond 64 bits", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
        ("an empty size", "\r\nabc\r\n0\r\n\r\n"),
    ] {
        let message = format!(
            "POST /broken HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\n\r\n{body}{HIDDEN}{MARKER}"
        );
        let seen = async {
            let mut call = backend.accept().await;
            call.rest().await
        };
        let mut client = proxy.connect().await;
        client.send(&message).await;
        let (seen, answer) = tokio::join!(seen, client.rest());
        assert!(seen.is_empty() || seen.starts_with("POST /broken "), "{name}: {seen:?}");
        assert!(!seen.contains("/hidden") && !seen.contains("/marker"), "{name}: {seen:?}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{name} must not look whole: {seen:?}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{name}: {answer:?}");
        assert!(!answer.contains("200 OK"), "{name}: {answer:?}");
    }
    proxy.stop().await;
}

struct Odd {
    name: &'static str,
    message: String,
    /// What frames it upstream.
    present: &'static str,
    absent: &'static str,
}

fn odd() -> Vec<Odd> {
    let (length, chunked) = ("content-length: 4\r\n", "transfer-encoding: chunked\r\n");
    vec![
        Odd {
            name: "the same length twice",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}content-length: 4\r\ncontent-length: 4\r\n\r\nabcd"
            ),
            present: length,
            absent: "transfer-encoding",
        },
        Odd {
            name: "both framings: chunked counts, the length is dropped",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}content-length: 40\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
            ),
            present: chunked,
            absent: "content-length",
        },
        Odd {
            name: "both framings, the other way round",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\ncontent-length: 40\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
            ),
            present: chunked,
            absent: "content-length",
        },
        Odd {
            name: "a chunk with an extension, which is dropped",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\n\r\n4;x=\"y\"\r\nabcd\r\n0;z\r\n\r\n"
            ),
            present: chunked,
            absent: ";x",
        },
        Odd {
            name: "lines that end with a bare line feed",
            message: format!("POST /a HTTP/1.1\n{HEAD}content-length: 4\n\nabcd"),
            present: length,
            absent: "transfer-encoding",
        },
        Odd {
            name: "an empty line before the request",
            message: format!("\r\n\r\nPOST /a HTTP/1.1\r\n{HEAD}content-length: 4\r\n\r\nabcd"),
            present: length,
            absent: "transfer-encoding",
        },
        Odd {
            name: "an absolute target, whose authority is not the backend's Host",
            message: format!(
                "POST http://other.example/a HTTP/1.1\r\n{HEAD}content-length: 4\r\n\r\nabcd"
            ),
            present: "x-forwarded-host: other.example\r\n",
            absent: "\r\nhost: other.example",
        },
    ]
}

/// What may be written in two ways goes on in one, and the marker behind it is a request of its own.
#[tokio::test]
async fn odd_but_unambiguous_messages_go_on_in_one_framing() {
    for Odd { name, message, present, absent } in odd() {
        // A fresh pool: a connection that the last case closed must not be met here.
        let (proxy, backend) = start().await;
        let mut client = proxy.connect().await;
        client.send(&(message + MARKER)).await;
        let mut call = backend.accept().await;
        let seen = call.until("abcd").await.to_ascii_lowercase();
        assert!(seen.starts_with("post /a http/1.1\r\n"), "{name}: {seen:?}");
        assert!(seen.contains(present), "{name}: {present:?} is missing in {seen:?}");
        assert!(!seen.contains(absent), "{name}: {absent:?} is in {seen:?}");
        assert_eq!(seen.matches(" http/1.1\r\n").count(), 1, "{name}: {seen:?}");
        call.send(OK).await;
        client.until("ok").await;
        if name.starts_with("both framings") {
            // Nobody knows what the sender meant to follow (RFC 9112 section 6.1): it is not read.
            assert_eq!(client.rest().await, "", "{name}");
            proxy.stop().await;
            continue;
        }
        // On the same connection or on another one, as the pool likes.
        let mut other = None;
        tokio::select! {
            marker = call.until("GET /marker HTTP/1.1\r\n") => {
                assert_eq!(marker.matches(" HTTP/1.1\r\n").count(), 1, "{name}: {marker:?}");
            }
            next = backend.accept() => {
                let next = other.insert(next);
                let marker = next.until("\r\n\r\n").await;
                assert!(marker.starts_with("GET /marker HTTP/1.1\r\n"), "{name}: {marker:?}");
            }
        }
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlast";
        other.as_mut().unwrap_or(&mut call).send(last).await;
        let last = client.rest().await;
        assert!(last.ends_with("last"), "{name}: {last:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_answered_with_431() {
    let (proxy, backend) = start().await;
    let long = format!("x-long: {}\r\n", "y".repeat(70 * 1024));
    let many = "x-a: 1\r\n".repeat(130);
    let far = format!("x-far: {}\r\n", "y".repeat(300 * 1024));
    for (name, fields) in [("long", long), ("many", many), ("far", far)] {
        let answer =
            proxy.ask(&format!("GET / HTTP/1.1\r\n{HEAD}connection: close\r\n{fields}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431 header_too_large\r\n"), "{name}: {answer:?}");
        assert!(answer.contains("x-kagent-proxy-error: header_too_large"), "{name}: {answer}");
    }
    drop(backend);
    proxy.stop().await;
}

#[tokio::test]
async fn many_equal_targets_are_one_and_differing_ones_are_none() {
    let (proxy, backend) = start().await;
    let same = "x-kagent-host: S.ns.svc.cluster.local\r\nx-kagent-host: s.ns:0\r\n";
    let other = "x-kagent-host: t.ns\r\n";
    let long = format!("x-kagent-host: {}\r\n", "a".repeat(5000));
    let close = "connection: close\r\n";
    for (fields, start) in [
        (same, "HTTP/1.1 400 bad_target"),
        (other, "HTTP/1.1 400 bad_target"),
        (long.as_str(), "HTTP/1.1 400 bad_target"),
    ] {
        let answer = proxy.ask(&format!("GET / HTTP/1.1\r\n{HEAD}{fields}{close}\r\n")).await;
        assert!(answer.starts_with(start), "{answer}");
    }
    let equal = format!("GET / HTTP/1.1\r\n{HEAD}x-kagent-host: S.NS.\r\n{close}\r\n");
    let (answer, _) = tokio::join!(proxy.ask(&equal), backend.answer(OK));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    proxy.stop().await;
}
