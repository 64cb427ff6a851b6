//! The connection beside hyper's client, which is its oracle: the same bytes, split at every place, bring the
//! same head, body, trailers and end, or a refusal on both sides.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::Connection;
use super::io::Io;
use crate::body::{RequestBody, Upload};
use crate::headers::names::Names;
use crate::headers::onward::{Ask, Keep, Onward, Origin};
use crate::upstream::faults::HeadLimits;
use crate::upstream::framing;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20 };

/// What one side made of a response.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Option<Vec<(String, Vec<u8>)>>,
}

fn listed(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    map.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

async fn read<B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin>(
    response: Response<B>,
) -> Option<Seen> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?;
    let trailers = body.trailers().map(listed);
    let (status, fields) = (head.status.as_u16(), listed(&head.headers));
    Some(Seen { status, fields, body: body.to_bytes().to_vec(), trailers })
}

/// Sends the response in these pieces, each when the one before has been read, and closes.
async fn backend(mut io: DuplexStream, pieces: Vec<Vec<u8>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    for piece in pieces {
        // Who has refused what came before has closed.
        if io.write_all(&piece).await.is_err() {
            return;
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

fn get(method: &Method) -> Request<()> {
    let request = Request::builder().method(method).uri("/").header("host", "h");
    request.body(()).unwrap()
}

async fn by_hyper(method: &Method, pieces: Vec<Vec<u8>>) -> Option<Seen> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let backend = tokio::spawn(backend(theirs, pieces));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_header_size(LIMITS.bytes)
        .max_headers(LIMITS.fields)
        .allow_spaces_after_header_name_in_responses(true)
        .handshake(TokioIo::new(ours))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(get(method).map(|()| Empty::<Bytes>::new())).await;
    let seen = match response {
        // What this program has always refused of what hyper takes.
        Ok(mut response) => {
            let (version, status) = (response.version(), response.status());
            let head = *method == Method::HEAD;
            let names = Names::of(response.headers());
            match framing::settle(head, version, status, names, response.headers_mut()) {
                Ok(_) => read(response).await,
                Err(_) => None,
            }
        }
        Err(_) => None,
    };
    connection.abort();
    backend.abort();
    seen
}

fn origin() -> Origin {
    Origin {
        named: Vec::new(),
        joins_cookies: false,
        trusted: false,
        peer: HeaderValue::from_static("10.0.0.9"),
        proto: "http",
        host: None,
        via: HeaderValue::from_static("1.1 us"),
    }
}

fn onward(origin: &Origin, keep: Keep) -> Onward<'_> {
    Onward {
        origin,
        path: PathAndQuery::from_static("/"),
        authority: None,
        ask: Ask::Nothing,
        whole: false,
        session: None,
        keep,
    }
}

/// A POST with bytes of our own, and what is known of their way.
fn own(bytes: &'static [u8]) -> (Box<Request<RequestBody>>, Arc<Upload>) {
    let upload = Arc::new(Upload::default());
    let body = RequestBody::own(Bytes::from_static(bytes), Arc::clone(&upload));
    let request = Request::post("/").header("host", "h").header("content-type", "a/b");
    (Box::new(request.body(body).unwrap()), upload)
}

/// The response, and whether the connection may be used again.
async fn by_us(method: &Method, pieces: Vec<Vec<u8>>) -> (Option<Seen>, bool) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let backend = tokio::spawn(backend(theirs, pieces));
    let mut connection = Connection::new(Io::Memory(ours), LIMITS);
    let body = RequestBody::empty(Arc::new(Upload::default()));
    let origin = origin();
    let onward = onward(&origin, Keep::No);
    let seen = match connection.send(Box::new(get(method).map(|()| body)), &onward).await {
        Ok(response) => read(response.map(|_| Rest(&mut connection))).await,
        Err(_) => None,
    };
    backend.abort();
    let reusable = connection.is_reusable();
    (seen, reusable)
}

/// The body of a response, as hyper would read it.
struct Rest<'a>(&'a mut Connection);

impl Body for Rest<'_> {
    type Data = Bytes;
    type Error = super::Fault;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, super::Fault>>> {
        self.0.poll_frame(cx)
    }
}

fn alone<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
}

/// Compares at one split, and without one.
async fn same(method: &Method, response: &[u8], at: usize) -> (Option<Seen>, bool) {
    let (first, second) = response.split_at(at);
    let pieces = vec![first.to_vec(), second.to_vec()];
    let theirs = by_hyper(method, pieces.clone()).await;
    let (ours, reusable) = by_us(method, pieces).await;
    let text = String::from_utf8_lossy(response);
    assert_eq!(ours, theirs, "{method} split at {at}: {text:?}");
    (ours, reusable)
}

