//! What of the table is about to change.
//!
//! Plain data; a table is made from the one before.

use std::net::IpAddr;
use std::sync::Arc;

use crate::route::{Caller, Discovered, HostKey, ObjectId, RouteTable, Uses};
use crate::upstream::Cluster;
use crate::workers::near::Common;

/// What of the table is about to change.
#[derive(Debug, Default)]
pub struct Changes {
    /// Hosts with what is known of them now.
    pub hosts: Vec<(HostKey, Option<Arc<Discovered>>)>,
    /// Addresses with the Agent behind them.
    pub callers: Vec<(IpAddr, Option<Common<Caller>>)>,
    /// Agents with what they say that they use.
    pub uses: Vec<(ObjectId, Option<Arc<Uses>>)>,
    /// Agents, with whether they exist.
    pub agents: Vec<(ObjectId, bool)>,
    /// The addresses of ourselves and the other replicas, where they are others now.
    pub replicas: Option<Vec<IpAddr>>,
    /// These are the first ones: what was discovered before by others does not hold any more.
    pub anew: bool,
    /// To be retired once the table is in force.
    pub retired: Vec<Arc<Cluster>>,
}

// === impl Changes ===

impl Changes {
    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.callers.is_empty()
            && self.uses.is_empty()
            && self.agents.is_empty()
            && self.retired.is_empty()
            && self.replicas.is_none()
            && !self.anew
    }

    /// The table with them.
    #[must_use]
    pub fn applied(self, table: &RouteTable) -> RouteTable {
        let mut table = table.clone();
        if self.anew {
            table.forget_discovered();
        }
        for (host, discovered) in self.hosts {
            table.set_discovered(host, discovered);
        }
        for (address, caller) in self.callers {
            table.callers.set(address, caller);
        }
        for (agent, uses) in self.uses {
            table.callers.set_uses(agent, uses);
        }
        for (agent, exists) in self.agents {
            table.callers.set_agent(agent, exists);
        }
        table
    }
}
