//! A call goes through as if nobody stood between.

use kagent_proxy::config::{DefaultRouteConfig, Scheme};

use crate::support::{Backend, TestProxy, config, route, start};

const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok";

#[tokio::test]
async fn the_header_routes_and_the_path_passes_byte_for_byte() {
    let backend = Backend::start().await;
    let port = backend.port();
    let routes = vec![route("helper.team-a", "/", Scheme::Http, &[port])];
    let proxy = TestProxy::start(config(routes)).await;
    let request = "GET /a//b/../%2F+?q=%20x&y HTTP/1.1\r\nHost: other.ns:9999\r\n\
        X-Kagent-Host: Helper.Team-A.svc.cluster.local\r\nAccept: application/json\r\n\
        Accept: text/event-stream\r\nx-kagent-source: agent\r\nConnection: close, x-hop\r\n\
        X-Hop: 1\r\nX-Forwarded-For: 6.6.6.6\r\nUpgrade: h2c\r\n\r\n";
    let (answer, head) = tokio::join!(proxy.ask(request), backend.answer(OK));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("get /a//b/../%2f+?q=%20x&y http/1.1\r\n"), "{head}");
    for present in [
        &format!("host: 127.0.0.1:{port}\r\n"),
        "accept: application/json\r\naccept: text/event-stream\r\n",
        "x-kagent-source: agent\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: other.ns:9999\r\n",
        "via: 1.1 kagent-proxy-",
    ] {
        assert!(head.contains(present), "{present:?} is missing in {head}");
    }
    for absent in ["x-kagent-host", "x-hop", "upgrade", "6.6.6.6"] {
        assert!(!head.contains(absent), "{absent:?} is in {head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_longest_prefix_of_whole_segments_wins() {
    let (root, docs) = (Backend::start().await, Backend::start().await);
    let proxy = TestProxy::start(config(vec![
        route("t.ns", "/", Scheme::Http, &[root.port()]),
        route("t.ns", "/docs", Scheme::Http, &[docs.port()]),
    ]))
    .await;
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: p\r\nx-kagent-host: t.ns\r\nconnection: close\r\n\r\n"
        )
    };
    for path in ["/docs", "/docs/mcp"] {
        let request = ask(path);
        let (_, head) = tokio::join!(proxy.ask(&request), docs.answer(OK));
        assert!(head.starts_with(&format!("GET {path} ")), "{head}");
    }
    let request = ask("/docsy");
    let (_, head) = tokio::join!(proxy.ask(&request), root.answer(OK));
    assert!(head.starts_with("GET /docsy "), "{head}");
    proxy.stop().await;
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send("GET /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
    let mut call = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    for n in 0..20 {
        let event = format!("data: {n:02}\n\n");
        call.send(&format!("{:x}\r\n{event}\r\n", event.len())).await;
        client.until(&event).await;
    }
    call.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_is_accepted_chunked_and_with_a_trailer() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ntransfer-encoding: chunked\r\n\
             trailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    let mut call = backend.accept().await;
    let message = call.until("x-sum: 7").await;
    assert!(message.contains("3\r\nabc\r\n0\r\n"), "{message}");
    call.send(OK).await;
    client.until("ok").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn expect_is_answered_here_and_not_sent_on() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nexpect: 100-continue\r\n\
             content-length: 3\r\n\r\n",
        )
        .await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("abc").await;
    let mut call = backend.accept().await;
    let message = call.until("abc").await.to_ascii_lowercase();
    assert!(!message.contains("expect"), "{message}");
    call.send(OK).await;
    client.until("ok").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_is_used_again_and_counted() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    let request = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
    client.send(request).await;
    let mut call = backend.accept().await;
    for _ in 0..3 {
        call.until("\r\n\r\n").await;
        call.send(OK).await;
        client.until("ok").await;
        client.send(request).await;
    }
    call.until("\r\n\r\n").await;
    call.send(OK).await;
    client.until("ok").await;
    let metrics = proxy.admin("/metrics").await;
    for line in [
        "kagent_proxy_upstream_connections_total{route=\"s.ns\",event=\"opened\"} 1",
        "kagent_proxy_upstream_connections_total{route=\"s.ns\",event=\"reused\"} 3",
        "kagent_proxy_requests_total{route=\"s.ns\",class=\"unary\",status=\"200\",outcome=\"complete\"} 4",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_without_the_header_takes_the_first_default_route_that_fits() {
    let (named, any) = (Backend::start().await, Backend::start().await);
    let mut config = config(vec![route("a.ns", "/", Scheme::Http, &[9])]);
    let default = |host: Option<&str>, backend: &Backend| DefaultRouteConfig {
        host: host.map(str::to_owned),
        listener: None,
        to: route("x", "/", Scheme::Http, &[backend.port()]).to,
    };
    config.default_routes = vec![default(Some("tools.example"), &named), default(None, &any)];
    let proxy = TestProxy::start(config).await;
    let ask = |host: &str, extra: &str| {
        format!("GET /mcp HTTP/1.1\r\nhost: {host}\r\n{extra}connection: close\r\n\r\n")
    };
    for (host, backend) in [("Tools.Example:8080", &named), ("localhost:1", &any)] {
        let request = ask(host, "");
        let (answer, head) = tokio::join!(proxy.ask(&request), backend.answer(OK));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", backend.port())), "{head}");
    }
    // An absolute target is the Host, whatever the field says (RFC 9112 section 3.2.2).
    let absolute =
        "GET http://Tools.example:80/mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let (answer, head) = tokio::join!(proxy.ask(absolute), named.answer(OK));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(head.starts_with("GET /mcp HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", named.port())), "{head}");
    assert!(head.contains("x-forwarded-host: Tools.example:80\r\n"), "{head}");
    let refused = proxy.ask(&ask("localhost", "x-kagent-host: b.ns\r\n")).await;
    assert!(refused.starts_with("HTTP/1.1 503 unknown_target"), "{refused}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("route=\"*@tools.example\""), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn informational_answers_are_dropped_and_counted() {
    let (proxy, backend) = start().await;
    let request = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let bytes = format!("{early}{OK}");
    let (answer, _) = tokio::join!(proxy.ask(request), backend.answer(&bytes));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let metrics = proxy.admin("/metrics").await;
    let dropped = "kagent_proxy_informational_dropped_total{route=\"s.ns\"} 2";
    assert!(metrics.contains(dropped), "{metrics}");
    proxy.stop().await;
}