const BODIES: &[(&str, &str)] = &[
    ("", ""),
    ("", "until close"),
    ("content-length: 0\r\n", ""),
    ("content-length: 5\r\n", "hello"),
    ("content-length: 5\r\n", "hel"),
    ("content-length: 5\r\n", "hello and more"),
    ("content-length: 5, 5\r\n", "hello"),
    ("content-length: 5\r\ncontent-length: 6\r\n", "hello"),
    ("content-length: +5\r\n", "hello"),
    ("Content-Length : 5\r\n", "hello"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5;a=b\r\nhello\r\n1 \r\n!\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\nx-sum: 7\r\nx-b: 8\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
    ("transfer-encoding: chunked\r\n", "5\r\nhello!\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\nhello"),
    ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: gzip, chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ("transfer-encoding: identity\r\n", "hello"),
    ("x-a: 1\r\n folded\r\ncontent-length: 0\r\n", ""),
    ("x a: 1\r\ncontent-length: 0\r\n", ""),
    ("x-empty:\r\nx-wide:  \t a b \t \r\ncontent-length: 0\r\n", ""),
    ("connection: close\r\ncontent-length: 2\r\n", "ok"),
    ("connection: keep-alive\r\ncontent-length: 2\r\n", "ok"),
];

const STATUS: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 418 Short and stout",
    "HTTP/1.1 200",
    "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 404 Not Found",
    "HTTP/2.0 200 OK",
    "HTTP/1.1 20 OK",
    "hello",
];

#[test]
fn every_response_is_what_hyper_makes_of_it_wherever_it_is_split() {
    let (mut taken, mut refused) = (0, 0);
    alone(async {
        for status in STATUS {
            for (fields, body) in BODIES {
                let response = format!("{status}\r\n{fields}\r\n{body}");
                for at in 0..=response.len() {
                    let (seen, _) = same(&Method::GET, response.as_bytes(), at).await;
                    *if seen.is_some() { &mut taken } else { &mut refused } += 1;
                }
                same(&Method::HEAD, response.as_bytes(), response.len()).await;
            }
        }
    });
    assert!(taken > 5000 && refused > 5000, "{taken} taken, {refused} refused");
}

#[test]
fn a_head_has_its_limits_to_the_byte() {
    alone(async {
        let head =
            |fill: usize| format!("HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n", "y".repeat(fill));
        let room = LIMITS.bytes - head(0).len();
        assert!(by_us(&Method::GET, vec![head(room).into_bytes()]).await.0.is_some());
        assert!(by_us(&Method::GET, vec![head(room + 1).into_bytes()]).await.0.is_none());
        let endless = vec![vec![b'x'; 1000]; 10];
        assert!(by_us(&Method::GET, endless).await.0.is_none());
        let fields = |count: usize| format!("HTTP/1.1 204 x\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(by_us(&Method::GET, vec![fields(LIMITS.fields).into_bytes()]).await.0.is_some());
        assert!(
            by_us(&Method::GET, vec![fields(LIMITS.fields + 1).into_bytes()]).await.0.is_none()
        );
    });
}

#[test]
fn a_connection_is_used_again_only_where_its_end_is_sure() {
    alone(async {
        for (response, again) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x, Close\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n!", false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\nok", false),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\nok", false),
        ] {
            let (seen, reusable) = by_us(&Method::GET, vec![response.as_bytes().to_vec()]).await;
            assert!(seen.is_some(), "{response:?}");
            assert_eq!(reusable, again, "{response:?}");
        }
    });
}

#[test]
fn an_idle_connection_that_speaks_or_closes_is_not_open() {
    alone(async {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut connection = Connection::new(Io::Memory(ours), LIMITS);
        assert!(connection.is_open());
        theirs.write_all(b"H").await.unwrap();
        assert!(!connection.is_open());
        let (ours, theirs) = tokio::io::duplex(64);
        let mut connection = Connection::new(Io::Memory(ours), LIMITS);
        drop(theirs);
        assert!(!connection.is_open());
    });
}

#[test]
fn however_many_are_looked_at_in_one_poll_none_that_has_closed_is_found_open() {
    alone(async {
        let closed = || Connection::new(Io::Memory(tokio::io::duplex(64).0), LIMITS);
        let open = (0..1000).filter(|_| closed().is_open()).count();
        assert_eq!(open, 0);
    });
}

