//! What may be sent again is, what may not is not (D11), and failing endpoints are left out.

use kagent_proxy::config::Scheme;

use crate::support::{Backend, Client, TestProxy, config, route};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn get(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n")
}

const POST: &str =
    "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 2\r\n\r\n{}";

/// A client whose first call has warmed a connection to the backend.
async fn warm(proxy: &TestProxy, backend: &Backend) -> (Client, Client) {
    let mut client = proxy.connect().await;
    client.send(&get("GET")).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(OK).await;
    client.until("ok").await;
    (client, call)
}

#[tokio::test]
async fn idempotent_calls_without_a_body_are_repeated_once_when_a_used_connection_closes() {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    for method in ["GET", "DELETE", "OPTIONS"] {
        let (mut client, mut call) = warm(&proxy, &backend).await;
        client.send(&get(method)).await;
        call.until("\r\n\r\n").await;
        drop(call);
        let mut again = backend.accept().await;
        let seen = again.until("\r\n\r\n").await;
        assert!(seen.starts_with(method), "{seen}");
        again.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
        client.until("ok").await;
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_retries_total{route=\"s.ns\"} 3"), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_post_of_which_a_byte_was_written_is_never_repeated() {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let (mut client, mut call) = warm(&proxy, &backend).await;
    client.send(POST).await;
    call.until("{}").await;
    drop(call);
    client.until("HTTP/1.1 502 upstream_reset").await;
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_retries_total{route=\"s.ns\"} 0"), "{metrics}");
    assert!(metrics.contains("event=\"opened\"} 1"), "{metrics}");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_get_on_a_fresh_connection_that_breaks_is_not_repeated() {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let mut client = proxy.connect().await;
    client.send(&get("GET")).await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    drop(call);
    client.until("HTTP/1.1 502 upstream_reset").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_connection_that_the_backend_closed_costs_no_request() {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let (mut client, call) = warm(&proxy, &backend).await;
    drop(call);
    // A POST is not repeated, so it must not meet the closed connection: seen when it is taken, or
    // handed back unsent.
    client.send(POST).await;
    let mut call = backend.accept().await;
    call.until("{}").await;
    call.send(OK).await;
    client.until("ok").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_dead_endpoint_costs_nobody_a_request_and_is_left_out() {
    let (alive, dead) = (Backend::start().await, Backend::start().await);
    let ports = [alive.port(), dead.port()];
    drop(dead);
    let proxy = TestProxy::start(config(vec![route("s.ns", "/", Scheme::Http, &ports)])).await;
    let close = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    for _ in 0..20 {
        let mut client = proxy.connect().await;
        client.send(POST).await;
        let mut call = alive.accept().await;
        call.until("{}").await;
        call.send(close).await;
        client.until("ok").await;
    }
    let metrics = proxy.admin("/metrics").await;
    let ejections =
        metrics.lines().find(|l| l.starts_with("kagent_proxy_ejections_total{")).unwrap();
    assert!(!ejections.ends_with(" 0"), "{ejections}");
    let routes = proxy.admin("/routes").await;
    assert!(routes.contains("\"ejected\":true"), "{routes}");
    assert!(routes.contains("\"ejected\":false"), "{routes}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_harm_the_endpoint_and_its_connection_is_not_used_again() {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    for _ in 0..5 {
        let mut client = proxy.connect().await;
        client.send(&get("GET")).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nha").await;
        client.until("ha").await;
        drop(client);
        assert_eq!(call.rest().await, "");
    }
    assert!(proxy.admin("/routes").await.contains("\"ejected\":false"));
    proxy.stop().await;
}
