//! Which addresses, Services and Pods are our own.
//!
//! We know our addresses only; what a slice says of them is somebody's word. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Index;
use crate::discovery::object::SliceEndpoint;
use crate::discovery::pod::Pod;
use crate::route::ObjectId;

// === impl Index ===

impl Index {
    /// Other Pods of our namespace may be our replicas now, or no longer.
    pub(super) fn own_kind_changed(&mut self, namespace: &str) {
        let here = self.slices_of.keys().filter(|service| *service.namespace == *namespace);
        self.endpoints_dirty.extend(here.cloned());
    }

    /// Whether a Service leads to ourselves.
    #[must_use]
    pub fn is_ourselves(&self, service: &ObjectId) -> bool {
        self.own_endpoint(service).is_some()
    }

    /// The zone that our own endpoint stands in (D6), by a Service of our own namespace where that is
    /// known.
    #[must_use]
    pub fn own_zone(&self, service: &ObjectId) -> Option<&str> {
        let ours = self.own_pod().is_none_or(|(own, _)| own.namespace == service.namespace);
        self.own_endpoint(service).filter(|_| ours)?.zone.as_deref()
    }

    /// The addresses of ourselves and the other replicas behind one of our Services, of one family.
    #[must_use]
    pub fn replicas(&self, service: &ObjectId) -> Vec<IpAddr> {
        let ipv6 = self.own_endpoint(service).is_some_and(|own| own.address.is_ipv6());
        let endpoints = self.slices(service).flat_map(|slice| &slice.endpoints);
        let addresses = endpoints.map(|endpoint| endpoint.address);
        let all: BTreeSet<_> = addresses.filter(|address| address.is_ipv6() == ipv6).collect();
        all.into_iter().collect()
    }

    /// How many addresses of one family stand behind a Service.
    #[must_use]
    pub fn replicas_of(&self, service: &ObjectId) -> usize {
        let endpoints = self.slices(service).flat_map(|slice| &slice.endpoints);
        let (v6, v4): (BTreeSet<_>, BTreeSet<_>) =
            endpoints.map(|endpoint| endpoint.address).partition(IpAddr::is_ipv6);
        v4.len().max(v6.len())
    }

    fn own_endpoint(&self, service: &ObjectId) -> Option<&SliceEndpoint> {
        let mut endpoints = self.slices(service).flat_map(|slice| &slice.endpoints);
        endpoints.find(|endpoint| self.is_own_address(endpoint.address))
    }

    /// Whether an address is ours.
    #[must_use]
    pub fn is_own_address(&self, address: IpAddr) -> bool {
        self.own_addresses.contains(&address)
    }

    /// Our own Pod, where it is known and has an address to itself.
    pub(super) fn own_pod(&self) -> Option<(&ObjectId, &Pod)> {
        let mut here = self.own_addresses.iter().flat_map(|own| self.addresses.pods_at(*own));
        here.find(|(_, pod)| !pod.host_network)
    }

    /// Whether a Pod is ourselves or one of our replicas: the same object controls it, or a Service takes
    /// both.
    #[must_use]
    pub fn is_own_pod(&self, id: &ObjectId, pod: &Pod) -> bool {
        let Some((own_id, own)) = self.own_pod() else { return false };
        if id.namespace != own_id.namespace {
            return false;
        }
        let same = pod.controller.is_some() && pod.controller == own.controller;
        let claimants = own.addresses.iter().flat_map(|own| self.addresses.claimants(*own));
        let services = claimants.filter(|service| service.namespace == own_id.namespace);
        let mut selectors = services.filter_map(|id| self.service(id)).map(|s| &s.selector);
        same || selectors.any(|both| both.select(&own.labels) && both.select(&pod.labels))
    }
}
