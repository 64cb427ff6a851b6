//! Discovery end to end against a scripted API server: what is held, refused, kept and caught up.
//!
//! Backends are dialled through the Service's address, because pods never have loopback ones.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kagent_proxy::config::{Config, DiscoveryConfig, Endpoints, Scheme};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::api::{Api, OURS};
use crate::support::{BOUND, Backend, Client, TestProxy, config, held, route, shows};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
/// What a watch ends with that is out of date.
const EXPIRED: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"code\":410,\"reason\":\"Expired\",\"message\":\"too old\"}}\n";

pub(crate) fn discovering(api: &Api) -> Config {
    let mut config = config(Vec::new());
    *config.discovery = DiscoveryConfig {
        enabled: true,
        kubeconfig: Some(api.kubeconfig()),
        endpoints: Endpoints::Service,
        ..DiscoveryConfig::default()
    };
    config
}

pub(crate) fn service(namespace: &str, name: &str, port: u16, metadata: Value) -> Value {
    let mut object = json!({
        "metadata": metadata,
        "spec": {
            "clusterIP": Ipv4Addr::LOCALHOST.to_string(),
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        },
    });
    object["metadata"]["namespace"] = json!(namespace);
    object["metadata"]["name"] = json!(name);
    object
}

pub(crate) fn marked() -> Value {
    json!({ "labels": { "kagent.dev/mcp-service": "true" } })
}

fn plain(namespace: &str, name: &str) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name }, "spec": {} })
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: p\r\nx-kagent-host: {host}\r\nconnection: close\r\n\r\n")
}

async fn ask(proxy: &TestProxy, host: &str, path: &str) -> String {
    proxy.ask(&get(host, path)).await
}

/// A port where nothing listens, and which is nobody else's while the test runs.
fn refusing() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    socket
}

/// With time enough for every step of a test while a request waits.
fn patient(api: &Api) -> Config {
    let mut config = discovering(api);
    config.discovery.inherited.hold.request = BOUND;
    config
}

async fn ready(proxy: &TestProxy) {
    shows(proxy, "/readyz", "200 OK").await;
}

/// A proxy that knows the cluster.
pub(crate) async fn started(config: Config) -> TestProxy {
    let proxy = TestProxy::start(config).await;
    ready(&proxy).await;
    proxy
}

/// The client of a request that is the only one that waits.
async fn waiting(proxy: &TestProxy, request: &str) -> Client {
    let mut client = proxy.connect().await;
    client.send(request).await;
    held(proxy, 1).await;
    client
}

/// The head that the backend saw of a request that it answers.
async fn answered(proxy: &TestProxy, (host, path): (&str, &str), backend: &Backend) -> String {
    let (answer, head) = tokio::join!(ask(proxy, host, path), backend.answer(ANSWER));
    assert!(answer.ends_with("hi"), "{answer}");
    head
}

