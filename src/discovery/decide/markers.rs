//! Which Services are agents or MCP servers, and for whom (D4, D5).
//!
//! Pure. Each marker that is found, and each that does not count, is noted.

use std::collections::BTreeMap;

use super::standing;
use crate::config::DiscoveryConfig;
use crate::discovery::index::Index;
use crate::discovery::object::{KagentApi, Service};
use crate::route::rule::Authority;
use crate::route::{Considered, ObjectId, Opened};

/// The `appProtocol` values of MCP and A2A backends, in lower case.
pub(super) const APP_PROTOCOLS: [&str; 3] = ["mcp", "kgateway.dev/mcp", "kgateway.dev/a2a"];

/// How many markers of a sort are told one by one: what others write must not fill every answer.
const TOLD: usize = 20;

/// For whom a Service is routable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Markers {
    /// It is marked.
    Everyone,
    /// Only objects that these Agents use name it.
    Callers(BTreeMap<ObjectId, Opened>),
    /// No marker.
    None,
}

// === impl Markers ===

impl Markers {
    pub(super) fn of(
        index: &Index,
        config: &DiscoveryConfig,
        id: &ObjectId,
        service: &Service,
        controller: bool,
        notes: &mut Vec<Considered>,
    ) -> Self {
        let mut markers = own_markers(index, id, service, controller);
        for agent in index.users_of_service(id) {
            if standing(config, &agent, id) != Authority::Callers {
                markers.push(format!("Agent {agent} has it among its tools"));
            }
        }
        let urls = index.remotes_at(id).map(|(object, _)| (object, "url", Opened::default()));
        let literals = index.literals_at(id).map(|(object, server)| {
            (object, "x-kagent-host", Opened::by_header(index.literal_port(server)))
        });
        let outranked = index.outranked_at(id);
        let outranked = outranked.filter(|o| standing(config, o, id) != Authority::Callers);
        for object in outranked.take(TOLD) {
            let marker = format!("RemoteMCPServer {object} of kagent.dev");
            let verdict =
                "does not count: api.kagent.dev has one of this name that names the same Service";
            notes.push(Considered::new(marker, verdict));
        }
        let mut callers: BTreeMap<ObjectId, Opened> = BTreeMap::new();
        let mut others = Vec::new();
        for (object, place, opened) in urls.chain(literals) {
            let marker = format!("RemoteMCPServer {object} names it in its {place}");
            if standing(config, object, id) == Authority::Callers {
                for caller in index.callers_of_remote(object) {
                    callers.entry(caller).or_default().add(&opened);
                }
                others.push(marker);
            } else {
                markers.push(marker);
            }
        }
        let counts = !markers.is_empty();
        let foreign = !others.is_empty();
        let verdict = "its namespace is not trusted: it counts for the Agents that use it alone";
        for (markers, verdict) in [(markers, "marks the Service as routable"), (others, verdict)] {
            let left = markers.len().saturating_sub(TOLD);
            notes.extend(
                markers.into_iter().take(TOLD).map(|marker| Considered::new(marker, verdict)),
            );
            if left > 0 {
                notes.push(Considered::new(format!("and {left} more"), verdict));
            }
        }
        match (counts, !foreign) {
            (true, _) => Self::Everyone,
            (false, false) => Self::Callers(callers),
            (false, true) => Self::None,
        }
    }
}

/// What stands in the Service itself, or beside it under its name.
fn own_markers(index: &Index, id: &ObjectId, service: &Service, controller: bool) -> Vec<String> {
    let mut markers = Vec::new();
    let kinds = ["Agent", "SandboxAgent", "MCPServer"];
    for (kind, name) in service.owners.iter().filter(|(kind, _)| kinds.contains(&kind.as_str())) {
        markers.push(format!("{kind} {name} owns it"));
    }
    // Those of kagent 1.0 have no Service: one with their name is something else.
    if index.has_agent(KagentApi::V0, id) {
        markers.push("an Agent has its name".to_owned());
    }
    if index.has_sandbox(id) {
        markers.push("a SandboxAgent has its name".to_owned());
    }
    if index.mcp_server(id).is_some() {
        markers.push("an MCPServer has its name".to_owned());
    }
    if controller {
        markers.push("it is the kagent controller".to_owned());
    }
    if service.mcp_label {
        markers.push("label kagent.dev/mcp-service=true".to_owned());
    }
    if service.mcp_annotation {
        markers.push("an annotation kagent.dev/mcp-service-*".to_owned());
    }
    if service.allowed {
        markers.push("annotation kagent-proxy.dev/route=true".to_owned());
    }
    let apps = service.ports.iter().filter_map(|port| port.app_protocol.as_deref());
    if let Some(app) = apps.into_iter().find(|app| APP_PROTOCOLS.contains(app)) {
        markers.push(format!("appProtocol {app}"));
    }
    markers
}
