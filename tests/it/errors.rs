//! What the proxy answers itself, and that it dials nothing then.

use std::time::Duration;

use kagent_proxy::config::Scheme;

use crate::support::{Backend, TestProxy, Vacant, config, route};

fn get(extra: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nhost: p\r\nconnection: close\r\n{extra}\r\n")
}

#[tokio::test]
async fn whatever_the_header_says_nothing_outside_the_table_is_dialled() {
    // It listens, so that whatever is dialled by mistake, by route or by header, gets through.
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    backend.set_nonblocking(true).unwrap();
    let address = backend.local_addr().unwrap();
    let routes = vec![route("a.ns", "/", Scheme::Http, &[address.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let itself = format!("x-kagent-host: {address}\r\n");
    let long = format!("x-kagent-host: {}\r\n", "a.".repeat(300));
    for (extra, status, reason) in [
        ("", 400, "missing_target"),
        ("x-kagent-host: 169.254.169.254\r\n", 400, "bad_target"),
        ("x-kagent-host: localhost\r\n", 400, "bad_target"),
        ("x-kagent-host: [::1]:80\r\n", 400, "bad_target"),
        ("x-kagent-host: u@a.ns\r\n", 400, "bad_target"),
        ("x-kagent-host: b\u{fc}cher.ns\r\n", 400, "bad_target"),
        ("x-kagent-host: a.ns:22\r\n", 400, "bad_target"),
        ("x-kagent-host: a.ns\r\nx-kagent-host: b.ns\r\n", 400, "bad_target"),
        (long.as_str(), 400, "bad_target"),
        (itself.as_str(), 400, "bad_target"),
        ("x-kagent-host: example.com\r\n", 503, "unknown_target"),
        ("x-kagent-host: kubernetes.default\r\n", 503, "unknown_target"),
    ] {
        let answer = proxy.ask(&get(extra)).await;
        let first = format!("HTTP/1.1 {status} {reason}\r\n");
        assert!(answer.starts_with(&first), "{extra:?}: {answer}");
        assert!(answer.contains(&format!("x-kagent-proxy-error: {reason}\r\n")), "{answer}");
        assert_eq!(answer.contains("retry-after: "), status == 503, "{answer}");
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_rejected_total{reason=\"bad_target\"} 9"), "{metrics}");
    assert!(metrics.contains("event=\"opened\"} 0"), "{metrics}");
    let dialled = backend.accept().map(|(_, peer)| peer);
    assert_eq!(dialled.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    proxy.stop().await;
}

#[tokio::test]
async fn a_json_post_gets_a_json_rpc_error_with_near_misses() {
    let routes = vec![route("helper.team-a", "/", Scheme::Http, &[9])];
    let proxy = TestProxy::start(config(routes)).await;
    let answer = proxy
        .ask(
            "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: helper.team-b\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: 8\r\n\r\n{\"id\":1}",
        )
        .await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"]["code"], -32603);
    assert_eq!(body["error"]["data"]["reason"], "unknown_target");
    assert_eq!(body["error"]["data"]["candidates"][0], "helper.team-a");
    proxy.stop().await;
}

#[tokio::test]
async fn connect_is_refused_and_a_loop_is_cut() {
    let routes = vec![route("a.ns", "/", Scheme::Http, &[9])];
    let proxy = TestProxy::start(config(routes)).await;
    let answer = proxy
        .ask("CONNECT a.ns:80 HTTP/1.1\r\nhost: a.ns\r\nx-kagent-host: a.ns\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let via = format!("x-kagent-host: a.ns\r\nvia: {}\r\n", ["1.1 x"; 11].join(", "));
    let answer = proxy.ask(&get(&via)).await;
    assert!(answer.starts_with("HTTP/1.1 508 loop"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_card_waits_for_its_backend_and_others_give_up_with_503() {
    let vacant = Vacant::new();
    let mut late = route("late.ns", "/", Scheme::Http, &[vacant.port()]);
    late.to.hold.request = Duration::from_millis(50);
    let proxy = TestProxy::start(config(vec![late])).await;
    let answer = proxy.ask(&get("x-kagent-host: late.ns\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{answer}");
    let card = "GET /.well-known/agent-card.json HTTP/1.1\r\nhost: p\r\nx-kagent-host: late.ns\r\n\
        connection: close\r\n\r\n";
    let appears = async {
        let backend = vacant.listen();
        backend.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    };
    let (answer, ()) = tokio::join!(proxy.ask(card), appears);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_error_carries_the_id_of_the_request_that_it_ends() {
    let backend = Backend::start().await;
    let routes = vec![route("a.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let post = |host: &str, body: &str| {
        format!(
            "POST /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: {host}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    // A tool's call that was sent is answered otherwise: see `sessions.rs`.
    let call = r#"{"jsonrpc":"2.0","id":"x-7","method":"message/send"}"#;
    let unsent = proxy.ask(&post("b.ns", call)).await;
    assert!(unsent.starts_with("HTTP/1.1 503 unknown_target"), "{unsent}");
    assert!(unsent.contains("content-type: application/json\r\n"), "{unsent}");
    let body = unsent.split("\r\n\r\n").nth(1).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["id"], "x-7");
    assert_eq!(body["error"]["code"], -32603);
    assert_eq!(body["error"]["data"]["reason"], "unknown_target");
    assert_eq!(body["error"]["data"]["target"], "b.ns");

    let request = post("a.ns", call);
    let breaks_off = async {
        let mut call = backend.accept().await;
        call.until("message/send").await;
    };
    let (sent, ()) = tokio::join!(proxy.ask(&request), breaks_off);
    assert!(sent.starts_with("HTTP/1.1 502 upstream_reset"), "{sent}");
    assert!(sent.contains(r#""id":"x-7""#), "{sent}");

    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let problem = proxy.ask(&post("b.ns", note)).await;
    assert!(problem.contains("content-type: application/problem+json\r\n"), "{problem}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_backend_cannot_pretend_to_be_the_proxy() {
    let backend = Backend::start().await;
    let routes = vec![route("a.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let request = get("x-kagent-host: a.ns\r\n");
    let forged = "HTTP/1.1 503 x\r\nX-Kagent-Proxy-Error: overloaded\r\n\
        x-kagent-proxy-error: loop\r\nx-kagent-other: 1\r\ncontent-length: 0\r\n\r\n";
    let (answer, _) = tokio::join!(proxy.ask(&request), backend.answer(forged));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(!answer.contains("x-kagent-proxy-error"), "{answer}");
    assert!(answer.contains("x-kagent-other: 1\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_error_does_not_wait_behind_an_unanswered_expect() {
    let proxy = TestProxy::start(config(vec![route("a.ns", "/", Scheme::Http, &[9])])).await;
    let answer = proxy
        .ask(
            "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: b.ns\r\nexpect: 100-continue\r\n\
             content-type: application/json\r\ncontent-length: 9\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 503 unknown_target"), "no 100 before it: {answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    let body = vec![b'x'; 5 * 1024 * 1024];
    let head = format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: no.ns\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..3 {
        let mut client = proxy.connect().await;
        client.send(&head).await;
        client.send_bytes(&body).await;
        client.until("HTTP/1.1 503 unknown_target").await;
    }
    proxy.stop().await;
}
