//! What may be sent again is, what may not is not (D11), and failing endpoints are left out.

use std::time::Duration;

use kagent_proxy::config::Scheme;
use tokio::net::UnixStream;

use crate::support::{Backend, Client, OK, TestProxy, Vacant, before, config, route, start};

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
    let (proxy, backend) = start().await;
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
    let (proxy, backend) = start().await;
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

/// Its connection is reset between the proxy's look at it and the first write: nothing was written, so it is sent
/// again, whatever it asks for.
#[tokio::test]
async fn a_post_of_which_nothing_was_written_is_sent_again() {
    let (proxy, backend) = start().await;
    let chunked = POST
        .replace("content-length: 2", "transfer-encoding: chunked")
        .replace("{}", "2\r\n{}\r\n0\r\n\r\n");
    for (post, end) in [(POST, "{}"), (&chunked, "{}\r\n0\r\n\r\n")] {
        let (client, call) = warm(&proxy, &backend).await;
        let (bell, door) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&call.0).set_linger(Some(Duration::ZERO)).unwrap();
        let reset = tokio::spawn(async move {
            door.readable().await.unwrap();
            drop(call);
        });
        bell.writable().await.unwrap();
        client.0.writable().await.unwrap();
        // Everything here is one thread: both are seen in one turn, in this order, and the reset only in the next one.
        bell.try_write(b"!").unwrap();
        assert_eq!(client.0.try_write(post.as_bytes()).unwrap(), post.len());
        let mut again = backend.accept().await;
        let seen = again.until(end).await;
        assert!(seen.starts_with("POST / HTTP/1.1\r\n") && seen.ends_with(end), "{seen}");
        again.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
        let mut client = client;
        client.until("ok").await;
        reset.await.unwrap();
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_retries_total{route=\"s.ns\"} 2"), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_is_not_repeated_once_a_byte_of_its_answer_has_come() {
    let (proxy, backend) = start().await;
    for start in ["HTTP/1.1 200 O", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (mut client, mut call) = warm(&proxy, &backend).await;
        client.send(&get("DELETE")).await;
        call.until("\r\n\r\n").await;
        call.send(start).await;
        drop(call);
        client.until("HTTP/1.1 502 upstream_reset").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_get_on_a_fresh_connection_that_breaks_is_not_repeated() {
    let (proxy, backend) = start().await;
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
    let (proxy, backend) = start().await;
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
    let (alive, dead) = (Backend::start().await, Vacant::new());
    let ports = [alive.port(), dead.port()];
    let proxy = TestProxy::start(config(vec![route("s.ns", "/", Scheme::Http, &ports)])).await;
    let close = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let mut seen = false;
    for _ in 0..20 {
        let mut client = proxy.connect().await;
        client.send(POST).await;
        let mut call = alive.accept().await;
        call.until("{}").await;
        call.send(close).await;
        client.until("ok").await;
        // A first ejection is short, so it is looked for after each request.
        seen |= proxy.admin("/routes").await.contains("\"ejected\":true");
    }
    assert!(seen, "no ejection was seen in twenty looks");
    let metrics = proxy.admin("/metrics").await;
    let ejections =
        metrics.lines().find(|l| l.starts_with("kagent_proxy_ejections_total{")).unwrap();
    assert!(!ejections.ends_with(" 0"), "{ejections}");
    let routes = proxy.admin("/routes").await;
    assert!(routes.contains("\"ejected\":false"), "{routes}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_harm_the_endpoint_and_its_connection_is_not_used_again() {
    let (proxy, backend) = start().await;
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

#[tokio::test]
async fn a_repeat_takes_a_new_connection_since_the_other_idle_ones_may_be_as_stale() {
    let (proxy, backend) = start().await;
    let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
    one.send(&get("GET")).await;
    let mut first = backend.accept().await;
    two.send(&get("GET")).await;
    let mut second = backend.accept().await;
    for call in [&mut first, &mut second] {
        call.until("\r\n\r\n").await;
        call.send(OK).await;
    }
    one.until("ok").await;
    two.until("ok").await;
    one.send(&get("GET")).await;
    // Whichever of the two idle connections it comes on closes; the other one stays idle.
    tokio::select! {
        read = first.until("\r\n\r\n") => { assert!(read.starts_with("GET")); drop(first); }
        read = second.until("\r\n\r\n") => { assert!(read.starts_with("GET")); drop(second); }
    }
    let mut third = backend.accept().await;
    third.until("\r\n\r\n").await;
    third.send(OK).await;
    one.until("ok").await;
    drop((one, two));
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_an_http2_backend_resets_is_not_repeated() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&calls);
    let serving = tokio::spawn(async move {
        let io = hyper_util::rt::TokioIo::new(listener.accept().await.unwrap().0);
        let service = hyper::service::service_fn(|_: http::Request<hyper::body::Incoming>| {
            let call = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                if call == 0 {
                    return Ok(http::Response::new("ok".to_owned()));
                }
                // An error of the service resets the stream.
                Err(std::io::Error::other("no"))
            }
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let _ended =
            hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await;
    });
    let proxy = TestProxy::start(config(vec![route("s.ns", "/", Scheme::H2c, &[port])])).await;
    let mut client = proxy.connect().await;
    client.send(&get("GET")).await;
    client.until("ok").await;
    client.send(&get("GET")).await;
    client.until("HTTP/1.1 502 upstream_reset").await;
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2, "sent once each");
    drop(client);
    proxy.stop().await;
    serving.abort();
}

#[tokio::test]
async fn beyond_the_budget_the_failure_is_answered_at_once() {
    let backend = Backend::start().await;
    let mut config = before(&backend);
    (config.upstream.retry_percent, config.upstream.retry_per_second) = (0, 0);
    let proxy = TestProxy::start(config).await;
    let (mut client, mut call) = warm(&proxy, &backend).await;
    client.send(&get("GET")).await;
    call.until("\r\n\r\n").await;
    drop(call);
    client.until("HTTP/1.1 502 upstream_reset").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn interim_responses_to_a_repeated_call_are_counted_too() {
    let (proxy, backend) = start().await;
    let (mut client, mut call) = warm(&proxy, &backend).await;
    client.send(&get("GET")).await;
    call.until("\r\n\r\n").await;
    drop(call);
    backend.answer(&format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}")).await;
    client.until("ok").await;
    let metrics = proxy.admin("/metrics").await;
    assert!(
        metrics.contains("kagent_proxy_informational_dropped_total{route=\"s.ns\"} 1\n"),
        "{metrics}"
    );
    drop(client);
    proxy.stop().await;
}
