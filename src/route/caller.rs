//! Who sends requests from an address, how surely that is known, and what it says that it uses.
//!
//! Knows names; not the objects they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::{HashTrieMapSync, HashTrieSetSync};

use super::RouteTable;
use super::discovered::{HostState, ObjectId};
use crate::workers::near::Common;

/// An Agent that calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// Which.
    pub id: ObjectId,
    /// The same as labels and logs say it: `namespace/name`.
    pub label: Arc<str>,
    /// How that is known.
    pub proof: Proof,
}

/// How surely an address is a caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A running Pod of the Agent has it.
    Pod,
    /// An EndpointSlice says so, which others could write; Pods are not seen.
    Slice,
    /// The configuration says so.
    Config,
}

/// What an Agent says that it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// The hosts, and which tools of each: all of them where none is named.
    pub hosts: BTreeMap<Box<str>, Arc<[Box<str>]>>,
    /// Its calls cannot be told from those of others (D37).
    pub anonymous: bool,
}

/// All callers of one moment. Cheap to clone: what discovery changes shares everything else.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    at: HashTrieMapSync<IpAddr, Common<Caller>>,
    uses: HashTrieMapSync<ObjectId, Arc<Uses>>,
    /// The Agents that there are, wherever they run.
    agents: HashTrieSetSync<ObjectId>,
    written: Arc<WrittenCallers>,
}

/// Callers that somebody wrote down.
#[derive(Debug, Default)]
pub struct WrittenCallers {
    /// Who calls from where; the first that fits is taken.
    pub at: Vec<(IpNet, Common<Caller>)>,
    /// What those say that they use.
    pub uses: Vec<(ObjectId, Arc<Uses>)>,
}

// === impl Callers ===

impl Callers {
    /// These, with those that somebody wrote down.
    #[must_use]
    pub fn with(self, written: &Arc<WrittenCallers>) -> Self {
        Self { written: Arc::clone(written), ..self }
    }

    /// Those that somebody wrote down.
    #[must_use]
    pub fn written(&self) -> &Arc<WrittenCallers> {
        &self.written
    }

    /// The Agent behind an address; `None` forgets it.
    pub fn set(&mut self, address: IpAddr, caller: Option<Common<Caller>>) {
        match caller {
            Some(caller) => self.at.insert_mut(address, caller),
            None => {
                self.at.remove_mut(&address);
            }
        }
    }

    /// What an Agent says that it uses; `None` forgets it.
    pub fn set_uses(&mut self, agent: ObjectId, uses: Option<Arc<Uses>>) {
        match uses {
            Some(uses) => self.uses.insert_mut(agent, uses),
            None => {
                self.uses.remove_mut(&agent);
            }
        }
    }

    /// Whether there is an Agent of this name.
    pub fn set_agent(&mut self, agent: ObjectId, exists: bool) {
        if exists {
            self.agents.insert_mut(agent);
        } else {
            self.agents.remove_mut(&agent);
        }
    }

    /// What Agents say that they use; one that says nothing may use anything.
    pub fn uses(&self) -> impl Iterator<Item = (&ObjectId, &Arc<Uses>)> {
        let written = self.written.uses.iter().map(|(agent, uses)| (agent, uses));
        written.chain(self.uses.iter())
    }

    /// The Agent behind an address, where exactly one is known (D6).
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&Common<Caller>> {
        if self.at.is_empty() && self.written.at.is_empty() {
            return None;
        }
        let address = address.to_canonical();
        let written = || self.written.at.iter().find(|(net, _)| net.contains(&address));
        self.at.get(&address).or_else(|| written().map(|(_, caller)| caller))
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Every Agent that there is, `namespace/name`: an object, the owner of a Service, or what somebody wrote down.
    /// Only these may call by their names from now on.
    #[must_use]
    pub fn agents(&self) -> BTreeSet<String> {
        let Callers { at, agents, written, .. } = &self.callers;
        let at = at.values().chain(written.at.iter().map(|(_, caller)| caller));
        let owners = self.hosts().filter_map(|discovered| match &discovered.state {
            HostState::Open(open) => open.agent.as_deref(),
            _ => None,
        });
        let said = self.callers.uses().map(|(agent, _)| agent);
        let all = at.map(|caller| &caller.id).chain(agents.iter()).chain(owners).chain(said);
        all.map(ToString::to_string).collect()
    }
}

// === impl Caller ===

impl Caller {
    /// This Agent, known by this.
    #[must_use]
    pub fn new(id: ObjectId, proof: Proof) -> Self {
        let label = id.to_string().into();
        Self { id, label, proof }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

// === impl Proof ===

impl Proof {
    /// The word of the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Slice => "slice",
            Self::Config => "config",
        }
    }
}
