//! What the watches have told, and which hosts a change touches.
//!
//! Owned by one task, without locks. An update costs what it touches: every object knows by reverse
//! look-up the Services it speaks of. Pure; knows no client and no route.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::object::{Agent, McpServer, Object, ObjectKind, RemoteServer, Service, Slice};
use super::pod::Pod;
use crate::route::{HostKey, ObjectId};
use addresses::Addresses;

mod addresses;
mod own;

/// Ids in the order of their names, so that every run decides alike.
pub type Ids = BTreeSet<ObjectId>;

/// A host of the cluster: a Service, or one pod of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterHost {
    /// The Service.
    pub service: ObjectId,
    /// The pod's name in DNS.
    pub pod: Option<Box<str>>,
}

/// Everything known.
#[derive(Debug, Default)]
pub struct Index {
    cluster_domain: Box<str>,
    own_addresses: Vec<IpAddr>,
    addresses: Addresses,
    services: HashMap<ObjectId, Service>,
    slices: HashMap<ObjectId, Slice>,
    slices_of: HashMap<ObjectId, Ids>,
    namespaces: HashSet<Arc<str>>,
    agents: HashMap<ObjectId, Agent>,
    sandboxes: HashSet<ObjectId>,
    remotes: HashMap<ObjectId, RemoteServer>,
    mcp_servers: HashMap<ObjectId, McpServer>,
    /// By the Service of the URL.
    remotes_at: HashMap<ObjectId, Ids>,
    /// By the Service of a literal `x-kagent-host`.
    literals_at: HashMap<ObjectId, Ids>,
    users_of_remote: HashMap<ObjectId, Ids>,
    users_of_service: HashMap<ObjectId, Ids>,
    /// To be decided anew.
    plan_dirty: Ids,
    /// Agents that may use something else than before.
    uses_dirty: Ids,
    /// With other endpoints than before.
    endpoints_dirty: Ids,
    /// Of Pods that are gone for good.
    ended: Vec<IpAddr>,
}

// === impl ClusterHost ===

