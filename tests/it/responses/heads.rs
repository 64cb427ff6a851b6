//! Heads that one reader takes and another refuses, or reads otherwise (RFC 9112 sections 2.2, 4 and 9.3): what changes
//! where the response ends is refused, what changes nothing passes.

use super::twice;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn is_refused(response: &str) {
    let (first, reused, second) = twice("GET", response, "\"action\"").await;
    assert!(first.starts_with("HTTP/1.1 502 upstream_protocol\r\n"), "{response:?}: {first}");
    assert_eq!(first.matches("HTTP/1.1 ").count(), 1, "{response:?}: {first}");
    assert!(!reused, "{response:?}");
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{response:?}: {second}");
}

/// For some it ends the line; RFC 9110 section 5.5 has others put a space there, and the fields behind it are gone.
#[tokio::test]
async fn a_line_that_ends_in_a_bare_lf_is_refused() {
    for response in [
        "HTTP/1.1 200 OK\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx-a: 1\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx-a:\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2 \n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\nok",
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        "HTTP/1.1 204 No Content\n\n",
        // And a bare CR is no line's end for anybody.
        "HTTP/1.1 200 OK\rcontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx-a: 1\rcontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\rok",
    ] {
        is_refused(response).await;
    }
    is_refused(&format!("HTTP/1.1 103 Early Hints\nlink: x\r\n\r\n{OK}")).await;
    is_refused(&format!("HTTP/1.1 103 Early Hints\r\nlink: x\n\r\n{OK}")).await;
    is_refused(&format!("HTTP/1.1 100 Continue\r\n\n{OK}")).await;
}

/// Only a server may skip it (RFC 9112 section 2.2). Before a response it belongs to nothing that was asked for, or to
/// the response before it, whose length was wrong (section 6.3).
#[tokio::test]
async fn what_stands_before_a_status_line_is_refused() {
    for before in
        ["\r\n", "\n", "\r\n\r\n", " ", "ok", "\0", "HTTP/1.1 103 Early Hints\r\n\r\n\r\n"]
    {
        is_refused(&format!("{before}{OK}")).await;
    }
}

/// A version that we do not speak may frame its messages otherwise (RFC 9110 section 2.5), and what is no three digits
/// is no status: whether a body follows hangs on both.
#[tokio::test]
async fn status_lines_of_other_versions_or_without_a_status_are_refused() {
    for line in [
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/2 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/1 200 OK",
        "http/1.1 200 OK",
        "HTTPS/1.1 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 Too low",
        "HTTP/1.1 000 Too low",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 200OK",
        // RFC 9112 section 4 allows one space; who takes more is one that section 11.1 warns of.
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 \t200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x7fK",
        "ICY 200 OK",
    ] {
        is_refused(&format!("{line}\r\ncontent-length: 2\r\n\r\nok")).await;
    }
}

/// The phrase says nothing that a client may go by (RFC 9112 section 4), so it is passed as it is and nothing hangs on
/// it. A status beyond 599 is to be taken for a 5xx (RFC 9110 section 15): by whoever gets it.
#[tokio::test]
async fn odd_phrases_and_large_statuses_pass() {
    for (line, seen) in [
        ("HTTP/1.1 200", "HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 200 ", "HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 200  OK", "HTTP/1.1 200  OK\r\n"),
        ("HTTP/1.1 200 OK\tor  not", "HTTP/1.1 200 OK\tor  not\r\n"),
        // The parser leaves out a phrase in which there is more than ASCII.
        ("HTTP/1.1 200 Gr\u{fc}n", "HTTP/1.1 200 \r\n"),
        ("HTTP/1.1 600 Odd", "HTTP/1.1 600 Odd\r\n"),
        ("HTTP/1.1 999 Odd", "HTTP/1.1 999 Odd\r\n"),
    ] {
        let response = format!("{line}\r\ncontent-length: 2\r\n\r\nok");
        let (first, reused, second) = twice("GET", &response, "ok").await;
        assert!(first.starts_with(seen), "{line:?}: {first:?}");
        assert!(first.ends_with("\r\n\r\nok") && reused, "{line:?}: {first:?}");
        assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{line:?}: {second}");
    }
}

/// RFC 9112 section 9.3: `close` counts before all else, in whatever order and version it stands.
#[tokio::test]
async fn a_connection_that_is_to_be_closed_is_not_used_again() {
    for fields in [
        "connection: close, keep-alive\r\n",
        "connection: keep-alive, close\r\n",
        "connection: keep-alive\r\nconnection: CLOSE\r\n",
        "connection: close\r\nconnection: keep-alive\r\n",
        "connection: \u{e9} ,close\r\n",
    ] {
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let response = format!("{version} 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
            let (first, reused, _) = twice("GET", &response, "ok").await;
            assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{fields:?}: {first}");
            assert!(!reused, "{version} {fields:?}");
        }
    }
    for (response, again) in [
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nconnection: x,Keep-Alive\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nconnection: closed\r\ncontent-length: 2\r\n\r\nok", true),
    ] {
        let (_, reused, _) = twice("GET", response, "ok").await;
        assert_eq!(reused, again, "{response:?}");
    }
}
