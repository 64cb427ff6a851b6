//! Tool servers and Agents of kagent 1.0, beside those of 0.x.

use serde_json::{Value, json};

use super::*;

/// The URL of an object that goes through the proxy.
const PROXY: &str = "http://kagent-proxy.kagent.svc:8080/mcp";

fn remote_1_0(
    namespace: &str,
    name: &str,
    url: &str,
    headers: &Value,
) -> (ObjectKind, ObjectId, Object) {
    let json = json!({ "spec": { "url": url, "headersFrom": headers } });
    object(ObjectKind::RemoteMcpServer(KagentApi::V1), namespace, name, &json)
}

#[test]
fn each_mistake_in_a_tool_server_of_kagent_1_0_is_found_with_its_remedy() {
    let named = |target: &str| json!([{ "name": "X-Kagent-Host", "value": target }]);
    let secret = json!([{ "name": "x-kagent-host", "valueFrom": { "secretKeyRef": {} } }]);
    for (url, headers, level, parts) in [
        (
            "http://helper.team-a:8080/mcp",
            json!([]),
            "warning",
            &["around the proxy", "http://kagent-proxy.kagent.svc:8080/mcp", "helper.team-a:8080"]
                [..],
        ),
        (PROXY, json!([]), "error", &["nothing says to which tool server", "headersFrom"]),
        (PROXY, named("kagent-proxy.kagent"), "error", &["is the proxy itself", "NAME.NAMESPACE"]),
        (
            PROXY,
            named("http://helper.team-a/mcp"),
            "error",
            &["is no Service", "NAME.NAMESPACE:PORT"],
        ),
        (
            PROXY,
            named("helper.team-b"),
            "error",
            &["no Service helper", "RemoteMCPServer team-a/bad"],
        ),
        (PROXY, secret, "warning", &["does not read", "kagent-proxy.dev/route=true"]),
        (
            PROXY,
            named("helper.team-a:9"),
            "error",
            &["port 9", "Service team-a/helper", "helper.team-a,"],
        ),
        (
            "http://kagent-proxy.kagent.svc/mcp?k=1",
            named("helper.team-a"),
            "error",
            &["names port 80", "set spec.url to http://kagent-proxy.kagent.svc:8080/mcp?k=1"],
        ),
        ("http://10.0.0.1:8080/mcp", json!([]), "error", &["nothing says to which tool server"]),
        (
            "https://helper.team-a:8443/mcp?k=1",
            json!([]),
            "warning",
            &["svc:8080/mcp?k=1", "appProtocol: https", "caBundleFile"],
        ),
    ] {
        has(&cluster(vec![remote_1_0("team-a", "bad", url, &headers)]), level, parts);
    }
}

#[test]
fn a_tool_server_speaks_to_the_proxy_as_its_listener_does() {
    let named = json!([{ "name": "x-kagent-host", "value": "helper.team-a" }]);
    let slice = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": "kagent-proxy" } },
        "endpoints": [{ "addresses": ["10.1.0.1"] }],
        "ports": [{ "name": "p8080", "port": 8080 }, { "name": "p443", "port": 8443 }],
    });
    let ports = [("p8080", 8080), ("p443", 443)];
    let ports = ports.map(|(name, port)| json!({ "name": name, "port": port }));
    let ours = json!({ "spec": { "clusterIP": "10.0.0.1", "ports": ports } });
    let seen_with = |url: &str, api: KagentApi| {
        let (_, id, bad) = remote_1_0("team-a", "bad", url, &named);
        let mut seen = cluster(vec![
            object(ObjectKind::Service, "kagent", "kagent-proxy", &ours),
            object(ObjectKind::EndpointSlice, "kagent", "kagent-proxy-1", &slice),
            (ObjectKind::RemoteMcpServer(api), id, bad),
        ]);
        seen.listeners = vec![(8080, false), (8443, true)];
        seen
    };
    for api in [KagentApi::V0, KagentApi::V1] {
        for (url, parts) in [
            (
                "https://kagent-proxy.kagent.svc:8080/mcp",
                ["says https", "port 8080 is plain", "to http://kagent-proxy.kagent.svc:8080/mcp"],
            ),
            (
                "http://kagent-proxy.kagent.svc:443/mcp",
                ["says http,", "port 443 is TLS", "to https://kagent-proxy.kagent.svc:443/mcp"],
            ),
        ] {
            let mut seen = seen_with(url, api);
            has(&seen, "error", &parts);
            // Nothing is said of a proxy whose configuration is not known.
            seen.configured = Configured::Unknown(String::new());
            assert!(!judge(&seen).to_text().contains("its url says"), "{url}");
        }
        for url in
            ["http://kagent-proxy.kagent.svc:8080/mcp", "https://kagent-proxy.kagent.svc:443/mcp"]
        {
            assert_eq!(judge(&seen_with(url, api)).findings, [], "{url}");
        }
    }
}

