//! The addresses behind a lead: pods that are ready, those that end and still serve, and those that are not ready,
//! from the slices of its Service.
//!
//! Pure. Does not judge which of them count. A pod that ends stays as long as it serves: its streams run on, and
//! new requests go to it only where no pod is ready. One that is not ready has the sessions that live there.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::decide::{Backend, PodPort};
use super::index::{ClusterHost, Index};
use super::object::{Service, Slice, SliceEndpoint};
use super::whose::{self, LeftOut};
use crate::config::{DiscoveryConfig, Endpoints};
use crate::route::ObjectId;
use crate::upstream::{EndpointSpec, EndpointState};

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

/// The endpoints of a Service, each with what becomes of it.
#[derive(Debug)]
pub struct Judged<'a> {
    service: Option<&'a Service>,
    endpoints: Vec<JudgedEndpoint<'a>>,
}

#[derive(Debug)]
struct JudgedEndpoint<'a> {
    slice: &'a Slice,
    endpoint: &'a SliceEndpoint,
    /// What lives there, or why it does not count.
    verdict: Result<Option<Arc<str>>, LeftOut>,
}

// === impl Judged ===

impl<'a> Judged<'a> {
    /// Looks at every endpoint once.
    #[must_use]
    pub fn of(index: &'a Index, config: &DiscoveryConfig, id: &ObjectId) -> Self {
        let service = index.service(id);
        let judge = |(slice, endpoint): (&'a Slice, &'a SliceEndpoint)| {
            let service = service?;
            let verdict = whose::endpoint(index, config, (id, service), endpoint);
            Some(JudgedEndpoint { slice, endpoint, verdict })
        };
        let all = index.slices(id).flat_map(|s| s.endpoints.iter().map(move |e| (s, e)));
        Self { service, endpoints: all.filter_map(judge).collect() }
    }

    /// What would be dialled otherwise, and why it is not.
    #[must_use]
    pub fn left_out(&self) -> Vec<(IpAddr, LeftOut)> {
        let takes = |state: EndpointState| state != EndpointState::NotReady;
        let dialled =
            self.endpoints.iter().filter(|judged| judged.endpoint.state.is_some_and(takes));
        let left = dialled.filter_map(|judged| {
            let why = judged.verdict.as_ref().err()?;
            Some((judged.endpoint.address, why.clone()))
        });
        let mut left: Vec<_> = left.collect();
        left.sort_by_key(|(address, _)| *address);
        left.dedup();
        left
    }
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
    pub fn places(
        &self,
        judged: &Judged<'_>,
        host: &ClusterHost,
        lead: &Backend,
    ) -> Vec<EndpointSpec> {
        let Some(service) = judged.service else { return Vec::new() };
        if self.service_address && !service.headless && host.pod.is_none() {
            // The node chooses among all endpoints, those that do not count too.
            let place = self.cluster_address(service, lead);
            return place.filter(|_| judged.left_out().is_empty()).into_iter().collect();
        }
        let ipv6 = self.own_address.map_or(service.ipv6, |own| own.is_ipv6());
        let mut seen = HashSet::new();
        let mut places = Vec::new();
        // A dual-stack pod stands in a slice of each family; it is one backend.
        for family in [ipv6, !ipv6] {
            let some =
                places.iter().any(|place: &EndpointSpec| place.state != EndpointState::NotReady);
            if family != ipv6 && some && seen.is_empty() {
                // Without names they cannot be told apart; one family is all of them.
                break;
            }
            for judged in judged.endpoints.iter().filter(|judged| judged.slice.ipv6 == family) {
                let JudgedEndpoint { slice, endpoint, verdict } = judged;
                let Some(port) = port_of(slice, lead) else { continue };
                let known = endpoint.uid.as_ref().is_some_and(|uid| seen.contains(uid));
                if family != ipv6 && known {
                    continue;
                }
                if family == ipv6 {
                    // Those that are not ready too: they must not come back by their other address.
                    seen.extend(endpoint.uid.clone());
                }
                if let (Some(state), Ok(uid)) = (endpoint.state, verdict)
                    && (host.pod.is_none() || host.pod == endpoint.hostname)
                {
                    places.push(EndpointSpec {
                        address: SocketAddr::new(endpoint.address, port),
                        uid: uid.clone(),
                        other_zone: self.is_in_other_zone(endpoint),
                        state,
                    });
                }
            }
        }
        places.sort_by(|a, b| (a.address, &a.uid, a.state).cmp(&(b.address, &b.uid, b.state)));
        // A slice that is being split tells of an endpoint twice.
        places.dedup_by(|a, b| (a.address, &a.uid) == (b.address, &b.uid));
        places
    }

    fn is_in_other_zone(&self, endpoint: &SliceEndpoint) -> bool {
        match (&self.zone, &endpoint.zone) {
            (Some(ours), Some(theirs)) => **ours != **theirs,
            _ => false,
        }
    }

    fn cluster_address(&self, service: &Service, lead: &Backend) -> Option<EndpointSpec> {
        let same = |ip: &&IpAddr| self.own_address.is_none_or(|own| own.is_ipv6() == ip.is_ipv6());
        let ips = &service.cluster_ips;
        let ip = ips.iter().find(same).or_else(|| ips.first())?;
        let address = SocketAddr::new(*ip, lead.port);
        Some(EndpointSpec { address, uid: None, other_zone: false, state: EndpointState::Ready })
    }
}

/// The pods' port.
fn port_of(slice: &Slice, lead: &Backend) -> Option<u16> {
    match &lead.to {
        PodPort::Named(name) => {
            slice.ports.iter().find(|(known, _)| known == name).map(|(_, n)| *n)
        }
        PodPort::Number => Some(lead.port),
    }
}
