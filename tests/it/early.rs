//! Backends that respond before they have the whole request, and what becomes of the rest of it.
//!
//! Every backend writes raw bytes; what a client that speaks to it directly would get is what it must get.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kagent_proxy::config::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::secrets::begin;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, INTERNAL_ERROR, NO_ERROR, RST_STREAM,
    frame,
};
use crate::support::{BOUND, Backend, TestProxy, start, start_with};
use crate::tls::before_https;

const LARGE: usize = 3 * 1024 * 1024;

/// What a client reads that sends all of a large body, however it is answered.
async fn upload(proxy: &TestProxy, framing: &str, body: &[u8]) -> String {
    let client = proxy.connect().await;
    let (mut reader, mut writer) = client.0.into_split();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n{framing}\r\n\r\n"
    );
    let write = async {
        // Who is refused early may not be able to send it all.
        let _sent = writer.write_all(head.as_bytes()).await;
        let _sent = writer.write_all(body).await;
    };
    let mut answer = Vec::new();
    let read = tokio::time::timeout(BOUND, reader.read_to_end(&mut answer));
    let ((), read) = tokio::join!(write, read);
    read.expect("an end").expect("no reset");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A large body as one piece and as chunks, with what frames it.
fn bodies() -> [(String, Vec<u8>); 2] {
    bodies_of(LARGE)
}

/// The same of so many bytes, in pieces of 64 KiB.
fn bodies_of(bytes: usize) -> [(String, Vec<u8>); 2] {
    let piece = vec![b'x'; 64 * 1024];
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    let chunks = [chunk.repeat(bytes / piece.len()), b"0\r\n\r\n".to_vec()].concat();
    [
        (format!("content-length: {bytes}"), vec![b'x'; bytes]),
        ("transfer-encoding: chunked".to_owned(), chunks),
    ]
}

/// Each of these statuses a few times: what is lost in a race is lost now and then.
fn statuses() -> Vec<&'static str> {
    ["413 Payload Too Large", "401 Unauthorized", "302 Found"].repeat(5)
}

fn refusal(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")
}

