//! What an Agent says that it uses: the hosts of its tool servers and sub-agents, and which tools of each.
//!
//! Pure. Judges nothing: whether a host can be reached is the route table's to say.

use std::sync::Arc;

use super::index::Index;
use super::object::{Agent, ServerKind};
use crate::route::{ObjectId, Uses};

/// What this Agent uses, by host; `None` if it does not say (one that is not declarative, that is gone, or whose
/// template is not known).
#[must_use]
pub fn of(index: &Index, agent: &ObjectId) -> Option<Uses> {
    let said = index.declared_by(agent);
    if said.is_empty() {
        return None;
    }
    let mut uses = Uses::new();
    for agent in &said {
        for id in agent.agents.iter().chain(&agent.services).chain(&agent.mcp_servers) {
            uses.entry(host(id)).or_default();
        }
        for host in agent.remotes.iter().flat_map(|remote| hosts_of(index, remote)) {
            uses.entry(host).or_default();
        }
    }
    for (host, names) in said.iter().flat_map(|agent| listed(index, agent)) {
        let entry = uses.entry(host).or_default();
        // Listed more than once.
        let all = entry.iter().chain(names.iter()).cloned().collect::<Vec<_>>();
        *entry = all.into();
    }
    // A server that is used once as a whole is used as a whole.
    for id in said.iter().flat_map(|agent| whole(index, agent)) {
        uses.insert(id, Arc::default());
    }
    Some(uses)
}

/// The hosts of which an Agent lists tools, with their names.
fn listed<'a>(
    index: &'a Index,
    agent: &'a Agent,
) -> impl Iterator<Item = (Box<str>, &'a Arc<[Box<str>]>)> {
    let named = agent.tools.iter().filter(|tools| !tools.names.is_empty());
    named.flat_map(move |tools| {
        let hosts = match tools.kind {
            ServerKind::Remote => hosts_of(index, &tools.server),
            _ => vec![host(&tools.server)],
        };
        hosts.into_iter().map(|host| (host, &tools.names))
    })
}

/// The hosts that an Agent uses at least once without listing tools.
fn whole(index: &Index, agent: &Agent) -> Vec<Box<str>> {
    let times = |all: &[ObjectId], id: &ObjectId| all.iter().filter(|other| *other == id).count();
    let listed = |kind: ServerKind, id: &ObjectId| {
        let named = agent.tools.iter().filter(|tools| !tools.names.is_empty());
        named.filter(|tools| tools.kind == kind && tools.server == *id).count()
    };
    let mut all = Vec::new();
    for (kind, ids) in [
        (ServerKind::Remote, &agent.remotes),
        (ServerKind::Service, &agent.services),
        (ServerKind::McpServer, &agent.mcp_servers),
    ] {
        for id in ids.iter().filter(|id| times(ids, id) > listed(kind, id)) {
            match kind {
                ServerKind::Remote => all.extend(hosts_of(index, id)),
                _ => all.push(host(id)),
            }
        }
    }
    all
}

/// The hosts that a `RemoteMCPServer` leads to: where its header names one, by the proxy, that one.
pub(super) fn hosts_of(index: &Index, remote: &ObjectId) -> Vec<Box<str>> {
    let Some(server) = index.remote(remote) else { return Vec::new() };
    let target = server.literal_host.as_deref().unwrap_or(&server.host);
    index.host(target).map(|host| host.to_string().into()).into_iter().collect()
}

/// The host of an object's Service, which has its name.
fn host(id: &ObjectId) -> Box<str> {
    format!("{}.{}", id.name, id.namespace).into()
}
