//! Clients that are slow, silent or gone: each wait of a listener has an end, and only its own.

use std::time::Duration;

use kagent_proxy::config::ServerTls;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Backend, Client, GET, OK, TestProxy, before, config, start, start_with};
use crate::tls::{Authority, inline, listener};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_connection_that_never_says_its_version_is_closed() {
    let (proxy, _backend) = start_with(|config| config.listener.detect = SHORT).await;
    // Nothing, and a part of the preface of HTTP/2, which could still become a method `PRI`.
    for bytes in ["", "PRI * HTT"] {
        let mut client = proxy.connect().await;
        client.send(bytes).await;
        assert_eq!(client.rest().await, "");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_closed() {
    let server = Authority::new().issue("proxy.kagent");
    let tls = ServerTls {
        cert: inline(&server.cert),
        key: inline(&server.key),
        client_ca: None,
        require_client_cert: false,
    };
    let (proxy, _backend) = start_with(|config| {
        config.listener.handshake = SHORT;
        config.listeners = vec![listener("tls", Some(tls))];
    })
    .await;
    assert_eq!(proxy.connect().await.rest().await, "");
    // Plain text at a TLS port ends too, with at most an alert.
    assert!(!proxy.ask(GET).await.contains("HTTP/"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_must_come_whole_and_a_drain_does_not_wait_for_it() {
    let (proxy, backend) = start_with(|config| config.listener.head_read = SHORT).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: p\r\n").await;
    assert_eq!(client.rest().await, "");
    // The second head of a connection has the same deadline, and the time between them has none.
    let mut client = proxy.connect().await;
    client.send(GET).await;
    backend.answer(OK).await;
    client.until("ok").await;
    // Longer than a head may take: the pause is what is tested.
    tokio::time::sleep(3 * SHORT).await;
    client.send("GET / HT").await;
    assert_eq!(client.rest().await, "");
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: p\r\n").await;
    proxy.stop().await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_a_silent_stream_is_not() {
    let (proxy, backend) = start_with(|config| config.listener.idle = 2 * SHORT).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\n")
        .await;
    client.until("\r\n\r\n").await;
    // Longer than the idle limit: the pause is what is tested.
    tokio::time::sleep(6 * SHORT).await;
    call.send("data: x\n\n").await;
    client.until("data: x\n\n").await;
    assert_eq!(client.rest().await, "", "a clean end");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_only_stops_sending_cancels_its_call() {
    // D13: a FIN with a request open is a cancel, although the client could still read.
    let (proxy, backend) = start().await;
    for head in ["", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n"] {
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        if !head.is_empty() {
            call.send(head).await;
            client.until("data: x\n\n").await;
        }
        client.0.shutdown().await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(1), call.rest()).await;
        assert_eq!(end.expect("not within a second"), "", "after {head:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn one_listener_takes_both_families() {
    let (proxy, backend) =
        start_with(|config| config.listeners[0].address = "[::]:0".parse().unwrap()).await;
    let port = proxy.address.port();
    let mut hosts = vec!["127.0.0.1"];
    // A machine without IPv6 gets 0.0.0.0, which is the rest of the promise.
    if proxy.address.is_ipv6() {
        hosts.push("::1");
    }
    for host in hosts {
        let mut client = Client(TcpStream::connect((host, port)).await.unwrap());
        client.send(&GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        let (answer, head) = tokio::join!(client.rest(), backend.answer(OK));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{host}: {answer}");
        assert!(head.contains(&format!("x-forwarded-for: {host}\r\n")), "{host}: {head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_behind_an_early_answer_is_no_slow_head() {
    let backend = Backend::start().await;
    let mut config = before(&backend);
    config.listener.head_read = Duration::from_millis(100);
    let proxy = TestProxy::start(config).await;
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 30\r\n\r\n")
        .await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    client.until("ok").await;
    for _ in 0..29 {
        client.send("x").await;
        call.until("x").await;
        // The upload takes several times the limit of a head.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.send("y").await;
    call.until("y").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_that_has_said_nothing_does_not_hold_up_a_drain() {
    let mut config = config(Vec::new());
    config.listener.detect = Duration::from_secs(3600);
    let proxy = TestProxy::start(config).await;
    let mut silent = proxy.connect().await;
    // It is accepted when a later one has been answered.
    let request = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: no.ns\r\nconnection: close\r\n\r\n";
    assert!(proxy.ask(request).await.starts_with("HTTP/1.1 503 "));
    proxy.drain();
    assert_eq!(silent.rest().await, "");
    proxy.stop().await;
}

/// Starts a proxy whose routes give a head this long.
async fn with_head_limit(limit: Duration) -> (TestProxy, Backend) {
    start_with(|config| {
        for route in &mut config.routes {
            route.to.timeouts.unary.head = Some(limit);
            route.to.timeouts.stream.head = Some(limit);
        }
    })
    .await
}

#[tokio::test]
async fn the_time_for_a_response_s_head_begins_when_the_upload_has_ended() {
    let (proxy, backend) = with_head_limit(2 * SHORT).await;
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 10\r\n\r\n")
        .await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    for _ in 0..10 {
        // The upload takes several times the limit: the pause is what is tested.
        tokio::time::sleep(SHORT).await;
        client.send("x").await;
        call.until("x").await;
    }
    call.send(OK).await;
    let answer = client.until("ok").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // The second time the body has ended, and nothing comes.
    client
        .send(&GET.replace("GET", "POST").replace("\r\n\r\n", "\r\ncontent-length: 1\r\n\r\nx"))
        .await;
    call.until("x").await;
    client.until("HTTP/1.1 504 head_timeout\r\n").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_backend_that_takes_nothing_of_an_upload_does_not_have_all_the_time() {
    let (proxy, backend) = with_head_limit(2 * SHORT).await;
    let mut client = proxy.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 900000000\r\n\r\n")
        .await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    let (mut reader, mut writer) = client.0.split();
    let upload = async {
        let some = vec![b'x'; 1 << 16];
        while writer.write_all(&some).await.is_ok() {}
    };
    let answer = async {
        let mut start = [0; 26];
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut start).await.unwrap();
        String::from_utf8_lossy(&start).into_owned()
    };
    // It sends until the connection is closed behind the response.
    let (answer, ()) = tokio::join!(answer, upload);
    assert_eq!(answer, "HTTP/1.1 504 head_timeout\r");
    drop((client, call));
    proxy.stop().await;
}
