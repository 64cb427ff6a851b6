//! Each finding from the smallest cluster that has it.

use serde_json::{Value, json};

use super::agents::AgentSeen;
use super::deployed::{Origin, said};
use super::entry::{self, origin};
use super::gather::ProxyUrl;
use super::rights::needed;
use super::*;
use crate::discovery::object::{KagentApi, Object};
use crate::discovery::watch::ObjectWatch;

mod groups;

const URL: &str = "http://kagent-proxy.kagent.svc.cluster.local:8080";

fn object(
    kind: ObjectKind,
    namespace: &str,
    name: &str,
    json: &Value,
) -> (ObjectKind, ObjectId, Object) {
    (kind, ObjectId::new(namespace, name), Object::read(kind, namespace, json))
}

fn service_of(namespace: &str, name: &str, ports: &[u16]) -> (ObjectKind, ObjectId, Object) {
    let ports: Vec<Value> =
        ports.iter().map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
    let spec = json!({ "spec": { "clusterIP": "10.0.0.1", "ports": ports } });
    object(ObjectKind::Service, namespace, name, &spec)
}

fn remote(namespace: &str, name: &str, url: &str) -> (ObjectKind, ObjectId, Object) {
    object(
        ObjectKind::RemoteMcpServer(KagentApi::V0),
        namespace,
        name,
        &json!({ "spec": { "url": url } }),
    )
}

fn agent(namespace: &str, name: &str) -> (ObjectKind, ObjectId, Object) {
    object(ObjectKind::Agent(KagentApi::V0), namespace, name, &json!({}))
}

fn namespace(name: &str) -> (ObjectKind, ObjectId, Object) {
    object(ObjectKind::Namespace, "", name, &json!({}))
}

fn ours() -> Proxy {
    let proxy = Proxy::new(ObjectId::new("kagent", "kagent-proxy"));
    Proxy { configured: Configured::Known, ..proxy }
}

/// A cluster in which nothing is wrong, and these objects.
fn cluster(more: Vec<(ObjectKind, ObjectId, Object)>) -> ClusterSeen {
    let slice = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": "kagent-proxy" } },
        "endpoints": [{ "addresses": ["10.1.0.1"] }],
    });
    let mut objects = vec![
        service_of("kagent", "kagent-proxy", &[8080]),
        object(ObjectKind::EndpointSlice, "kagent", "kagent-proxy-1", &slice),
        service_of("team-a", "helper", &[8080]),
        agent("team-a", "helper"),
        namespace("kagent"),
        namespace("team-a"),
    ];
    objects.extend(more);
    let mut seen = ClusterSeen::new(&Config::default(), ours(), objects);
    seen.proxy_url = ProxyUrl::Is(URL.to_owned());
    seen
}

/// The report has a line that begins with this and has all these parts.
#[track_caller]
fn has(seen: &ClusterSeen, start: &str, parts: &[&str]) {
    let text = judge(seen).to_text();
    let fits = |line: &&str| line.starts_with(start) && parts.iter().all(|p| line.contains(p));
    assert!(text.lines().any(|line| fits(&line)), "no {start} with {parts:?} in:\n{text}");
}

#[test]
fn nothing_is_wrong_in_a_healthy_cluster() {
    let report = judge(&cluster(vec![]));
    assert_eq!((report.code(), report.findings.as_slice()), (HEALTHY, [].as_slice()));
    assert!(report.to_text().starts_with("errors: 0, warnings: 0, notes: 0; looked at 2 Services"));
}

