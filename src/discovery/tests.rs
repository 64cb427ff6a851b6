//! The algorithm by table: objects in, host and path and caller asked, target out.
//!
//! Objects are the JSON that an API server sends; everything but the watches is the real code.

use serde_json::{Value, json};

use super::index::Index;
use super::object::{KagentApi, Object, ObjectKind};
use super::publish::{Changes, Publisher};
use crate::config::{DiscoveryConfig, UpstreamConfig};
use crate::route::{Considered, HostKey, NoRoute, ObjectId, RouteQuery, RouteTable};
use crate::telemetry::metrics::Metrics;

mod cases;
mod groups;
mod opened;
mod updates;
mod whose;

/// A cluster, and the table made of it.
struct World {
    index: Index,
    publisher: Publisher,
    table: RouteTable,
}

impl World {
    fn new(config: DiscoveryConfig) -> Self {
        let metrics = Metrics::new();
        Self {
            index: Index::new("cluster.local", &config.pod_ips),
            publisher: Publisher::new(config, UpstreamConfig::default(), metrics),
            table: RouteTable::new(Vec::new(), Vec::new(), "cluster.local"),
        }
    }

    /// kagent in `kagent`, whose objects count for everybody.
    fn of(objects: &[(ObjectKind, Value)]) -> Self {
        let mut world = Self::new(DiscoveryConfig::default());
        world.apply(objects);
        world
    }

    fn apply(&mut self, objects: &[(ObjectKind, Value)]) {
        for (kind, json) in objects {
            let (id, namespace) = named(json);
            self.index.apply(*kind, id, Some(Object::read(*kind, &namespace, json)));
        }
        self.publish();
    }

    fn delete(&mut self, kind: ObjectKind, namespace: &str, name: &str) {
        self.index.apply(kind, ObjectId::new(namespace, name), None);
        self.publish();
    }

    fn publish(&mut self) -> usize {
        let touched = self.index.take_changes();
        let mut changes: Changes = self.publisher.apply(&self.index, touched);
        let agents = self.index.take_uses();
        self.publisher.declare(&self.index, agents, &mut changes);
        let count = changes.hosts.len();
        self.table = changes.applied(&self.table);
        count
    }

    /// `http://host:port?query`, or the word of what went wrong.
    fn ask(&self, host: &str, path: &str, caller: Option<&str>) -> String {
        self.chain(host, path, caller, None).0
    }

    fn chain(
        &self,
        host: &str,
        path: &str,
        caller: Option<&str>,
        authority: Option<&str>,
    ) -> (String, Vec<Considered>) {
        let (host, port) = HostKey::parse(host, "cluster.local").unwrap();
        let caller = caller.and_then(|name| name.split_once('/'));
        let caller = caller.map(|(space, name)| ObjectId::new(space, name));
        let ask = RouteQuery {
            host: &host,
            path,
            port,
            authority: authority.map(str::as_bytes),
            caller: caller.as_ref(),
            cluster_domain: "cluster.local",
        };
        let mut chain = Vec::new();
        let answer = match self.table.resolve(&ask, Some(&mut chain)) {
            Ok(chosen) => {
                let target = chosen.route.cluster.targets()[0].to_string();
                match chosen.query {
                    Some(query) => format!("{target}?{query}"),
                    None => target,
                }
            }
            Err(NoRoute::Host) => "unknown".to_owned(),
            Err(NoRoute::Port(port, there)) => format!("no port {port} of {there:?}"),
            Err(NoRoute::UnsafePath) => "unsafe path".to_owned(),
            Err(NoRoute::Forbidden(why) | NoRoute::Unmarked(why)) => format!("forbidden: {why}"),
            Err(NoRoute::Ambiguous(_, which)) => format!("ambiguous: {}", which.join(", ")),
            Err(NoRoute::Pending(why)) => format!("pending: {why}"),
            Err(NoRoute::Missing(why)) => format!("missing: {why}"),
            Err(other) => format!("{other:?}"),
        };
        (answer, chain)
    }

    /// The addresses behind a host, with `~` in front of those that are on their way out.
    fn endpoints(&self, host: &str, path: &str) -> Vec<String> {
        let (host, port) = HostKey::parse(host, "cluster.local").unwrap();
        let domain = "cluster.local";
        let ask = RouteQuery {
            host: &host,
            path,
            port,
            authority: None,
            caller: None,
            cluster_domain: domain,
        };
        let chosen = self.table.resolve(&ask, None).unwrap();
        let endpoints = chosen.route.cluster.endpoints();
        let shown = endpoints.iter().map(|e| (if e.is_leaving() { "~" } else { "" }, e.address));
        shown.map(|(leaving, address)| format!("{leaving}{address}")).collect()
    }

    /// What is not dialled behind a host, each with the reason.
    fn left_out(&self, host: &str) -> Vec<String> {
        let (host, _) = HostKey::parse(host, "cluster.local").unwrap();
        let found = self.table.discovered(&host).unwrap();
        let route = found.routes().next().unwrap();
        let notes = route.left_out.load();
        let text = |note: &Considered| format!("{}: {}", note.candidate, note.verdict);
        notes.iter().flat_map(|notes| notes.iter()).map(text).collect()
    }

