//! The few fields that we read of the cluster's objects, from their JSON.
//!
//! Lenient on purpose: a field that is missing or of another type counts as absent, so that no single object and no
//! later version of a resource breaks a watch. Pure; knows no client.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

pub use self::admits::{Admits, NamespaceLabels};
pub use self::agent::{Agent, ServerKind, Tools};
use self::remote::remote;
pub use self::remote::{RemoteServer, RemoteTls};
use super::pod::{Labels, Pod, PodObject};
use crate::config::{SessionMode, mode_of};
use crate::route::ObjectId;
use crate::upstream::EndpointState;

mod admits;
mod agent;
mod remote;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Core.
    Service,
    /// `discovery.k8s.io`.
    EndpointSlice,
    /// Core: whose addresses are whose.
    Pod,
    /// Core; only where all namespaces are watched.
    Namespace,
    /// Of either group.
    Agent(KagentApi),
    /// `kagent.dev`.
    SandboxAgent,
    /// `api.kagent.dev`.
    AgentTemplate,
    /// Of either group.
    RemoteMcpServer(KagentApi),
    /// `kagent.dev`, of kmcp.
    McpServer,
}

/// The API groups of kagent. A cluster may have one, both or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KagentApi {
    /// `kagent.dev/v1alpha2`, of kagent 0.7 to 0.10.
    V0,
    /// `api.kagent.dev/v1alpha3`, of kagent 1.0.
    V1,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// An alias of a name elsewhere.
    pub external_name: Option<String>,
    /// Without an address of its own.
    pub headless: bool,
    /// Its addresses, the primary family first.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether its primary family is IPv6.
    pub ipv6: bool,
    /// Its TCP ports.
    pub ports: Vec<Port>,
    /// Which pods are behind it; without one somebody else writes its slices.
    pub selector: Labels,
    /// Owners of kagent and kmcp: kind and name.
    pub owners: Vec<(String, String)>,
    /// `kagent.dev/mcp-service=true`.
    pub mcp_label: bool,
    /// Any annotation `kagent.dev/mcp-service-*`.
    pub mcp_annotation: bool,
    /// `kagent.dev/mcp-service-port`.
    pub annotated_port: Option<u16>,
    /// `kagent-proxy.dev/route: "true"`.
    pub allowed: bool,
    /// `kagent-proxy.dev/sessions`.
    pub sessions: Option<Sessions>,
}

/// What an object says of MCP sessions; the text, where that is no mode.
pub type Sessions = Result<SessionMode, Box<str>>;

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty if it has none.
    pub name: Box<str>,
    /// The Service's port.
    pub number: u16,
    /// `appProtocol`, in lower case.
    pub app_protocol: Option<Box<str>>,
}

/// A part of a Service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The Service it belongs to.
    pub service: Option<ObjectId>,
    /// Of IPv6 addresses.
    pub ipv6: bool,
    /// TCP ports of the pods, by the name of the Service's port.
    pub ports: Vec<(Box<str>, u16)>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One pod, or whatever stands behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes new requests; `None` is not at all.
    pub state: Option<EndpointState>,
    /// The pod's UID.
    pub uid: Option<Arc<str>>,
    /// Its name in DNS, below the Service's.
    pub hostname: Option<Box<str>>,
    /// Where it runs.
    pub zone: Option<Box<str>>,
}

/// An `MCPServer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpServer {
    /// `spec.deployment.port`.
    pub port: Option<u16>,
    /// `kagent-proxy.dev/sessions`.
    pub sessions: Option<Sessions>,
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// A slice.
    Slice(Slice),
    /// A pod; `None` if it does not run.
    Pod(Option<Pod>),
    /// A namespace.
    Namespace(NamespaceLabels),
    /// An Agent.
    Agent(Agent),
    /// A `SandboxAgent`: only that it exists.
    SandboxAgent,
    /// An `AgentTemplate`: what the Agents use that are made of it.
    AgentTemplate(Agent),
    /// A tool server by URL; `None` if its URL cannot be used.
    RemoteServer(Option<RemoteServer>),
    /// A tool server of kmcp.
    McpServer(McpServer),
}

// === impl Service ===

impl Service {
    /// Whether something may answer at this port: DNS gives the pods' own addresses of a headless one.
    #[must_use]
    pub fn may_have_port(&self, number: u16) -> bool {
        self.headless || self.ports.iter().any(|port| port.number == number)
    }
}

// === impl KagentApi ===

impl KagentApi {
    /// The group's name.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::V0 => "kagent.dev",
            Self::V1 => "api.kagent.dev",
        }
    }
}

