//! From what the cluster says of one Service to how it is reached: who may call it, and by which port
//! (D4, D5, D7).
//!
//! Pure, and tested by table. Everything considered is noted with its verdict, for `explain`. Makes no route.

use std::collections::{BTreeMap, BTreeSet};

use http::uri::PathAndQuery;

use super::index::Index;
use super::object::{KagentApi, Port, RemoteServer, RemoteTls, Service, Sessions};
use crate::config::{DiscoveryConfig, Scheme, SessionMode, mode_word};
use crate::route::rule::Authority;
use crate::route::{Considered, ObjectId, Opened};

mod markers;
mod ports;

use markers::Markers;

/// Where agents may reach the controller (D4).
pub const CONTROLLER_PATHS: &[&str] = &["/api/a2a-sandboxes", "/mcp", "/agents/*/*"];

/// What is to become of one Service's host, and of its pods' hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Whether and how it can be reached.
    pub state: PlanState,
    /// What was considered.
    pub notes: Vec<Considered>,
}

/// Whether a host can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanState {
    /// Yes.
    Open(Box<OpenPlan>),
    /// Never as things stand.
    Refused(String),
    /// Not as long as nothing marks it.
    Unmarked(String),
    /// Something of this name exists, without a Service.
    Pending(String),
    /// Only named by somebody.
    Missing(String),
}

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPlan {
    /// What tool servers' objects say.
    pub rules: Vec<RulePlan>,
    /// The Service's ports.
    pub ports: Vec<Backend>,
    /// Where no rule holds: the port and why, or why none.
    pub fallback: Result<(Backend, String), String>,
    /// The Agent that owns it.
    pub agent: Option<ObjectId>,
    /// Only these paths; empty is every path.
    pub paths: &'static [&'static str],
    /// Only these callers, and what is open to each.
    pub callers: Option<BTreeMap<ObjectId, Opened>>,
}

/// What one object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlan {
    /// The object.
    pub object: ObjectId,
    /// Whom it binds.
    pub standing: Authority,
    /// The path of its URL.
    pub path: String,
    /// Legacy SSE.
    pub sse: bool,
    /// The query of its URL.
    pub query: Option<String>,
    /// Where it leads.
    pub lead: Backend,
    /// Agents that use it.
    pub callers: BTreeSet<ObjectId>,
    /// Its URL names one pod.
    pub pod: Option<Box<str>>,
}

/// A way to the backends of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The Service's port: what a direct client would dial.
    pub port: u16,
    /// Which port of the pods that is.
    pub to: PodPort,
    /// How they are spoken to.
    pub scheme: Scheme,
    /// For `https`.
    pub trust: Option<Trust>,
    /// What is done for MCP sessions, if an object says so.
    pub sessions: Option<SessionMode>,
}

/// A port of pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PodPort {
    /// The one that stands in the slices under this name of a Service's port.
    Named(Box<str>),
    /// The number itself, for headless Services.
    Number,
}

/// Whom we trust behind a lead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The name in its certificate.
    pub server_name: String,
    /// The object's own word.
    pub tls: RemoteTls,
    /// Where its Secret is.
    pub namespace: Option<String>,
}