#[tokio::test]
async fn readiness_opens_with_the_last_list_and_absent_resources_do_not_hold_it_up() {
    let api = Api::start().await;
    api.fail("endpointslices", 403);
    let proxy = TestProxy::start(discovering(&api)).await;
    let waiting = shows(&proxy, "/readyz", "allow get, list and watch on endpointslices").await;
    assert!(waiting.starts_with("HTTP/1.1 503 "), "{waiting}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_discovery_up{kind=\"services\"} 1"), "{metrics}");
    assert!(metrics.contains("kagent_proxy_discovery_up{kind=\"endpointslices\"} 0"), "{metrics}");
    assert!(metrics.contains("kagent_proxy_discovery_synced 0"), "{metrics}");
    // The right to list without the right to watch is not enough.
    api.fail("watch services", 403);
    api.end_watches("services", "");
    api.fail("endpointslices", 0);
    shows(&proxy, "/metrics", "kagent_proxy_discovery_up{kind=\"endpointslices\"} 1").await;
    shows(&proxy, "/readyz", "allow get, list and watch on services").await;
    api.fail("watch services", 0);
    ready(&proxy).await;
    assert!(proxy.admin("/metrics").await.contains("kagent_proxy_discovery_synced 1"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_host_is_served_the_moment_it_becomes_known() {
    let api = Api::start().await;
    let proxy = started(patient(&api)).await;
    let backend = Backend::start().await;
    let mut client = waiting(&proxy, &get("tools.kagent", "/mcp")).await;
    api.put("services", service("kagent", "tools", backend.port(), marked()));
    let head = backend.answer(ANSWER).await;
    assert!(head.contains(&format!("host: tools.kagent:{}\r\n", backend.port())), "{head}");
    assert!(client.rest().await.ends_with("hi"));
    // The long spelling reaches the same backend under the name that it was called by (D1).
    let (answer, head) =
        tokio::join!(ask(&proxy, "Tools.kagent.svc.cluster.local", "/mcp"), backend.answer(ANSWER));
    assert!(answer.ends_with("hi"), "{answer}");
    let host = format!("host: tools.kagent.svc.cluster.local:{}\r\n", backend.port());
    assert!(head.contains(&host), "{head}");
    proxy.stop().await;
}

#[tokio::test]
async fn the_card_of_an_agent_waits_for_its_service() {
    let api = Api::start().await;
    api.fail("agents", 0);
    api.put("agents", plain("a", "helper"));
    let mut config = discovering(&api);
    config.discovery.inherited.hold.request = Duration::from_millis(20);
    let proxy = started(config).await;
    let refused = ask(&proxy, "helper.a", "/").await;
    assert!(refused.starts_with("HTTP/1.1 503 no_ready_endpoint\r\n"), "{refused}");
    assert!(refused.contains("Agent a/helper exists, its Service does not yet"), "{refused}");
    let backend = Backend::start().await;
    let mut client = proxy.connect().await;
    client.send(&get("helper.a", "/.well-known/agent-card.json")).await;
    let seen = shows(&proxy, "/routes", "\"state\":\"pending\"").await;
    assert!(seen.contains("helper.a"), "{seen}");
    held(&proxy, 1).await;
    api.put("services", service("a", "helper", backend.port(), json!({})));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    proxy.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_backend_goes_where_its_service_leads_by_then() {
    let api = Api::start().await;
    api.fail("remotemcpservers", 0);
    let closed = refusing();
    api.put("services", service("a", "tools", closed.local_addr().unwrap().port(), marked()));
    let proxy = started(patient(&api)).await;
    let backend = Backend::start().await;
    let mut client = waiting(&proxy, &get("tools.a", "/mcp")).await;
    // Another port, and a query with it: nothing of the old way is left in the request.
    let mut remote = plain("a", "r");
    remote["spec"]["url"] = json!(format!("http://tools.a:{}/mcp?tenant=x", backend.port()));
    api.put("remotemcpservers", remote);
    shows(&proxy, "/metrics", "kagent_proxy_discovery_objects{kind=\"remotemcpservers\"} 1").await;
    held(&proxy, 1).await;
    api.put("services", service("a", "tools", backend.port(), marked()));
    let head = backend.answer(ANSWER).await;
    assert!(head.starts_with("GET /mcp?tenant=x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: tools.a:{}\r\n", backend.port())), "{head}");
    assert_eq!(head.matches("via:").count(), 1, "{head}");
    assert!(client.rest().await.ends_with("hi"));
    held(&proxy, 0).await;
    let routes = shows(&proxy, "/metrics", "kagent_proxy_open_requests").await;
    let open = routes.lines().filter(|line| line.starts_with("kagent_proxy_open_requests{"));
    // The route that is gone has no series any more.
    assert!(open.clone().count() == 1 && open.clone().all(|line| line.ends_with(" 0")), "{routes}");
    proxy.stop().await;
}

#[tokio::test]
async fn who_waits_follows_the_word_that_names_another_port_of_the_same_service() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    let closed = refusing();
    let port = closed.local_addr().unwrap().port();
    let two = |named: u16| {
        let annotations =
            json!({ "annotations": { "kagent.dev/mcp-service-port": named.to_string() } });
        let mut object = service("a", "tools", port, annotations);
        let other = json!({ "name": "other", "port": backend.port(), "protocol": "TCP" });
        object["spec"]["ports"].as_array_mut().unwrap().push(other);
        object
    };
    api.put("services", two(port));
    let proxy = started(patient(&api)).await;
    let mut client = waiting(&proxy, &get("tools.a", "/mcp")).await;
    api.put("services", two(backend.port()));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    proxy.stop().await;
}

#[tokio::test]
async fn the_host_that_decided_still_does_when_the_service_is_another_one_by_then() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    let closed = refusing();
    let object = |port: u16, other: u16| {
        let mut object = service("a", "tools", port, marked());
        let other = json!({ "name": "other", "port": other, "protocol": "TCP" });
        object["spec"]["ports"].as_array_mut().unwrap().push(other);
        object
    };
    let closed_port = closed.local_addr().unwrap().port();
    api.put("services", service("a", "tools", closed_port, marked()));
    let proxy = started(patient(&api)).await;
    let host = format!("host: tools.a:{}", backend.port());
    let mut client = waiting(&proxy, &get("tools.a", "/mcp").replace("host: p", &host)).await;
    api.put("services", object(closed_port, backend.port()));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_pod_by_its_name_is_waited_for_too() {
    let api = Api::start().await;
    let proxy = started(patient(&api)).await;
    let client = waiting(&proxy, &get("db-0.db.a.svc.cluster.local", "/mcp")).await;
    drop(client);
    held(&proxy, 0).await;
    // Without the suffix it is no name of the cluster.
    let refused = ask(&proxy, "db-0.db.a", "/mcp").await;
    assert!(refused.starts_with("HTTP/1.1 503 unknown_target\r\n"), "{refused}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_api_server_that_is_overloaded_is_noticed_at_once_and_left_in_peace() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    api.put("services", service("a", "s", backend.port(), marked()));
    let proxy = started(discovering(&api)).await;
    for status in [503, 429] {
        api.fail("services", status);
        api.end_watches("services", "");
        shows(&proxy, "/metrics", "kagent_proxy_discovery_up{kind=\"services\"} 0").await;
        answered(&proxy, ("s.a", "/"), &backend).await;
        api.fail("services", 0);
        shows(&proxy, "/metrics", "kagent_proxy_discovery_up{kind=\"services\"} 1").await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_service_that_goes_waits_for_it_to_come_back() {
    let api = Api::start().await;
    let closed = refusing();
    api.put("services", service("a", "tools", closed.local_addr().unwrap().port(), marked()));
    let proxy = started(patient(&api)).await;
    let backend = Backend::start().await;
    let mut client = waiting(&proxy, &get("tools.a", "/mcp")).await;
    api.delete("services", "a", "tools");
    shows(&proxy, "/metrics", "kagent_proxy_discovery_objects{kind=\"services\"} 0").await;
    held(&proxy, 1).await;
    api.put("services", service("a", "tools", backend.port(), marked()));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_service_that_comes_before_its_mark_is_waited_for_but_an_old_one_is_refused() {
    let api = Api::start().await;
    api.fail("agents", 0);
    let backend = Backend::start().await;
    api.put("services", service("a", "old", backend.port(), json!({})));
    let proxy = started(patient(&api)).await;
    let refused = ask(&proxy, "old.a", "/").await;
    assert!(refused.starts_with("HTTP/1.1 403 forbidden_target\r\n"), "{refused}");
    api.put("services", service("a", "helper", backend.port(), json!({})));
    shows(&proxy, "/routes", "\"unmarkedServices\":2").await;
    let mut client = waiting(&proxy, &get("helper.a", "/")).await;
    api.put("agents", plain("a", "helper"));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    let routes = proxy.admin("/routes").await;
    assert!(routes.contains("an Agent has its name"), "{routes}");
    proxy.stop().await;
}

#[tokio::test]
async fn in_some_namespaces_others_are_not_waited_for_and_no_gauge_is_down_for_ever() {
    let api = Api::start().await;
    let mut config = patient(&api);
    config.discovery.namespaces = vec!["a".to_owned()];
    let proxy = started(config).await;
    let refused = ask(&proxy, "tools.b", "/").await;
    assert!(refused.starts_with("HTTP/1.1 503 unknown_target\r\n"), "{refused}");
    assert!(refused.contains("namespace b is not among discovery.namespaces"), "{refused}");
    let metrics = proxy.admin("/metrics").await;
    assert!(!metrics.contains("kind=\"namespaces\""), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn refusals_say_what_was_considered_and_what_would_help() {
    let api = Api::start().await;
    api.fail("remotemcpservers", 0);
    api.put("services", service("a", "db", 5432, json!({})));
    let mut two = service("a", "two", 1, marked());
    two["spec"]["ports"].as_array_mut().unwrap().push(json!({ "name": "x", "port": 2 }));
    api.put("services", two);
    let mut foreign = plain("a", "foreign");
    foreign["spec"]["url"] = json!("https://foo.dev/mcp");
    api.put("remotemcpservers", foreign);
    let mut config = discovering(&api);
    config.discovery.inherited.hold.request = Duration::from_millis(20);
    let proxy = started(config).await;
    for (host, line, says) in [
        (
            "db.a",
            "403 forbidden_target",
            "kubectl annotate service -n a db kagent-proxy.dev/route=true",
        ),
        ("two.a", "500 ambiguous_target", "\"candidates\":[\"1\",\"2\"]"),
        ("two.a", "500 ambiguous_target", "\"candidate\":\"label kagent.dev/mcp-service=true\""),
        ("foo.dev", "503 unknown_target", "foo.dev=https://foo.dev:443"),
        ("none.a", "503 unknown_target", "there is no Service none in namespace a"),
        ("two.b", "503 unknown_target", "\"candidates\":[\"two.a\"]"),
        ("two.a:9", "400 bad_target", "none of the target's ports, [1, 2]"),
    ] {
        let answer = ask(&proxy, host, "/mcp").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{host}: {answer}");
        assert!(answer.contains(says), "{host}: {answer}");
    }
    let explained = proxy.admin("/explain?host=two.a&path=/mcp").await;
    assert!(explained.contains("\"reason\":\"ambiguous_target\""), "{explained}");
    assert!(explained.contains("marks the Service as routable"), "{explained}");
    // A re-opened event stream of a host that may still come is closed without an answer (D12).
    let mut client = proxy.connect().await;
    client.send("GET /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: none.a\r\naccept: text/event-stream\r\nmcp-session-id: 1\r\n\r\n").await;
    assert_eq!(client.rest().await, "");
    proxy.stop().await;
}

#[tokio::test]
async fn what_happened_while_a_watch_was_away_is_caught_up() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    api.put("services", service("a", "old", backend.port(), marked()));
    let mut config = discovering(&api);
    config.discovery.inherited.hold.request = Duration::from_millis(20);
    let proxy = started(config).await;
    shows(&proxy, "/routes", "\"old.a\"").await;
    api.listed("services", 1).await;
    // Out of date: 410 in the stream. One Service has gone unseen meanwhile, another one has come.
    api.lose("services", "a", "old");
    api.end_watches("services", EXPIRED);
    api.put("services", service("a", "new", backend.port(), marked()));
    let routes = shows(&proxy, "/routes", "\"new.a\"").await;
    assert!(!routes.contains("\"old.a\""), "{routes}");
    // Cut in the middle of an event: nothing is half applied, and the watch goes on.
    api.end_watches("services", "{\"type\":\"ADDED\",\"obj");
    api.put("services", service("a", "third", backend.port(), marked()));
    shows(&proxy, "/routes", "\"third.a\"").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_resource_that_is_installed_later_is_picked_up() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    api.put("services", service("a", "kmcp", backend.port(), json!({})));
    let proxy = started(discovering(&api)).await;
    let refused = ask(&proxy, "kmcp.a", "/mcp").await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    OURS.iter().for_each(|resource| api.fail(resource, 0));
    api.put("mcpservers", plain("a", "kmcp"));
    shows(&proxy, "/routes", "\"kmcp.a\"").await;
    answered(&proxy, ("kmcp.a", "/mcp"), &backend).await;
    // The definition goes, and its objects with it.
    api.fail("mcpservers", 404);
    api.end_watches("mcpservers", "");
    shows(&proxy, "/metrics", "kagent_proxy_discovery_objects{kind=\"mcpservers\"} 0").await;
    assert!(ask(&proxy, "kmcp.a", "/mcp").await.starts_with("HTTP/1.1 403 "));
    // It comes back, and with it what nobody has touched since.
    api.fail("mcpservers", 0);
    shows(&proxy, "/metrics", "kagent_proxy_discovery_objects{kind=\"mcpservers\"} 1").await;
    answered(&proxy, ("kmcp.a", "/mcp"), &backend).await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_last_table_stays_while_the_api_server_is_away() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    api.put("services", service("a", "s", backend.port(), marked()));
    let proxy = started(discovering(&api)).await;
    api.stop();
    let down = "kagent_proxy_discovery_up{kind=\"services\"} 0";
    shows(&proxy, "/metrics", down).await;
    answered(&proxy, ("s.a", "/"), &backend).await;
    assert!(proxy.admin("/readyz").await.starts_with("HTTP/1.1 200 "));
    proxy.stop().await;
}

#[tokio::test]
async fn a_static_route_wins_on_the_paths_of_its_prefix() {
    let api = Api::start().await;
    let (discovered, written) = (Backend::start().await, Backend::start().await);
    api.put("services", service("a", "s", discovered.port(), marked()));
    let mut config = discovering(&api);
    api.put("services", service("a", "whole", discovered.port(), marked()));
    config.routes = vec![
        route("s.a", "/docs", Scheme::Http, &[written.port()]),
        route("whole.a", "/", Scheme::Http, &[written.port()]),
    ];
    let proxy = started(config).await;
    let routes = shows(&proxy, "/routes", "\"discovered\"").await;
    assert!(routes.contains("\"static\""), "{routes}");
    assert_eq!(routes.matches("discovered, and a static route wins").count(), 1, "{routes}");
    answered(&proxy, ("whole.a", "/x"), &written).await;
    answered(&proxy, ("s.a", "/docs/x"), &written).await;
    answered(&proxy, ("s.a", "/other"), &discovered).await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_query_that_kagent_drops_comes_back() {
    let api = Api::start().await;
    api.fail("remotemcpservers", 0);
    let backend = Backend::start().await;
    api.put("services", service("a", "t", backend.port(), json!({})));
    let mut remote = plain("a", "r");
    remote["spec"]["url"] = json!(format!("http://t.a:{}/mcp?tenant=x%20y", backend.port()));
    api.put("remotemcpservers", remote);
    let proxy = started(discovering(&api)).await;
    for (path, line) in [
        ("/mcp", "GET /mcp?tenant=x%20y HTTP/1.1"),
        ("/mcp?own=1", "GET /mcp?own=1 HTTP/1.1"),
        ("/mcp/below", "GET /mcp/below HTTP/1.1"),
    ] {
        let (_, head) = tokio::join!(ask(&proxy, "t.a", path), backend.answer(ANSWER));
        assert!(head.starts_with(&format!("{line}\r\n")), "{head}");
    }
    proxy.stop().await;
}

/// A slice of a Service with this endpoint, as its Pod's controller writes it.
fn slice(namespace: &str, of: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": of, "labels": { "kubernetes.io/service-name": of },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
    })
}

fn pod(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}") },
        "status": { "phase": "Running", "podIPs": [{ "ip": address }] },
    })
}

#[tokio::test]
async fn a_request_waits_for_the_pod_of_an_endpoint_that_was_told_before_it() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    // The Service's own address is dialled, but only if all its endpoints count.
    api.put("services", service("a", "tools", backend.port(), marked()));
    api.put("endpointslices", slice("a", "tools", "10.0.0.1"));
    api.put("pods", pod("b", "other", "10.0.0.2"));
    let proxy = started(patient(&api)).await;
    let routes = shows(&proxy, "/routes", "\"leftOut\":[{\"address\":\"10.0.0.1\"").await;
    assert!(routes.contains("no running Pod of the Service's namespace has it"), "{routes}");
    let explained = proxy.admin("/explain?host=tools.a&path=/").await;
    assert!(explained.contains("\"leftOut\":[{\"candidate\":\"10.0.0.1\""), "{explained}");
    let mut client = waiting(&proxy, &get("tools.a", "/")).await;
    api.put("pods", pod("a", "tools-0", "10.0.0.1"));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    // Its slice leads to another's address now.
    api.put("endpointslices", slice("a", "tools", "10.0.0.2"));
    shows(&proxy, "/routes", "it is the address of Pod b/other").await;
    let mut client = waiting(&proxy, &get("tools.a", "/")).await;
    // The Pod goes, and one of the Service's own namespace gets the address.
    api.delete("pods", "b", "other");
    api.put("pods", pod("a", "tools-1", "10.0.0.2"));
    backend.answer(ANSWER).await;
    assert!(client.rest().await.ends_with("hi"));
    proxy.stop().await;
}

#[tokio::test]
async fn readiness_waits_for_pods_and_a_cluster_that_forbids_them_is_served_all_the_same() {
    let api = Api::start().await;
    let backend = Backend::start().await;
    api.put("services", service("a", "tools", backend.port(), marked()));
    api.put("endpointslices", slice("a", "tools", "10.0.0.1"));
    api.fail("pods", 500);
    let proxy = TestProxy::start(discovering(&api)).await;
    shows(&proxy, "/readyz", "pods in the cluster").await;
    api.fail("pods", 403);
    ready(&proxy).await;
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_discovery_up{kind=\"pods\"} 0"), "{metrics}");
    // What the slice says has to be believed, as long as nobody else claims the address.
    answered(&proxy, ("tools.a", "/"), &backend).await;
    let mut foreign = slice("b", "thief", "10.0.0.1");
    foreign["endpoints"][0]["targetRef"] = json!({ "kind": "Pod", "uid": "u" });
    api.put("endpointslices", foreign);
    shows(&proxy, "/routes", "Service b/thief claims it too").await;
    shows(&proxy, "/metrics", "endpoints_left_out{reason=\"shared\"} 1").await;
    // The right comes: the Pod proves whose it is.
    api.put("pods", pod("a", "tools-0", "10.0.0.1"));
    api.fail("pods", 0);
    shows(&proxy, "/metrics", "kagent_proxy_discovery_up{kind=\"pods\"} 1").await;
    shows(&proxy, "/metrics", "endpoints_left_out{reason=\"shared\"} 0").await;
    answered(&proxy, ("tools.a", "/"), &backend).await;
    proxy.stop().await;
}

