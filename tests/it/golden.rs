//! What kagent's real controllers wrote, replayed: each entry that names `x-kagent-host` reaches its backend.
//!
//! The records are in `../shared/golden` beside the repository. Discovery decides by the recorded resources, and
//! its decisions stand here as static routes, for a record has no pods. `golden/own` is a small record of the
//! same shape that is part of the project, so that these tests never run on nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kagent_proxy::config::{
    Config, DiscoveryConfig, RouteConfig, RouteTarget, Scheme, Sources, Target,
};
use kagent_proxy::discovery::decide::{PlanState, decide};
use kagent_proxy::discovery::index::Index;
use kagent_proxy::discovery::object::{KagentApi, Object, ObjectKind};
use kagent_proxy::explain::{Question, explain_config};
use kagent_proxy::route::ObjectId;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value, json};

use crate::support::{Backend, OK, TestProxy, config, route};

/// Where each recorded host leads, as whoever reads the records would say.
const LEADS: &[(&str, &str)] = &[
    ("scout.field", "http://scout.field:8080"),
    ("maps.field", "http://maps.field:9000"),
    ("sonar.field", "http://sonar.field:3000"),
    ("vault.field", "https://vault.field"),
    ("tides.field", "http://tides.field:7000"),
    ("helper.ml", "http://helper.ml:8080"),
    ("byo.ml", "http://byo.ml:8080"),
    ("plain-mcp.ml", "http://plain-mcp.ml:9090"),
    ("kmcp-one.ml", "http://kmcp-one.ml:3001"),
    ("kmcp-stdio.ml", "http://kmcp-stdio.ml:3002"),
    ("short.tools", "http://short.tools:3000"),
    ("fqdn.tools", "http://fqdn.tools:8080"),
    ("tls.tools", "https://tls.tools:8443"),
    ("noport.tools", "http://noport.tools"),
];

/// A place a controller told an agent to call.
#[derive(Debug)]
struct Entry {
    agent: String,
    /// Authority of the URL, which is the proxy's where there is a header.
    authority: String,
    path: String,
    header: Option<String>,
    is_agent: bool,
}

/// One set of records.
struct Golden {
    entries: Vec<Entry>,
    /// By normalised host.
    targets: BTreeMap<String, Target>,
    /// Services that nothing marks as a backend.
    unmarked: Vec<String>,
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden")
}

/// kagent's records if they are here, and the project's own in any case.
fn sources() -> Vec<Golden> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1);
    let mut folders = vec![own()];
    folders.extend(above.map(|folder| folder.join("shared/golden")).find(|folder| folder.is_dir()));
    folders.iter().map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Golden {
    let (mut objects, mut entries, mut named) = (Vec::new(), Vec::new(), 0);
    for record in std::fs::read_dir(folder).unwrap().map(|record| record.unwrap().path()) {
        let text = |name: &str| std::fs::read_to_string(record.join(name)).unwrap_or_default();
        for name in ["services.json", "created.json"] {
            let list = text(name);
            objects.extend(parse(&list).as_array().into_iter().flatten().cloned());
        }
        objects.extend(Yaml::load_from_str(&text("applied.yaml")).unwrap().iter().map(as_json));
        let written = text("written.json");
        named += written.matches("\"x-kagent-host\"").count();
        for (agent, files) in parse(&written).as_object().into_iter().flatten() {
            add_entries(&mut entries, agent, &files["config.json"]);
        }
    }
    let (targets, unmarked) = decided(&objects);
    let golden = Golden { entries, targets, unmarked };
    let found = golden.entries.iter().filter(|entry| entry.header.is_some()).count();
    assert!(found > 0, "{} names no host", folder.display());
    assert_eq!(found, named, "an entry of {} was not understood", folder.display());
    golden
}

fn parse(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { serde_json::from_str(text).unwrap() }
}

/// The kinds of a record that discovery reads; a list of Services does not say so of each.
fn kind(object: &Value) -> Option<ObjectKind> {
    match object["kind"].as_str().unwrap_or("Service") {
        "Service" => Some(ObjectKind::Service),
        "Agent" => Some(ObjectKind::Agent(KagentApi::V0)),
        "RemoteMCPServer" => Some(ObjectKind::RemoteMcpServer(KagentApi::V0)),
        "MCPServer" => Some(ObjectKind::McpServer),
        _ => None,
    }
}