impl ClusterHost {
    /// Reads a host name. `pod.name.ns` only with the cluster's suffix, as DNS has it.
    #[must_use]
    pub fn parse(host: &str, cluster_domain: &str) -> Option<Self> {
        let (key, _) = HostKey::parse(host, cluster_domain).ok()?;
        let labels: Vec<&str> = key.as_str().split('.').collect();
        match labels.as_slice() {
            [name, space] => Some(Self { service: ObjectId::new(space, name), pod: None }),
            [pod, name, space] if key.given() != key.as_str() => {
                Some(Self { service: ObjectId::new(space, name), pod: Some((*pod).into()) })
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for ClusterHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(pod) = &self.pod {
            write!(f, "{pod}.")?;
        }
        write!(f, "{}.{}", self.service.name, self.service.namespace)
    }
}

// === impl Index ===

impl Index {
    /// Nothing is known. A Service with one of `own_addresses` is ourselves.
    #[must_use]
    pub fn new(cluster_domain: &str, own_addresses: &[IpAddr]) -> Self {
        Self {
            cluster_domain: cluster_domain.into(),
            own_addresses: own_addresses.iter().map(IpAddr::to_canonical).collect(),
            ..Self::default()
        }
    }

    /// An object as it is now; `None` if it is gone.
    pub fn apply(&mut self, kind: ObjectKind, id: ObjectId, object: Option<Object>) {
        match (kind, object) {
            (ObjectKind::Service, Some(Object::Service(new))) => self.set_service(id, Some(new)),
            (ObjectKind::Service, _) => self.set_service(id, None),
            (ObjectKind::Pod, Some(Object::Pod(new))) => self.set_pod(&id, new),
            (ObjectKind::Pod, _) => self.set_pod(&id, None),
            (ObjectKind::EndpointSlice, Some(Object::Slice(new))) => self.set_slice(id, Some(new)),
            (ObjectKind::EndpointSlice, _) => self.set_slice(id, None),
            (ObjectKind::Agent, Some(Object::Agent(new))) => self.set_agent(id, Some(new)),
            (ObjectKind::Agent, _) => self.set_agent(id, None),
            (ObjectKind::RemoteMcpServer, Some(Object::RemoteServer(new))) => {
                self.set_remote(id, new)
            }
            (ObjectKind::RemoteMcpServer, _) => self.set_remote(id, None),
            (ObjectKind::McpServer, Some(Object::McpServer(new))) => {
                if self.mcp_servers.get(&id) != Some(&new) {
                    self.mcp_servers.insert(id.clone(), new);
                    self.touch(&id);
                }
            }
            (ObjectKind::McpServer, _) => {
                if self.mcp_servers.remove(&id).is_some() {
                    self.touch(&id);
                }
            }
            (ObjectKind::SandboxAgent, Some(_)) => {
                if self.sandboxes.insert(id.clone()) {
                    self.touch(&id);
                }
            }
            (ObjectKind::SandboxAgent, None) => {
                if self.sandboxes.remove(&id) {
                    self.touch(&id);
                }
            }
            (ObjectKind::Namespace, Some(_)) => {
                if self.namespaces.insert(Arc::clone(&id.name)) {
                    self.touch_named_in(&id.name);
                }
            }
            (ObjectKind::Namespace, None) => {
                if self.namespaces.remove(&id.name) {
                    self.touch_named_in(&id.name);
                }
            }
        }
    }

    /// Services to be decided anew, and those with other endpoints; both are forgotten here.
    pub fn take_changes(&mut self) -> (Ids, Ids) {
        (std::mem::take(&mut self.plan_dirty), std::mem::take(&mut self.endpoints_dirty))
    }

    /// Addresses of Pods that are gone, and which no other Pod has; they are forgotten here. A Pod that is not seen
    /// any more, or only out of its slices, is not gone.
    pub fn take_ended(&mut self) -> Vec<IpAddr> {
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|address| self.addresses.pods_at(*address).is_empty());
        ended
    }

    /// Decide this Service anew.
    pub fn touch(&mut self, service: &ObjectId) {
        self.plan_dirty.insert(service.clone());
        self.endpoints_dirty.insert(service.clone());
    }

    fn touch_all<'a>(&mut self, services: impl IntoIterator<Item = &'a ObjectId>) {
        for service in services {
            self.touch(service);
        }
    }

    /// What is said of hosts that somebody names depends on whether their namespace exists.
    fn touch_named_in(&mut self, namespace: &str) {
        let named = self.remotes_at.keys().filter(|service| *service.namespace == *namespace);
        let named: Ids = named.cloned().collect();
        self.touch_all(&named);
    }

    /// All Pods of a namespace are known from now on, or no longer; of every namespace, without one.
    /// Where they are not, what slices say has to be believed.
    pub fn set_sees_pods(&mut self, namespace: Option<&str>, sees: bool) {
        if self.addresses.set_sees(namespace, sees) {
            self.endpoints_dirty.extend(self.slices_of.keys().cloned());
        }
    }

    fn set_service(&mut self, id: ObjectId, new: Option<Service>) {
        let old = self.services.get(&id);
        if old == new.as_ref() {
            return;
        }
        let touched = self.addresses.set_service(&id, old, new.as_ref());
        self.endpoints_dirty.extend(touched);
        self.touch(&id);
        match new {
            Some(new) => self.services.insert(id.clone(), new),
            None => self.services.remove(&id),
        };
        if self.is_ourselves(&id) {
            self.own_kind_changed(&id.namespace);
        }
    }

    fn set_pod(&mut self, id: &ObjectId, new: Option<Pod>) {
        let own = self.own_pod().is_some_and(|(own, _)| own == id);
        let uid = new.as_ref().map(|pod| &pod.uid);
        if let Some(old) = self.addresses.pod(id)
            && uid != Some(&old.uid)
            && !old.host_network
            && self.sees_pods(&id.namespace)
        {
            self.ended.extend(&old.addresses);
        }
        let touched = self.addresses.set_pod(id, new);
        self.endpoints_dirty.extend(touched);
        if own || self.own_pod().is_some_and(|(own, _)| own == id) {
            self.own_kind_changed(&id.namespace);
        }
    }

