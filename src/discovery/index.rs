//! What the watches have told, and which hosts a change touches.
//!
//! Owned by one task, without locks. An update costs what it touches: every object knows by reverse
//! look-up the Services it speaks of. Pure; knows no client and no route.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::object::{
    Agent, KagentApi, McpServer, NamespaceLabels, Object, ObjectKind, RemoteServer, Service, Slice,
};
use super::pod::Pod;
use crate::route::{HostKey, ObjectId};
use addresses::Addresses;
use groups::BothGroups;
use servers::Naming;
use users::Users;

mod addresses;
mod groups;
mod namespaces;
mod own;
mod servers;
mod users;

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
    namespaces: HashMap<Arc<str>, NamespaceLabels>,
    agents: BothGroups<Agent>,
    sandboxes: HashSet<ObjectId>,
    templates: HashMap<ObjectId, Agent>,
    remotes: BothGroups<RemoteServer>,
    mcp_servers: HashMap<ObjectId, McpServer>,
    /// By the Service of the URL.
    remotes_at: Naming,
    /// By the Service of a literal `x-kagent-host`.
    literals_at: Naming,
    users_of_remote: Users,
    users_of_service: Users,
    users_of_template: Users,
    users_of_agent: Users,
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
            (ObjectKind::Agent(api), Some(Object::Agent(new))) => {
                self.set_agent(api, &id, Some(new));
            }
            (ObjectKind::Agent(api), _) => self.set_agent(api, &id, None),
            (ObjectKind::AgentTemplate, Some(Object::AgentTemplate(new))) => {
                self.set_template(id, Some(new));
            }
            (ObjectKind::AgentTemplate, _) => self.set_template(id, None),
            (ObjectKind::RemoteMcpServer(api), Some(Object::RemoteServer(new))) => {
                self.set_remote(api, &id, new);
            }
            (ObjectKind::RemoteMcpServer(api), _) => self.set_remote(api, &id, None),
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
            (ObjectKind::Namespace, Some(Object::Namespace(new))) => {
                self.set_namespace(&id.name, Some(new));
            }
            (ObjectKind::Namespace, _) => self.set_namespace(&id.name, None),
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

    /// The Agents that may use something else than before; they are told once.
    pub fn take_uses(&mut self) -> Ids {
        std::mem::take(&mut self.uses_dirty)
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

    /// Whether an Agent of this name exists in a group.
    #[must_use]
    pub fn has_agent(&self, api: KagentApi, id: &ObjectId) -> bool {
        self.agents.of(api).contains_key(id)
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
            ObjectKind::Agent(api) => self.agents.of(api).len(),
            ObjectKind::SandboxAgent => self.sandboxes.len(),
            ObjectKind::AgentTemplate => self.templates.len(),
            ObjectKind::RemoteMcpServer(api) => self.remotes.of(api).len(),
            ObjectKind::McpServer => self.mcp_servers.len(),
        }
    }
}

fn link<T: Ord + Clone>(map: &mut HashMap<ObjectId, BTreeSet<T>>, key: &ObjectId, one: &T) {
    map.entry(key.clone()).or_default().insert(one.clone());
}

fn unlink<T: Ord>(map: &mut HashMap<ObjectId, BTreeSet<T>>, key: &ObjectId, one: &T) {
    if let Some(all) = map.get_mut(key) {
        all.remove(one);
        if all.is_empty() {
            map.remove(key);
        }
    }
}
