//! The port of a Service where no tool server's object names one (D7).
//!
//! Pure. In the order of docs/routing-and-discovery.md, the first that yields a port of the Service; never a guess.

use super::markers::APP_PROTOCOLS;
use crate::discovery::index::Index;
use crate::discovery::object::{Port, Service};
use crate::route::{Considered, ObjectId};

/// The controller's port in kagent's own code.
const CONTROLLER_PORT: u16 = 8083;

/// The port and why, or why none.
pub(super) fn choose<'s>(
    index: &Index,
    id: &ObjectId,
    service: &'s Service,
    (agent, controller): (bool, bool),
    notes: &mut Vec<Considered>,
) -> Result<(&'s Port, String), String> {
    let named = |name: &str| service.ports.iter().find(|port| &*port.name == name);
    let number = |number: u16| service.ports.iter().find(|port| port.number == number);
    let only = match service.ports.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    if agent {
        let port = named("http").or(only);
        return port
            .map(|port| (port, "the http port of an Agent's Service".to_owned()))
            .ok_or_else(|| {
                format!("the Service of Agent {id} has several ports, none called http")
            });
    }
    if controller {
        let port = named("controller").or_else(|| number(CONTROLLER_PORT)).or(only);
        return port
            .map(|port| (port, "the kagent controller's port".to_owned()))
            .ok_or_else(|| format!("Service {id} has no port called controller"));
    }
    let owned = service.owners.iter().find(|(kind, _)| kind == "MCPServer");
    let owner = owned.map_or_else(|| id.clone(), |(_, name)| ObjectId::new(&id.namespace, name));
    let declared = index.mcp_server(&owner).and_then(|server| server.port);
    let mut dropped = |what: String| {
        notes.push(Considered::new(what, "the Service has no such port, so nothing would answer"));
    };
    if let Some(wanted) = declared {
        let what = format!("spec.deployment.port {wanted} of MCPServer {owner}");
        match number(wanted) {
            Some(port) => return Ok((port, what)),
            // During a rollout the live Service is what answers.
            None => dropped(what),
        }
    }
    if let Some(wanted) = service.annotated_port {
        let what = format!("annotation kagent.dev/mcp-service-port {wanted}");
        match number(wanted) {
            Some(port) => return Ok((port, what)),
            None => dropped(what),
        }
    }
    if let Some(only) = only {
        return Ok((only, "the only TCP port of the Service".to_owned()));
    }
    by_app_protocol(service).ok_or_else(|| {
        if service.ports.is_empty() {
            return format!(
                "Service {id} declares no port; write it into x-kagent-host, {}.{}:PORT; with kagent \
                 0.x the url of a RemoteMCPServer may name it too",
                id.name, id.namespace
            );
        }
        format!(
            "Service {id} has several ports and nothing says which; write it into x-kagent-host, \
             {}.{}:PORT, or annotate the Service with kagent.dev/mcp-service-port=PORT; with kagent 0.x the \
             url of a RemoteMCPServer may name it too",
            id.name, id.namespace
        )
    })
}

/// The first of those that say that they speak one and the same protocol.
fn by_app_protocol(service: &Service) -> Option<(&Port, String)> {
    let spoken =
        |port: &&Port| port.app_protocol.as_deref().is_some_and(|app| APP_PROTOCOLS.contains(&app));
    let mut ports = service.ports.iter().filter(spoken);
    let first = ports.next()?;
    let app = first.app_protocol.as_deref()?;
    ports
        .all(|port| port.app_protocol == first.app_protocol)
        .then(|| (first, format!("the port with appProtocol {app}")))
}