#[test]
fn proxy_url_must_lead_here() {
    for (url, level, part) in [
        ("", "error", "is not set"),
        ("kagent-proxy:8080", "error", "is not an http URL"),
        ("http://other.kagent:8080", "error", "leads elsewhere"),
        ("http://kagent-proxy:8080", "error", "leads elsewhere"),
        ("http://10.9.9.9:8080", "error", "leads elsewhere"),
        ("http://kagent-proxy.kagent:81", "error", "names port 81"),
        ("http://kagent-proxy.kagent:8080/base", "warning", "has a path"),
        ("https://kagent-proxy.kagent:8080", "warning", "is https"),
    ] {
        let mut seen = cluster(vec![]);
        seen.proxy_url = ProxyUrl::Is(url.to_owned());
        has(&seen, level, &["Deployment kagent/kagent-controller", part, "--set proxy.url="]);
    }
    for url in ["http://10.0.0.1:8080", "http://kagent-proxy.kagent.svc:8080/"] {
        let mut seen = cluster(vec![]);
        seen.proxy_url = ProxyUrl::Is(url.to_owned());
        assert_eq!(judge(&seen).code(), HEALTHY, "{url}");
    }
    let objects = vec![namespace("kagent")];
    let mut seen = ClusterSeen::new(&Config::default(), ours(), objects);
    seen.proxy_url = ProxyUrl::Is(URL.to_owned());
    has(&seen, "error", &["which does not exist", "install the proxy"]);
}

#[test]
fn the_controller_says_where_its_proxy_url_stands() {
    let container =
        |json: Value| json!({ "spec": { "template": { "spec": { "containers": [json] } } } });
    let here = |url: &str| entry::Origin::Here(url.to_owned());
    for (json, expected) in [
        (json!({ "args": ["--proxy-url=http://a"] }), here("http://a")),
        (json!({ "args": ["-proxy-url", "http://a"] }), here("http://a")),
        (json!({ "env": [{ "name": "PROXY_URL", "value": "http://a" }] }), here("http://a")),
        (
            json!({ "envFrom": [{ "configMapRef": { "name": "one" } }, { "configMapRef": { "name": "two" } }] }),
            entry::Origin::ConfigMaps(
                vec!["two".to_owned(), "one".to_owned()],
                "PROXY_URL".to_owned(),
            ),
        ),
        (json!({}), entry::Origin::Nowhere),
    ] {
        assert_eq!(origin(&container(json)), expected);
    }
}

#[test]
fn services_that_somebody_names_must_be_routable() {
    let external = json!({ "spec": { "type": "ExternalName", "externalName": "x.example" } });
    let user = json!({ "spec": { "declarative": { "tools": [
        { "mcpServer": { "kind": "Service", "name": "two" } },
    ] } } });
    has(
        &cluster(vec![
            agent("team-a", "ext"),
            object(ObjectKind::Service, "team-a", "ext", &external),
        ]),
        "error",
        &["Service team-a/ext", "ExternalName"],
    );
    has(&cluster(vec![agent("team-a", "late")]), "warning", &["its Service does not yet"]);
    has(
        &cluster(vec![namespace("dev"), remote("kagent", "foo", "https://foo.dev/mcp")]),
        "error",
        &["Service dev/foo", "static route", "RemoteMCPServer kagent/foo"],
    );
    has(
        &cluster(vec![
            service_of("team-a", "two", &[80, 81]),
            object(ObjectKind::Agent(KagentApi::V0), "team-a", "user", &user),
        ]),
        "error",
        &["Service team-a/two", "several ports", "kagent.dev/mcp-service-port"],
    );
    has(
        &cluster(vec![
            service_of("team-a", "tool", &[3000]),
            remote("team-a", "tool", "http://tool.team-a:1234/mcp"),
        ]),
        "error",
        &["port 1234", "no such port", "3000"],
    );
    has(
        &cluster(vec![
            service_of("team-a", "tool", &[1, 2]),
            remote("team-a", "one", "http://tool.team-a:1/mcp"),
            remote("team-a", "other", "http://tool.team-a:2/mcp"),
        ]),
        "error",
        &["team-a/one and team-a/other", "/mcp"],
    );
}

