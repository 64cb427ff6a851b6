//! The addresses behind a lead: ready pods, from the slices of its Service.
//!
//! Pure. Terminating pods are not ready and leave at once; their running streams live on in their
//! leases. `discovery/publish.rs` hands the result to the cluster of the route.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::decide::{Lead, To};
use super::index::{ClusterHost, Index};
use super::object::{Service, Slice, SliceEndpoint};
use crate::config::Endpoints;
use crate::upstream::{Place, PlaceState};

/// What a choice of addresses depends on besides the slices.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Pods, or the Service's own address.
    pub service_address: bool,
    /// Our zone, if known.
    pub zone: Option<String>,
    /// Our own address; its family is the one we can surely dial.
    pub own_address: Option<IpAddr>,
}

// === impl View ===

impl View {
    /// From the configuration.
    #[must_use]
    pub fn new(endpoints: Endpoints, zone: Option<String>, own_address: Option<IpAddr>) -> Self {
        Self { service_address: endpoints == Endpoints::Service, zone, own_address }
    }

    /// The places behind a lead, in the order of their addresses.
    #[must_use]
    pub fn places(&self, index: &Index, host: &ClusterHost, lead: &Lead) -> Vec<Place> {
        let Some(service) = index.service(&host.service) else { return Vec::new() };
        if self.service_address && !service.headless && host.pod.is_none() {
            return self.cluster_address(service, lead).into_iter().collect();
        }
        let ipv6 = self.own_address.map_or(service.ipv6, |own| own.is_ipv6());
        let mut seen = HashSet::new();
        let mut places = Vec::new();
        // A dual-stack pod stands in a slice of each family; it is one backend.
        for family in [ipv6, !ipv6] {
            if family != ipv6 && !places.is_empty() && seen.is_empty() {
                // Without names they cannot be told apart; one family is all of them.
                break;
            }
            for slice in index.slices(&host.service).filter(|slice| slice.ipv6 == family) {
                let Some(port) = port_of(slice, lead) else { continue };
                if family == ipv6 {
                    // Those that are not ready too: they must not come back by their other address.
                    seen.extend(slice.endpoints.iter().filter_map(|e| e.uid.clone()));
                }
                for endpoint in slice.endpoints.iter().filter(|endpoint| fits(endpoint, host)) {
                    let known = endpoint.uid.as_ref().is_some_and(|uid| seen.contains(uid));
                    if family == ipv6 || !known {
                        places.push(self.place(endpoint, port));
                    }
                }
            }
        }
        places.sort_by(|a, b| (a.address, &a.uid).cmp(&(b.address, &b.uid)));
        places.dedup();
        places
    }

    fn place(&self, endpoint: &SliceEndpoint, port: u16) -> Place {
        let far = match (&self.zone, &endpoint.zone) {
            (Some(ours), Some(theirs)) => **ours != **theirs,
            _ => false,
        };
        let address = SocketAddr::new(endpoint.address, port);
        Place { address, uid: endpoint.uid.clone(), far, state: PlaceState::Ready }
    }

    fn cluster_address(&self, service: &Service, lead: &Lead) -> Option<Place> {
        let same = |ip: &&IpAddr| self.own_address.is_none_or(|own| own.is_ipv6() == ip.is_ipv6());
        let ips = &service.cluster_ips;
        let ip = ips.iter().find(same).or_else(|| ips.first())?;
        Some(Place { address: SocketAddr::new(*ip, lead.port), uid: None, far: false, state: PlaceState::Ready })
    }
}

fn fits(endpoint: &SliceEndpoint, host: &ClusterHost) -> bool {
    endpoint.ready && (host.pod.is_none() || host.pod == endpoint.hostname)
}

/// The pods' port.
fn port_of(slice: &Slice, lead: &Lead) -> Option<u16> {
    match &lead.to {
        To::Named(name) => slice.ports.iter().find(|(known, _)| known == name).map(|(_, n)| *n),
        To::Number => Some(lead.port),
    }
}
