//! HTTP/2 as raw frames: what a well-behaved client gets, and what floods get.

use std::time::Duration;

use kagent_proxy::config::Scheme;

use crate::support::{BOUND, Backend, Client, TestProxy, config, route};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// Error codes of RFC 9113 section 7.
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const NO_ERROR: u8 = 0;
const ENHANCE_YOUR_CALM: u8 = 11;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// GET / to `s.ns`, in HPACK without tables.
fn get() -> Vec<u8> {
    // :method GET, :scheme http, :path /.
    request(&[0x82, 0x86, 0x84])
}

/// A request to `s.ns` that begins so.
fn request(start: &[u8]) -> Vec<u8> {
    // :authority.
    let mut block = [start, &[0x01, 1, b'p']].concat();
    for text in ["x-kagent-host", "s.ns"] {
        if text.starts_with('x') {
            block.push(0);
        }
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    }
    block
}

/// A client that has shaken hands.
async fn connect(proxy: &TestProxy) -> Client {
    let mut client = proxy.connect().await;
    client.send_bytes(PREFACE).await;
    client.send_bytes(&frame(SETTINGS, 0, 0, &[])).await;
    client
}

async fn next(client: &mut Client) -> std::io::Result<Frame> {
    use tokio::io::AsyncReadExt;
    let read = async {
        let mut head = [0; 9];
        client.0.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        client.0.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    };
    tokio::time::timeout(BOUND, read).await.expect("no frame")
}

/// The next frame of this kind; pings and settings are answered on the way.
async fn until(client: &mut Client, kind: u8) -> Frame {
    loop {
        let frame = next(client).await.unwrap_or_else(|error| panic!("no frame {kind}: {error}"));
        if frame.kind == kind {
            return frame;
        }
        assert_ne!(frame.kind, GOAWAY, "closed with {:?} before a frame {kind}", frame.payload);
        answer(client, &frame).await;
    }
}

async fn answer(client: &mut Client, frame: &Frame) {
    if [PING, SETTINGS].contains(&frame.kind) && frame.flags & ACK == 0 {
        let echo = if frame.kind == PING { &frame.payload[..] } else { &[] };
        client.send_bytes(&self::frame(frame.kind, ACK, 0, echo)).await;
    }
}

/// The error code of the GOAWAY that answers these bytes.
async fn refusal(proxy: &TestProxy, flood: &[u8]) -> u8 {
    use tokio::io::AsyncWriteExt;
    let mut client = connect(proxy).await;
    // The proxy may close before it has read everything.
    let _cut_off = client.0.write_all(flood).await;
    loop {
        let frame = next(&mut client).await.expect("a GOAWAY before the end");
        if frame.kind == GOAWAY {
            return frame.payload[7];
        }
    }
}

async fn start() -> (TestProxy, Backend) {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    (TestProxy::start(config(routes)).await, backend)
}

/// Another client of the same proxy is served.
async fn still_serves(proxy: &TestProxy) {
    let answer =
        proxy.ask("GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: no.ns\r\nconnection: close\r\n\r\n");
    assert!(answer.await.starts_with("HTTP/1.1 503 unknown_target"));
}