#[test]
fn tool_servers_outside_or_of_others_are_named() {
    let at =
        |url: &str| cluster(vec![service_of("team-a", "t", &[80]), remote("team-b", "t", url)]);
    has(&at("https://mcp.example.com/mcp"), "note", &["outside the cluster"]);
    has(&at("http://foo.dev/mcp"), "note", &["no namespace dev"]);
    has(&at("http://t.team-a/mcp"), "warning", &["team-b is not trusted", "trustedNamespaces"]);
    has(&at("http://t.team-a.svc/mcp"), "warning", &["around the proxy"]);
    has(&at("ftp://t.team-a/mcp"), "error", &["not an http URL"]);
}

#[test]
fn missing_rights_name_the_rule() {
    let mut seen = cluster(vec![]);
    seen.rights = needed(&ObjectWatch::all(&seen.discovery));
    for right in &mut seen.rights {
        let missing = ["services", "agents", "pods"].contains(&right.resource.as_str());
        right.allowed = Some(!missing || right.verb == "get");
    }
    let core = "ServiceAccount kagent/kagent-proxy: may not list, watch";
    has(&seen, "error", &[core, "never becomes ready", "resources: [services]", "ClusterRole"]);
    has(&seen, "error", &[core, "apiGroups: [\"kagent.dev\"], resources: [agents]"]);
    has(&seen, "warning", &[core, "whose an address", "resources: [pods]"]);
    seen.rights.iter_mut().for_each(|right| right.allowed = None);
    has(&seen, "warning", &["would not say"]);
    let right = seen.rights.first().unwrap();
    let (path, body) = Account::Own.question(right);
    assert!(path.ends_with("/selfsubjectaccessreviews"));
    assert_eq!(body.pointer("/spec/resourceAttributes/resource"), Some(&json!("services")));
    assert_eq!(body.pointer("/spec/user"), None);
    let (path, body) = seen.account.question(right);
    assert!(path.ends_with("/subjectaccessreviews"));
    assert_eq!(
        body.pointer("/spec/user"),
        Some(&json!("system:serviceaccount:kagent:kagent-proxy"))
    );
}

#[test]
fn agents_must_have_rolled_since() {
    let with = |config: Value, running: &str| {
        let mut seen = cluster(vec![]);
        seen.agents = vec![AgentSeen {
            id: Some(ObjectId::new("team-a", "helper")),
            config: Some(config),
            hash: Some("2".to_owned()),
            pods: vec![("helper-x".to_owned(), Some(running.to_owned()))],
            card: None,
        }];
        seen
    };
    let around = "http://helper.team-a:8080";
    let direct = json!({ "remote_agents": [{ "url": around }] });
    has(&with(direct, "2"), "error", &["Agent team-a/helper", "around the proxy", around]);
    let elsewhere = json!({ "http_tools": [{ "params": {
        "url": "http://old.kagent:80/mcp", "headers": { "x-kagent-host": "t.team-a" } } }] });
    has(&with(elsewhere, "2"), "error", &["http://old.kagent:80/mcp"]);
    has(&with(json!({}), "1"), "error", &["has not rolled", "helper-x", "rollout status"]);
    let through = json!({
        "remote_agents": [{ "url": URL, "headers": { "x-kagent-host": "helper.team-a" } }],
        "sse_tools": [{ "params": { "url": "https://mcp.example.com/sse", "headers": {} } }],
    });
    assert_eq!(judge(&with(through, "2")).code(), HEALTHY);
}

#[test]
fn what_could_not_be_read_and_cards_that_are_passed_are_warnings() {
    let mut seen = cluster(vec![]);
    seen.unread.push(("Secret team-a/helper".to_owned(), "no\nrights".to_owned()));
    seen.passing.push("routeDefaults".to_owned());
    has(&seen, "warning", &["Secret team-a/helper", "no rights"]);
    has(&seen, "warning", &["routeDefaults", "cards: pass"]);
    let report = judge(&seen);
    assert_eq!((report.code(), report.to_json()["warnings"].clone()), (HEALTHY, json!(2)));
}