// === impl ObjectKind ===

impl ObjectKind {
    /// All of them; those that must be there first.
    pub const ALL: [Self; 11] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::Namespace,
        Self::Agent(KagentApi::V0),
        Self::SandboxAgent,
        Self::RemoteMcpServer(KagentApi::V0),
        Self::McpServer,
        Self::Agent(KagentApi::V1),
        Self::AgentTemplate,
        Self::RemoteMcpServer(KagentApi::V1),
    ];

    /// The resource's plural name.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Pod => "pods",
            Self::Namespace => "namespaces",
            Self::Agent(_) => "agents",
            Self::SandboxAgent => "sandboxagents",
            Self::AgentTemplate => "agenttemplates",
            Self::RemoteMcpServer(_) => "remotemcpservers",
            Self::McpServer => "mcpservers",
        }
    }

    /// The word in labels and logs: the plural name, with its group where it is that of kagent 1.0.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Agent(KagentApi::V1) => "agents.api.kagent.dev",
            Self::AgentTemplate => "agenttemplates.api.kagent.dev",
            Self::RemoteMcpServer(KagentApi::V1) => "remotemcpservers.api.kagent.dev",
            other => other.plural(),
        }
    }

    /// Whether a cluster may lack it: where it does, there are no such objects.
    #[must_use]
    pub const fn may_be_absent(self) -> bool {
        !matches!(self, Self::Service | Self::EndpointSlice | Self::Pod)
    }

    /// Without these nothing can be routed.
    #[must_use]
    pub const fn is_required(self) -> bool {
        matches!(self, Self::Service | Self::EndpointSlice)
    }
}

// === impl Object ===

impl Object {
    /// Reads an object of this kind in this namespace.
    #[must_use]
    pub fn read(kind: ObjectKind, namespace: &str, json: &Value) -> Self {
        match kind {
            ObjectKind::Service => Self::Service(service(json)),
            ObjectKind::EndpointSlice => Self::Slice(slice(namespace, json)),
            ObjectKind::Pod => {
                Self::Pod(PodObject::deserialize(json).ok().and_then(|told| told.pod))
            }
            ObjectKind::Namespace => Self::Namespace(admits::labels(json)),
            ObjectKind::Agent(KagentApi::V0) => Self::Agent(agent::v0(namespace, json)),
            ObjectKind::Agent(KagentApi::V1) => Self::Agent(agent::v1(namespace, json)),
            ObjectKind::SandboxAgent => Self::SandboxAgent,
            ObjectKind::AgentTemplate => Self::AgentTemplate(agent::template(namespace, json)),
            ObjectKind::RemoteMcpServer(_) => Self::RemoteServer(remote(json)),
            ObjectKind::McpServer => Self::McpServer(McpServer {
                port: port_at(json, "/spec/deployment/port"),
                sessions: sessions(json),
            }),
        }
    }
}

fn text<'v>(json: &'v Value, at: &str) -> Option<&'v str> {
    json.pointer(at).and_then(Value::as_str)
}

fn switch(json: &Value, at: &str) -> bool {
    json.pointer(at).and_then(Value::as_bool).unwrap_or_default()
}

fn items<'v>(json: &'v Value, at: &str) -> impl Iterator<Item = &'v Value> {
    json.pointer(at).and_then(Value::as_array).into_iter().flatten()
}