#[tokio::test]
async fn a_backend_that_refuses_an_upload_and_closes_is_heard_every_time() {
    let (proxy, backend) = start().await;
    for (framing, body) in bodies() {
        for status in statuses() {
            let answer = async {
                let mut call = backend.accept().await;
                call.until("\r\n\r\n").await;
                call.send(&refusal(status)).await;
                // It closes with unread bytes, which resets the connection.
                drop(call);
            };
            let (seen, ()) = tokio::join!(upload(&proxy, &framing, &body), answer);
            assert!(seen.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{framing}: {seen}");
            assert!(seen.ends_with("\r\n\r\nno"), "{framing}: {seen}");
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_refusal_by_tls_is_heard_every_time() {
    let (proxy, backend, acceptor) = before_https().await;
    for (framing, body) in bodies() {
        for status in statuses() {
            let answer = async {
                let mut call = acceptor.accept(backend.accept().await.0).await.unwrap();
                let mut some = [0; 1024];
                // The head at least, and not all of the body.
                assert!(call.read(&mut some).await.unwrap() > 0);
                call.write_all(refusal(status).as_bytes()).await.unwrap();
                call.flush().await.unwrap();
            };
            let (seen, ()) = tokio::join!(upload(&proxy, &framing, &body), answer);
            assert!(seen.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{framing}: {seen}");
            assert!(seen.ends_with("\r\n\r\nno"), "{framing}: {seen}");
        }
    }
    proxy.stop().await;
}

/// How a backend shows over HTTP/2, behind a whole response, that it wants no more of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// By RST_STREAM (RFC 9113 section 8.1).
    Reset,
    ResetAndClose,
    /// By nothing but the end of the connection.
    Close,
    GoawayAndClose,
}

#[tokio::test]
async fn a_refusal_in_http_2_is_heard_every_time() {
    use Parting::{Close, GoawayAndClose, Reset, ResetAndClose};

    let partings = [ResetAndClose, Close, Reset, GoawayAndClose].into_iter().cycle();
    for (framing, body) in bodies() {
        for (status, parting) in statuses().into_iter().zip(partings.clone()) {
            let (proxy, backend) =
                start_with(|config| config.routes[0].to.targets[0].scheme = Scheme::H2c).await;
            let answer = async {
                let mut call = Frames::accept(&backend).await;
                // More may be on its way than it will read.
                call.open_windows().await;
                let stream = call.until(DATA).await.stream;
                // :status, as text.
                let block = [&[0x08, 3], &status.as_bytes()[..3]].concat();
                let end = match parting {
                    Reset | ResetAndClose => frame(RST_STREAM, 0, stream, &NO_ERROR.to_be_bytes()),
                    Close => Vec::new(),
                    GoawayAndClose => {
                        let payload = [stream.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
                        frame(GOAWAY, 0, 0, &payload)
                    }
                };
                let frames = [
                    frame(HEADERS, END_HEADERS, stream, &block),
                    frame(DATA, END_STREAM, stream, b"no"),
                    end,
                ];
                call.send(&frames.concat()).await;
                (parting == Reset).then_some(call)
            };
            let (seen, _open) = tokio::join!(upload(&proxy, &framing, &body), answer);
            let start = format!("HTTP/1.1 {status}\r\n");
            assert!(seen.starts_with(&start), "{framing}, {parting:?}: {seen}");
            assert!(seen.contains("no\r\n"), "{framing}, {parting:?}: {seen}");
            assert!(seen.ends_with("\r\n0\r\n\r\n"), "{framing}, {parting:?}: {seen}");
            proxy.stop().await;
        }
    }
}

/// The error is ours, and its client reads it when it has sent everything: the rest is read away meanwhile.
#[tokio::test]
async fn the_error_for_an_upload_that_http_2_breaks_off_is_heard_by_who_sends_first() {
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.targets[0].scheme = Scheme::H2c).await;
    // More than the kernels keep for who does not read.
    for (framing, body) in bodies_of(12 * 1024 * 1024) {
        for closes in [true, false].repeat(2) {
            let breaks = async {
                let mut call = Frames::accept(&backend).await;
                call.open_windows().await;
                let stream = call.until(DATA).await.stream;
                // One that closes is dialled anew, so that each call has a connection of its own.
                match closes {
                    true => call.goaway(stream, INTERNAL_ERROR).await,
                    false => call.reset(stream, INTERNAL_ERROR).await,
                }
                call.goaway(stream, NO_ERROR).await;
                (!closes).then_some(call)
            };
            let sends = async {
                let mut client = proxy.connect().await;
                client
                    .send(&format!(
                        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\
                         connection: close\r\n{framing}\r\n\r\n"
                    ))
                    .await;
                client.send_bytes(&body).await;
                client.rest().await
            };
            let (seen, _open) = tokio::join!(sends, breaks);
            assert!(seen.starts_with("HTTP/1.1 502 upstream_reset\r\n"), "{closes}: {seen}");
            assert!(seen.ends_with('}'), "{closes}: {seen}");
        }
    }
    proxy.stop().await;
}

/// A response that ends with its headers has no other frame to say it.
#[tokio::test]
async fn a_refusal_in_http_2_without_a_body_is_whole_when_the_connection_ends() {
    let (framing, body) = &bodies()[1];
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.targets[0].scheme = Scheme::H2c).await;
    let answer = async {
        let mut call = Frames::accept(&backend).await;
        call.open_windows().await;
        let stream = call.until(DATA).await.stream;
        let block = [&[0x08, 3], &b"413"[..]].concat();
        call.write(HEADERS, END_STREAM | END_HEADERS, stream, &block).await;
    };
    let (seen, ()) = tokio::join!(upload(&proxy, framing, body), answer);
    assert!(seen.starts_with("HTTP/1.1 413 "), "{seen}");
    let metrics = proxy.admin("/metrics").await;
    let complete = "status=\"413\",outcome=\"complete\"} 1";
    assert!(metrics.contains(complete), "{metrics}");
    proxy.stop().await;
}

/// Whole is only what the backend has ended, beside a stream of the same connection that was.
#[tokio::test]
async fn a_response_in_http_2_that_is_not_whole_is_cut_off_when_the_connection_ends() {
    let (proxy, backend) =
        start_with(|config| config.routes[0].to.targets[0].scheme = Scheme::H2c).await;
    let head = "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\
        transfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    let (mut whole, mut cut) = (proxy.connect().await, proxy.connect().await);
    whole.send(head).await;
    let mut call = Frames::accept(&backend).await;
    let first = call.until(DATA).await.stream;
    cut.send(head).await;
    let second = call.until(DATA).await.stream;
    assert_ne!(first, second);
    // :status 200.
    let frames = [
        frame(HEADERS, END_HEADERS, first, &[0x88]),
        frame(HEADERS, END_HEADERS, second, &[0x88]),
        frame(DATA, 0, second, b"part"),
        frame(DATA, END_STREAM, first, b"all"),
    ];
    call.send(&frames.concat()).await;
    drop(call);
    let seen = whole.until("\r\n0\r\n\r\n").await;
    assert!(seen.ends_with("3\r\nall\r\n0\r\n\r\n"), "{seen}");
    let seen = cut.rest().await;
    assert!(seen.ends_with("4\r\npart\r\n"), "{seen}");
    drop(whole);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_of_http_2_hears_a_refusal_every_time() {
    let (proxy, backend) = start().await;
    for status in statuses() {
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://p/").header("x-kagent-host", "s.ns");
        let request = request.body(Full::new(Bytes::from(vec![b'x'; LARGE]))).unwrap();
        let answer = async {
            let mut call = backend.accept().await;
            call.until("\r\n\r\n").await;
            call.send(&refusal(status)).await;
        };
        let (seen, ()) = tokio::join!(sender.send_request(request), answer);
        let seen = seen.unwrap();
        assert_eq!(seen.status().as_str(), &status[..3]);
        assert_eq!(seen.into_body().collect().await.unwrap().to_bytes(), "no", "{status}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_behind_an_early_response_goes_on_to_its_end_and_the_connection_is_used_again() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST /1 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 10\r\n\r\n12345",
        )
        .await;
    let mut call = backend.accept().await;
    call.until("12345").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
    client.until("early").await;
    client.send("67890").await;
    call.until("67890").await;
    client.send("GET /2 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
    tokio::select! {
        head = call.until("\r\n\r\n") => assert!(head.starts_with("GET /2 "), "{head}"),
        // The upload may not have been noticed to be whole when the next request came.
        mut fresh = backend.accept() => {
            assert!(fresh.until("\r\n\r\n").await.starts_with("GET /2 "));
            fresh.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfresh").await;
            client.until("fresh").await;
            drop(client);
            return proxy.stop().await;
        }
    }
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nagain").await;
    client.until("again").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn bytes_behind_a_response_never_become_the_next_one() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for behind in ["", "\r\n", "x"] {
        client.send("GET /1 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{behind}{forged}")).await;
        assert!(client.until("ok").await.ends_with("ok"));
        client.send("GET /2 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
        let mut other = backend.accept().await;
        assert!(other.until("\r\n\r\n").await.starts_with("GET /2 "));
        let close = "connection: close\r\n";
        other.send(&format!("HTTP/1.1 200 OK\r\n{close}content-length: 6\r\n\r\nhonest")).await;
        assert!(client.until("honest").await.ends_with("honest"));
        assert_eq!(call.rest().await, "", "the first connection is closed");
    }
    drop(client);
    proxy.stop().await;
}

/// Whatever still waits for the client when it is called: what is written then is the response, not the parser's own.
#[tokio::test]
async fn a_request_behind_an_early_response_that_is_still_under_way_is_answered() {
    let (proxy, backend) = start().await;
    // About as much as the buffers on the way take, and less, and more.
    for size in (0..40).map(|step| step * step * 4096 + 1) {
        let client = proxy.connect().await;
        let (mut reads, mut writes) = client.0.into_split();
        let head = "HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n";
        let ours = async {
            let begun = format!("POST / {head}content-length: 10\r\n\r\n12345");
            writes.write_all(begun.as_bytes()).await.unwrap();
            let mut begun = [0; 9];
            reads.read_exact(&mut begun).await.unwrap();
            // The rest of it, and the next one.
            let next = format!("67890GET /next {head}connection: close\r\n\r\n");
            writes.write_all(next.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            reads.read_to_end(&mut all).await.unwrap();
            String::from_utf8(all).unwrap()
        };
        let theirs = async {
            let mut call = backend.accept().await;
            call.until("12345").await;
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n");
            call.send(&(answer + &"e".repeat(size))).await;
            let mut call = backend.accept().await;
            assert!(call.until("\r\n\r\n").await.starts_with("GET /next "));
            call.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").await;
        };
        let both = async { tokio::join!(ours, theirs).0 };
        let all = tokio::time::timeout(BOUND, both).await.expect("both are answered");
        let (_, rest) = all.split_once("\r\n\r\n").unwrap();
        let (early, next) = rest.split_at(size);
        assert!(early.bytes().all(|byte| byte == b'e'), "{size}");
        assert!(
            next.starts_with("HTTP/1.1 200 OK\r\n") && next.ends_with("next"),
            "{size}: {next}"
        );
    }
    proxy.stop().await;
}

/// As a direct client sees it: neither waits for the other, in a session or without.
#[tokio::test]
async fn an_upload_goes_on_while_its_client_does_not_read_a_response_that_came_early() {
    let (proxy, backend) = start().await;
    upload_before_reading(&proxy, &backend, "").await;
    let token = begin(&proxy, &backend, "s.ns").await;
    upload_before_reading(&proxy, &backend, &token).await;
    proxy.stop().await;
}

async fn upload_before_reading(proxy: &TestProxy, backend: &Backend, fields: &str) {
    // More than all the buffers on the way.
    const HUGE: usize = 64 * 1024 * 1024;
    let client = proxy.connect().await;
    let (mut reads, mut writes) = client.0.into_split();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n{fields}content-length: {HUGE}\r\n\r\n"
    );
    let ours = async {
        writes.write_all(head.as_bytes()).await.unwrap();
        writes.write_all(&vec![b'u'; HUGE]).await.unwrap();
        // It reads when it has sent everything.
        let mut answer = vec![0; HUGE];
        reads.read_exact(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    };
    let theirs = async {
        let mut call = backend.accept().await;
        let start = call.until("\r\n\r\n").await;
        let (_, start) = start.split_once("\r\n\r\n").unwrap();
        let (mut reads, mut writes) = call.0.split();
        let answer = async {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {HUGE}\r\n\r\n");
            writes.write_all(head.as_bytes()).await.unwrap();
            // Its client may have read enough before the end.
            let _sent = writes.write_all(&vec![b'd'; HUGE]).await;
        };
        let mut rest = vec![0; HUGE - start.len()];
        let (read, ()) = tokio::join!(reads.read_exact(&mut rest), answer);
        read.unwrap();
    };
    let both = async { tokio::join!(ours, theirs) };
    tokio::time::timeout(3 * BOUND, both).await.expect("neither waits for the other");
}