#[test]
fn agent_cards_must_lead_here() {
    let with = |card: Result<Value, String>| {
        let mut seen = cluster(vec![]);
        let id = Some(ObjectId::new("team-a", "helper"));
        seen.agents = vec![AgentSeen { id, card: Some(card), ..AgentSeen::default() }];
        seen.public_url = Some("https://Agents.example:8443".to_owned());
        seen
    };
    for url in
        ["http://kagent-proxy.kagent.svc:8080/", "https://agents.example/a", "http://10.1.0.1:8080"]
    {
        let interfaces = json!([{ "url": url }, { "url": "kagent-proxy.kagent:8080" }]);
        let card = json!({ "url": url, "additionalInterfaces": interfaces, "provider": { "url": "http://x" } });
        let report = judge(&with(Ok(card)));
        assert_eq!(report.findings, [], "{url}");
    }
    for card in [
        json!({ "url": "http://helper.team-a:8080" }),
        json!({ "url": URL, "additionalInterfaces": [{ "url": "http://helper.team-a:8080" }] }),
        json!({ "supportedInterfaces": [{ "url": "helper.team-a:8080" }] }),
    ] {
        let parts = [
            "Agent team-a/helper",
            "its card leads around",
            "helper.team-a:8080;",
            "http://helper.team-a:PORT",
        ];
        has(&with(Ok(card)), "error", &parts);
    }
    let report = judge(&with(Err("no answer".to_owned())));
    assert_eq!(report.code(), HEALTHY);
    has(
        &with(Err("no answer".to_owned())),
        "note",
        &["Agent team-a/helper", "its card", "no answer"],
    );
}

#[test]
fn cards_are_asked_for_through_the_proxy() {
    let mut seen = cluster(vec![agent("team-a", "late")]);
    let named =
        |name| AgentSeen { id: Some(ObjectId::new("team-a", name)), ..AgentSeen::default() };
    seen.agents = vec![named("late"), named("helper")];
    // The one without a Service has no route.
    let helper = ObjectId::new("team-a", "helper");
    assert_eq!(cards::wanted(&seen), [(1, helper.clone())]);
    let (path, headers) = cards::request(&seen, &helper);
    assert_eq!(
        path,
        "/api/v1/namespaces/kagent/services/kagent-proxy:8080/proxy/.well-known/agent-card.json"
    );
    let expected = [("host", "kagent-proxy.kagent.svc:8080"), ("x-kagent-host", "helper.team-a")];
    assert_eq!(headers.each_ref().map(|(name, value)| (*name, value.as_str())), expected);
    seen.cards_left = 7;
    has(&seen, "note", &["agent cards", "7 more", "50"]);
    seen.proxy_url = ProxyUrl::Is("http://other.kagent:8080".to_owned());
    assert_eq!(cards::wanted(&seen), []);
}

#[test]
fn replicas_without_a_common_key_are_told_where_the_configuration_is_known() {
    let two = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": "kagent-proxy" } },
        "endpoints": [{ "addresses": ["10.1.0.1"] }, { "addresses": ["10.1.0.2"] }],
    });
    let mut seen =
        cluster(vec![object(ObjectKind::EndpointSlice, "kagent", "kagent-proxy-2", &two)]);
    let unknown = Configured::Unknown(String::new());
    for (keys, configured, told) in [
        (false, unknown, false),
        (true, Configured::Known, false),
        (false, Configured::Known, true),
    ] {
        (seen.session_keys, seen.configured) = (keys, configured);
        let text = judge(&seen).to_text();
        assert_eq!(text.contains("2 replicas and no key for MCP sessions"), told, "{keys}: {text}");
    }
    let mut alone = cluster(Vec::new());
    alone.session_keys = false;
    assert!(!judge(&alone).to_text().contains("no key"), "one replica needs none");
}

/// A Deployment of the proxy with this container and these volumes.
fn deployed_with(container: Value, volumes: Value) -> Value {
    let spec = json!({ "containers": [{ "name": "mesh" }, container], "volumes": volumes });
    json!({
        "metadata": { "namespace": "kagent", "name": "kagent-proxy" },
        "spec": { "template": { "spec": spec } },
    })
}