/// Panics once, where something is logged with this message.
struct PanicAt(&'static str, AtomicBool);

impl<S: tracing::Subscriber> Layer<S> for PanicAt {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut is_it = false;
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            is_it |= format!("{value:?}") == self.0;
        });
        assert!(!is_it || self.1.swap(true, Ordering::Relaxed), "a test's");
    }
}

#[tokio::test]
async fn discovery_that_panics_begins_anew_beside_the_last_table() {
    let panics = PanicAt("the watch is out of date, listing anew", AtomicBool::new(false));
    let _on_this_thread =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(panics));
    let api = Api::start().await;
    let backend = Backend::start().await;
    api.put("services", service("a", "old", backend.port(), marked()));
    api.put("services", service("a", "kept", backend.port(), marked()));
    let mut config = patient(&api);
    config.discovery.inherited.hold.request = Duration::from_millis(20);
    let proxy = started(config).await;
    api.fail("services", 500);
    api.lose("services", "a", "old");
    api.end_watches("services", EXPIRED);
    let failed = "kagent_proxy_background_tasks_failed_total{task=\"discovery\"} 1\n";
    shows(&proxy, "/metrics", failed).await;
    let down = "kagent_proxy_discovery_up{kind=\"services\"} 0";
    shows(&proxy, "/metrics", down).await;
    // As if the API server was away: it goes on by what it knew.
    shows(&proxy, "/metrics", "kagent_proxy_discovery_synced 0").await;
    answered(&proxy, ("old.a", "/"), &backend).await;
    assert!(proxy.admin("/readyz").await.starts_with("HTTP/1.1 200 "));
    api.put("services", service("a", "new", backend.port(), marked()));
    api.fail("services", 0);
    let routes = shows(&proxy, "/routes", "\"new.a\"").await;
    assert!(routes.contains("\"kept.a\"") && !routes.contains("\"old.a\""), "{routes}");
    shows(&proxy, "/metrics", "kagent_proxy_discovery_synced 1").await;
    for host in ["kept.a", "new.a"] {
        answered(&proxy, (host, "/"), &backend).await;
    }
    proxy.stop().await;
}

