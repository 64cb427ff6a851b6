//! HTTP/2 as raw frames: what a well-behaved client gets, and what floods get.

use std::time::Duration;

use crate::support::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, Frames, GOAWAY,
    HEADERS, NO_ERROR, PING, RST_STREAM, SETTINGS, frame, get, request,
};
use crate::support::{Backend, TestProxy, before, start};

fn code(goaway: &Frame) -> u32 {
    u32::from_be_bytes(goaway.payload[4..8].try_into().unwrap())
}

/// The error code of the GOAWAY that answers these bytes.
async fn refusal(proxy: &TestProxy, flood: &[u8]) -> u32 {
    let mut client = Frames::connect(proxy).await;
    let _cut_off = client.try_send(flood).await;
    loop {
        let frame = client.next().await.expect("a GOAWAY before the end");
        if frame.kind == GOAWAY {
            return code(&frame);
        }
    }
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
    let mut client = Frames::connect(&proxy).await;
    let settings = client.until(SETTINGS).await;
    let limit = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(limit[2..], 1_000_u32.to_be_bytes(), "streams at once");
    client.answer(&settings).await;
    client.ask(1, &get()).await;
    let mut call = backend.accept().await;
    assert!(call.until("\r\n\r\n").await.starts_with("GET / HTTP/1.1\r\n"));
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n").await;
    let head = client.until(HEADERS).await;
    assert_eq!((head.stream, head.payload[0]), (1, 0x88), ":status 200");
    assert_eq!(client.until(DATA).await.payload, b"data: x\n\n");
    client.reset(1, CANCEL).await;
    let end = tokio::time::timeout(Duration::from_secs(1), call.rest()).await;
    assert_eq!(end.expect("not within a second (D13)"), "");
    // Only the stream is gone.
    client.ask(3, &get()).await;
    let ((), head) = tokio::join!(
        async { drop(backend.answer("HTTP/1.1 204 No Content\r\n\r\n").await) },
        client.until(HEADERS)
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
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
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
    let mut config = before(&backend);
    config.listener.idle = Duration::from_millis(200);
    let proxy = TestProxy::start(config).await;
    let mut client = Frames::connect(&proxy).await;
    client.ask(1, &get()).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    // An open request is not idle, however silent: the pause is what is tested.
    tokio::time::sleep(Duration::from_millis(600)).await;
    call.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.until(HEADERS).await;
    client.write(PING, 0, 0, &[7; 8]).await;
    let goaway = client.until(GOAWAY).await;
    assert_eq!(code(&goaway), NO_ERROR);
    // hyper announces the end, asks with a ping, and then closes.
    while let Ok(frame) = client.next().await {
        client.answer(&frame).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_asterisk_reaches_an_http_1_backend_with_options_only() {
    let (proxy, backend) = start().await;
    let mut client = Frames::connect(&proxy).await;
    // :method GET, then :path as text.
    let asterisk = request(&[0x82, 0x86, 0x04, 1, b'*']);
    client.ask(1, &asterisk).await;
    let head = client.until(HEADERS).await;
    assert_eq!(head.payload[0], 0x8c, ":status 400");
    // :method OPTIONS as text.
    let method = [&[0x02, 7][..], b"OPTIONS"].concat();
    let options = request(&[&method[..], &[0x86, 0x04, 1, b'*']].concat());
    client.ask(3, &options).await;
    let (seen, head) =
        tokio::join!(backend.answer("HTTP/1.1 204 No Content\r\n\r\n"), client.until(HEADERS));
    assert!(seen.starts_with("OPTIONS * HTTP/1.1\r\n"), "{seen}");
    assert_eq!((head.stream, head.payload[0]), (3, 0x89), ":status 204");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn every_head_must_come_whole_in_time() {
    let backend = Backend::start().await;
    let mut config = before(&backend);
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
            let mut client = Frames::connect(&proxy).await;
            let mut first = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
            if at_once {
                first.extend(half);
            }
            client.send(&first).await;
            let mut call = backend.accept().await;
            call.until("\r\n\r\n").await;
            if !at_once {
                client.send(half).await;
            }
            // Nothing of the connection can go on behind such a head, so all of it ends.
            assert_eq!(call.rest().await, "");
            client.rest().await;
        }
    }
    // Slow, and in time.
    let mut client = Frames::connect(&proxy).await;
    for piece in frame(HEADERS, END_STREAM | END_HEADERS, 1, &block).chunks(4) {
        client.send(piece).await;
    }
    let ((), head) = tokio::join!(
        async { drop(backend.answer("HTTP/1.1 204 No Content\r\n\r\n").await) },
        client.until(HEADERS)
    );
    assert_eq!(head.payload[0], 0x89, ":status 204");
    drop(client);
    proxy.stop().await;
}

/// RFC 9113 section 8.3.1: two fields that name different hosts are malformed, two spellings of one are not.
#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused() {
    let (proxy, backend) = start().await;
    let mut client = Frames::connect(&proxy).await;
    // :method GET, :scheme http, :path /; the field's name is the 38th of the static table.
    let with_host = |host: &str| {
        let field = [&[0x0f, 23, u8::try_from(host.len()).unwrap()], host.as_bytes()].concat();
        [request(&[0x82, 0x86, 0x84]), field].concat()
    };
    let mut stream = 1;
    for host in ["other", "p:81", "p.x", "[::1]"] {
        let block = with_host(host);
        client.ask(stream, &block).await;
        let head = client.until(HEADERS).await;
        assert_eq!((head.stream, head.payload[0]), (stream, 0x8c), "{host}: :status 400");
        stream += 2;
    }
    for host in ["p", "P", "p:80"] {
        let block = with_host(host);
        client.ask(stream, &block).await;
        let (_, head) = tokio::join!(
            backend.answer("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
            client.until(HEADERS)
        );
        assert_eq!((head.stream, head.payload[0]), (stream, 0x89), "{host}: :status 204");
        stream += 2;
    }
    drop(client);
    proxy.stop().await;
}