    fn caller(&self, address: &str) -> Option<String> {
        self.table.caller(address.parse().unwrap()).map(ToString::to_string)
    }
}

fn named(json: &Value) -> (ObjectId, String) {
    let text = |at: &str| json.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let namespace = text("/metadata/namespace");
    (ObjectId::new(namespace, text("/metadata/name")), namespace.to_owned())
}

/// `ports` as `name:number` or `name:number:appProtocol`.
fn service(namespace: &str, name: &str, ports: &[&str]) -> (ObjectKind, Value) {
    service_with(namespace, name, ports, json!({}))
}

/// With more metadata: `labels`, `annotations`, `ownerReferences`.
fn service_with(namespace: &str, name: &str, ports: &[&str], more: Value) -> (ObjectKind, Value) {
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let parts: Vec<&str> = port.splitn(3, ':').collect();
            let number: u16 = parts[1].parse().unwrap();
            json!({ "name": parts[0], "port": number, "protocol": "TCP", "appProtocol": parts.get(2) })
        })
        .collect();
    let mut metadata = json!({ "namespace": namespace, "name": name });
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (
        ObjectKind::Service,
        json!({ "metadata": metadata, "spec": { "clusterIP": "10.96.0.7", "ports": ports } }),
    )
}

fn owner(kind: &str, name: &str) -> Value {
    let api = if kind == "MCPServer" { "kagent.dev/v1alpha1" } else { "kagent.dev/v1alpha2" };
    json!({ "ownerReferences": [{ "apiVersion": api, "kind": kind, "name": name }] })
}

fn agent(namespace: &str, name: &str, tools: &[(&str, &str)]) -> (ObjectKind, Value) {
    let tools: Vec<Value> = tools
        .iter()
        .map(|(kind, name)| {
            let (space, name) = name.split_once('/').unwrap_or((namespace, name));
            json!({ "type": "McpServer", "mcpServer": { "kind": kind, "name": name, "namespace": space } })
        })
        .collect();
    let metadata = json!({ "namespace": namespace, "name": name });
    (
        ObjectKind::Agent(KagentApi::V0),
        json!({ "metadata": metadata, "spec": { "declarative": { "tools": tools } } }),
    )
}

fn remote(namespace: &str, name: &str, url: &str) -> (ObjectKind, Value) {
    remote_with(namespace, name, url, json!({}))
}

fn remote_with(namespace: &str, name: &str, url: &str, more: Value) -> (ObjectKind, Value) {
    let mut spec = json!({ "url": url, "description": "x" });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let metadata = json!({ "namespace": namespace, "name": name });
    (ObjectKind::RemoteMcpServer(KagentApi::V0), json!({ "metadata": metadata, "spec": spec }))
}

fn mcp_server(namespace: &str, name: &str, port: u16) -> (ObjectKind, Value) {
    let metadata = json!({ "namespace": namespace, "name": name });
    (
        ObjectKind::McpServer,
        json!({ "metadata": metadata, "spec": { "deployment": { "port": port } } }),
    )
}

/// `endpoints` as `address`, with `!` in front if not ready and `~` if terminating and still serving; their
/// UID is the address.
fn slice(
    namespace: &str,
    service: &str,
    port: (&str, u16),
    endpoints: &[&str],
) -> (ObjectKind, Value) {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| {
            let ready = !endpoint.starts_with(['!', '~']);
            let address = endpoint.trim_start_matches(['!', '~']);
            json!({
                "addresses": [address],
                "conditions": {
                    "ready": ready, "serving": !endpoint.starts_with('!'), "terminating": !ready,
                },
                "targetRef": { "kind": "Pod", "uid": address },
            })
        })
        .collect();
    let ipv6 = endpoints.iter().any(|e| e["addresses"][0].as_str().unwrap().contains(':'));
    let name = format!("{service}-{}", if ipv6 { "v6" } else { "v4" });
    (
        ObjectKind::EndpointSlice,
        json!({
            "metadata": {
                "namespace": namespace, "name": name,
                "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": if ipv6 { "IPv6" } else { "IPv4" },
            "ports": [{ "name": port.0, "port": port.1, "protocol": "TCP" }],
            "endpoints": endpoints,
        }),
    )
}

/// A running Pod whose UID is its address, labelled `app` like a Service's pods.
fn pod(namespace: &str, name: &str, app: &str, address: &str) -> (ObjectKind, Value) {
    (
        ObjectKind::Pod,
        json!({
            "metadata": {
                "namespace": namespace, "name": name, "uid": address, "labels": { "app": app },
            },
            "spec": { "hostNetwork": false },
            "status": { "phase": "Running", "podIPs": [{ "ip": address }] },
        }),
    )
}

/// One on the network of its node.
fn host_pod(namespace: &str, name: &str, app: &str, address: &str) -> (ObjectKind, Value) {
    let (kind, mut json) = pod(namespace, name, app, address);
    json["spec"]["hostNetwork"] = json!(true);
    json["metadata"]["uid"] = json!(name);
    (kind, json)
}