#[test]
fn a_deployment_says_where_its_configuration_comes_from() {
    let by_flag = json!({ "args": ["run", "--config", "/etc/proxy/config.yaml"] });
    let by_variable =
        json!({ "env": [{ "name": "KAGENT_PROXY_CONFIG", "value": "/etc/proxy/config.yaml" }] });
    let by_command = json!({ "command": ["/kagent-proxy", "--config=/etc/proxy/config.yaml"] });
    let folder =
        json!([{ "name": "etc", "mountPath": "/etc" }, { "name": "c", "mountPath": "/etc/proxy" }]);
    let file =
        json!([{ "name": "c", "mountPath": "/etc/proxy/config.yaml", "subPath": "config.yaml" }]);
    let plain = json!({ "name": "c", "configMap": { "name": "map" } });
    let items = json!([{ "key": "other", "path": "config.yaml" }]);
    let renamed = json!({ "name": "c", "configMap": { "name": "map", "items": items } });
    let projected =
        json!({ "name": "c", "projected": { "sources": [{ "configMap": { "name": "map" } }] } });
    for (words, mounts, volume, key) in [
        (&by_flag, &folder, &plain, "config.yaml"),
        (&by_variable, &folder, &renamed, "other"),
        (&by_command, &file, &plain, "config.yaml"),
        (&by_flag, &folder, &projected, "config.yaml"),
    ] {
        let mut container = words.clone();
        container["name"] = json!("kagent-proxy");
        container["volumeMounts"] = mounts.clone();
        let etc = json!({ "name": "etc", "configMap": { "name": "wrong" } });
        let (_, origin) = said(&deployed_with(container, json!([etc, volume]))).unwrap();
        let expected = Origin { map: "map".to_owned(), key: key.to_owned() };
        assert_eq!(origin, Some(expected), "{words} {mounts} {volume}");
    }
    let with = |words: Value| {
        let mut container = words;
        container["name"] = json!("kagent-proxy");
        said(&deployed_with(container, json!([{ "name": "c", "secret": { "secretName": "s" } }])))
    };
    let (deployed, origin) = with(json!({ "args": ["--session-key-file", "/key"] })).unwrap();
    assert_eq!((deployed.args.session_key_file.len(), origin), (1, None));
    let why = with(json!({ "args": ["run", "--from-the-future"] })).unwrap_err();
    assert!(why.contains("not those of kagent-proxy run"), "{why}");
    let mounts = json!([{ "name": "c", "mountPath": "/etc/proxy" }]);
    let secret = json!({ "args": ["--config", "/etc/proxy/c.yaml"], "volumeMounts": mounts });
    let why = with(secret).unwrap_err();
    assert!(why.contains("/etc/proxy/c.yaml") && why.contains("no ConfigMap"), "{why}");
}

#[test]
fn a_configuration_that_is_not_known_or_not_valid_is_told() {
    let mut seen = cluster(vec![]);
    seen.configured = Configured::Unknown("no Deployment has the pods".to_owned());
    has(&seen, "warning", &["configuration of the proxy", "no Deployment", "--config"]);
    assert_eq!(judge(&seen).code(), HEALTHY);
    let mut proxy = ours();
    let deployed = Deployed {
        name: "kagent/kagent-proxy".to_owned(),
        args: ConfigArgs { config: Some("/etc/proxy/config.yaml".into()), ..Default::default() },
        text: Some("drain: {lga: 5s}".to_owned()),
        ..Default::default()
    };
    assert_eq!(installed(Ok(deployed.clone()), &mut proxy), None);
    seen.configured = proxy.configured;
    has(&seen, "error", &["Deployment kagent/kagent-proxy", "/etc/proxy/config.yaml:1", "lga"]);
    let text = Some("discovery: {namespaces: [kagent]}\nsessions: {keyFiles: [/key]}".to_owned());
    let config = installed(Ok(Deployed { text, ..deployed }), &mut ours()).unwrap();
    assert_eq!(config.discovery.namespaces, ["kagent"]);
    assert_eq!(config.sessions.key_files.len(), 1);
}
