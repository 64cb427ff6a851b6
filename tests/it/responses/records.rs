//! TLS changes nothing of a message, however its bytes are cut into records: the same response, the same next use of
//! the connection and the same request as without it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::SECOND;
use crate::support::{BOUND, Client, TestProxy, start};
use crate::tls::before_https;

/// A response, and what it answers.
#[derive(Clone, Copy, Debug)]
struct Case {
    method: &'static str,
    response: &'static str,
    /// Whether the backend ends the connection behind it.
    closes: bool,
}

const CASES: &[(&str, &str, bool)] = &[
    ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", false),
    ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false),
    (
        "GET",
        "HTTP/1.1 200\r\nTransfer-Encoding : chunked\r\ntrailer: x-sum\r\n\r\n\
         5;a=\"b\"\r\nhello\r\n01 \r\n!\r\n0\r\nx-sum: 7\r\n\r\n",
        false,
    ),
    ("GET", "HTTP/1.1 200 OK\r\nx-a: 1\r\nX-A: \t2 \r\n\r\nuntil its end", true),
    ("GET", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n", false),
    ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 5\r\n\r\n", false),
    ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", false),
    ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", false),
    (
        "GET",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
         HTTP/1.1 404 Not Here\r\ncontent-length: 2\r\n\r\nno",
        false,
    ),
    ("GET", "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", false),
    ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
    ("GET", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", false),
    // Bytes that nobody has asked for.
    ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", false),
    ("GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n!", false),
    // No responses.
    ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok", false),
    ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\n\r\nok", false),
    ("GET", "hello\r\n\r\n", false),
];

fn ask(method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nte: trailers\r\n\
         connection: close, te\r\n\r\n"
    )
}

/// Reads up to `end`; `None` if the connection has ended before.
async fn until(call: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Option<Vec<u8>> {
    let mut seen = Vec::new();
    let read = async {
        while !seen.ends_with(end) {
            seen.push(call.read_u8().await.ok()?);
        }
        Some(())
    };
    tokio::time::timeout(BOUND, read).await.expect("an end")?;
    Some(seen)
}

/// A response with its body in one piece, however it came, and without what is of this moment or of this proxy. Of our
/// own errors the reason.
fn joined(message: &str) -> String {
    let Some((head, body)) = message.split_once("\r\n\r\n") else { return message.to_owned() };
    let (line, fields) = head.split_once("\r\n").unwrap();
    if head.contains("x-kagent-proxy-error") {
        return line.to_owned();
    }
    let head = fields.split("\r\n").filter(|field| !field.starts_with("date: "));
    let head = head.fold(line.to_owned(), |head, field| format!("{head}\r\n{field}"));
    if !head.contains("transfer-encoding: chunked") {
        return format!("{head}\r\n\r\n{body}");
    }
    let (mut rest, mut data) = (body, String::new());
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return format!("{head}\r\n\r\n{data}, ended, {behind}");
        }
        data.push_str(&behind[..size]);
        rest = &behind[size + 2..];
    }
    format!("{head}\r\n\r\n{data}, cut off at {rest:?}")
}

/// What the client reads of this response, written `size` bytes at a time, and whether its connection is used again.
async fn outcome<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &TestProxy,
    accept: impl AsyncFn() -> S,
    Case { method, response, closes }: Case,
    size: usize,
) -> (String, bool) {
    let mut client = proxy.connect().await;
    client.send(&ask(method, "/first")).await;
    let mut call = accept().await;
    until(&mut call, b"\r\n\r\n").await.expect("a request");
    let write = async {
        for piece in response.as_bytes().chunks(size) {
            // Who has refused what came before has closed.
            if call.write_all(piece).await.is_err() || call.flush().await.is_err() {
                return;
            }
        }
        if closes {
            // So may the proxy have.
            let _closed = call.shutdown().await;
        }
    };
    let (first, ()) = tokio::join!(client.rest(), write);
    let second = async {
        let seen = proxy.ask(&ask("GET", "/second")).await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.ends_with("second"), "{seen}");
    };
    let last = SECOND.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let answer = async {
        let mut other = None;
        let reused = tokio::select! {
            Some(head) = until(&mut call, b"\r\n\r\n") => head.starts_with(b"GET /second "),
            mut fresh = accept() => {
                let head = until(&mut fresh, b"\r\n\r\n").await.expect("a request");
                assert!(head.starts_with(b"GET /second "));
                other = Some(fresh);
                false
            }
        };
        let call = other.as_mut().unwrap_or(&mut call);
        call.write_all(last.as_bytes()).await.unwrap();
        call.flush().await.unwrap();
        reused
    };
    let ((), reused) = tokio::join!(second, answer);
    (joined(&first), reused)
}

