//! Waiting for a backend, within bounds (D12).

use std::time::Duration;

use kagent_proxy::config::Scheme;

use crate::support::{Backend, TestProxy, config, route};

async fn nobody(
    hold: Duration,
    change: impl FnOnce(&mut kagent_proxy::config::Config),
) -> TestProxy {
    let backend = Backend::start().await;
    let mut late = route("s.ns", "/", Scheme::Http, &[backend.port()]);
    drop(backend);
    late.to.hold.request = hold;
    late.to.hold.card = hold;
    let mut config = config(vec![late]);
    change(&mut config);
    TestProxy::start(config).await
}

#[tokio::test]
async fn a_re_opened_event_stream_is_closed_without_an_answer() {
    let proxy = nobody(Duration::from_millis(50), |_| {}).await;
    for (fields, answered) in [
        ("accept: text/event-stream\r\nmcp-session-id: 1\r\n", false),
        ("accept: application/json\r\naccept: text/event-stream\r\nlast-event-id: 1\r\n", false),
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
    let rejected = "kagent_proxy_rejected_total{reason=\"no_ready_endpoint\"} 4";
    assert!(metrics.contains(rejected), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn no_more_than_so_many_wait_and_a_place_comes_back_when_a_client_leaves() {
    let proxy = nobody(Duration::from_secs(5), |config| config.hold.max_per_source = 1).await;
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
    let mut next = proxy.connect().await;
    next.send(get).await;
    drop(next);
    proxy.stop().await;
}