fn port_at(json: &Value, at: &str) -> Option<u16> {
    let number = json.pointer(at)?.as_u64()?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn is_tcp(port: &Value) -> bool {
    text(port, "/protocol").is_none_or(|protocol| protocol == "TCP")
}

fn sessions(json: &Value) -> Option<Sessions> {
    let said = text(json, "/metadata/annotations/kagent-proxy.dev~1sessions")?.trim();
    Some(mode_of(said).map_err(|_| said.into()))
}

fn service(json: &Value) -> Service {
    let annotation = |name: &str| {
        let annotations = json.pointer("/metadata/annotations").and_then(Value::as_object);
        annotations.and_then(|map| map.get(name)).and_then(Value::as_str)
    };
    let annotations = json.pointer("/metadata/annotations").and_then(Value::as_object);
    let labels = json.pointer("/metadata/labels").and_then(Value::as_object);
    let selector = json.pointer("/spec/selector").and_then(Value::as_object);
    let owners = items(json, "/metadata/ownerReferences").filter_map(|owner| {
        let ours = text(owner, "/apiVersion").is_some_and(is_kagent);
        let (kind, name) = (text(owner, "/kind")?, text(owner, "/name")?);
        ours.then(|| (kind.to_owned(), name.to_owned()))
    });
    let ports = items(json, "/spec/ports").filter(|port| is_tcp(port)).filter_map(|port| {
        let app = text(port, "/appProtocol").map(|app| app.to_ascii_lowercase().into());
        let name = text(port, "/name").unwrap_or_default().into();
        Some(Port { name, number: port_at(port, "/port")?, app_protocol: app })
    });
    let mut ips: Vec<&str> = items(json, "/spec/clusterIPs").filter_map(Value::as_str).collect();
    if ips.is_empty() {
        ips.extend(text(json, "/spec/clusterIP"));
    }
    let cluster_ips: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let primary = text(json, "/spec/ipFamilies/0").map(|family| family == "IPv6");
    let external = text(json, "/spec/type") == Some("ExternalName");
    Service {
        external_name: external
            .then(|| text(json, "/spec/externalName").unwrap_or_default().to_owned()),
        headless: ips.contains(&"None"),
        ipv6: primary.unwrap_or_else(|| cluster_ips.first().is_some_and(IpAddr::is_ipv6)),
        cluster_ips,
        ports: ports.collect(),
        selector: Labels::new(selector.into_iter().flatten().filter_map(label)),
        owners: owners.collect(),
        mcp_label: labels
            .and_then(|map| map.get("kagent.dev/mcp-service"))
            .is_some_and(|value| value == "true"),
        mcp_annotation: annotations
            .is_some_and(|map| map.keys().any(|key| key.starts_with("kagent.dev/mcp-service-"))),
        annotated_port: annotation("kagent.dev/mcp-service-port")
            .and_then(|port| port.trim().parse().ok()),
        allowed: annotation("kagent-proxy.dev/route") == Some("true"),
        sessions: sessions(json),
    }
}

fn label<'v>((key, value): (&'v String, &'v Value)) -> Option<(&'v str, &'v str)> {
    Some((key, value.as_str()?))
}

fn slice(namespace: &str, json: &Value) -> Slice {
    let labels = json.pointer("/metadata/labels").and_then(Value::as_object);
    let service = labels.and_then(|map| map.get("kubernetes.io/service-name"));
    let service = service.and_then(Value::as_str).map(|name| ObjectId::new(namespace, name));
    let ports = items(json, "/ports").filter(|port| is_tcp(port)).filter_map(|port| {
        Some((text(port, "/name").unwrap_or_default().into(), port_at(port, "/port")?))
    });
    let endpoints = items(json, "/endpoints").filter_map(|endpoint| {
        // All addresses of one endpoint are the same pod; consumers use the first
        // (discovery.k8s.io/v1, Endpoint.addresses). An IPv4 address in the form of IPv6 leads to the former.
        let address: IpAddr = text(endpoint, "/addresses/0")?.parse().ok()?;
        let kind = text(endpoint, "/targetRef/kind").unwrap_or("Pod");
        let uid = text(endpoint, "/targetRef/uid").filter(|_| kind == "Pod");
        Some(SliceEndpoint {
            address: address.to_canonical(),
            state: state(endpoint),
            uid: uid.map(Arc::from),
            hostname: text(endpoint, "/hostname").map(Box::from),
            zone: text(endpoint, "/zone").map(Box::from),
        })
    });
    Slice {
        service,
        ipv6: text(json, "/addressType") == Some("IPv6"),
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    }
}

/// Ready, not ready, or terminating and still serving, as kube-proxy tells them apart (KEP-1669). An unknown
/// condition counts as ready, and `serving` as what `ready` is (`EndpointConditions`). One that is not ready may be so
/// again, and has the sessions of before.
fn state(endpoint: &Value) -> Option<EndpointState> {
    let condition =
        |name: &str| endpoint.pointer(&format!("/conditions/{name}")).and_then(Value::as_bool);
    let ready = condition("ready").unwrap_or(true);
    // With publishNotReadyAddresses a pod on its way out is ready too.
    if condition("terminating").unwrap_or(false) {
        condition("serving").unwrap_or(ready).then_some(EndpointState::Serving)
    } else {
        Some(if ready { EndpointState::Ready } else { EndpointState::NotReady })
    }
}

/// Whether an `apiVersion` is of kagent or kmcp.
pub(in crate::discovery) fn is_kagent(api_version: &str) -> bool {
    let group = api_version.split('/').next();
    matches!(group, Some("kagent.dev" | "api.kagent.dev"))
}
