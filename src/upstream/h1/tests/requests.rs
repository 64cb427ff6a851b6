//! Requests as we write them beside what hyper's client would have sent: the same method, target, fields in their
//! order, body and trailers, as hyper's server reads them.

use std::convert::Infallible;
use std::sync::Mutex;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::time::timeout;

use super::*;
use crate::body::tap::Watch;

/// Of a paused clock: longer than whoever sends in pieces waits between two, and longer than anything takes.
const SILENCE: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(10);

/// A request as a client sends it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) head: String,
    /// Each when the one before has been read; behind `100 Continue`, if the head waits for it.
    pub(super) body: Vec<Vec<u8>>,
    pub(super) ask: Ask,
}

/// Who carries it to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Us,
    Hyper,
}

/// What a server reads of a request.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    method: Method,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    framing: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

async fn send(request: Request<Incoming>, by: By, ask: Ask, io: DuplexStream) {
    let (head, body) = request.into_parts();
    let origin = origin();
    let onward = Onward {
        path: head.uri.path_and_query().unwrap().clone(),
        authority: Some(HeaderValue::from_static("tools.ns:8080")),
        ask,
        ..onward(&origin, Keep::No)
    };
    match by {
        By::Us => {
            let expects = head.headers.contains_key("expect");
            let body = RequestBody::new(body, Watch::Bytes, expects, &Arc::default());
            let request = Box::new(Request::from_parts(head, body));
            let mut connection = Connection::new(Io::Memory(io), LIMITS);
            let response = connection.send(request, &onward).await.unwrap();
            Rest(&mut connection).collect().await.unwrap();
            assert!(response.status() == 200 && connection.is_reusable());
        }
        By::Hyper => {
            let mut fields = HeaderMap::new();
            let told = onward.http1(&head.headers, |name, value| {
                fields.append(name, value.clone());
            });
            if told {
                fields.insert(CONTENT_LENGTH, head.headers[CONTENT_LENGTH].clone());
            }
            if head.headers.contains_key(TRANSFER_ENCODING) {
                fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let mut request = Request::new(body);
            *request.method_mut() = head.method;
            *request.uri_mut() = onward.path.into();
            *request.headers_mut() = fields;
            let io = TokioIo::new(io);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.unwrap();
            response.into_body().collect().await.unwrap();
            connection.abort();
        }
    }
}

/// Reads until nothing more comes.
async fn read(io: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    let (mut some, mut patience) = ([0; 1024], NEVER);
    while let Ok(Ok(length @ 1..)) = timeout(patience, io.read(&mut some)).await {
        all.extend_from_slice(&some[..length]);
        patience = SILENCE;
    }
    all
}

/// The bytes that come to a backend, through a pipe that holds `room` of them.
pub(super) async fn wire(asked: &Asked, by: By, room: usize) -> Vec<u8> {
    let (mut client, listener) = tokio::io::duplex(1 << 16);
    let (ours, mut backend) = tokio::io::duplex(room);
    let (once, ask) = (Mutex::new(Some(ours)), asked.ask);
    let service = service_fn(move |request| {
        let io = once.lock().unwrap().take().expect("one request");
        async move {
            send(request, by, ask, io).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let server = hyper::server::conn::http1::Builder::new();
    let server = tokio::spawn(server.serve_connection(TokioIo::new(listener), service));
    let script = async {
        client.write_all(asked.head.as_bytes()).await.unwrap();
        if asked.head.contains("\r\nexpect: ") {
            let mut told = [0; 25];
            client.read_exact(&mut told).await.unwrap();
            assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n", "before its body");
        }
        for piece in &asked.body {
            client.write_all(piece).await.unwrap();
            quiet().await;
        }
        let response = read(&mut client).await;
        assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
    };
    let answer = async {
        let all = read(&mut backend).await;
        backend.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut backend).await, b"", "bytes behind the request");
        all
    };
    let ((), all) = tokio::join!(script, answer);
    drop(client);
    server.abort();
    all
}

/// How hyper's server reads it, which must be one request to the byte.
async fn meaning(raw: &[u8]) -> Meaning {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    client.write_all(raw).await.unwrap();
    client.shutdown().await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let into = Arc::clone(&into);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().map(listed).unwrap_or_default();
            let (framing, fields) = listed(&head.headers)
                .into_iter()
                .partition(|(name, _)| name == "content-length" || name == "transfer-encoding");
            into.lock().unwrap().push(Meaning {
                method: head.method,
                target: head.uri.to_string(),
                fields,
                framing,
                body: body.to_bytes().to_vec(),
                trailers,
            });
            Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
        }
    });
    let mut server_side = hyper::server::conn::http1::Builder::new();
    let served = server_side.half_close(true).serve_connection(TokioIo::new(server), service).await;
    let text = String::from_utf8_lossy(raw);
    assert!(served.is_ok(), "{served:?}: {text:?}");
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 1, "{text:?}");
    seen.remove(0)
}

/// What our bytes mean, which is what hyper's mean.
async fn same(asked: &Asked, room: usize) -> Meaning {
    let ours = wire(asked, By::Us, room).await;
    let theirs = wire(asked, By::Hyper, room).await;
    let text = String::from_utf8_lossy(&ours).into_owned();
    let (ours, theirs) = (meaning(&ours).await, meaning(&theirs).await);
    assert_eq!(ours, theirs, "{asked:?}: {text:?}");
    ours
}

pub(super) fn asked(head: &str, body: &[&str]) -> Asked {
    let body = body.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    Asked { head: format!("{head}\r\n\r\n"), body, ask: Ask::Nothing }
}

