//! One proxy in front of another: the default route of the outer one leads to the inner one, which knows the backends.

use std::path::PathBuf;
use std::time::Duration;

use kagent_proxy::config::{
    Config, DefaultRouteConfig, KagentHost, RouteTarget, Scheme, SessionMode, Target,
};

use crate::mcp_server::McpServer;
use crate::sessions::{HOST, begin, call, post, send, to};
use crate::support::replicas::key_file;
use crate::support::{Backend, TestProxy, Vacant, before, config, route};

/// A default route to the proxy on this port, which is told the host.
fn next(port: u16) -> DefaultRouteConfig {
    let target = Target { scheme: Scheme::Http, host: "127.0.0.1".to_owned(), port };
    let mut to = RouteTarget::new(vec![target]);
    to.kagent_host = KagentHost::Pass;
    // As the configuration is read.
    to.sessions = SessionMode::Pass;
    DefaultRouteConfig { host: None, listener: None, to }
}

/// A proxy that knows only the one on this port.
fn outer(port: u16) -> Config {
    Config { default_routes: vec![next(port)], ..config(Vec::new()) }
}

async fn chain(backend: &Backend) -> (TestProxy, TestProxy) {
    let inner = TestProxy::start(before(backend)).await;
    (TestProxy::start(outer(inner.address.port())).await, inner)
}

#[tokio::test]
async fn the_next_proxy_is_told_the_host_and_the_backend_is_not() {
    let backend = Backend::start().await;
    let (outer, inner) = chain(&backend).await;
    let get = "GET /a HTTP/1.1\r\nhost: me\r\nx-kagent-host: S.ns\r\nx-forwarded-for: 9.9.9.9\r\n\
               connection: close\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-kagent-proxy-error: overloaded\r\n\r\nok";
    let (answer, seen) = tokio::join!(outer.ask(get), backend.answer(ok));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
    assert!(!answer.contains("overloaded"), "a backend does not speak for a proxy: {answer}");
    let vias: Vec<_> = seen.lines().filter(|line| line.starts_with("via: ")).collect();
    assert!(vias.len() == 2 && vias[0] != vias[1], "two instances: {seen}");
    assert!(!seen.contains("x-kagent-host") && !seen.contains("9.9.9.9"), "{seen}");
    for proxy in [outer, inner] {
        proxy.stop().await;
    }
}

/// The reason, the status and the text are those of the proxy that knows why.
#[tokio::test]
async fn errors_of_the_next_proxy_pass_as_they_are() {
    let backend = Backend::start().await;
    let (outer, inner) = chain(&backend).await;
    for (fields, start, reason) in [
        ("x-kagent-host: other.ns\r\n", "HTTP/1.1 503 unknown_target\r\n", "unknown_target"),
        ("x-kagent-host: s.ns:1\r\n", "HTTP/1.1 400 bad_target\r\n", "bad_target"),
        ("", "HTTP/1.1 400 missing_target\r\n", "missing_target"),
    ] {
        let get = format!("GET / HTTP/1.1\r\nhost: p\r\n{fields}connection: close\r\n\r\n");
        let (direct, proxied) = (inner.ask(&get).await, outer.ask(&get).await);
        assert!(proxied.starts_with(start), "{proxied}");
        assert!(proxied.contains(&format!("x-kagent-proxy-error: {reason}\r\n")), "{proxied}");
        let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        assert_eq!(body(&direct), body(&proxied));
    }
    let rejected = outer.admin("/metrics").await;
    assert!(!rejected.contains("kagent_proxy_rejected_total{reason=\"unknown_target\"} 1"));
    for proxy in [outer, inner] {
        proxy.stop().await;
    }
}