#[test]
fn a_request_whose_backend_closes_behind_an_interim_response_is_what_it_was() {
    alone(async {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".to_vec();
        let (backend, origin) = (backend(theirs, vec![interim]), origin());
        let mut connection = Connection::new(Io::Memory(ours), LIMITS);
        let (request, _upload) = own(b"{}");
        let onward = onward(&origin, Keep::No);
        let (failed, ()) = tokio::join!(connection.send(request, &onward), backend);
        let failed = failed.unwrap_err();
        assert!(failed.written && connection.interim() == 1);
        let fields = listed(failed.request.unwrap().headers());
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host", "content-type"]);
    });
}

#[test]
fn a_request_is_let_go_of_when_it_has_been_sent_behind_its_response() {
    alone(async {
        // The pipe has no room for the request.
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut connection = Connection::new(Io::Memory(ours), LIMITS);
        let (request, upload) = own(&[b'x'; 100]);
        let (origin, mut seen) = (origin(), vec![0; 16]);
        theirs.write_all(b"HTTP/1.1 200 OK\r").await.unwrap();
        let rest = async {
            theirs.write_all(b"\ncontent-length: 2\r\n\r\n").await.unwrap();
            theirs.read_exact(&mut seen).await.unwrap();
        };
        let onward = onward(&origin, Keep::No);
        let (response, ()) = tokio::join!(connection.send(request, &onward), rest);
        assert_eq!(response.unwrap().status(), 200);
        assert!(!connection.is_sent() && Arc::strong_count(&upload) == 2, "it is still needed");
        let drained = async {
            while !seen.ends_with(b"xxxxx")
                || seen.iter().filter(|byte| **byte == b'x').count() < 100
            {
                seen.push(theirs.read_u8().await.unwrap());
            }
            theirs.write_all(b"ok").await.unwrap();
        };
        let (seen, ()) = tokio::join!(Rest(&mut connection).collect(), drained);
        assert_eq!(seen.unwrap().to_bytes(), "ok");
        assert!(connection.is_reusable() && Arc::strong_count(&upload) == 1, "nobody has it");
    });
}

#[tokio::test(start_paused = true)]
async fn a_backend_s_time_for_an_answer_begins_with_the_last_byte_that_it_took() {
    let (ours, mut theirs) = tokio::io::duplex(16);
    let mut connection = Connection::new(Io::Memory(ours), LIMITS);
    let (request, upload) = own(&[b'x'; 100]);
    let (origin, limit, began) = (origin(), Duration::from_secs(9), Instant::now());
    let pause = Duration::from_secs(5);
    let backend = async {
        tokio::time::sleep(pause).await;
        upload.progress.add(100);
        while theirs.read_u8().await.is_ok() {}
    };
    let onward = onward(&origin, Keep::No);
    tokio::select! {
        _ = connection.send(request, &onward) => panic!("nobody answers"),
        () = backend => panic!("nobody closes"),
        () = upload.progress.overdue(limit) => {
            let age = Instant::now().saturating_duration_since(began);
            assert_eq!(age, pause + limit);
        },
    }
}

fn field() -> impl Strategy<Value = String> {
    let length = (0u8..12).prop_map(|length| format!("content-length: {length}"));
    let other = "[a-zA-Z-]{1,8} ?: ?[ -~]{0,12}";
    let coding = prop::sample::select(vec!["chunked", "Chunked", "gzip", "chunked, chunked"])
        .prop_map(|coding| format!("transfer-encoding: {coding}"));
    prop_oneof![3 => other, 1 => length, 1 => coding]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn generated_responses_are_what_hyper_makes_of_them(
        version in prop::sample::select(vec![Version::HTTP_10, Version::HTTP_11]),
        status in prop::sample::select(vec![200u16, 204, 304, 404, 500, 103]),
        fields in prop::collection::vec(field(), 0..4),
        body in "([0-9a-f]{1,2}(;[a-z]{0,3})?\r\n[a-z]{0,12}\r\n){0,3}(0\r\n(x: [a-z]{0,3}\r\n)?\r\n)?[a-z]{0,4}",
        at in any::<prop::sample::Index>(),
    ) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let response = format!("{version:?} {status} Status\r\n{fields}\r\n{body}");
        let at = at.index(response.len() + 1);
        alone(same(&Method::GET, response.as_bytes(), at));
    }
}