/// Decides for one Service; `None` if nothing is known of it.
#[must_use]
pub fn decide(index: &Index, config: &DiscoveryConfig, id: &ObjectId) -> Option<ServicePlan> {
    let Some(service) = index.service(id) else { return without_service(index, config, id) };
    let mut notes = Vec::new();
    if let Some(why) = forbidden(index, id, service) {
        return Some(ServicePlan { state: PlanState::Refused(why), notes });
    }
    let controller = is_controller(config, id);
    let markers = Markers::of(index, config, id, service, controller, &mut notes);
    let callers = match markers {
        Markers::Everyone => None,
        Markers::Callers(callers) => Some(callers),
        Markers::None => {
            let why = format!(
                "Service {id} is not marked as an agent or MCP server: no object of kagent names it by its own name, \
                 by a url, or by an x-kagent-host with a plain value (one from a Secret or ConfigMap is not read); \
                 to allow it: kubectl annotate service -n {} {} kagent-proxy.dev/route=true",
                id.namespace, id.name
            );
            return Some(ServicePlan { state: PlanState::Unmarked(why), notes });
        }
    };
    let agent = agent_of(index, id);
    let rules = index
        .remotes_at(id)
        .filter_map(|(object, remote)| {
            rule(index, config, id, service, (object, remote), &mut notes)
        })
        .collect();
    let said = said_of_sessions("Service", id, service.sessions.as_ref(), &mut notes);
    let server = index.mcp_server(id).and_then(|server| server.sessions.as_ref());
    let said = said.or_else(|| said_of_sessions("MCPServer", id, server, &mut notes));
    let sessions = said.or_else(|| opted_sessions(index, config, id, &mut notes));
    let backend = |port: &Port| Backend { sessions, ..Backend::of(id, port) };
    let mut ports: Vec<Backend> = service.ports.iter().map(backend).collect();
    ports.extend(undeclared_ports(index, config, (id, service), callers.is_some()).map(|port| {
        Backend { port, to: PodPort::Number, scheme: Scheme::Http, trust: None, sessions }
    }));
    let fallback = ports::choose(index, id, service, (agent.is_some(), controller), &mut notes)
        .map(|(port, why)| (backend(port), why));
    let paths = if controller { CONTROLLER_PATHS } else { &[] };
    let open = OpenPlan { rules, ports, fallback, agent, paths, callers };
    Some(ServicePlan { state: PlanState::Open(Box::new(open)), notes })
}

/// Whether a Service is an Agent's: the live owner decides, and its name where it has none.
fn is_agent(index: &Index, id: &ObjectId, service: &Service) -> bool {
    if service.owners.is_empty() {
        // Agents of kagent 1.0 have no Service.
        return index.has_agent(KagentApi::V0, id) && index.mcp_server(id).is_none();
    }
    service.owners.iter().any(|(kind, _)| kind == "Agent")
}

/// The Agent whose a Service is, and who calls from its endpoints (D6): its owner, whatever the Service is called.
pub(super) fn agent_of(index: &Index, id: &ObjectId) -> Option<ObjectId> {
    let service = index.service(id)?;
    if !is_agent(index, id, service) {
        return None;
    }
    let owner = service.owners.iter().find(|(kind, _)| kind == "Agent");
    Some(owner.map_or_else(|| id.clone(), |(_, name)| ObjectId::new(&id.namespace, name)))
}

fn is_controller(config: &DiscoveryConfig, id: &ObjectId) -> bool {
    config.controller.name == *id.name && config.controller.namespace == *id.namespace
}

/// Services that no mark opens.
fn forbidden(index: &Index, id: &ObjectId, service: &Service) -> Option<String> {
    if let Some(name) = &service.external_name {
        return Some(format!(
            "Service {id} is an ExternalName for {name:?}, which may be anywhere; a static route allows \
             it: {}.{}=http://{name}:PORT",
            id.name, id.namespace
        ));
    }
    if &*id.namespace == "kube-system" {
        return Some(format!("Service {id} belongs to the cluster itself and is never routable"));
    }
    if &*id.namespace == "default" && &*id.name == "kubernetes" {
        return Some("default/kubernetes is the API server and is never routable".to_owned());
    }
    if index.is_ourselves(id) {
        return Some(format!(
            "Service {id} is this proxy itself. To go through it, a RemoteMCPServer has the url \
             http://{}.{}.svc:PORT/mcp (three labels: kagent 0.x rewrites others) and, in headersFrom, \
             x-kagent-host: NAME.NAMESPACE, which is the tool server's Service",
            id.name, id.namespace
        ));
    }
    // A headless one may leave them out: DNS gives the pods' addresses, and callers know the port.
    if service.ports.is_empty() && !service.headless {
        return Some(format!("Service {id} has no TCP port"));
    }
    None
}

