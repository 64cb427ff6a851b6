//! For how long idle connections to a backend are used again: learned from what it does.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use kagent_proxy::body::RequestBody;
use kagent_proxy::config::{Scheme, Target, UpstreamConfig};
use kagent_proxy::headers::onward::{Ask, Keep, Onward, Origin};
use kagent_proxy::upstream::{Cluster, Want};
use metrics::Counter;

use crate::support::{BOUND, Backend, Client, LAST_GET, OK, TestProxy, before};

const START: Duration = Duration::from_millis(200);

/// A call that the proxy sends on this connection.
async fn on(proxy: &TestProxy, call: &mut Client) {
    let backend = async {
        call.until("\r\n\r\n").await;
        call.send(OK).await;
    };
    let (answer, ()) = tokio::join!(proxy.ask(LAST_GET), backend);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// A call that the proxy opens a connection for, which stays open.
async fn anew(proxy: &TestProxy, backend: &Backend) -> Client {
    let call = async {
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(OK).await;
        call
    };
    let (answer, call) = tokio::join!(proxy.ask(LAST_GET), call);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    call
}

/// What the proxy has learned so far, in seconds.
async fn learned(proxy: &TestProxy) -> f64 {
    let routes = proxy.admin("/routes").await;
    let value = routes.split("\"reuseIdleSeconds\":").nth(1).unwrap();
    value.split([',', '}']).next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn connections_are_used_longer_where_the_endpoint_was_seen_to_keep_them() {
    let backend = Backend::start().await;
    let mut config = before(&backend);
    config.upstream.idle = START;
    let proxy = TestProxy::start(config).await;
    let mut first = anew(&proxy, &backend).await;
    on(&proxy, &mut first).await;
    // Longer than an unknown endpoint is trusted with: the pause is what is tested.
    tokio::time::sleep(2 * START).await;
    let _second = anew(&proxy, &backend).await;
    // Both stay open, and the proxy looks.
    let seen = async {
        while learned(&proxy).await < 2.5 {
            tokio::time::sleep(START).await;
        }
    };
    tokio::time::timeout(BOUND, seen).await.expect("nothing is learned");
    let mut third = anew(&proxy, &backend).await;
    tokio::time::sleep(2 * START).await;
    on(&proxy, &mut third).await;
    // It closes one: less again.
    let before = learned(&proxy).await;
    drop((first, third));
    let seen = async {
        while learned(&proxy).await >= before {
            tokio::time::sleep(START).await;
        }
    };
    tokio::time::timeout(BOUND, seen).await.expect("a close teaches nothing");
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_of_our_own_goes_out_on_a_connection_of_the_pool() {
    let backend = Backend::start().await;
    let host = "127.0.0.1".to_owned();
    let target = Target { scheme: Scheme::Http, host, port: backend.port() };
    let cluster = Cluster::new(vec![target], UpstreamConfig::default(), None, Counter::noop());
    cluster.refresh().await;
    let endpoint = cluster.pick(Want::Any, &[]).unwrap();
    let script = async {
        let mut call = backend.accept().await;
        for _ in 0..2 {
            let request = call.until("initialize").await;
            assert!(request.contains("content-length: 10\r\n"), "{request}");
            call.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        }
    };
    let requests = async {
        for reused in [false, true] {
            let id = endpoint.id();
            let pinned = cluster.pick(Want::Pinned(&id), &[]).unwrap();
            let mut lease = match pinned.idle_connection(false) {
                Some(lease) => lease,
                None => pinned.dial(false, BOUND).await.unwrap(),
            };
            assert_eq!(lease.reused, reused);
            let body = RequestBody::own(Bytes::from_static(b"initialize"), Default::default());
            let request = Request::post("/mcp").body(body).unwrap();
            let origin = Origin {
                named: Vec::new(),
                joins_cookies: false,
                trusted: false,
                peer: "127.0.0.1".parse().unwrap(),
                proto: "http",
                host: None,
                via: "1.1 us".parse().unwrap(),
                trace: None,
            };
            let onward = Onward {
                origin: &origin,
                meanings: None,
                path: "/mcp".parse().unwrap(),
                authority: Some("s.ns".parse().unwrap()),
                ask: Ask::Nothing,
                whole: false,
                session: None,
                keep: Keep::No,
                names_host: false,
            };
            let response = lease.send(Box::new(request), &onward).await.unwrap();
            assert_eq!(response.status(), 202);
            lease.recycle();
        }
    };
    tokio::join!(script, requests);
}