/// A tool server of kagent 1.0 that goes through the proxy.
fn opted(namespace: &str, name: &str, target: &str) -> Value {
    let mut object = plain(namespace, name);
    object["spec"] = json!({
        "url": "http://kagent-proxy.kagent.svc:8080/mcp",
        "headersFrom": [{ "name": "x-kagent-host", "value": target }],
    });
    object
}

#[tokio::test]
async fn the_kinds_of_kagent_1_0_come_and_go_while_requests_go_on() {
    const REMOTES: &str = "remotemcpservers.api.kagent.dev";
    let api = Api::start().await;
    let backend = Backend::start().await;
    let port = backend.port();
    api.put("services", service("a", "tools", port, json!({})));
    api.put(REMOTES, opted("a", "r", &format!("tools.a:{port}")));
    // Ready without any of kagent's definitions.
    let proxy = started(discovering(&api)).await;
    let up = |kind: &str, up: u8| format!("kagent_proxy_discovery_up{{kind=\"{kind}\"}} {up}");
    for kind in OURS {
        shows(&proxy, "/metrics", &up(kind, 0)).await;
    }
    assert!(ask(&proxy, "tools.a", "/mcp").await.starts_with("HTTP/1.1 403 forbidden_target\r\n"));
    // The definition is installed.
    api.fail(REMOTES, 0);
    shows(&proxy, "/metrics", &up(REMOTES, 1)).await;
    shows(&proxy, "/metrics", &up("remotemcpservers", 0)).await;
    for host in ["tools.a".to_owned(), format!("tools.a:{port}")] {
        let mut client = proxy.connect().await;
        client.send(&get(&host, "/mcp")).await;
        backend.answer(ANSWER).await;
        assert!(client.rest().await.ends_with("hi"));
    }
    // And is removed, with its objects.
    api.fail(REMOTES, 404);
    api.end_watches(REMOTES, EXPIRED);
    shows(&proxy, "/metrics", &up(REMOTES, 0)).await;
    shows(&proxy, "/routes", "\"unmarkedServices\":1").await;
    assert!(ask(&proxy, "tools.a", "/mcp").await.starts_with("HTTP/1.1 403 forbidden_target\r\n"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_target_that_the_header_names_wrong_is_told_what_to_write() {
    let api = Api::start().await;
    OURS.iter().for_each(|kind| api.fail(kind, 0));
    let mut two = service("a", "two", 1, json!({}));
    two["spec"]["ports"] = json!([{ "name": "x", "port": 1 }, { "name": "y", "port": 2 }]);
    api.put("services", two);
    api.put("remotemcpservers.api.kagent.dev", opted("a", "r", "two.a"));
    api.put("remotemcpservers.api.kagent.dev", opted("a", "typo", "tols.a"));
    api.put("services", service("a", "sealed", 1, json!({})));
    let mut sealed = opted("a", "sealed", "");
    let from = json!({ "type": "Secret", "name": "s", "key": "k" });
    sealed["spec"]["headersFrom"] = json!([{ "name": "x-kagent-host", "valueFrom": from }]);
    api.put("remotemcpservers.api.kagent.dev", sealed);
    let mut config = discovering(&api);
    config.discovery.inherited.hold.request = Duration::ZERO;
    let proxy = started(config).await;
    for (host, status, parts) in [
        ("two.a", "500 ambiguous_target", &["x-kagent-host, two.a:PORT"][..]),
        ("two.a:3", "400 bad_target", &["port 3"]),
        ("tols.a", "503 unknown_target", &["RemoteMCPServer a/typo", "headersFrom"]),
        ("http://two.a/mcp", "400 bad_target", &["write name.namespace or"]),
        ("two.a/mcp", "400 bad_target", &["a scheme or a path"]),
        ("two", "503 unknown_target", &["Services are named name.namespace"]),
        // Its object names it by a Secret.
        ("sealed.a", "403 forbidden_target", &["from a Secret or ConfigMap is not read"]),
    ] {
        let refused = ask(&proxy, host, "/mcp").await;
        assert!(refused.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{host}: {refused}");
        assert!(parts.iter().all(|part| refused.contains(part)), "{host}: {refused}");
    }
    let nothing = proxy.ask("GET /mcp HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n").await;
    assert!(nothing.starts_with("HTTP/1.1 400 missing_target\r\n"), "{nothing}");
    assert!(nothing.contains("headersFrom"), "{nothing}");
    proxy.stop().await;
}