/// Nothing of this name is a Service; somebody may still speak of it.
fn without_service(index: &Index, config: &DiscoveryConfig, id: &ObjectId) -> Option<ServicePlan> {
    let plan = |state| Some(ServicePlan { state, notes: Vec::new() });
    if index.has_agent(KagentApi::V0, id) {
        return plan(PlanState::Pending(format!("Agent {id} exists, its Service does not yet")));
    }
    if index.mcp_server(id).is_some() {
        return plan(PlanState::Pending(format!(
            "MCPServer {id} exists, its Service does not yet"
        )));
    }
    if index.has_sandbox(id) {
        return plan(PlanState::Refused(format!(
            "SandboxAgent {id} has no Service of its own: it is reached through the kagent controller, \
             on /api/a2a-sandboxes/{}/{}",
            id.namespace, id.name
        )));
    }
    if index.has_agent(KagentApi::V1, id) {
        return plan(PlanState::Refused(format!(
            "Agent {id} of api.kagent.dev has no Service of its own: it is reached through the kagent \
             controller, on /agents/{}/{}",
            id.namespace, id.name
        )));
    }
    let lacks = index.lacks_namespace(&id.namespace);
    if let Some((object, _)) =
        index.literals_at(id).min_by_key(|(object, _)| standing(config, object, id) as u8)
    {
        let why = if lacks { " (there is no such namespace)" } else { "" };
        return plan(PlanState::Missing(format!(
            "there is no Service {} in namespace {}{why}; RemoteMCPServer {object} names it in \
             x-kagent-host: correct the value in its headersFrom, NAME.NAMESPACE or \
             NAME.NAMESPACE:PORT, or make the Service",
            id.name, id.namespace
        )));
    }
    let (object, remote) = index.remotes_at(id).next()?;
    let scheme = if remote.https { "https" } else { "http" };
    let space = if lacks { "there is no such namespace" } else { "yet" };
    plan(PlanState::Missing(format!(
        "there is no Service {} in namespace {} ({space}); RemoteMCPServer {object} names {scheme}://{}:{}. \
         If that is a host outside the cluster, an operator may allow it with a static route: \
         {}.{}={scheme}://{}:{}",
        id.name,
        id.namespace,
        remote.host,
        remote.port,
        id.name,
        id.namespace,
        remote.host,
        remote.port
    )))
}

/// Whom an object in this namespace binds for a Service in that one (D5).
#[must_use]
pub fn standing(config: &DiscoveryConfig, object: &ObjectId, service: &ObjectId) -> Authority {
    if object.namespace == service.namespace {
        Authority::Own
    } else if config.trusts(&object.namespace) {
        Authority::Trusted
    } else {
        Authority::Callers
    }
}

fn rule(
    index: &Index,
    config: &DiscoveryConfig,
    id: &ObjectId,
    service: &Service,
    (object, remote): (&ObjectId, &RemoteServer),
    notes: &mut Vec<Considered>,
) -> Option<RulePlan> {
    let host = index.host(&remote.host)?;
    let (standing, callers) = (standing(config, object, id), index.callers_of_remote(object));
    if standing == Authority::Callers && callers.is_empty() {
        return None;
    }
    let port = service.ports.iter().find(|port| port.number == remote.port);
    let to = match port {
        Some(port) => PodPort::Named(port.name.clone()),
        // Where DNS gives the pods' own addresses, a direct client dials the number itself.
        None if service.headless || host.pod.is_some() => PodPort::Number,
        None => {
            let candidate = format!("RemoteMCPServer {object} (port {})", remote.port);
            notes.push(Considered::new(
                candidate,
                "the Service has no such port, so nothing would answer",
            ));
            return None;
        }
    };
    let app = port.and_then(|port| port.app_protocol.as_deref());
    let scheme = match (remote.https, app) {
        (true, _) => Scheme::Https,
        (false, Some(H2C)) => Scheme::H2c,
        (false, _) => Scheme::Http,
    };
    let trust = remote.https.then(|| Trust {
        server_name: remote.host.to_ascii_lowercase(),
        tls: remote.tls.clone(),
        // Without a Secret, objects of different namespaces that say the same are the same.
        namespace: remote.tls.ca_secret.as_ref().map(|_| object.namespace.to_string()),
    });
    let said = said_of_sessions("RemoteMCPServer", object, remote.sessions.as_ref(), notes);
    let sessions = said.or_else(|| service.sessions.clone()?.ok());
    Some(RulePlan {
        object: object.clone(),
        standing,
        path: remote.path.clone(),
        sse: remote.sse,
        query: query(object, remote, notes),
        lead: Backend { port: remote.port, to, scheme, trust, sessions },
        callers,
        pod: host.pod,
    })
}