    fn set_slice(&mut self, id: ObjectId, new: Option<Slice>) {
        if self.slices.get(&id) == new.as_ref() {
            return;
        }
        let old = self.slices.remove(&id);
        self.endpoints_dirty.extend(self.addresses.set_slice(old.as_ref(), new.as_ref()));
        let mut own = false;
        for slice in [old.as_ref(), new.as_ref()].into_iter().flatten() {
            let Some(service) = &slice.service else { continue };
            self.endpoints_dirty.insert(service.clone());
            let ours = slice.endpoints.iter().any(|e| self.own_addresses.contains(&e.address));
            // Names of pods, and whether the Service is ourselves, are part of the decision.
            own |= ours;
            if ours || slice.endpoints.iter().any(|e| e.hostname.is_some()) {
                self.plan_dirty.insert(service.clone());
            }
        }
        if let Some(service) = old.and_then(|old| old.service) {
            unlink(&mut self.slices_of, &service, &id);
        }
        if let Some(new) = new {
            if let Some(service) = &new.service {
                link(&mut self.slices_of, service, &id);
            }
            self.slices.insert(id.clone(), new);
        }
        if own {
            self.own_kind_changed(&id.namespace);
        }
    }

    fn set_agent(&mut self, id: ObjectId, new: Option<Agent>) {
        // Its status changes often, and says nothing that we read.
        if self.agents.get(&id) == new.as_ref() {
            return;
        }
        self.touch(&id);
        self.uses_dirty.insert(id.clone());
        let old = self.agents.remove(&id).unwrap_or_default();
        let now = new.clone().unwrap_or_default();
        for (before, after, users) in [
            (&old.remotes, &now.remotes, &mut self.users_of_remote),
            (&old.services, &now.services, &mut self.users_of_service),
        ] {
            before.iter().for_each(|used| unlink(users, used, &id));
            after.iter().for_each(|used| link(users, used, &id));
        }
        let remotes = old.remotes.iter().chain(&now.remotes);
        let mut hosts: Ids = remotes.flat_map(|remote| self.spoken_of(remote)).collect();
        hosts.extend(old.services.iter().chain(&now.services).cloned());
        self.touch_all(&hosts);
        if let Some(new) = new {
            self.agents.insert(id, new);
        }
    }

    fn set_remote(&mut self, id: ObjectId, new: Option<RemoteServer>) {
        if self.remotes.get(&id) == new.as_ref() {
            return;
        }
        self.uses_dirty.extend(self.users_of_remote(&id));
        let mut hosts = self.spoken_of(&id);
        for service in &hosts {
            unlink(&mut self.remotes_at, service, &id);
            unlink(&mut self.literals_at, service, &id);
        }
        self.remotes.remove(&id);
        if let Some(new) = new {
            if let Some(host) = self.host(&new.host) {
                link(&mut self.remotes_at, &host.service, &id);
            }
            if let Some(host) = new.literal_host.as_deref().and_then(|host| self.host(host)) {
                link(&mut self.literals_at, &host.service, &id);
            }
            self.remotes.insert(id.clone(), new);
            hosts.extend(self.spoken_of(&id));
        }
        self.touch_all(&hosts);
    }

    /// The Agents that may use something else than before; they are told once.
    pub fn take_uses(&mut self) -> Ids {
        std::mem::take(&mut self.uses_dirty)
    }

