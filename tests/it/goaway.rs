//! What an HTTP/2 backend says it did not process is sent again, with its body; nothing else is (RFC 9113
//! section 8.7).
//!
//! The backend is frames written by hand: no library refuses a stream or says goodbye below it on demand.

use kagent_proxy::body::replay::MAX_REPLAY;
use kagent_proxy::config::{Config, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{BOUND, Backend, TestProxy, config, route};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Error codes.
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"message/send"}"#;

/// One connection of frames.
struct Frames(TcpStream);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    async fn accept(backend: &Backend) -> Self {
        let mut frames = Self(backend.accept().await.0);
        frames.read(24).await;
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = tokio::time::timeout(BOUND, self.0.read_exact(&mut bytes)).await;
        read.expect("no frame").expect("closed");
        bytes
    }

    async fn next(&mut self) -> Frame {
        let head = self.read(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.read(length as usize).await;
        Frame { kind: head[3], flags: head[4], stream, payload }
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.0.write_all(&bytes).await.unwrap();
    }

    /// Reads one request to its end: its stream and its body.
    async fn request(&mut self) -> (u32, String) {
        let mut body = Vec::new();
        loop {
            let frame = self.next().await;
            match frame.kind {
                SETTINGS if frame.flags & 1 == 0 => self.write(SETTINGS, 1, 0, &[]).await,
                DATA => {
                    body.extend_from_slice(&frame.payload);
                    self.allow(frame.stream, frame.payload.len()).await;
                }
                _ => {}
            }
            if [DATA, HEADERS].contains(&frame.kind) && frame.flags & 1 == 1 {
                return (frame.stream, String::from_utf8(body).unwrap());
            }
        }
    }

    /// So many bytes more may come.
    async fn allow(&mut self, stream: u32, bytes: usize) {
        if bytes > 0 {
            let bytes = u32::try_from(bytes).unwrap().to_be_bytes();
            self.write(WINDOW_UPDATE, 0, 0, &bytes).await;
            self.write(WINDOW_UPDATE, 0, stream, &bytes).await;
        }
    }

    /// 204 and the end of the stream.
    async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, 5, stream, &[0x89]).await;
    }

    async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    async fn goaway(&mut self, last: u32, code: u32) {
        self.write(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }
}

fn post(content_type: &str) -> String {
    post_of(content_type, CALL)
}

