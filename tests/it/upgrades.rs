//! WebSocket passes, every other upgrade is stripped and the request goes on (D19).

mod bodies;

use std::time::Duration;

use kagent_proxy::config::Scheme;
use tokio::io::AsyncWriteExt;

use crate::support::{Backend, Client, TestProxy, before, config, route, start};

const ASK: &str = "GET /ws HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: Upgrade\r\n\
    upgrade: WebSocket\r\nsec-websocket-key: x\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n";

async fn open(proxy: &TestProxy, backend: &Backend) -> (Client, Client) {
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    let mut call = backend.accept().await;
    let asked = call.until("\r\n\r\n").await.to_ascii_lowercase();
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: x"] {
        assert!(asked.contains(&format!("{field}\r\n")), "{asked}");
    }
    call.send(AGREE).await;
    let agreed = client.until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(agreed.starts_with("http/1.1 101 "), "{agreed}");
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: y"] {
        assert!(agreed.contains(&format!("{field}\r\n")), "{agreed}");
    }
    (client, call)
}

#[tokio::test]
async fn a_websocket_passes_both_ways_with_half_close() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = open(&proxy, &backend).await;
    client.send("up").await;
    call.until("up").await;
    call.send("down").await;
    client.until("down").await;
    client.0.shutdown().await.unwrap();
    assert_eq!(call.rest().await, "", "the backend sees the half-close");
    call.send("late").await;
    drop(call);
    assert_eq!(client.rest().await, "late", "and may still answer");
    let metrics = proxy.admin("/metrics").await;
    for line in [
        "class=\"upgrade\",status=\"101\",outcome=\"complete\"} 1",
        "kagent_proxy_request_bytes_total{route=\"s.ns\"} 2",
        "kagent_proxy_response_bytes_total{route=\"s.ns\"} 8",
        "kagent_proxy_open_streams{route=\"s.ns\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    proxy.stop().await;
}

/// Less than a small body, more than one, and more than one read holds.
#[tokio::test]
async fn bytes_that_come_with_the_101_are_the_tunnel_s() {
    let (proxy, backend) = start().await;
    for length in [1, 2047, 2048, 2049, 5000, 16 * 1024 - AGREE.len(), 40_000] {
        let mut client = proxy.connect().await;
        client.send(ASK).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        let early: String = ('a'..='z').cycle().take(length).collect();
        call.send(&format!("{AGREE}{early}")).await;
        call.send("|later").await;
        client.send("|up").await;
        call.until("|up").await;
        call.0.shutdown().await.unwrap();
        let seen = client.until("|later").await;
        let (head, rest) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(rest == format!("{early}|later"), "{length} bytes: {} came", rest.len());
        drop(client);
        assert_eq!(call.rest().await, "");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_drain_waits_for_a_tunnel() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = open(&proxy, &backend).await;
    proxy.drain();
    call.send("still here").await;
    client.until("still here").await;
    drop(client);
    assert_eq!(call.rest().await, "");
    drop(call);
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_tunnel_ends_at_its_limit() {
    let backend = Backend::start().await;
    let mut silent = route("s.ns", "/", Scheme::Http, &[backend.port()]);
    silent.to.timeouts.upgrade.idle = Some(Duration::from_millis(50));
    let proxy = TestProxy::start(config(vec![silent])).await;
    let (mut client, _call) = open(&proxy, &backend).await;
    assert_eq!(client.rest().await, "");
    proxy.stop().await;
}

#[tokio::test]
async fn other_upgrades_and_refused_ones_are_plain_requests() {
    let backend = Backend::start().await;
    let mut closed = route("c.ns", "/", Scheme::Http, &[backend.port()]);
    closed.to.websocket = false;
    let open = route("s.ns", "/", Scheme::Http, &[backend.port()]);
    let proxy = TestProxy::start(config(vec![open, closed])).await;
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let named = ", upgrade, http2-settings";
    for (host, protocol, named) in [
        ("s.ns", "h2c", named),
        ("s.ns", "websocket, h2c", named),
        ("c.ns", "websocket", named),
        // They concern the connection also where it does not name them.
        ("s.ns", "h2c", ""),
    ] {
        let ask = format!(
            "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: {host}\r\nhttp2-settings: AA\r\n\
             connection: close{named}\r\nupgrade: {protocol}\r\n\r\n"
        );
        let (answer, head) = tokio::join!(proxy.ask(&ask), backend.answer(ok));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    }
    // A backend that declines is an ordinary answer.
    let ask = ASK.replace("connection: Upgrade", "connection: close, Upgrade");
    let (answer, _) = tokio::join!(proxy.ask(&ask), backend.answer(ok));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // One that switches without being asked has not understood.
    let plain = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
    let (answer, _) = tokio::join!(proxy.ask(plain), backend.answer(AGREE));
    assert!(answer.starts_with("HTTP/1.1 502 upstream_protocol"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_tunnel_keeps_its_place_among_the_connections() {
    let backend = Backend::start().await;
    let mut config = before(&backend);
    config.listener.max_connections = 1;
    let proxy = TestProxy::start(config).await;
    let (client, call) = open(&proxy, &backend).await;
    let mut waiting = proxy.connect().await;
    waiting
        .send("GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: no.ns\r\nconnection: close\r\n\r\n")
        .await;
    // An answer would come within microseconds; there must be none while the tunnel stands.
    let early = tokio::time::timeout(Duration::from_millis(200), waiting.until("HTTP/1.1")).await;
    assert!(early.is_err(), "{early:?}");
    drop((client, call));
    waiting.until("HTTP/1.1 503 unknown_target").await;
    drop(waiting);
    proxy.stop().await;
}
