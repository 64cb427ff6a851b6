//! What kagent's real controllers wrote, replayed: each entry that names `x-kagent-host` reaches its backend.
//!
//! The records are in `../shared/golden` beside the repository. Static routes are derived here from the
//! recorded resources, by rules of the contract (2.3, D4, D7, D8). `golden/own` is a small record of the same
//! shape that is part of the project, so that these tests never run on nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kagent_proxy::config::{Config, RouteConfig, RouteTarget, Scheme, Sources, Target};
use kagent_proxy::explain::{Question, explain_config};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use crate::support::{Backend, OK, TestProxy, config, route};

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
    let mut golden = Golden { entries: Vec::new(), targets: BTreeMap::new(), unmarked: Vec::new() };
    let mut named = 0;
    for record in std::fs::read_dir(folder).unwrap().map(|record| record.unwrap().path()) {
        let text = |name: &str| std::fs::read_to_string(record.join(name)).unwrap_or_default();
        for name in ["services.json", "created.json"] {
            let list = text(name);
            for object in parse(&list).as_array().into_iter().flatten() {
                add_service(&mut golden, object);
            }
        }
        for document in Yaml::load_from_str(&text("applied.yaml")).unwrap() {
            add_remote_server(&mut golden.targets, &document);
        }
        let written = text("written.json");
        named += written.matches("\"x-kagent-host\"").count();
        for (agent, files) in parse(&written).as_object().into_iter().flatten() {
            add_entries(&mut golden.entries, agent, &files["config.json"]);
        }
    }
    let found = golden.entries.iter().filter(|entry| entry.header.is_some()).count();
    assert!(found > 0, "{} names no host", folder.display());
    assert_eq!(found, named, "an entry of {} was not understood", folder.display());
    golden
}

fn parse(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { serde_json::from_str(text).unwrap() }
}

/// D4 and D7: owned by an agent or a tool server, or marked; its annotated port, `http` port or only port.
fn add_service(golden: &mut Golden, object: &Value) {
    if object["kind"].as_str().is_some_and(|kind| kind != "Service") {
        return;
    }
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let host = format!("{}.{}", text(&metadata["name"]), text(&metadata["namespace"]));
    let owned = metadata["ownerReferences"].as_array().into_iter().flatten().any(|owner| {
        ["Agent", "SandboxAgent", "MCPServer"].contains(&owner["kind"].as_str().unwrap_or_default())
    });
    let label = metadata["labels"]["kagent.dev/mcp-service"] == "true";
    if !owned && !label {
        golden.unmarked.push(host);
        return;
    }
    let ports = spec["ports"].as_array().unwrap();
    let annotated = metadata["annotations"]["kagent.dev/mcp-service-port"].as_str();
    let http = ports.iter().find(|port| port["name"] == "http");
    let only = ports.first().filter(|_| ports.len() == 1);
    let port = annotated
        .map(|port| port.parse().unwrap())
        .or_else(|| http.or(only)?["port"].as_u64())
        .unwrap();
    let port = u16::try_from(port).unwrap();
    golden.targets.insert(host.clone(), Target { scheme: Scheme::Http, host, port });
}

/// The URL of a `RemoteMCPServer` inside the cluster; not of one that names us, not external (D8).
fn add_remote_server(targets: &mut BTreeMap<String, Target>, document: &Yaml<'_>) {
    let kind = document.as_mapping_get("kind").and_then(Yaml::as_str);
    let Some(spec) = document.as_mapping_get("spec").filter(|_| kind == Some("RemoteMCPServer"))
    else {
        return;
    };
    if spec.as_mapping_get("headersFrom").is_some() {
        return;
    }
    let url = spec.as_mapping_get("url").and_then(Yaml::as_str).unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().unwrap()),
        None => (authority, if scheme == Scheme::Https { 443 } else { 80 }),
    };
    let host = host.trim_end_matches(".cluster.local").trim_end_matches(".svc");
    if host.split('.').count() == 2 {
        targets.insert(host.to_owned(), Target { scheme, host: host.to_owned(), port });
    }
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
            let wrong = explain(format!("{header}:22"));
            assert_eq!(wrong["reason"], "bad_target", "22 is no port of {header}: {wrong}");
        }
    }
}

#[tokio::test]
async fn what_no_resource_names_is_refused() {
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
