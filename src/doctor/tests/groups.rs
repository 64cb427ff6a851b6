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
fn a_tool_server_of_kagent_1_0_must_name_the_proxy_and_its_target() {
    let named = |target: &str| json!([{ "name": "X-Kagent-Host", "value": target }]);
    let healthy = remote_1_0("team-a", "good", PROXY, &named("helper.team-a:8080"));
    let mut seen = cluster(vec![healthy.clone()]);
    assert_eq!(judge(&seen).findings, []);
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
    ] {
        has(&cluster(vec![remote_1_0("team-a", "bad", url, &headers)]), level, parts);
    }
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