#[test]
fn a_tool_server_of_kagent_1_0_must_name_the_proxy_and_its_target() {
    let named = |target: &str| json!([{ "name": "X-Kagent-Host", "value": target }]);
    let healthy = remote_1_0("team-a", "good", PROXY, &named("helper.team-a:8080"));
    let mut seen = cluster(vec![healthy.clone()]);
    assert_eq!(judge(&seen).findings, []);
    // kagent 0.x overwrites the header where the host has two labels.
    let (_, id, object) =
        remote_1_0("team-a", "two", "http://kagent-proxy.kagent:8080/mcp", &named("helper.team-a"));
    let old = (ObjectKind::RemoteMcpServer(KagentApi::V0), id.clone(), object.clone());
    has(
        &cluster(vec![old]),
        "warning",
        &["over the one of headersFrom", "kagent-proxy.kagent.svc in"],
    );
    assert_eq!(
        judge(&cluster(vec![(ObjectKind::RemoteMcpServer(KagentApi::V1), id, object)])).findings,
        []
    );
    // Where there is kagent 1.0 only, nobody needs proxy.url, and Agents have no Services.
    let agent = object_1_0_agent("team-a", "other");
    seen = ClusterSeen::new(
        &Config::default(),
        ours(),
        vec![
            service_of("kagent", "kagent-proxy", &[8080]),
            service_of("team-a", "helper", &[8080]),
            namespace("kagent"),
            namespace("team-a"),
            healthy,
            agent,
        ],
    );
    seen.proxy_url = ProxyUrl::Is(String::new());
    assert_eq!(judge(&seen).findings, []);
}

fn object_1_0_agent(namespace: &str, name: &str) -> (ObjectKind, ObjectId, Object) {
    object(
        ObjectKind::Agent(KagentApi::V1),
        namespace,
        name,
        &json!({ "spec": { "template": {} } }),
    )
}

#[test]
fn a_service_of_several_ports_needs_the_port_in_every_header() {
    let named = |target: &str| json!([{ "name": "x-kagent-host", "value": target }]);
    let two = || service_of("team-a", "two", &[1, 2]);
    let one = |name: &str, target: &str| remote_1_0("team-a", name, PROXY, &named(target));
    let good = cluster(vec![two(), one("a", "two.team-a:1"), one("b", "two.team-a:2")]);
    assert_eq!(judge(&good).findings, []);
    let bad = cluster(vec![two(), one("a", "two.team-a:1"), one("b", "two.team-a")]);
    has(&bad, "error", &["Service team-a/two", "several ports"]);
}

#[test]
fn what_a_namespace_that_is_not_trusted_says_opens_nothing_in_1_0() {
    let named = json!([{ "name": "x-kagent-host", "value": "helper.team-a" }]);
    let seen = cluster(vec![namespace("evil"), remote_1_0("evil", "bend", PROXY, &named)]);
    has(&seen, "warning", &["evil/bend", "is not trusted", "move it to namespace team-a"]);
}

#[test]
fn proxy_url_need_not_be_set_where_tool_servers_name_the_proxy() {
    let named = json!([{ "name": "x-kagent-host", "value": "helper.team-a" }]);
    let mut seen = cluster(vec![remote_1_0("team-a", "good", PROXY, &named)]);
    seen.proxy_url = ProxyUrl::Is(String::new());
    has(&seen, "note", &["only tool servers go through this proxy whose url names it"]);
    assert_eq!(judge(&seen).code(), HEALTHY);
}
