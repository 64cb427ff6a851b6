//! Waiting for a backend, within bounds (D12).

use std::time::Duration;

use kagent_proxy::config::Scheme;

use crate::support::{Backend, TestProxy, Vacant, config, route};

async fn nobody(
    hold: Duration,
    change: impl FnOnce(&mut kagent_proxy::config::Config),
) -> (TestProxy, Vacant) {
    let vacant = Vacant::new();
    let mut late = route("s.ns", "/", Scheme::Http, &[vacant.port()]);
    late.to.hold.request = hold;
    late.to.hold.card = hold;
    let mut config = config(vec![late]);
    change(&mut config);
    (TestProxy::start(config).await, vacant)
}

#[tokio::test]
async fn a_re_opened_event_stream_is_closed_without_an_answer() {
    let (proxy, _vacant) = nobody(Duration::from_millis(50), |_| {}).await;
    for (fields, answered) in [
        ("accept: text/event-stream\r\nmcp-session-id: 1\r\n", false),
        ("accept: application/json\r\naccept: text/event-stream\r\nlast-event-id: 1\r\n", false),
        ("accept: Text/Event-Stream;q=0.9\r\nmcp-session-id: 1\r\n", false),
        ("accept: text/event-stream\r\n", true),
        ("mcp-session-id: 1\r\n", true),
    ] {
        let request =
            format!("GET /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n{fields}\r\n");
        let mut client = proxy.connect().await;
        client.send(&request).await;
        if answered {
            let seen = client.until("\r\n\r\n").await;
            assert!(seen.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{seen}");
            assert!(seen.contains("retry-after: 1\r\n"), "{seen}");
        } else {
            assert_eq!(client.rest().await, "", "{fields}");
        }
    }
    let metrics = proxy.admin("/metrics").await;
    let rejected = "kagent_proxy_rejected_total{reason=\"no_ready_endpoint\"} 5";
    assert!(metrics.contains(rejected), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn no_more_than_so_many_wait_and_a_place_comes_back_when_a_client_leaves() {
    let (proxy, _vacant) = nobody(Duration::from_secs(5), |config| config.hold.max = 1).await;
    let get = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
    let mut waiting = proxy.connect().await;
    waiting.send(get).await;
    let refused = async {
        loop {
            // The first one takes its place when its first dial has failed.
            let mut second = proxy.connect().await;
            second.send(get).await;
            if let Ok(answer) =
                tokio::time::timeout(Duration::from_millis(500), second.rest()).await
            {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(crate::support::BOUND, refused).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 overloaded\r\n"), "{answer}");
    drop(waiting);
    // Its place comes back when the proxy has seen it leave; until then others are refused.
    let waits = async {
        loop {
            let mut next = proxy.connect().await;
            next.send(get).await;
            let refused = tokio::time::timeout(Duration::from_millis(300), next.rest());
            if refused.await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(crate::support::BOUND, waits).await.unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn over_http2_its_stream_is_reset_and_the_connection_stays() {
    let backend = Backend::start().await;
    let vacant = Vacant::new();
    let mut late = route("s.ns", "/", Scheme::Http, &[vacant.port()]);
    late.to.hold.request = Duration::from_millis(50);
    let there = route("there.ns", "/", Scheme::Http, &[backend.port()]);
    let proxy = TestProxy::start(config(vec![late, there])).await;
    let io = hyper_util::rt::TokioIo::new(proxy.connect().await.0);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let running = tokio::spawn(connection);
    let get = |host: &str| {
        http::Request::get("http://p/mcp")
            .header("x-kagent-host", host)
            .header("accept", "text/event-stream")
            .header("mcp-session-id", "1")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap()
    };
    let error = sender.send_request(get("s.ns")).await.unwrap_err();
    assert!(format!("{error:?}").contains("Reset("), "{error:?}");
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (answer, _) = tokio::join!(sender.send_request(get("there.ns")), backend.answer(ok));
    assert_eq!(answer.unwrap().status(), 200, "on the same connection");
    drop(sender);
    running.await.unwrap().unwrap();
    proxy.stop().await;
}

#[tokio::test]
async fn a_held_call_goes_through_as_soon_as_its_backend_listens_and_gives_its_place_back() {
    let (proxy, vacant) = nobody(Duration::from_secs(8), |config| config.hold.max = 1).await;
    let post = "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 2\r\n\r\n{}";
    let mut first = proxy.connect().await;
    first.send(post).await;
    let mut refused = proxy.connect().await;
    refused.send(post).await;
    // Which of the two takes the only place is open; the other one is refused.
    let other = tokio::select! {
        seen = first.until("\r\n\r\n") => {
            std::mem::swap(&mut first, &mut refused);
            seen
        }
        seen = refused.until("\r\n\r\n") => seen,
    };
    assert!(other.starts_with("HTTP/1.1 503 overloaded\r\n"), "{other}");
    let backend = vacant.listen();
    let mut call = backend.accept().await;
    let seen = call.until("{}").await;
    assert!(seen.starts_with("POST / "), "{seen}");
    // The first call has its connection and no answer yet: its place is free for another one, which
    // finds a backend at once.
    let mut next = proxy.connect().await;
    next.send(post).await;
    let mut second = backend.accept().await;
    for call in [&mut call, &mut second] {
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    }
    first.until("\r\n\r\nok").await;
    next.until("\r\n\r\nok").await;
    drop((first, next, refused));
    proxy.stop().await;
}