/// Ports that `x-kagent-host` of tool servers name, and that a headless Service does not declare: DNS gives the pods'
/// own addresses there, and a direct client dials the number itself. Those of untrusted namespaces count only where
/// such namespaces alone open the Service.
fn undeclared_ports(
    index: &Index,
    config: &DiscoveryConfig,
    (id, service): (&ObjectId, &Service),
    untrusted: bool,
) -> impl Iterator<Item = u16> {
    let literals = service.headless.then(|| index.literals_at(id)).into_iter().flatten();
    let counting = literals
        .filter(move |(object, _)| untrusted || standing(config, object, id) != Authority::Callers);
    let ports: BTreeSet<u16> =
        counting.filter_map(|(_, server)| index.literal_port(server)).collect();
    let declared = |port: &u16| service.ports.iter().any(|known| known.number == *port);
    ports.into_iter().filter(move |port| !declared(port))
}

/// What an object says of MCP sessions, noted either way.
fn said_of_sessions(
    kind: &str,
    id: &ObjectId,
    said: Option<&Sessions>,
    notes: &mut Vec<Considered>,
) -> Option<SessionMode> {
    let candidate = format!("kagent-proxy.dev/sessions of {kind} {id}");
    match said? {
        Ok(mode) => {
            notes.push(Considered::new(candidate, format!("sessions: {}", mode_word(*mode))));
            Some(*mode)
        }
        Err(text) => {
            let verdict = format!("{text:?} does not count: write revive, pin or pass");
            notes.push(Considered::new(candidate, verdict));
            None
        }
    }
}

/// What the tool servers say of sessions that name a Service in `x-kagent-host`, those of its own namespace first.
fn opted_sessions(
    index: &Index,
    config: &DiscoveryConfig,
    id: &ObjectId,
    notes: &mut Vec<Considered>,
) -> Option<SessionMode> {
    let mut found = None;
    for wanted in [Authority::Own, Authority::Trusted] {
        let opted = index.literals_at(id);
        for (object, remote) in opted.filter(|(object, _)| standing(config, object, id) == wanted) {
            if found.is_none() {
                found =
                    said_of_sessions("RemoteMCPServer", object, remote.sessions.as_ref(), notes);
            } else if remote
                .sessions
                .as_ref()
                .is_some_and(|said| said.as_ref().ok() != found.as_ref())
            {
                let candidate = format!("kagent-proxy.dev/sessions of RemoteMCPServer {object}");
                notes.push(Considered::new(candidate, "does not count: another one came first"));
            }
        }
    }
    found
}

/// The query of its URL, if a request can carry it.
fn query(object: &ObjectId, remote: &RemoteServer, notes: &mut Vec<Considered>) -> Option<String> {
    let query = remote.query.as_ref()?;
    if PathAndQuery::try_from(format!("/?{query}")).is_ok() {
        return Some(query.clone());
    }
    let candidate = format!("the query of RemoteMCPServer {object}");
    notes.push(Considered::new(
        candidate,
        "not sent: it has characters that no URL may have; encode them",
    ));
    None
}

/// The `appProtocol` of HTTP/2 by prior knowledge (KEP-3726).
const H2C: &str = "kubernetes.io/h2c";

// === impl Backend ===

impl Backend {
    /// By the Service's own word: `appProtocol` tells HTTP/2 and TLS.
    fn of(id: &ObjectId, port: &Port) -> Self {
        let scheme = match port.app_protocol.as_deref() {
            Some(H2C) => Scheme::H2c,
            Some("https") => Scheme::Https,
            _ => Scheme::Http,
        };
        let trust = (scheme == Scheme::Https).then(|| Trust {
            server_name: format!("{}.{}", id.name, id.namespace),
            tls: RemoteTls::default(),
            namespace: None,
        });
        let to = PodPort::Named(port.name.clone());
        Self { port: port.number, to, scheme, trust, sessions: None }
    }
}