#[tokio::test]
async fn a_stream_is_carried_and_its_reset_closes_the_backend_s_connection() {
    let (proxy, backend) = start().await;
    let mut client = connect(&proxy).await;
    let settings = until(&mut client, SETTINGS).await;
    let limit = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(limit[2..], 1_000_u32.to_be_bytes(), "streams at once");
    answer(&mut client, &settings).await;
    client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get())).await;
    let mut call = backend.accept().await;
    assert!(call.until("\r\n\r\n").await.starts_with("GET / HTTP/1.1\r\n"));
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n").await;
    let head = until(&mut client, HEADERS).await;
    assert_eq!((head.stream, head.payload[0]), (1, 0x88), ":status 200");
    assert_eq!(until(&mut client, DATA).await.payload, b"data: x\n\n");
    client.send_bytes(&frame(RST_STREAM, 0, 1, &CANCEL)).await;
    let end = tokio::time::timeout(Duration::from_secs(1), call.rest()).await;
    assert_eq!(end.expect("not within a second (D13)"), "");
    // Only the stream is gone.
    client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &get())).await;
    let ((), head) = tokio::join!(
        async { drop(backend.answer("HTTP/1.1 204 No Content\r\n\r\n").await) },
        until(&mut client, HEADERS)
    );
    assert_eq!((head.stream, head.payload[0]), (3, 0x89), ":status 204");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_rapid_reset_is_refused() {
    // CVE-2023-44487: each pair costs the client 50 bytes, and us a whole request.
    let (proxy, _backend) = start().await;
    let mut flood = Vec::new();
    for stream in (1..401).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get()));
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    assert_eq!(refusal(&proxy, &flood).await, ENHANCE_YOUR_CALM);
    still_serves(&proxy).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_flood_of_continuations_is_refused() {
    // CVE-2024-27316: a head without end, in pieces that each are harmless; some are empty, so that no
    // limit on bytes can be what ends it.
    let (proxy, _backend) = start().await;
    // One field whose value is announced as 127 bytes and arrives one byte at a time.
    let mut small = get();
    small.extend([0, 1, b'a', 0x7f, 0]);
    for (first, piece) in [(get(), &[][..]), (small, b"a")] {
        let mut flood = frame(HEADERS, END_STREAM, 1, &first);
        for _ in 0..100 {
            flood.extend(frame(CONTINUATION, 0, 1, piece));
        }
        assert_eq!(refusal(&proxy, &flood).await, ENHANCE_YOUR_CALM);
    }
    still_serves(&proxy).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_request_ends_with_goaway_although_pings_are_answered() {
    let backend = Backend::start().await;
    let mut config = config(vec![route("s.ns", "/", Scheme::Http, &[backend.port()])]);
    config.listener.idle = Duration::from_millis(200);
    let proxy = TestProxy::start(config).await;
    let mut client = connect(&proxy).await;
    client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get())).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    // An open request is not idle, however silent: the pause is what is tested.
    tokio::time::sleep(Duration::from_millis(600)).await;
    call.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    until(&mut client, HEADERS).await;
    client.send_bytes(&frame(PING, 0, 0, &[7; 8])).await;
    let goaway = until(&mut client, GOAWAY).await;
    assert_eq!(goaway.payload[7], NO_ERROR);
    // hyper announces the end, asks with a ping, and then closes.
    while let Ok(frame) = next(&mut client).await {
        answer(&mut client, &frame).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_asterisk_reaches_an_http_1_backend_with_options_only() {
    let (proxy, backend) = start().await;
    let mut client = connect(&proxy).await;
    // :method GET, then :path as text.
    let asterisk = request(&[0x82, 0x86, 0x04, 1, b'*']);
    client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &asterisk)).await;
    let head = until(&mut client, HEADERS).await;
    assert_eq!(head.payload[0], 0x8c, ":status 400");
    // :method OPTIONS as text.
    let method = [&[0x02, 7][..], b"OPTIONS"].concat();
    let options = request(&[&method[..], &[0x86, 0x04, 1, b'*']].concat());
    client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &options)).await;
    let (seen, head) = tokio::join!(
        backend.answer("HTTP/1.1 204 No Content\r\n\r\n"),
        until(&mut client, HEADERS)
    );
    assert!(seen.starts_with("OPTIONS * HTTP/1.1\r\n"), "{seen}");
    assert_eq!((head.stream, head.payload[0]), (3, 0x89), ":status 204");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn every_head_must_come_whole_in_time() {
    let backend = Backend::start().await;
    let mut config = config(vec![route("s.ns", "/", Scheme::Http, &[backend.port()])]);
    config.listener.head_read = Duration::from_millis(200);
    let proxy = TestProxy::start(config).await;
    let block = get();
    let (start, _rest) = block.split_at(block.len() / 2);
    // Without its last frame, and with half a frame; the second head of a connection, and right behind
    // the first one.
    let unfinished = frame(HEADERS, END_STREAM, 3, start);
    let whole = frame(HEADERS, END_STREAM | END_HEADERS, 3, &block);
    for half in [&unfinished[..], &whole[..whole.len() / 2]] {
        for at_once in [false, true] {
            let mut client = connect(&proxy).await;
            let mut first = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
            if at_once {
                first.extend(half);
            }
            client.send_bytes(&first).await;
            let mut call = backend.accept().await;
            call.until("\r\n\r\n").await;
            if !at_once {
                client.send_bytes(half).await;
            }
            // Nothing of the connection can go on behind such a head, so all of it ends.
            assert_eq!(call.rest().await, "");
            client.rest().await;
        }
    }
    // Slow, and in time.
    let mut client = connect(&proxy).await;
    for piece in frame(HEADERS, END_STREAM | END_HEADERS, 1, &block).chunks(4) {
        client.send_bytes(piece).await;
    }
    let ((), head) = tokio::join!(
        async { drop(backend.answer("HTTP/1.1 204 No Content\r\n\r\n").await) },
        until(&mut client, HEADERS)
    );
    assert_eq!(head.payload[0], 0x89, ":status 204");
    drop(client);
    proxy.stop().await;
}

/// RFC 9113 section 8.3.1: two fields that name different hosts are malformed, two spellings of one are not.
#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused() {
    let (proxy, backend) = start().await;
    let mut client = connect(&proxy).await;
    // :method GET, :scheme http, :path /; the field's name is the 38th of the static table.
    let with_host = |host: &str| {
        let field = [&[0x0f, 23, u8::try_from(host.len()).unwrap()], host.as_bytes()].concat();
        [request(&[0x82, 0x86, 0x84]), field].concat()
    };
    let mut stream = 1;
    for host in ["other", "p:81", "p.x", "[::1]"] {
        let block = with_host(host);
        client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).await;
        let head = until(&mut client, HEADERS).await;
        assert_eq!((head.stream, head.payload[0]), (stream, 0x8c), "{host}: :status 400");
        stream += 2;
    }
    for host in ["p", "P", "p:80"] {
        let block = with_host(host);
        client.send_bytes(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).await;
        let (_, head) = tokio::join!(
            backend.answer("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
            until(&mut client, HEADERS)
        );
        assert_eq!((head.stream, head.payload[0]), (stream, 0x89), "{host}: :status 204");
        stream += 2;
    }
    drop(client);
    proxy.stop().await;
}
