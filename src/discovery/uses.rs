//! What an Agent says that it uses: the hosts of its tool servers and sub-agents, and which tools of each.
//!
//! Pure. Judges nothing: whether a host can be reached is the route table's to say.

use std::sync::Arc;

use super::index::Index;
use super::object::{Agent, KagentApi, ServerKind};
use crate::route::{ObjectId, Uses};

/// What this Agent uses, by host; `None` if it does not say (one that is not declarative, that is gone, or whose
/// template is not known).
#[must_use]
pub fn of(index: &Index, agent: &ObjectId) -> Option<Uses> {
    said(index, agent, &index.declared_by(agent))
}

/// The same by what [`Index::declared_by`] has found.
#[must_use]
pub fn said(index: &Index, agent: &ObjectId, said: &[(KagentApi, &Agent)]) -> Option<Uses> {
    if said.is_empty() {
        return None;
    }
    let said: Vec<(May<'_>, &Agent)> = said
        .iter()
        .map(|(api, said)| (May { index, namespace: &agent.namespace, api: *api }, *said))
        .collect();
    let mut uses = Uses { anonymous: !index.has_agent(KagentApi::V0, agent), ..Uses::default() };
    let hosts = &mut uses.hosts;
    for (may, agent) in &said {
        for host in agent.agents.iter().filter_map(|id| may.agent(id)) {
            hosts.entry(host).or_default();
        }
        for (kind, ids) in servers(agent) {
            for host in ids.iter().filter_map(|id| may.server(kind, id)) {
                hosts.entry(host).or_default();
            }
        }
    }
    for (host, names) in said.iter().flat_map(|(may, agent)| listed(may, agent)) {
        let entry = hosts.entry(host).or_default();
        // Listed more than once.
        let all = entry.iter().chain(names.iter()).cloned().collect::<Vec<_>>();
        *entry = all.into();
    }
    // A server that is used once as a whole is used as a whole.
    for host in said.iter().flat_map(|(may, agent)| whole(may, agent)) {
        hosts.insert(host, Arc::default());
    }
    Some(uses)
}

/// What an Agent of a namespace may use, as hosts. A reference to anything else does not count: kagent refuses an Agent
/// that has one (`validateCrossNamespaceReferences`).
struct May<'i> {
    index: &'i Index,
    namespace: &'i str,
    api: KagentApi,
}

// === impl May ===

impl May<'_> {
    fn agent(&self, id: &ObjectId) -> Option<Box<str>> {
        self.index.admits_to_agent(self.namespace, id).then(|| host(id))
    }

    fn server(&self, kind: ServerKind, id: &ObjectId) -> Option<Box<str>> {
        match kind {
            ServerKind::Remote if self.index.admits_to_remote((self.namespace, self.api), id) => {
                host_of(self.index, self.api, id)
            }
            // Those of other namespaces cannot be referred to.
            ServerKind::Service | ServerKind::McpServer if *id.namespace == *self.namespace => {
                Some(host(id))
            }
            _ => None,
        }
    }
}

/// The tool servers of an Agent, by kind.
fn servers(agent: &Agent) -> [(ServerKind, &[ObjectId]); 3] {
    [
        (ServerKind::Remote, &agent.remotes),
        (ServerKind::Service, &agent.services),
        (ServerKind::McpServer, &agent.mcp_servers),
    ]
}

/// The hosts of which an Agent lists tools, with their names.
fn listed<'a>(
    may: &'a May<'_>,
    agent: &'a Agent,
) -> impl Iterator<Item = (Box<str>, &'a Arc<[Box<str>]>)> {
    let named = agent.tools.iter().filter(|tools| !tools.names.is_empty());
    named.filter_map(|tools| Some((may.server(tools.kind, &tools.server)?, &tools.names)))
}

/// The hosts that an Agent uses at least once without listing tools.
fn whole(may: &May<'_>, agent: &Agent) -> Vec<Box<str>> {
    let times = |all: &[ObjectId], id: &ObjectId| all.iter().filter(|other| *other == id).count();
    let listed = |kind: ServerKind, id: &ObjectId| {
        let named = agent.tools.iter().filter(|tools| !tools.names.is_empty());
        named.filter(|tools| tools.kind == kind && tools.server == *id).count()
    };
    let mut all = Vec::new();
    for (kind, ids) in servers(agent) {
        let whole = ids.iter().filter(|id| times(ids, id) > listed(kind, id));
        all.extend(whole.filter_map(|id| may.server(kind, id)));
    }
    all
}

/// The host that a `RemoteMCPServer` leads to: where its header names one, by the proxy, that one.
pub(super) fn host_of(index: &Index, api: KagentApi, remote: &ObjectId) -> Option<Box<str>> {
    let server = index.remote(api, remote)?;
    let target = server.literal_host.as_deref().unwrap_or(&server.host);
    index.host(target).map(|host| host.to_string().into())
}

/// The host of an object's Service, which has its name.
fn host(id: &ObjectId) -> Box<str> {
    format!("{}.{}", id.name, id.namespace).into()
}