    /// An Agent.
    #[must_use]
    pub fn agent(&self, id: &ObjectId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// A `RemoteMCPServer`.
    #[must_use]
    pub fn remote(&self, id: &ObjectId) -> Option<&RemoteServer> {
        self.remotes.get(id)
    }

    /// The Services that a tool server's object names.
    fn spoken_of(&self, remote: &ObjectId) -> Ids {
        let Some(remote) = self.remotes.get(remote) else { return Ids::new() };
        let hosts = [Some(remote.host.as_str()), remote.literal_host.as_deref()];
        hosts.into_iter().flatten().filter_map(|host| self.host(host)).map(|h| h.service).collect()
    }

    /// A host name as a host of this cluster.
    #[must_use]
    pub fn host(&self, host: &str) -> Option<ClusterHost> {
        ClusterHost::parse(host, &self.cluster_domain)
    }

    /// A Service.
    #[must_use]
    pub fn service(&self, id: &ObjectId) -> Option<&Service> {
        self.services.get(id)
    }

    /// Whether an Agent of this name exists.
    #[must_use]
    pub fn has_agent(&self, id: &ObjectId) -> bool {
        self.agents.contains_key(id)
    }

    /// Whether a `SandboxAgent` of this name exists.
    #[must_use]
    pub fn has_sandbox(&self, id: &ObjectId) -> bool {
        self.sandboxes.contains(id)
    }

    /// An `MCPServer`.
    #[must_use]
    pub fn mcp_server(&self, id: &ObjectId) -> Option<&McpServer> {
        self.mcp_servers.get(id)
    }

    /// Whether namespaces are known and this one is not among them.
    #[must_use]
    pub fn lacks_namespace(&self, name: &str) -> bool {
        !self.namespaces.is_empty() && !self.namespaces.contains(name)
    }

    /// Tool servers whose URL names a Service, in the order of their names.
    pub fn remotes_at(
        &self,
        service: &ObjectId,
    ) -> impl Iterator<Item = (&ObjectId, &RemoteServer)> {
        let ids = self.remotes_at.get(service).into_iter().flatten();
        ids.filter_map(|id| Some((id, self.remotes.get(id)?)))
    }

    /// Tool servers with a literal `x-kagent-host` of a Service.
    pub fn literals_at(&self, service: &ObjectId) -> impl Iterator<Item = &ObjectId> {
        self.literals_at.get(service).into_iter().flatten()
    }

    /// Agents that have a tool server among their tools.
    #[must_use]
    pub fn users_of_remote(&self, remote: &ObjectId) -> Ids {
        self.users_of_remote.get(remote).cloned().unwrap_or_default()
    }

    /// Agents that have a Service among their tools.
    pub fn users_of_service(&self, service: &ObjectId) -> impl Iterator<Item = &ObjectId> {
        self.users_of_service.get(service).into_iter().flatten()
    }

    /// The slices of a Service.
    pub fn slices(&self, service: &ObjectId) -> impl Iterator<Item = &Slice> {
        let ids = self.slices_of.get(service).into_iter().flatten();
        ids.filter_map(|id| self.slices.get(id))
    }

    /// Whether all Pods of a namespace are known.
    #[must_use]
    pub fn sees_pods(&self, namespace: &str) -> bool {
        self.addresses.sees(Some(namespace))
    }

    /// The Pods with an address: several on the network of their node, else the one whose it is.
    #[must_use]
    pub fn pods_at(&self, address: IpAddr) -> Vec<(&ObjectId, &Pod)> {
        self.addresses.pods_at(address)
    }

    /// The Services whose slices claim an address.
    pub fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectId> {
        self.addresses.claimants(address)
    }

    /// The Service whose own address it is.
    #[must_use]
    pub fn cluster_ip_of(&self, address: IpAddr) -> Option<&ObjectId> {
        self.addresses.cluster_ip_of(address)
    }

    /// How many objects of a kind are known.
    #[must_use]
    pub fn count(&self, kind: ObjectKind) -> usize {
        match kind {
            ObjectKind::Service => self.services.len(),
            ObjectKind::EndpointSlice => self.slices.len(),
            ObjectKind::Pod => self.addresses.count(),
            ObjectKind::Namespace => self.namespaces.len(),
            ObjectKind::Agent => self.agents.len(),
            ObjectKind::SandboxAgent => self.sandboxes.len(),
            ObjectKind::RemoteMcpServer => self.remotes.len(),
            ObjectKind::McpServer => self.mcp_servers.len(),
        }
    }
}

fn link(map: &mut HashMap<ObjectId, Ids>, key: &ObjectId, id: &ObjectId) {
    map.entry(key.clone()).or_default().insert(id.clone());
}

fn unlink(map: &mut HashMap<ObjectId, Ids>, key: &ObjectId, id: &ObjectId) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}
