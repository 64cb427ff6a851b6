//! One exchange on a connection to a backend, with both sides scripted: whatever the client and the backend write, in
//! whatever pieces, the exchange ends, no byte of either body is lost, added or moved, and a connection is used again
//! only behind the exact end of a response.

#![no_main]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kagent_proxy::body::RequestBody;
use kagent_proxy::body::tap::Watch;
use kagent_proxy::headers::onward::{Ask, Keep, Onward, Origin};
use kagent_proxy::upstream::faults::HeadLimits;
use kagent_proxy::upstream::h1::body::{Decoded, Decoder};
use kagent_proxy::upstream::h1::io::Io;
use kagent_proxy::upstream::h1::{Connection, Fault, head};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const LIMITS: HeadLimits = HeadLimits::new(8192, 32);
/// Of a clock that only runs while nothing else can: an exchange that comes here hangs.
const HANGS: Duration = Duration::from_secs(3600);
/// Of the same clock: nothing else can run.
const IDLE: Duration = Duration::from_millis(1);

/// What libFuzzer would seldom find: pieces of HTTP that a script names by their number.
const PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n",
    "content-length: 5\r\n",
    "content-length: 0\r\n\r\n",
    "transfer-encoding: chunked\r\n",
    "\r\n",
    "5\r\nhello\r\n",
    "1;a=b\r\n!\r\n",
    "0\r\n\r\n",
    "0\r\nx-sum: 7\r\n\r\n",
    "hello",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
];

/// What came of the exchange.
#[derive(Default)]
struct Told {
    status: Option<StatusCode>,
    data: Vec<u8>,
    /// The body was read to its end.
    whole: bool,
    /// The response was refused, or broke.
    broken: bool,
    reusable: bool,
    sent: bool,
}

/// The body of a response, noted as it passes.
struct Noted(Connection, Arc<Mutex<Told>>);

impl Body for Noted {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Self(connection, told) = &mut *self;
        let polled = connection.poll_frame(cx);
        let mut told = told.lock().expect("no panic before");
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                told.data.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            Poll::Ready(Some(Err(_))) => told.broken = true,
            Poll::Ready(None) => told.whole = !told.broken,
            Poll::Pending => {}
        }
        // Nobody has to ask again.
        told.whole |= connection.is_end_stream() && !told.broken;
        (told.reusable, told.sent) = (connection.is_reusable(), connection.is_sent());
        polled
    }

    fn is_end_stream(&self) -> bool {
        let Self(connection, told) = self;
        let ended = connection.is_end_stream();
        let mut told = told.lock().expect("no panic before");
        told.whole |= ended && !told.broken;
        (told.reusable, told.sent) = (connection.is_reusable(), connection.is_sent());
        ended
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// Carries the first request of a client to the backend; what follows is turned away.
async fn relay(
    request: Request<Incoming>,
    backend: Option<DuplexStream>,
    keep: bool,
    told: Arc<Mutex<Told>>,
) -> Result<Response<Either<Noted, Empty<Bytes>>>, Infallible> {
    let away = || Ok(Response::new(Either::Right(Empty::new())));
    let Some(backend) = backend else { return away() };
    let origin = Origin {
        named: Vec::new(),
        joins_cookies: false,
        trusted: false,
        peer: HeaderValue::from_static("10.0.0.9"),
        proto: "http",
        host: None,
        via: HeaderValue::from_static("1.1 us"),
        trace: None,
    };
    let onward = Onward {
        origin: &origin,
        meanings: None,
        path: PathAndQuery::from_static("/"),
        authority: None,
        ask: Ask::Nothing,
        whole: false,
        session: None,
        keep: if keep { Keep::Yes } else { Keep::If(|start| start.starts_with(b"k")) },
        names_host: false,
    };
    let request =
        Box::new(request.map(|body| RequestBody::new(body, Watch::Bytes, false, &Arc::default())));
    let mut connection = Connection::new(Io::Memory(backend), LIMITS);
    match connection.send(request, &onward).await {
        Ok(response) => {
            let mut now = told.lock().expect("no panic before");
            now.status = Some(response.status());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return away();
            }
            drop(now);
            Ok(response.map(|_| Either::Left(Noted(connection, told))))
        }
        Err(failed) => {
            told.lock().expect("no panic before").broken = true;
            if let Some(request) = failed.request {
                request.into_body().discard();
            }
            away()
        }
    }
}

/// What a backend's bytes are, read at once: status, data, whether they end in time, and what is left behind them.
fn reference(mut bytes: &[u8], to_head: bool) -> Option<(StatusCode, Vec<u8>, bool, usize)> {
    let head = loop {
        let head = head::read(bytes, LIMITS, to_head, &mut HeaderMap::new()).ok()??;
        bytes = &bytes[head.length..];
        if !head::is_interim(head.response.status()) {
            break head;
        }
    };
    let (status, mut decoder, mut rest) = (head.response.status(), head.body, bytes.to_vec());
    let Decoded { data, used } = decoder.decode(&mut rest).ok()?;
    let trailers = decoder.take_trailers().is_ok();
    let behind = rest.len() - used;
    rest.truncate(data);
    Some((status, rest, trailers && decoder.may_end(), behind))
}

/// The body that a backend has got, and whether it is whole.
fn received(bytes: &[u8]) -> (Vec<u8>, bool) {
    let Some(end) = bytes.windows(4).position(|found| found == b"\r\n\r\n") else {
        return (Vec::new(), false);
    };
    let (head, body) = bytes.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = body.to_vec();
    let mut decoder = match length {
        Some(length) => Decoder::length(length.parse().expect("we have written it")),
        None if head.contains("\r\ntransfer-encoding: chunked\r\n") => Decoder::chunked(),
        None => Decoder::length(0),
    };
    let Decoded { data, used } = decoder.decode(&mut body).expect("we have written chunks");
    assert!(used == body.len(), "nothing is written behind the request");
    body.truncate(data);
    (body, decoder.has_ended())
}

