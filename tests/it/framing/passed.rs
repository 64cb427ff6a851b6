//! Requests that go on, in one framing whatever they came in.

use super::{HEAD, is_marker, is_passed, is_refused, post, split};
use crate::support::start;

struct Odd {
    name: &'static str,
    message: String,
    /// What frames it upstream.
    present: &'static str,
    absent: &'static str,
    /// Nobody knows what the sender meant to follow (RFC 9112 section 6.1): it is not read.
    ends: bool,
}

const LENGTH: &str = "content-length: 4\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n";

fn odd_heads() -> Vec<Odd> {
    vec![
        Odd {
            name: "the same length twice",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}content-length: 4\r\ncontent-length: 4\r\n\r\nabcd"
            ),
            present: LENGTH,
            absent: "transfer-encoding",
            ends: false,
        },
        Odd {
            name: "lines that end with a bare line feed",
            message: format!("POST /a HTTP/1.1\n{HEAD}content-length: 4\n\nabcd"),
            present: LENGTH,
            absent: "transfer-encoding",
            ends: false,
        },
        Odd {
            name: "an empty line before the request",
            message: format!("\r\n\r\nPOST /a HTTP/1.1\r\n{HEAD}content-length: 4\r\n\r\nabcd"),
            present: LENGTH,
            absent: "transfer-encoding",
            ends: false,
        },
        Odd {
            name: "an absolute target, whose authority is not the backend's Host",
            message: format!(
                "POST http://other.example/a HTTP/1.1\r\n{HEAD}content-length: 4\r\n\r\nabcd"
            ),
            present: "x-forwarded-host: other.example\r\n",
            absent: "\r\nhost: other.example",
            ends: false,
        },
    ]
}

fn odd_bodies() -> Vec<Odd> {
    vec![
        Odd {
            name: "both framings: chunked counts, the length is dropped",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}content-length: 40\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
            ),
            present: CHUNKED,
            absent: "content-length",
            ends: true,
        },
        Odd {
            name: "both framings, the other way round",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\ncontent-length: 40\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
            ),
            present: CHUNKED,
            absent: "content-length",
            ends: true,
        },
        Odd {
            name: "a chunk with an extension, which is dropped",
            message: format!(
                "POST /a HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\n\r\n4;x=\"y\"\r\nabcd\r\n0;z\r\n\r\n"
            ),
            present: CHUNKED,
            absent: ";x",
            ends: false,
        },
    ]
}

/// What may be written in two ways goes on in one, and the marker behind it is a request of its own.
#[tokio::test]
async fn odd_but_unambiguous_messages_go_on_in_one_framing() {
    for Odd { name, message, present, absent, ends } in odd_heads().into_iter().chain(odd_bodies())
    {
        let end = if present == CHUNKED { "\r\n0\r\n\r\n" } else { "abcd" };
        let (seen, marker) = is_passed(&message, end).await;
        let seen = seen.to_ascii_lowercase();
        assert!(seen.starts_with("post /a http/1.1\r\n"), "{name}: {seen:?}");
        assert!(seen.contains(present), "{name}: {present:?} is missing in {seen:?}");
        assert!(!seen.contains(absent), "{name}: {absent:?} is in {seen:?}");
        assert_eq!(seen.matches(" http/1.1\r\n").count(), 1, "{name}: {seen:?}");
        assert!(if ends { marker.is_empty() } else { is_marker(&marker) }, "{name}: {marker:?}");
    }
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let request = "GET /first HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (first, marker) = is_passed(request, "0\r\n\r\n").await;
    assert_eq!(split(&first).1, "3\r\nabc\r\n0\r\n\r\n");
    assert!(is_marker(&marker), "{marker}");
}

#[tokio::test]
async fn the_authority_of_an_absolute_target_is_the_client_s_host_and_decides_no_backend() {
    let request = "GET http://169.254.169.254:1/first?a=//b HTTP/1.1\r\nhost: p\r\n\
        x-kagent-host: s.ns\r\n\r\n";
    let (first, marker) = is_passed(request, "\r\n\r\n").await;
    assert!(first.starts_with("GET /first?a=//b HTTP/1.1\r\n"), "{first}");
    assert!(first.contains("\r\nhost: 127.0.0.1:"), "{first}");
    assert!(first.contains("\r\nx-forwarded-host: 169.254.169.254:1\r\n"), "{first}");
    assert!(is_marker(&marker), "{marker}");
    // RFC 9110 section 4.2.4: what stands before an @ would deceive whoever reads it.
    let (proxy, _backend) = start().await;
    let user = request.replace("//169", "//u:p@169");
    let answer = is_refused(&proxy, &user, "400 bad_request").await;
    proxy.stop().await;
    assert!(answer.contains("user information"), "{answer}");
    let request = "OPTIONS * HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
    let (first, _) = is_passed(request, "\r\n\r\n").await;
    assert!(first.starts_with("OPTIONS * HTTP/1.1\r\n"), "{first}");
}

#[tokio::test]
async fn a_connection_field_cannot_take_the_framing_away() {
    let request = post("connection: content-length, host\r\ncontent-length: 3\r\n", "abc");
    let (first, marker) = is_passed(&request, "abc").await;
    let (head, body) = split(&first);
    assert_eq!(head.matches("content-length: 3").count(), 1, "{head}");
    assert_eq!(head.matches("\r\nhost: ").count(), 1, "{head}");
    assert_eq!(body, "abc");
    assert!(is_marker(&marker), "{marker}");
}

#[tokio::test]
async fn long_names_pass_as_they_are() {
    let name = format!("x-{}", "n".repeat(8000));
    let request = post(&format!("{name}: 1\r\ncontent-length: 0\r\n"), "");
    let (first, marker) = is_passed(&request, "\r\n\r\n").await;
    assert!(first.contains(&format!("{name}: 1\r\n")), "{} bytes", first.len());
    assert!(is_marker(&marker), "{marker}");
}
