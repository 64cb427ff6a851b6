//! What the proxy answers itself, for both eras of MCP: no answer may make a client that tries MCP 2026-07-28 first take
//! its server for an older one.

use std::time::Duration;

use kagent_proxy::config::{Config, Scheme};
use serde_json::{Value, json};

use crate::api::Api;
use crate::discovery::{discovering, marked, service, started};
use crate::support::replicas::replicas;
use crate::support::{BOUND, Backend, TestProxy, Vacant, config, held, route};

/// An id that only a proxy gives, sealed by no key of this one.
const FORGED: &str = "kp1.AAAAAAAAAAAAAAAA";
const MODERN: &str = "mcp-protocol-version: 2026-07-28\r\n";

/// A request of one kind, without what leads it to its target.
struct Asks {
    name: &'static str,
    fields: String,
    method: &'static str,
    is_modern: bool,
}

fn kinds() -> [Asks; 4] {
    let modern = |name, method: &'static str| Asks {
        name,
        fields: format!("{MODERN}mcp-method: {method}\r\n"),
        method,
        is_modern: true,
    };
    let other = |name, method| Asks { name, fields: String::new(), method, is_modern: false };
    [
        modern("probe", "server/discover"),
        modern("modern", "tools/list"),
        other("legacy", "initialize"),
        other("a2a", "message/send"),
    ]
}

