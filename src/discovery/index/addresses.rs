//! Who has which address: pods, and the Services that claim it.
//!
//! A slice is only somebody's word; a Pod's address is the node's. Pure. What a change of a Pod, of a
//! slice or of a `ClusterIP` touches comes out as the Services that claim the address.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::Ids;
use crate::discovery::object::{Service, Slice};
use crate::discovery::pod::Pod;
use crate::route::ObjectId;

/// Everything known of addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    pods: HashMap<ObjectId, Pod>,
    /// The running Pods with an address, in the order in which they got it.
    pods_at: HashMap<IpAddr, Vec<ObjectId>>,
    /// The Services that claim an address, each once for every slice that does.
    claims: HashMap<IpAddr, Vec<ObjectId>>,
    cluster_ips: HashMap<IpAddr, ObjectId>,
    /// Where all Pods are known.
    seen: HashSet<Box<str>>,
    /// They are known in every namespace.
    seen_everywhere: bool,
}

// === impl Addresses ===

impl Addresses {
    /// Whether all Pods of a namespace are known; of every namespace, without one.
    pub(super) fn sees(&self, namespace: Option<&str>) -> bool {
        self.seen_everywhere || namespace.is_some_and(|name| self.seen.contains(name))
    }

    /// All Pods of a namespace are known from now on, or no longer; of every namespace, without one.
    /// Whether that is news.
    pub(super) fn set_sees(&mut self, namespace: Option<&str>, sees: bool) -> bool {
        match namespace {
            None => std::mem::replace(&mut self.seen_everywhere, sees) != sees,
            Some(name) if sees => self.seen.insert(name.into()),
            Some(name) => self.seen.remove(name),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.pods.len()
    }

    pub(super) fn pod(&self, id: &ObjectId) -> Option<&Pod> {
        self.pods.get(id)
    }

    /// A Pod as it is now, `None` if it does not run; the Services that this touches.
    pub(super) fn set_pod(&mut self, id: &ObjectId, new: Option<Pod>) -> Ids {
        if self.pods.get(id) == new.as_ref() {
            return Ids::new();
        }
        let old = self.pods.remove(id);
        let before = old.as_ref().map(|pod| &*pod.addresses).unwrap_or_default();
        let after = new.as_ref().map(|pod| &*pod.addresses).unwrap_or_default();
        let same = old.as_ref().map(|pod| &pod.uid) == new.as_ref().map(|pod| &pod.uid);
        for address in before.iter().filter(|address| !same || !after.contains(address)) {
            remove(&mut self.pods_at, address, id);
        }
        for address in after {
            let here = self.pods_at.entry(*address).or_insert_with(|| Vec::with_capacity(1));
            if !here.contains(id) {
                here.push(id.clone());
            }
        }
        let touched = before.iter().chain(after).flat_map(|address| self.claimants(*address));
        let touched = touched.cloned().collect();
        if let Some(new) = new {
            self.pods.insert(id.clone(), new);
        }
        touched
    }

    /// A slice as it is now; the Services whose addresses it claims now, or no longer.
    pub(super) fn set_slice(&mut self, old: Option<&Slice>, new: Option<&Slice>) -> Ids {
        let (before, after) = (claimed(old), claimed(new));
        let mut touched = Ids::new();
        for (service, address) in before.difference(&after) {
            remove(&mut self.claims, address, service);
            touched.extend(self.claimants(*address).cloned());
        }
        for (service, address) in after.difference(&before) {
            touched.extend(self.claimants(*address).cloned());
            let here = self.claims.entry(*address).or_insert_with(|| Vec::with_capacity(1));
            here.push((*service).clone());
        }
        touched
    }

    /// A Service as it is now; those that claim one of its addresses.
    pub(super) fn set_service(
        &mut self,
        id: &ObjectId,
        old: Option<&Service>,
        new: Option<&Service>,
    ) -> Ids {
        let of = |service: Option<&Service>| -> HashSet<IpAddr> {
            service.iter().flat_map(|service| &service.cluster_ips).copied().collect()
        };
        let (before, after) = (of(old), of(new));
        for address in before.difference(&after) {
            // Another one may have it already.
            if self.cluster_ips.get(address) == Some(id) {
                self.cluster_ips.remove(address);
            }
        }
        for address in &after {
            self.cluster_ips.insert(*address, id.clone());
        }
        let changed = before.symmetric_difference(&after);
        changed.flat_map(|address| self.claimants(*address)).cloned().collect()
    }

    /// The Services whose slices hold an address, one of them several times perhaps.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectId> {
        self.claims.get(&address).into_iter().flatten()
    }

    /// The Service whose own address it is.
    pub(super) fn cluster_ip_of(&self, address: IpAddr) -> Option<&ObjectId> {
        self.cluster_ips.get(&address)
    }

    /// The Pods with an address: several on the network of their node; else the one that got it last,
    /// because what the API still says of another is late. One that is being deleted comes behind.
    pub(super) fn pods_at(&self, address: IpAddr) -> Vec<(&ObjectId, &Pod)> {
        let ids = self.pods_at.get(&address).into_iter().flatten();
        let here: Vec<_> = ids.filter_map(|id| Some((id, self.pods.get(id)?))).collect();
        let alone = here.iter().filter(|(_, pod)| !pod.host_network);
        match alone.max_by_key(|(_, pod)| !pod.leaving) {
            Some(holder) => vec![*holder],
            None => here,
        }
    }
}

type Claims<'a> = HashSet<(&'a ObjectId, IpAddr)>;

fn claimed(slice: Option<&Slice>) -> Claims<'_> {
    let Some((service, slice)) = slice.and_then(|slice| Some((slice.service.as_ref()?, slice)))
    else {
        return Claims::new();
    };
    slice.endpoints.iter().map(|endpoint| (service, endpoint.address)).collect()
}

/// Takes one of what is there away.
fn remove(map: &mut HashMap<IpAddr, Vec<ObjectId>>, key: &IpAddr, id: &ObjectId) {
    let Some(here) = map.get_mut(key) else { return };
    if let Some(at) = here.iter().position(|known| known == id) {
        here.remove(at);
    }
    if here.is_empty() {
        map.remove(key);
    }
}