fn id(object: &Value) -> ObjectId {
    ObjectId::new(&text(&object["metadata"]["namespace"]), &text(&object["metadata"]["name"]))
}

/// What discovery makes of these objects: the target of each host, and the Services that are not routable.
fn decided(objects: &[Value]) -> (BTreeMap<String, Target>, Vec<String>) {
    let mut index = Index::new("cluster.local", &[]);
    let mut services = BTreeSet::new();
    for object in objects {
        let Some(kind) = kind(object) else { continue };
        let id = id(object);
        index.apply(kind, id.clone(), Some(Object::read(kind, &id.namespace, object)));
        if kind == ObjectKind::Service {
            services.insert(id);
        }
    }
    // A record has no Services of tool servers that were only named by a URL: each is supposed to have its port.
    for url in objects.iter().filter_map(|object| object["spec"]["url"].as_str()) {
        let url = http::Uri::try_from(url).unwrap();
        let https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let Some(host) = index.host(url.host().unwrap()) else { continue };
        if services.insert(host.service.clone()) {
            let ports = json!({ "spec": { "clusterIP": "10.96.0.7", "ports": [{ "name": "p", "port": port }] } });
            let object = Object::read(ObjectKind::Service, &host.service.namespace, &ports);
            index.apply(ObjectKind::Service, host.service, Some(object));
        }
    }
    let (mut targets, mut unmarked) = (BTreeMap::new(), Vec::new());
    // Every namespace counts here: who may call whom is not recorded.
    let config = DiscoveryConfig {
        trusted_namespaces: Some(vec!["*".to_owned()]),
        ..DiscoveryConfig::default()
    };
    for id in services {
        let host = format!("{}.{}", id.name, id.namespace);
        match decide(&index, &config, &id).unwrap().state {
            PlanState::Open(plan) => {
                let lead = match plan.rules.first() {
                    Some(rule) => rule.lead.clone(),
                    None => plan.fallback.unwrap().0,
                };
                let target = Target { scheme: lead.scheme, host: host.clone(), port: lead.port };
                targets.insert(host, target);
            }
            _ => unmarked.push(host),
        }
    }
    (targets, unmarked)
}

/// As JSON, which is what discovery reads.
fn as_json(yaml: &Yaml<'_>) -> Value {
    if let Some(map) = yaml.as_mapping() {
        let field = |(name, value): (&Yaml<'_>, &Yaml<'_>)| {
            (name.as_str().unwrap().to_owned(), as_json(value))
        };
        return Value::Object(map.iter().map(field).collect());
    }
    if let Some(items) = yaml.as_sequence() {
        return items.iter().map(as_json).collect();
    }
    let number = || yaml.as_integer().map(Value::from);
    let text = || yaml.as_str().map(Value::from);
    yaml.as_bool().map(Value::from).or_else(number).or_else(text).unwrap_or_default()
}