/// Writes what finds room until nobody moves any more; how much it was.
async fn write(io: &mut DuplexStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match tokio::time::timeout(IDLE, io.write(&bytes[written..])).await {
            Ok(Ok(more)) if more > 0 => written += more,
            Ok(_) | Err(_) => break,
        }
    }
    written
}

type Step = (u8, u8, Vec<u8>);

/// Plays the steps. Returns what the client has sent of its body, what the backend has sent and got, and whether the
/// client has sent all of its request.
async fn play(
    mut client: DuplexStream,
    mut backend: DuplexStream,
    (method, length): (&Method, Option<usize>),
    steps: Vec<Step>,
) -> (Vec<u8>, Vec<u8>, Vec<u8>, bool) {
    let (mut body, mut sent, mut got) = (Vec::new(), Vec::new(), Vec::new());
    let framing = match length {
        Some(length) => format!("content-length: {length}\r\n"),
        None => "transfer-encoding: chunked\r\n".to_owned(),
    };
    let _gone = client
        .write_all(format!("{method} / HTTP/1.1\r\nhost: h\r\n{framing}\r\n").as_bytes())
        .await;
    let mut whole = false;
    for (kind, number, bytes) in steps {
        let piece = PIECES[usize::from(number) % PIECES.len()].as_bytes();
        match kind % 8 {
            0 | 1 => {
                let mut bytes = bytes;
                if let Some(length) = length {
                    bytes.truncate(length.saturating_sub(body.len()));
                }
                let framed = match length {
                    Some(_) => bytes.clone(),
                    None if bytes.is_empty() || whole => continue,
                    None => [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat(),
                };
                body.extend_from_slice(&bytes);
                if write(&mut client, &framed).await < framed.len() {
                    break;
                }
                whole |= length.is_some_and(|length| body.len() == length);
            }
            2 if length.is_none() && !whole => {
                whole = write(&mut client, b"0\r\n\r\n").await == 5;
                if !whole {
                    break;
                }
            }
            3 | 4 => {
                let bytes = if kind % 8 == 3 { piece } else { &bytes };
                let written = write(&mut backend, bytes).await;
                sent.extend_from_slice(&bytes[..written]);
                if written < bytes.len() {
                    break;
                }
            }
            5 | 6 => {
                let mut room = vec![0; usize::from(number) + 1];
                let read = tokio::time::timeout(IDLE, backend.read(&mut room)).await;
                got.extend_from_slice(&room[..read.map_or(0, |read| read.unwrap_or(0))]);
            }
            _ => tokio::task::yield_now().await,
        }
    }
    // Both take what is still coming; then the backend leaves, and then the client.
    let (mut seen, mut listens) = (vec![0; 4096], true);
    loop {
        let read = async {
            tokio::select! {
                read = backend.read(&mut seen) => Ok(read.unwrap_or(0)),
                read = client.read_u8(), if listens => Err(read.is_ok()),
            }
        };
        match tokio::time::timeout(IDLE, read).await {
            Ok(Ok(read)) if read > 0 => got.extend_from_slice(&seen[..read]),
            Ok(Err(more)) => listens = more,
            Ok(Ok(_)) | Err(_) => break,
        }
    }
    drop(backend);
    while let Ok(Ok(_)) = tokio::time::timeout(IDLE, client.read_u8()).await {}
    (body, sent, got, whole || length == Some(0))
}

fuzz_target!(|input: (u8, u8, u8, Vec<Step>)| {
    let (method, length, room, steps) = input;
    let method = [Method::GET, Method::POST, Method::HEAD][usize::from(method) % 3].clone();
    let length = (length & 1 == 0).then_some(usize::from(length / 2));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let (client, listener) = tokio::io::duplex(256);
        let (ours, backend) = tokio::io::duplex(usize::from(room) + 1);
        let told = Arc::new(Mutex::new(Told::default()));
        let once = Mutex::new(Some(ours));
        let service = service_fn(|request| {
            let ours = once.lock().expect("no panic before").take();
            relay(request, ours, room & 1 == 0, Arc::clone(&told))
        });
        let server = hyper::server::conn::http1::Builder::new()
            .half_close(false)
            .serve_connection(TokioIo::new(listener), service);
        let script = play(client, backend, (&method, length), steps);
        let both = async { tokio::join!(script, server) };
        let ((body, sent, got, whole), _) =
            tokio::time::timeout(HANGS, both).await.expect("it hangs");
        let told = told.lock().expect("no panic before");
        let (upload, upload_whole) = received(&got);
        assert!(body.starts_with(&upload), "bytes of the request were added or moved");
        if told.sent && whole && told.status.is_some() && !told.broken {
            assert!(upload_whole && upload == body, "bytes of the request were lost");
        }
        let reference = reference(&sent, method == Method::HEAD);
        match (told.status, &reference) {
            (Some(StatusCode::SWITCHING_PROTOCOLS), _) | (None, _) => {}
            (Some(status), Some((expected, data, ends, behind))) => {
                assert_eq!(status, *expected);
                assert!(data.starts_with(&told.data), "bytes of the response were added or moved");
                if told.whole {
                    assert!(*ends && told.data == *data, "bytes of the response were lost");
                }
                if told.reusable {
                    assert!(told.whole && upload_whole, "it is used again too early");
                    assert!(*behind == 0 || told.data.len() == data.len(), "its end is not sure");
                }
            }
            // Something behind what was passed on is no HTTP.
            (Some(_), None) => {
                assert!(!told.whole || method == Method::HEAD, "what is no HTTP was whole")
            }
        }
    });
});