impl Asks {
    fn to(&self, target: &str, path: &str) -> String {
        let body = json!({"jsonrpc": "2.0", "id": "x-7", "method": self.method, "params": {}});
        let (fields, body) = (&self.fields, body.to_string());
        format!(
            "POST {path} HTTP/1.1\r\nhost: p\r\n{target}{fields}content-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// A way to be refused: what leads there, the path, and the reason.
type Way = (String, &'static str, &'static str);

fn ways() -> Vec<Way> {
    let to = |host: &str| format!("x-kagent-host: {host}\r\n");
    vec![
        (String::new(), "/mcp", "missing_target"),
        (to("10.0.0.1"), "/mcp", "bad_target"),
        (to("gone.ns:99"), "/mcp", "bad_target"),
        (to("gone.ns") + "host: q\r\n", "/mcp", "bad_request"),
        (to("prefix.ns"), "/mcp/../x", "bad_path"),
        (to("gone.ns") + &format!("x-long: {}\r\n", "x".repeat(5000)), "/mcp", "header_too_large"),
        (to("nobody.ns"), "/mcp", "unknown_target"),
        (to("gone.ns"), "/mcp", "no_ready_endpoint"),
        (to("other.ns"), "/mcp", "connect_failed"),
        (to("silent.ns"), "/mcp", "head_timeout"),
        (to("gone.ns") + &format!("via: {}\r\n", ["1.1 x"; 11].join(", ")), "/mcp", "loop"),
    ]
}

fn world(vacant: &Vacant, plain: &Backend) -> Config {
    let mut routes = vec![
        route("gone.ns", "/", Scheme::Http, &[vacant.port()]),
        route("prefix.ns", "/mcp", Scheme::Http, &[vacant.port()]),
        route("other.ns", "/", Scheme::Https, &[plain.port()]),
        route("silent.ns", "/", Scheme::Http, &[plain.port()]),
    ];
    for route in &mut routes {
        route.to.hold.request = Duration::ZERO;
    }
    routes[3].to.timeouts.unary.head = Some(Duration::from_millis(50));
    let mut config = config(routes);
    config.listener.max_head_bytes = 4096;
    config
}

#[tokio::test]
async fn no_refusal_makes_a_server_look_like_an_older_one() {
    let (vacant, plain) = (Vacant::new(), Backend::start().await);
    let proxy = TestProxy::start(world(&vacant, &plain)).await;
    let plays = async {
        let mut open = Vec::new();
        loop {
            let mut call = plain.accept().await;
            // TLS is spoken to a server that does not, and ends there; others wait for an answer.
            let mut first = [0];
            let read = tokio::io::AsyncReadExt::read(&mut call.0, &mut first).await;
            if read.is_ok_and(|read| read == 1) && first != [22] {
                open.push(call);
            } else {
                call.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        }
    };
    let asks = async {
        for (target, path, reason) in ways() {
            for kind in kinds() {
                let answer = proxy.ask(&kind.to(&target, path)).await;
                let name = kind.name;
                assert_eq!(error_of(&answer), Some(reason), "{name}: {answer}");
                let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
                let falls_back = (400..500).contains(&status) && ![401, 403].contains(&status);
                assert!(!(kind.is_modern && falls_back), "{name} by {reason}: {status}");
                let permanent =
                    ["missing_target", "bad_target", "bad_request", "bad_path", "header_too_large"]
                        .contains(&reason);
                assert_eq!(falls_back, permanent && !kind.is_modern, "{name} {reason}: {status}");
                let body = answer.split("\r\n\r\n").nth(1).unwrap();
                let body: Value = serde_json::from_str(body).unwrap();
                assert_eq!(
                    (&body["id"], &body["error"]["code"], &body["error"]["data"]["reason"]),
                    (&json!("x-7"), &json!(-32603), &json!(reason)),
                    "{name} by {reason}: {answer}"
                );
            }
        }
    };
    tokio::select! {
        () = plays => {}
        () = asks => {}
    }
    proxy.stop().await;
}

fn error_of(answer: &str) -> Option<&str> {
    answer.lines().find_map(|line| line.strip_prefix("x-kagent-proxy-error: "))
}

/// Where no id is found, the body says the status that the response has.
#[tokio::test]
async fn problem_details_say_the_status_of_the_response() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    for (fields, status) in [("", 400), ("mcp-method: tools/list\r\n", 500)] {
        let request = format!("POST / HTTP/1.1\r\nhost: p\r\n{fields}connection: close\r\n\r\n");
        let answer = proxy.ask(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} missing_target")), "{answer}");
        assert!(answer.contains(&format!("\"status\":{status}")), "{answer}");
    }
    proxy.stop().await;
}

/// What a client sends that asks for the newest revision first: `server/discover`, and `initialize` if that fails.
#[tokio::test]
async fn an_initialize_behind_a_refused_probe_does_not_wait_for_the_server() {
    let vacant = Vacant::new();
    let to = |prefix: &str, hold: Duration| {
        let mut route = route("s.ns", prefix, Scheme::Http, &[vacant.port()]);
        route.to.hold.request = hold;
        route
    };
    // Whether somebody waits is seen by the path, not by a clock.
    let routes = vec![to("/", Duration::ZERO), to("/held", BOUND * 10)];
    let proxy = TestProxy::start(config(routes)).await;
    let [probe, _, initialize, a2a] = kinds();
    let target = "x-kagent-host: s.ns\r\n";
    {
        let waits = async |kind: &Asks| {
            let mut client = proxy.connect().await;
            client.send(&kind.to(target, "/held")).await;
            held(&proxy, 1).await;
            drop(client);
            held(&proxy, 0).await;
        };
        waits(&initialize).await;
        let refused = proxy.ask(&probe.to(target, "/")).await;
        assert!(refused.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{refused}");
        let at_once = proxy.ask(&initialize.to(target, "/held")).await;
        assert!(at_once.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{at_once}");
        // Others from the same address go on waiting, and the next probe does.
        waits(&a2a).await;
        waits(&probe).await;
        // Behind a gateway all have one address: it is the head that tells one client from another, whatever is new in
        // each request.
        let headed = |kind: &Asks, fields: &str| Asks {
            fields: format!("{}{fields}", kind.fields),
            ..*kind
        };
        let of_a =
            "user-agent: sdk/1\r\nx-forwarded-for: 10.0.0.1\r\nx-kagent-root-context-id: c-1\r\n";
        let probe_of_a = headed(&probe, &format!("{of_a}x-request-id: 1\r\ntraceparent: 00-1\r\n"));
        let refused = proxy.ask(&probe_of_a.to(target, "/")).await;
        assert!(refused.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{refused}");
        let next = headed(&initialize, &format!("x-request-id: 2\r\ntraceparent: 00-2\r\n{of_a}"));
        let at_once = proxy.ask(&next.to(target, "/held")).await;
        assert!(at_once.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{at_once}");
        for (one, other) in [("sdk/1", "sdk/2"), ("10.0.0.1", "10.0.0.2"), ("c-1", "c-2")] {
            waits(&headed(&initialize, &of_a.replace(one, other))).await;
        }
    }
    proxy.stop().await;
}

/// What is not there may be a Service that nobody has made, an Agent whose Service is late, or pods.
#[tokio::test]
async fn an_initialize_behind_a_refused_probe_does_not_wait_for_the_cluster_either() {
    let api = Api::start().await;
    api.fail("agents", 0);
    api.put("agents", json!({ "metadata": { "namespace": "a", "name": "late" }, "spec": {} }));
    let vacant = Vacant::new();
    api.put("services", service("a", "dead", vacant.port(), marked()));
    let mut config = discovering(&api);
    // Long enough for a look at who waits.
    config.discovery.inherited.hold.request = Duration::from_secs(2);
    let proxy = started(config).await;
    let [probe, _, initialize, a2a] = kinds();
    for (host, reason) in [
        ("none.a", "unknown_target"),
        ("late.a", "no_ready_endpoint"),
        ("dead.a", "no_ready_endpoint"),
    ] {
        let target = format!("x-kagent-host: {host}\r\n");
        let refused = format!("HTTP/1.1 503 {reason}\r\n");
        let waits = async |kind: &Asks| {
            let message = kind.to(&target, "/mcp");
            tokio::select! {
                answer = proxy.ask(&message) => Some(answer),
                () = held(&proxy, 1) => None,
            }
        };
        assert!(waits(&initialize).await.is_none(), "{host}: before any probe");
        held(&proxy, 0).await;
        let answer = proxy.ask(&probe.to(&target, "/mcp")).await;
        assert!(answer.starts_with(&refused), "{host}: {answer}");
        let answer = waits(&initialize).await.expect(host);
        assert!(answer.starts_with(&refused), "{host}: {answer}");
        for kind in [&a2a, &probe] {
            assert!(waits(kind).await.is_none(), "{host}: {}", kind.name);
            held(&proxy, 0).await;
        }
    }
    proxy.stop().await;
}

/// The client's next request may come to any replica, and must not be the first to reach the server there.
#[tokio::test]
async fn an_initialize_behind_a_probe_that_another_replica_refused_does_not_wait_either() {
    let vacant = Vacant::new();
    let mut held_route = route("s.ns", "/held", Scheme::Http, &[vacant.port()]);
    held_route.to.hold.request = BOUND * 10;
    let mut at_once_route = route("s.ns", "/", Scheme::Http, &[vacant.port()]);
    at_once_route.to.hold.request = Duration::ZERO;
    let replicas = replicas::<3>("probes", &config(vec![at_once_route, held_route])).await;
    let [probe, _, initialize, a2a] = kinds();
    let target = "x-kagent-host: s.ns\r\n";
    let refused = replicas[0].ask(&probe.to(target, "/")).await;
    assert!(refused.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{refused}");
    for replica in &replicas {
        let at_once = replica.ask(&initialize.to(target, "/held")).await;
        assert!(at_once.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{at_once}");
    }
    for other in
        [a2a.to(target, "/held"), initialize.to(&format!("{target}user-agent: x\r\n"), "/held")]
    {
        let mut client = replicas[1].connect().await;
        client.send(&other).await;
        held(&replicas[1], 1).await;
        drop(client);
        held(&replicas[1], 0).await;
    }
    for replica in replicas {
        replica.stop().await;
    }
}

/// Where it broke off, the client would go on with `initialize`, which is sent again too.
#[tokio::test]
async fn a_probe_that_breaks_off_is_sent_again() {
    let backend = Backend::start().await;
    let routes = vec![route("s.ns", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let [probe, modern, ..] = kinds();
    let once = async || {
        let mut call = backend.accept().await;
        call.until("\"params\":{}}").await;
    };
    let twice = async {
        once().await;
        let mut call = backend.accept().await;
        call.until("\"params\":{}}").await;
        call.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").await;
    };
    let ask = probe.to("x-kagent-host: s.ns\r\n", "/mcp");
    let (answer, ()) = tokio::join!(proxy.ask(&ask), twice);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let ask = modern.to("x-kagent-host: s.ns\r\n", "/mcp");
    let (answer, ()) = tokio::join!(proxy.ask(&ask), once());
    assert!(answer.starts_with("HTTP/1.1 502 upstream_reset"), "D11: {answer}");
    proxy.stop().await;
}

/// What belongs to a session is of the older era, whatever else its head says: its client has to hear of a session that
/// is lost. The conformance suite sends such requests.
#[tokio::test]
async fn a_request_of_a_session_is_none_of_the_new_era() {
    let proxy = TestProxy::start(config(vec![route("s.ns", "/", Scheme::Http, &[9])])).await;
    let [_, modern, ..] = kinds();
    let forged = format!("x-kagent-host: s.ns\r\nmcp-session-id: {FORGED}\r\n");
    let lost = proxy.ask(&modern.to(&forged, "/mcp")).await;
    assert!(lost.starts_with("HTTP/1.1 404 "), "{lost}");
    let session = "mcp-session-id: 1\r\n";
    let wrong = proxy.ask(&modern.to(session, "/mcp")).await;
    assert!(wrong.starts_with("HTTP/1.1 400 missing_target"), "{wrong}");
    proxy.stop().await;
}

/// Headers of MCP 2026-07-28 are the server's to read: every byte of them passes.
#[tokio::test]
async fn encoded_values_and_parameters_pass_as_they_are() {
    let backend = Backend::start().await;
    let proxy =
        TestProxy::start(config(vec![route("s.ns", "/", Scheme::Http, &[backend.port()])])).await;
    let fields = [
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: tools/call",
        "mcp-name: =?base64?4pyTIHRvb2w=?=",
        "mcp-param-region: eu-west-1",
        "mcp-param-query: =?base64?IHNwYWNlZCA=?=",
        "mcp-param-literal: =?base64?PT9iYXNlNjQ/eD89?=",
        "mcp-param-broken: =?base64?!?=",
        "mcp-param-unheard-of: 1.50",
        "mcp-param-twice: a",
        "mcp-param-twice: b",
    ];
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"✓ tool"}}"#;
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n{}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        fields.join("\r\n"),
        body.len()
    );
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nmcp-param-x: =?base64?eA==?=\r\n\r\n{}";
    let plays = async {
        let mut call = backend.accept().await;
        let asked = call.until(body).await;
        call.send(answer).await;
        asked
    };
    let (answered, asked) = tokio::join!(proxy.ask(&request), plays);
    let sent: Vec<&str> = asked.lines().filter(|line| line.starts_with("mcp-")).collect();
    assert_eq!(sent, fields);
    assert!(answered.contains("mcp-param-x: =?base64?eA==?=\r\n"), "{answered}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_mcp_header_mismatch_total{route=\"s.ns\"} 0\n"));
    proxy.stop().await;
}