/// One request of each kind.
pub(super) fn kinds() -> Vec<Asked> {
    vec![
        asked("GET /a?b=c HTTP/1.1\r\nhost: p\r\nx-a: 1\r\nx-b:\r\nx-a: 2\r\nvia: 1.0 x", &[]),
        asked("POST / HTTP/1.1\r\nhost: p", &[]),
        asked("POST / HTTP/1.1\r\nhost: p\r\ncontent-length: 0", &[]),
        asked("PUT /a HTTP/1.1\r\nhost: p\r\ncontent-length: 11", &["hello", " wor", "ld"]),
        asked(
            "GET / HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked",
            &["3\r\nabc\r\n", "0\r\n\r\n"],
        ),
        asked("POST / HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked", &["0\r\n\r\n"]),
        asked(
            "POST / HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-b",
            &["3\r\nabc\r\n10\r\n0123", "456789abcdef\r\n0\r\nx-sum: 7\r\nx-b:\r\n\r\n"],
        ),
        asked("POST / HTTP/1.1\r\nhost: p\r\nexpect: 100-continue\r\ncontent-length: 2", &["{}"]),
        asked(
            "POST / HTTP/1.1\r\nhost: p\r\nexpect: 100-continue\r\ntransfer-encoding: chunked",
            &["2\r\n{}\r\n", "0\r\n\r\n"],
        ),
        asked("OPTIONS * HTTP/1.1\r\nhost: p", &[]),
        asked("PROPFIND /?x HTTP/1.1\r\nhost: p\r\nconnection: close\r\nkeep-alive: 5", &[]),
    ]
}

#[test]
fn every_request_means_what_hyper_would_have_sent() {
    alone(async {
        for asked in kinds() {
            let seen = same(&asked, 1 << 16).await;
            assert!(!seen.fields.iter().any(|(name, _)| name == "expect"), "{asked:?}");
        }
        for ask in [Ask::Websocket, Ask::Trailers] {
            let seen = same(&Asked { ask, ..kinds().remove(0) }, 1 << 16).await;
            assert!(seen.fields.iter().any(|(name, _)| name == "connection"), "{seen:?}");
        }
    });
}

/// The one way in which we say more: hyper drops trailers that no `Trailer` has named, which only a SHOULD asks for
/// (RFC 9110 section 6.6.2).
#[test]
fn trailers_pass_that_nobody_has_named() {
    let asked = asked(
        "POST / HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked",
        &["3\r\nabc\r\n0\r\nx-sum: 7\r\ncontent-length: 5\r\nhost: x\r\n\r\n"],
    );
    alone(async {
        let seen = meaning(&wire(&asked, By::Us, 1 << 16).await).await;
        assert_eq!(seen.trailers, [("x-sum".to_owned(), b"7".to_vec())]);
        assert_eq!(seen.body, b"abc");
    });
}

/// The fields of a request and its pieces.
fn framed() -> impl Strategy<Value = (String, Vec<Vec<u8>>)> {
    let pieces = || prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..4);
    let none = Just((String::new(), Vec::new()));
    let sized = pieces().prop_map(|pieces| {
        let length = pieces.iter().map(Vec::len).sum::<usize>();
        (format!("content-length: {length}\r\n"), pieces)
    });
    let trailers =
        prop::sample::select(vec!["", "", "x-sum: 7\r\n", "x-sum: 7\r\nX-B: \u{e9} \r\n"]);
    let chunked = (pieces(), trailers, any::<bool>()).prop_map(|(pieces, trailers, at_once)| {
        let mut chunks: Vec<Vec<u8>> = pieces
            .iter()
            .map(|data| [format!("{:x};x\r\n", data.len()).as_bytes(), data, b"\r\n"].concat())
            .collect();
        chunks.push(format!("0\r\n{trailers}\r\n").into_bytes());
        let names = if trailers.is_empty() { "" } else { "trailer: x-sum, x-b\r\n" };
        let chunks = if at_once { vec![chunks.concat()] } else { chunks };
        (format!("{names}transfer-encoding: chunked\r\n"), chunks)
    });
    prop_oneof![1 => none, 2 => sized, 2 => chunked]
}

/// A request as a client sends it.
fn request() -> impl Strategy<Value = Asked> {
    let methods = vec!["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "M-X"];
    let fields = "(x-[a-z]{1,3}|via|accept|te|cookie): ?[!-~\u{e9}]{0,8}\r\n";
    let asks = vec![Ask::Nothing, Ask::Nothing, Ask::Trailers, Ask::Websocket];
    let line = (prop::sample::select(methods), "/[a-zA-Z0-9/%.~_-]{0,12}([?][a-z=&%/?]{0,8})?");
    let fields = prop::collection::vec(fields, 0..6);
    (line, fields, framed(), any::<bool>(), prop::sample::select(asks)).prop_map(
        |((method, target), fields, (framing, body), expects, ask)| {
            let expects = if expects && !body.is_empty() { "expect: 100-continue\r\n" } else { "" };
            let fields = fields.concat();
            let head =
                format!("{method} {target} HTTP/1.1\r\nhost: p\r\n{fields}{expects}{framing}\r\n");
            Asked { head, body, ask }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn generated_requests_mean_what_hyper_would_have_sent(
        asked in request(),
        room in 1usize..80,
    ) {
        alone(same(&asked, room));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Each write ends at each byte once, and at each of its multiples.
    #[test]
    fn generated_requests_come_out_the_same_through_every_pipe(asked in request()) {
        alone(async {
            let whole = wire(&asked, By::Us, 1 << 16).await;
            for room in 1..=whole.len() {
                let seen = wire(&asked, By::Us, room).await;
                let texts = [&seen, &whole].map(|bytes| String::from_utf8_lossy(bytes));
                assert_eq!(texts[0], texts[1], "{asked:?}: {room} bytes at a time");
            }
        });
    }
}
