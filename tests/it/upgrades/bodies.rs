//! A backend that switches before it has the whole request: what is left of that comes first, as the request's body,
//! and then the bytes of the tunnel (RFC 9110 section 7.8), as from a client that speaks to it directly.

use std::time::Duration;

use kagent_proxy::config::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::AGREE;
use crate::support::{BOUND, Backend, Client, TestProxy, config, route, shows, start};
use crate::tls::before_https;

/// A request to switch, with what frames its body.
fn ask(fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\n{fields}\r\n\r\n"
    )
}

const SIZED: &str = "content-length: 10";
const CHUNKED: &str = "transfer-encoding: chunked";

/// What frames a body of ten bytes; its first half and its second one, as anybody sends them.
const BODIES: [[&str; 3]; 2] =
    [[SIZED, "12345", "67890"], [CHUNKED, "5\r\n12345\r\n", "5\r\n67890\r\n0\r\n\r\n"]];

/// A client that has sent the first half of its body, and a backend that has read that and switched.
async fn switched(
    proxy: &TestProxy,
    backend: &Backend,
    [framing, first, _]: [&str; 3],
) -> (Client, Client) {
    let mut client = proxy.connect().await;
    client.send(&ask(framing)).await;
    client.send(first).await;
    let mut call = backend.accept().await;
    // Its chunks may be others.
    let asked = call.until(&first[first.len() - 5..]).await;
    assert!(asked.contains("\r\nupgrade: websocket\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\n{framing}\r\n")), "{asked}");
    call.send(AGREE).await;
    let agreed = client.until("\r\n\r\n").await;
    assert!(agreed.starts_with("HTTP/1.1 101 ") && agreed.ends_with("\r\n\r\n"), "{agreed}");
    (client, call)
}

#[tokio::test]
async fn the_rest_of_a_request_comes_before_the_bytes_of_its_tunnel() {
    let (proxy, backend) = start().await;
    for body in BODIES {
        for at_once in [true, false] {
            let (mut client, mut call) = switched(&proxy, &backend, body).await;
            let rest = body[2];
            call.send("down").await;
            let seen = if at_once {
                client.send(&format!("{rest}up")).await;
                call.until("up").await
            } else {
                client.send(rest).await;
                let seen = call.until(rest).await;
                assert_eq!(client.until("down").await, "down", "{body:?}");
                client.send("up").await;
                seen + &call.until("up").await
            };
            assert_eq!(seen, format!("{rest}up"), "{body:?}");
            if at_once {
                assert_eq!(client.until("down").await, "down", "{body:?}");
            }
            client.0.shutdown().await.unwrap();
            assert_eq!(call.rest().await, "", "the half-close comes through");
            call.send("late").await;
            drop(call);
            assert_eq!(client.rest().await, "late", "{body:?}");
        }
    }
    let metrics = proxy.admin("/metrics").await;
    for line in [
        "class=\"upgrade\",status=\"101\",outcome=\"complete\"} 4",
        "kagent_proxy_request_bytes_total{route=\"s.ns\"} 48",
        "kagent_proxy_response_bytes_total{route=\"s.ns\"} 32",
        "kagent_proxy_open_streams{route=\"s.ns\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    proxy.stop().await;
}

/// With threads, and often: the backend's response may be there before the client's connection has had a turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_before_any_byte_of_the_body_waits_for_all_of_it() {
    let (proxy, backend) = start().await;
    for [framing, first, rest] in BODIES.repeat(30) {
        let mut client = proxy.connect().await;
        client.send(&ask(&format!("expect: 100-continue\r\n{framing}"))).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&format!("{AGREE}down")).await;
        let told = client.until("101 Switching Protocols\r\n").await;
        // RFC 9110 section 7.8: a server that switches says this first.
        assert!(told.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 "), "{told}");
        client.send(&format!("{first}{rest}up")).await;
        assert_eq!(call.until("up").await, format!("{first}{rest}up"));
        client.until("down").await;
        drop(client);
        assert_eq!(call.rest().await, "");
    }
    proxy.stop().await;
}