fn post_of(content_type: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A call of this length, whose bytes count up so that none can be missing or out of place.
fn call_of(length: usize) -> String {
    let start = r#"{"jsonrpc":"2.0","id":7,"method":"message/send","params":""#;
    let fill: String = (0..)
        .flat_map(|n: u32| format!("{n} ").into_bytes())
        .map(char::from)
        .take(length - start.len() - 2)
        .collect();
    format!("{start}{fill}\"}}")
}

async fn start(change: impl FnOnce(&mut Config)) -> (TestProxy, Backend) {
    let backend = Backend::start().await;
    let mut config = config(vec![route("s.ns", "/", Scheme::H2c, &[backend.port()])]);
    change(&mut config);
    (TestProxy::start(config).await, backend)
}

async fn retries(proxy: &TestProxy) -> String {
    let metrics = proxy.admin("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("kagent_proxy_retries_total{"));
    line.unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// On a connection that has carried a request before, and on one that has not.
#[tokio::test]
async fn a_call_that_was_refused_or_came_after_the_goodbye_arrives_once_more_with_its_body() {
    for (goodbye, warm) in [(false, true), (false, false), (true, true), (true, false)] {
        let (proxy, backend) = start(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send(&post("application/json")).await;
        let mut first = Frames::accept(&backend).await;
        let (mut stream, mut body) = first.request().await;
        if warm {
            first.answer(stream).await;
            client.until("\r\n\r\n").await;
            client.send(&post("application/json")).await;
            (stream, body) = first.request().await;
        }
        assert_eq!(body, CALL);
        if goodbye {
            first.goaway(stream - 1, 0).await;
        } else {
            first.reset(stream, REFUSED_STREAM).await;
        }
        let mut second = Frames::accept(&backend).await;
        let (stream, body) = second.request().await;
        assert_eq!(body, CALL, "goodbye {goodbye}, warm {warm}");
        second.answer(stream).await;
        let answer = client.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "goodbye {goodbye}, warm {warm}: {answer}");
        assert_eq!(retries(&proxy).await, "1", "goodbye {goodbye}, warm {warm}");
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again_and_none_at_all_is() {
    let (proxy, backend) = start(|_| {}).await;
    let mut client = proxy.connect().await;
    client.send(&post("application/octet-stream")).await;
    let mut first = Frames::accept(&backend).await;
    let (stream, _) = first.request().await;
    first.reset(stream, REFUSED_STREAM).await;
    client.until("HTTP/1.1 502 upstream_reset").await;
    assert_eq!(retries(&proxy).await, "0");
    let mut client = proxy.connect().await;
    let empty = "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 0\r\n\r\n";
    client.send(empty).await;
    let (stream, _) = first.request().await;
    first.reset(stream, REFUSED_STREAM).await;
    let mut second = Frames::accept(&backend).await;
    let (stream, _) = second.request().await;
    second.answer(stream).await;
    client.until("HTTP/1.1 204 ").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_call_arrives_once_more_up_to_the_bound_and_is_refused_above() {
    for (length, again) in [(300 * 1024, true), (MAX_REPLAY, true), (MAX_REPLAY + 1, false)] {
        let (proxy, backend) = start(|_| {}).await;
        let mut client = proxy.connect().await;
        let call = call_of(length);
        let post = post_of("application/json", &call);
        let received = async {
            let mut first = Frames::accept(&backend).await;
            let (stream, body) = first.request().await;
            (first, stream, body)
        };
        let ((mut first, stream, body), ()) = tokio::join!(received, client.send(&post));
        assert!(body == call, "{length}: {} bytes came", body.len());
        first.reset(stream, REFUSED_STREAM).await;
        if again {
            let mut second = Frames::accept(&backend).await;
            let (stream, body) = second.request().await;
            assert!(body == call, "{length}: {} bytes came again", body.len());
            second.answer(stream).await;
            client.until("HTTP/1.1 204 ").await;
        } else {
            let response = client.until("\"action\"").await;
            assert!(response.starts_with("HTTP/1.1 502 upstream_reset\r\n"), "{response}");
            assert!(response.contains("\"id\":7"), "{response}");
        }
        assert_eq!(retries(&proxy).await, u8::from(again).to_string(), "{length}");
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_may_have_been_processed_is_not_sent_again() {
    for above in [true, false] {
        let (proxy, backend) = start(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send(&post("application/json")).await;
        let mut first = Frames::accept(&backend).await;
        let (stream, _) = first.request().await;
        if above {
            first.reset(stream, INTERNAL_ERROR).await;
        } else {
            // It names our stream as one that it has dealt with, and leaves.
            first.goaway(stream, 0).await;
            drop(first);
        }
        let answer = client.until("\"action\"").await;
        assert!(answer.starts_with("HTTP/1.1 502 upstream_reset\r\n"), "{answer}");
        assert!(answer.contains("\"id\":7"), "{answer}");
        assert_eq!(retries(&proxy).await, "0");
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn refused_calls_are_sent_again_within_the_budget_only() {
    let (proxy, backend) = start(|config| {
        (config.upstream.retry_percent, config.upstream.retry_per_second) = (0, 0);
    })
    .await;
    let mut client = proxy.connect().await;
    client.send(&post("application/json")).await;
    let mut first = Frames::accept(&backend).await;
    let (stream, _) = first.request().await;
    first.reset(stream, REFUSED_STREAM).await;
    client.until("HTTP/1.1 502 upstream_reset").await;
    drop(client);
    proxy.stop().await;
}
