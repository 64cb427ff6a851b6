//! What a head may not say, and what it keeps: the cases beside `framing.rs` that only we decide.
//!
//! Each sends its raw bytes and a marker request right behind them. Either the bytes are refused, the
//! connection ends and nothing is dialled; or the backend sees one well-framed request, and then the
//! marker as itself or not at all.

use crate::support::{Backend, Client, OK, start};

const MARKER: &str = "GET /marker HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";

/// A head with Host and target, these fields, and what follows it.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /first HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n{fields}\r\n{rest}")
}

/// Sends the bytes and the marker; the answer must be one refusal, and nothing may have been dialled.
async fn is_refused(request: &[u8], status: &str) -> String {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send_bytes(&[request, MARKER.as_bytes()].concat()).await;
    let shown = String::from_utf8_lossy(request).into_owned();
    let answer = client.rest().await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {answer:?}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("event=\"opened\"} 0"), "{shown:?} was dialled: {metrics}");
    proxy.stop().await;
    drop(backend);
    answer
}

/// What the backend read of the first request and of the marker; the second is empty if the proxy
/// ended the client's connection in between.
async fn is_passed(request: &[u8], end: &str) -> (String, String) {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send_bytes(&[request, MARKER.as_bytes()].concat()).await;
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

#[tokio::test]
async fn lengths_that_differ_or_are_no_number_are_refused() {
    for fields in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 3\r\n",
        "content-length: +3\r\n",
        "content-length: -1\r\n",
        "content-length: 0x3\r\n",
        "content-length: 3 3\r\n",
        "content-length: \r\n",
        "content-length: 18446744073709551616\r\n",
    ] {
        is_refused(post(fields, "abc").as_bytes(), "400 ").await;
    }
}

#[tokio::test]
async fn codings_other_than_chunked_are_refused() {
    for fields in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
    ] {
        let answer = is_refused(post(fields, "0\r\n\r\n").as_bytes(), "400 bad_request").await;
        assert!(answer.contains("x-kagent-proxy-error: bad_request\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    for fields in [
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding\t: chunked\r\n",
        " transfer-encoding: chunked\r\n",
    ] {
        is_refused(post(fields, "0\r\n\r\n").as_bytes(), "400 ").await;
    }
    let old =
        "POST / HTTP/1.0\r\nx-kagent-host: s.ns\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    is_refused(old.as_bytes(), "400 ").await;
}

#[tokio::test]
async fn broken_heads_are_refused() {
    for fields in [
        "x-a: 1\r\n b\r\n", // obs-fold
        "x-a: 1\r\n\tb\r\n",
        "x-a : 1\r\n", // space before the colon
        "x a: 1\r\n",
        ": 1\r\n",       // no name
        "x-a\r\n",       // no colon
        "x-a: a\0b\r\n", // NUL and control bytes
        "x-a: a\x01b\r\n",
        "x-a: a\x7fb\r\n",
        "x\0a: 1\r\n",
        "x-a: a\rb\r\n", // bare CR
        "x-(a): 1\r\n",
        "host: p\r\n", // a second Host
    ] {
        is_refused(post(fields, "").as_bytes(), "400 ").await;
    }
    for line in [
        "GET\0 / HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/1.1 x",
        "GET / http/1.1",
        "GET /a b HTTP/1.1",
        "GET a.ns HTTP/1.1",
        "GET * HTTP/1.1",
        "G(T / HTTP/1.1",
    ] {
        let request = format!("{line}\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n");
        is_refused(request.as_bytes(), "400 ").await;
    }
    is_refused(b"GET / HTTP/1.1\r\nx-kagent-host: s.ns\r\n\r\n", "400 ").await;
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let request = "GET /first HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\
        transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (first, marker) = is_passed(request.as_bytes(), "0\r\n\r\n").await;
    assert_eq!(split(&first).1, "3\r\nabc\r\n0\r\n\r\n");
    assert!(is_marker(&marker), "{marker}");
}

/// A client must not be able to have a healthy endpoint ejected, for others too.
#[tokio::test]
async fn broken_bodies_are_the_client_s_fault() {
    let (proxy, backend) = start().await;
    for _ in 0..5 {
        let mut client = proxy.connect().await;
        client.send(&post("transfer-encoding: chunked\r\n", "g\r\n")).await;
        backend.accept().await.rest().await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 bad_request\r\n"), "{answer}");
    }
    let metrics = proxy.admin("/metrics").await;
    let ejected = metrics.lines().find(|line| line.starts_with("kagent_proxy_ejections_total"));
    assert!(ejected.is_some_and(|line| line.ends_with(" 0")), "{ejected:?}");
    drop(backend);
    proxy.stop().await;
}

/// The head is good and goes up; the body is not, and its end must reach nobody.
#[tokio::test]
async fn broken_chunks_never_end_a_message() {
    for body in [
        "g\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\rabc\r0\r\r",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ] {
        let (proxy, backend) = start().await;
        let mut client = proxy.connect().await;
        let request = post("transfer-encoding: chunked\r\n", body) + MARKER;
        client.send(&request).await;
        let mut call = backend.accept().await;
        // Reads to the end: the proxy has to close, since it cannot end the message.
        let seen = call.rest().await;
        let after = seen.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!after.ends_with("0\r\n\r\n"), "{body:?} was ended: {seen:?}");
        assert!(!seen.contains("/marker"), "{body:?} let the marker in: {seen:?}");
        drop(call);
        let answers = client.rest().await;
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {answers:?}");
        drop((client, backend));
        proxy.stop().await;
    }
}