/// More than all the buffers on the way, which the backend reads behind its 101.
#[tokio::test]
async fn a_large_request_is_sent_to_its_end() {
    const LARGE: usize = 24 * 1024 * 1024;
    let (proxy, backend) = start().await;
    let client = proxy.connect().await;
    let (mut reads, mut writes) = client.0.into_split();
    let ours = async {
        writes.write_all(ask(&format!("content-length: {LARGE}")).as_bytes()).await.unwrap();
        writes.write_all(&vec![b'u'; LARGE]).await.unwrap();
        writes.write_all(b"up").await.unwrap();
        let mut answer = Vec::new();
        reads.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let theirs = async {
        let mut call = backend.accept().await;
        let start = call.until("\r\n\r\n").await;
        let (_, start) = start.split_once("\r\n\r\n").unwrap();
        call.send(AGREE).await;
        let mut rest = vec![0; LARGE + 2 - start.len()];
        call.0.read_exact(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"uup"));
        call.send("down").await;
    };
    let both = async { tokio::join!(ours, theirs).0 };
    let answer = tokio::time::timeout(BOUND, both).await.expect("neither waits for the other");
    assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\ndown"));
    drop((reads, writes));
    proxy.stop().await;
}

#[tokio::test]
async fn the_same_over_tls() {
    let (proxy, backend, acceptor) = before_https().await;
    for [framing, first, rest] in BODIES {
        let mut client = proxy.connect().await;
        client.send(&ask(framing)).await;
        let mut call = acceptor.accept(backend.accept().await.0).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(call.read_u8().await.unwrap());
        }
        call.write_all(format!("{AGREE}down").as_bytes()).await.unwrap();
        call.flush().await.unwrap();
        client.until("101 Switching Protocols\r\n").await;
        client.send(first).await;
        client.send(&format!("{rest}up")).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"up") {
            let byte = tokio::time::timeout(BOUND, call.read_u8()).await.expect("more");
            seen.push(byte.unwrap());
        }
        client.until("down").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn whoever_leaves_in_the_middle_of_the_request_ends_both() {
    let (proxy, backend) = start().await;
    for body in [["content-length: 99999999", "start", ""], [CHUNKED, "ffffff\r\nstart", ""]] {
        // The client, whose request never becomes whole.
        let (client, mut call) = switched(&proxy, &backend, body).await;
        drop(client);
        assert_eq!(call.rest().await, "", "{body:?}");
        // The backend: what the client sends then has nowhere to go.
        let (mut client, call) = switched(&proxy, &backend, body).await;
        drop(call);
        let ended = async {
            while client.0.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, ended).await.expect("the client's connection ends");
    }
    for outcome in ["client_gone", "upstream_broke"] {
        let line = format!("class=\"upgrade\",status=\"101\",outcome=\"{outcome}\"}} 2");
        shows(&proxy, "/metrics", &line).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_limits_of_a_tunnel_hold_for_the_rest_of_its_request() {
    let backend = Backend::start().await;
    let mut limited = route("s.ns", "/", Scheme::Http, &[backend.port()]);
    limited.to.timeouts.upgrade.idle = Some(Duration::from_millis(50));
    let proxy = TestProxy::start(config(vec![limited])).await;
    for body in BODIES {
        let (mut client, mut call) = switched(&proxy, &backend, body).await;
        assert_eq!(client.rest().await, "", "{body:?}");
        assert_eq!(call.rest().await, "", "{body:?}");
    }
    shows(&proxy, "/metrics", "status=\"101\",outcome=\"idle_timeout\"} 2").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_drain_waits_for_the_rest_of_a_request_and_for_its_tunnel() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = switched(&proxy, &backend, BODIES[0]).await;
    proxy.close();
    client.send("67890up").await;
    assert_eq!(call.until("up").await, "67890up");
    call.send("down").await;
    client.until("down").await;
    drop((client, call));
    proxy.stop().await;
}