fn add_entries(entries: &mut Vec<Entry>, agent: &str, config: &Value) {
    for list in ["http_tools", "sse_tools", "remote_agents"] {
        for item in config[list].as_array().into_iter().flatten() {
            let is_agent = list == "remote_agents";
            let params = if is_agent { item } else { &item["params"] };
            let url = text(&params["url"]);
            let rest = url.split_once("://").unwrap().1;
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            entries.push(Entry {
                agent: agent.to_owned(),
                authority: authority.to_owned(),
                path: path.to_owned(),
                header: params["headers"]["x-kagent-host"].as_str().map(str::to_owned),
                is_agent,
            });
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The host as the resources call it; header values differ in their suffix only.
fn bare(host: &str) -> &str {
    host.trim_end_matches(".cluster.local").trim_end_matches(".svc")
}

/// The requests an entry leads to: an agent's card and messages, a tool server's one path.
fn requests(entry: &Entry) -> Vec<(&'static str, String)> {
    if entry.is_agent {
        let card = format!("{}/.well-known/agent-card.json", entry.path);
        let rpc = if entry.path.is_empty() { "/" } else { &entry.path };
        vec![("GET", card), ("POST", rpc.to_owned())]
    } else {
        vec![("POST", entry.path.clone()), ("GET", entry.path.clone())]
    }
}

fn request(method: &str, path: &str, authority: &str, header: &str) -> String {
    let body = if method == "POST" { "content-length: 0\r\n" } else { "" };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nx-kagent-host: {header}\r\n{body}\
         connection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn every_recorded_entry_reaches_its_own_backend() {
    for golden in sources() {
        let mut backends = BTreeMap::new();
        let mut routes = Vec::new();
        for host in golden.targets.keys() {
            let backend = Backend::start().await;
            routes.push(route(host, "/", Scheme::Http, &[backend.port()]));
            backends.insert(host.as_str(), backend);
        }
        let proxy = TestProxy::start(config(routes)).await;
        for entry in &golden.entries {
            let Some(header) = &entry.header else { continue };
            let backend = backends.get(bare(header));
            let backend = backend.unwrap_or_else(|| panic!("no resource for {entry:?}"));
            for (method, path) in requests(entry) {
                let request = request(method, &path, &entry.authority, header);
                let (answer, head) = tokio::join!(proxy.ask(&request), backend.answer(OK));
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{entry:?}: {answer}");
                assert!(head.starts_with(&format!("{method} {path} HTTP/1.1\r\n")), "{head}");
            }
        }
        proxy.stop().await;
    }
}

#[test]
fn every_recorded_entry_resolves_to_the_target_of_its_resource() {
    for golden in sources() {
        let routes = golden.targets.iter().map(|(host, target)| RouteConfig {
            to: RouteTarget::new(vec![target.clone()]),
            ..route(host, "/", target.scheme, &[])
        });
        let config = Config { routes: routes.collect(), ..Config::default() };
        for entry in &golden.entries {
            let Some(header) = &entry.header else { continue };
            let explain = |host: String| {
                let path = requests(entry)[0].1.clone();
                let method = requests(entry)[0].0.to_owned();
                let host = Some(host);
                let (authority, listener, from) = (None, None, None);
                let question = Question { host, path, method, authority, listener, from };
                explain_config(&config, &Sources::default(), &question).unwrap()
            };
            let answer = explain(header.clone());
            let target = golden.targets.get(bare(header)).unwrap();
            assert_eq!(answer["targets"][0], target.to_string(), "{}: {answer}", entry.agent);
            let lead = LEADS.iter().find(|(host, _)| *host == bare(header));
            assert_eq!(lead.map(|(_, lead)| *lead), Some(&*target.to_string()), "{entry:?}");
            let wrong = explain(format!("{header}:22"));
            assert_eq!(wrong["reason"], "bad_target", "22 is no port of {header}: {wrong}");
        }
    }
}

#[tokio::test]
async fn what_no_resource_names_is_refused() {
    // One that is never routable, and one that is like any other and is only not marked.
    assert_eq!(read(&own()).unmarked, ["kubernetes.default", "ledger.field"]);
    for golden in sources() {
        let backend = Backend::start().await;
        let routes =
            golden.targets.keys().map(|host| route(host, "/", Scheme::Http, &[backend.port()]));
        let proxy = TestProxy::start(config(routes.collect())).await;
        let mut refused = golden.unmarked.clone();
        for entry in &golden.entries {
            let host = entry.header.as_deref().unwrap_or(&entry.authority);
            let host = host.split(':').next().unwrap();
            if entry.header.is_some() {
                refused.push(format!("{}-x", bare(host)));
                refused.push(format!("{}.example.com", bare(host)));
            } else if !golden.targets.contains_key(bare(host)) {
                refused.push(host.to_owned());
            }
        }
        assert!(refused.iter().any(|host| golden.unmarked.contains(host)), "{refused:?}");
        for host in &refused {
            let answer = proxy.ask(&request("POST", "/mcp", "p", host)).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{host}: {answer}");
            assert!(
                answer.contains("x-kagent-proxy-error: unknown_target\r\n"),
                "{host}: {answer}"
            );
        }
        // Connections are accepted in their order, so a backend called for a refused one would show it here.
        let known = golden.targets.keys().next().unwrap();
        let good = request("POST", "/known", "p", known);
        let (_, head) = tokio::join!(proxy.ask(&good), backend.answer(OK));
        assert!(head.starts_with("POST /known "), "a refused request was carried: {head}");
        proxy.stop().await;
    }
}