#[tokio::test]
async fn a_response_is_what_it_is_without_tls_whatever_each_record_holds() {
    let (plain, plain_backend) = start().await;
    let (secure, backend, acceptor) = before_https().await;
    let by_plain = async || plain_backend.accept().await.0;
    let by_tls = async || acceptor.accept(backend.accept().await.0).await.unwrap();
    let mut again = 0;
    for &(method, response, closes) in CASES {
        let case = Case { method, response, closes };
        let wanted = outcome(&plain, by_plain, case, usize::MAX).await;
        for size in [1, 2, 7, usize::MAX] {
            let seen = Box::pin(outcome(&secure, by_tls, case, size)).await;
            assert_eq!(seen, wanted, "{case:?} in records of {size}");
        }
        again += usize::from(wanted.1);
    }
    assert!(again > 6, "{again}");
    plain.stop().await;
    secure.stop().await;
}

/// Requests in pieces, as a client sends them.
fn requests() -> Vec<Vec<String>> {
    let head = |method: &str, fields: &str| {
        format!(
            "{method} /a?b HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\
             {fields}\r\n"
        )
    };
    let large = format!("{}, the end", "u".repeat(100 * 1024));
    vec![
        vec![head("GET", "x-a: 1\r\n")],
        vec![head("HEAD", "")],
        vec![head("POST", "content-length: 0\r\n")],
        vec![head("POST", "content-length: 11\r\n"), "hello".to_owned(), " world".to_owned()],
        vec![
            head("POST", "transfer-encoding: chunked\r\ntrailer: x-sum\r\n"),
            "5\r\nhello\r\n".to_owned(),
            "6\r\n world\r\n0\r\nx-sum: 7\r\n\r\n".to_owned(),
        ],
        vec![head("PUT", &format!("content-length: {}\r\n", large.len())), large],
    ]
}

/// What the backend reads of a request whose pieces come one by one.
async fn asked<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &TestProxy,
    accept: impl AsyncFn() -> S,
    pieces: &[String],
) -> String {
    let mut client: Client = proxy.connect().await;
    let (head, body) = pieces.split_first().unwrap();
    client.send(head).await;
    let mut call = accept().await;
    let mut seen = until(&mut call, b"\r\n\r\n").await.expect("a request");
    for piece in body {
        let read = async {
            let end = &piece.as_bytes()[piece.len().saturating_sub(8)..];
            seen.extend(until(&mut call, end).await.expect("all of it"));
        };
        tokio::join!(client.send(piece), read);
    }
    call.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    call.flush().await.unwrap();
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(until(&mut call, b"\r\n\r\n").await, None, "nothing follows");
    let text = String::from_utf8(seen).unwrap();
    // The backend's port, and our own name.
    let lines = text.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("host: ") && !line.starts_with("via: ")).collect()
}

#[tokio::test]
async fn a_request_is_the_same_bytes_by_tls() {
    let (plain, plain_backend) = start().await;
    let (secure, backend, acceptor) = before_https().await;
    for pieces in requests() {
        let wanted = asked(&plain, async || plain_backend.accept().await.0, &pieces).await;
        let by_tls = async || acceptor.accept(backend.accept().await.0).await.unwrap();
        let seen = asked(&secure, by_tls, &pieces).await;
        // One is large.
        assert!(seen == wanted, "{:?}: {} and {} bytes", pieces[0], seen.len(), wanted.len());
    }
    plain.stop().await;
    secure.stop().await;
}