#[tokio::test]
async fn two_proxies_that_lead_to_each_other_are_a_loop_at_once() {
    let vacant = Vacant::new();
    let port = vacant.port();
    let there = TestProxy::start(outer(port)).await;
    let mut back = outer(there.address.port());
    drop(vacant);
    back.listeners[0].address.set_port(port);
    let here = TestProxy::start(back).await;
    let get = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
    let answer = tokio::time::timeout(Duration::from_secs(5), here.ask(get)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 508 loop\r\n"), "{answer}");
    assert!(answer.contains("x-kagent-proxy-error: loop\r\n"), "{answer}");
    for proxy in [here, there] {
        proxy.stop().await;
    }
}

async fn with_keys(mut config: Config, keys: Option<&PathBuf>) -> TestProxy {
    config.sessions.key_files = keys.into_iter().cloned().collect();
    TestProxy::start(config).await
}

/// Whether both have the same key or each its own, and whether the outer one looks after sessions too or not.
#[tokio::test]
async fn sessions_live_through_two_proxies_and_are_revived_once() {
    let key = key_file("chain");
    for (common, both) in [(None, false), (Some(&key), false), (None, true), (Some(&key), true)] {
        let what = format!("common key {}, both {both}", common.is_some());
        let mut server = McpServer::start().await;
        let mut inner = to(&[&server]);
        if both {
            // It is not told the host.
            let to = inner.routes.remove(0).to;
            inner.default_routes = vec![DefaultRouteConfig { host: None, listener: None, to }];
        }
        let inner = with_keys(inner, common).await;
        let port = inner.address.port();
        let first = match both {
            true => config(vec![route(HOST, "/", Scheme::Http, &[port])]),
            false => outer(port),
        };
        let first = with_keys(first, common).await;
        let token = begin(&first).await;
        let again = call("count", "x");
        let ask = || post(&first, Some(&token), &again);
        for n in 1..=2 {
            let answer = ask().await;
            assert_eq!((answer.count(), answer.session().as_ref()), (n, Some(&token)), "{what}");
        }
        server.kill().await;
        server.restart().await;
        assert_eq!(ask().await.count(), 1, "it began anew: {what}");
        assert_eq!(server.seen(|seen| seen.initialized.len()), 2, "once: {what}");
        assert_eq!(ask().await.count(), 2, "{what}");
        let ended = send(&first, "DELETE", Some(&token), "").await;
        assert!((200..300).contains(&ended.status), "{what}: {}", ended.status);
        let after = ask().await;
        assert_eq!((after.status, &*after.body), (404, ""), "its client has ended it: {what}");
        server.seen(|seen| {
            assert!(seen.ids.iter().all(|id| !id.starts_with("kp1.")), "{what}: {:?}", seen.ids);
        });
        for proxy in [first, inner] {
            proxy.stop().await;
        }
    }
}

/// What only the next proxy looks after is not brought back against its word.
#[tokio::test]
async fn a_session_that_the_next_proxy_must_not_revive_ends() {
    let server = McpServer::start().await;
    let mut inner = to(&[&server]);
    inner.routes[0].to.sessions = SessionMode::Pin;
    let inner = TestProxy::start(inner).await;
    let first = TestProxy::start(outer(inner.address.port())).await;
    let token = begin(&first).await;
    server.forget();
    let lost = post(&first, Some(&token), &call("count", "x")).await;
    assert_eq!((lost.status, &*lost.body), (404, ""));
    assert_eq!(server.seen(|seen| seen.initialized.len()), 1);
    for proxy in [first, inner] {
        proxy.stop().await;
    }
}

/// The posts of a legacy client, whose token stands in their URL.
#[tokio::test]
async fn legacy_posts_reach_the_server_of_their_stream_through_two_proxies() {
    let backends = [Backend::start().await, Backend::start().await];
    let ports: Vec<u16> = backends.iter().map(Backend::port).collect();
    let inner = TestProxy::start(config(vec![route(HOST, "/", Scheme::Http, &ports)])).await;
    let first = TestProxy::start(outer(inner.address.port())).await;
    let head = format!("host: p\r\nx-kagent-host: {HOST}\r\naccept: text/event-stream\r\n");
    let mut stream = first.connect().await;
    stream.send(&format!("GET /sse HTTP/1.1\r\n{head}\r\n")).await;
    let (home, mut call) = tokio::select! {
        call = backends[0].accept() => (&backends[0], call),
        call = backends[1].accept() => (&backends[1], call),
    };
    call.until("\r\n\r\n").await;
    let said = "event: endpoint\ndata: /m/?session_id=7\n\n";
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    call.send(&format!("{events}{said}")).await;
    let event = stream.until("\n\n").await;
    let url = event.split("data: ").nth(1).unwrap().split_whitespace().next().unwrap();
    let post =
        format!("POST {url} HTTP/1.1\r\n{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}");
    for _ in 0..8 {
        let answered = home.answer("HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n");
        let (answer, seen) = tokio::join!(first.ask(&post), answered);
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert!(seen.starts_with("POST /m/?session_id=7 HTTP/1.1\r\n"), "{seen}");
    }
    drop((stream, call));
    for proxy in [first, inner] {
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_card_that_two_proxies_rewrite_leads_to_the_outermost() {
    const CARD: &str = r#"{"name":"h","url":"http://helper.team-a:8080/"}"#;
    let backend = Backend::start().await;
    let helper = route("helper.team-a", "/", Scheme::Http, &[backend.port()]);
    let inner = TestProxy::start(config(vec![helper])).await;
    let first = TestProxy::start(outer(inner.address.port())).await;
    let get = "GET /.well-known/agent-card.json HTTP/1.1\r\nhost: 127.0.0.1:8090\r\n\
               x-kagent-host: helper.team-a\r\nconnection: close\r\n\r\n";
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let card = format!("{json}content-length: {}\r\n\r\n{CARD}", CARD.len());
    let (answer, _) = tokio::join!(first.ask(get), backend.answer(&card));
    let expected = CARD.replace("helper.team-a:8080", "127.0.0.1:8090");
    assert!(answer.ends_with(&expected), "{answer}");
    for proxy in [first, inner] {
        proxy.stop().await;
    }
}
