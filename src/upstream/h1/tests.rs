//! The connection, its two ends in memory: alone here, beside hyper in `tests/responses.rs`, `tests/recorded.rs` and
//! `tests/requests.rs`, and with a pipe that takes few bytes in `tests/sizes.rs`.

mod oracle;
mod recorded;
mod requests;
mod responses;
mod sizes;

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
use crate::headers::onward::{Ask, Keep, Onward, Origin};
use crate::upstream::faults::HeadLimits;

const LIMITS: HeadLimits = HeadLimits::new(4096, 20);

fn listed(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    map.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

fn get(method: &Method) -> Request<()> {
    let request = Request::builder().method(method).uri("/").header("host", "h");
    request.body(()).unwrap()
}

/// Waits until nobody has anything left to do: the clock is paused, so it goes on only then.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Sends the response in these pieces, each when the one before has been read; the connection stays.
async fn backend(mut io: DuplexStream, pieces: Vec<Vec<u8>>) -> DuplexStream {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    for piece in pieces {
        // Who has refused what came before has closed.
        if io.write_all(&piece).await.is_err() {
            break;
        }
        quiet().await;
    }
    io
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
        trace: None,
    }
}

fn onward(origin: &Origin, keep: Keep) -> Onward<'_> {
    Onward {
        origin,
        meanings: None,
        path: PathAndQuery::from_static("/"),
        authority: None,
        ask: Ask::Nothing,
        whole: false,
        session: None,
        keep,
        names_host: false,
    }
}

/// A POST with bytes of our own, and what is known of their way.
fn own(bytes: &'static [u8]) -> (Box<Request<RequestBody>>, Arc<Upload>) {
    let upload = Arc::new(Upload::default());
    let body = RequestBody::own(Bytes::from_static(bytes), Arc::clone(&upload));
    let request = Request::post("/").header("host", "h").header("content-type", "a/b");
    (Box::new(request.body(body).unwrap()), upload)
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

/// Runs a test whose clock goes on only when nobody has anything left to do.
fn alone<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
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
        let (closing, origin) = (async { drop(backend(theirs, vec![interim]).await) }, origin());
        let mut connection = Connection::new(Io::Memory(ours), LIMITS);
        let (request, _upload) = own(b"{}");
        let onward = onward(&origin, Keep::No);
        let (failed, ()) = tokio::join!(connection.send(request, &onward), closing);
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