/// The head of the answer to a request without a marker; the backend must not have been dialled.
async fn is_refused_alone(request: &str) -> String {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(request).await;
    let answer = client.until("\r\n\r\n").await;
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("event=\"opened\"} 0"), "dialled: {metrics}");
    drop((client, backend));
    proxy.stop().await;
    answer
}

#[tokio::test]
async fn the_authority_of_an_absolute_target_is_the_client_s_host_and_decides_no_backend() {
    let request = "GET http://169.254.169.254:1/first?a=//b HTTP/1.1\r\nhost: p\r\n\
        x-kagent-host: s.ns\r\n\r\n";
    let (first, marker) = is_passed(request.as_bytes(), "\r\n\r\n").await;
    assert!(first.starts_with("GET /first?a=//b HTTP/1.1\r\n"), "{first}");
    assert!(first.contains("\r\nhost: 127.0.0.1:"), "{first}");
    assert!(first.contains("\r\nx-forwarded-host: 169.254.169.254:1\r\n"), "{first}");
    assert!(is_marker(&marker), "{marker}");
    // RFC 9110 section 4.2.4: what stands before an @ would deceive whoever reads it.
    let answer =
        is_refused(request.replace("//169", "//u:p@169").as_bytes(), "400 bad_request").await;
    assert!(answer.contains("user information"), "{answer}");
    let request = "OPTIONS * HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
    let (first, _) = is_passed(request.as_bytes(), "\r\n\r\n").await;
    assert!(first.starts_with("OPTIONS * HTTP/1.1\r\n"), "{first}");
}

#[tokio::test]
async fn many_equal_targets_are_one_and_differing_ones_none() {
    let equal = "x-kagent-host: S.NS\r\nX-Kagent-Host: s.ns.svc.cluster.local\r\n".repeat(20);
    let (first, marker) =
        is_passed(post(&format!("{equal}content-length: 0\r\n"), "").as_bytes(), "\r\n\r\n").await;
    assert!(!first.to_ascii_lowercase().contains("x-kagent-host"), "{first}");
    assert!(is_marker(&marker), "{marker}");
    for value in ["other.ns", "s.ns, s.ns", "s.ns s.ns", "s.ns/", "s.ns#", "s.ns%00", "", "s..ns"] {
        let request = post(&format!("x-kagent-host: {value}\r\n"), "");
        let answer = is_refused_alone(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 bad_target\r\n"), "{value:?}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_field_cannot_take_the_framing_away() {
    let request = post("connection: content-length, host\r\ncontent-length: 3\r\n", "abc");
    let (first, marker) = is_passed(request.as_bytes(), "abc").await;
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
    let (first, marker) = is_passed(request.as_bytes(), "\r\n\r\n").await;
    assert!(first.contains(&format!("{name}: 1\r\n")), "{} bytes", first.len());
    assert!(is_marker(&marker), "{marker}");
}
