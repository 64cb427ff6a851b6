//! Whose an address is: which endpoints of a slice count, and which Pods call for an Agent.
//!
//! Who may write EndpointSlices can put any address into one. So an endpoint counts only if a running Pod
//! of the Service's own namespace has its address, and a caller is known only by its own Pod. Where Pods
//! may not be seen, only what nobody else claims counts. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::index::Index;
use super::object::{Service, SliceEndpoint};
use super::pod::Pod;
use crate::config::DiscoveryConfig;
use crate::route::ObjectId;

/// Why an endpoint does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// No pod has such an address.
    Special,
    /// It is ours, or a replica's.
    Ours,
    /// No running Pod has it.
    NoPod,
    /// It is this Pod's, of another namespace.
    Foreign(ObjectId),
    /// It is another Pod's than the slice says.
    Replaced(ObjectId),
    /// It is another Service's.
    Reserved(ObjectId),
    /// This Service of another namespace claims it too.
    Shared(ObjectId),
}

// === impl LeftOut ===

impl LeftOut {
    /// The words of the metric's label.
    pub const WORDS: [&str; 7] =
        ["special", "ours", "no_pod", "foreign", "replaced", "reserved", "shared"];

    /// The word of the metric's label.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Special => "special",
            Self::Ours => "ours",
            Self::NoPod => "no_pod",
            Self::Foreign(_) => "foreign",
            Self::Replaced(_) => "replaced",
            Self::Reserved(_) => "reserved",
            Self::Shared(_) => "shared",
        }
    }

    /// Whether it comes and goes with every pod: a slice may be told before its Pod.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        matches!(self, Self::NoPod | Self::Replaced(_))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special => f.write_str("no pod has such an address"),
            Self::Ours => f.write_str("it is an address of this proxy itself"),
            Self::NoPod => f.write_str(
                "no running Pod of the Service's namespace has it; if it is no Pod's at all and the Service \
                 has no selector, discovery.externalEndpoints may allow it",
            ),
            Self::Foreign(pod) => write!(f, "it is the address of Pod {pod}, of another namespace"),
            Self::Replaced(pod) => write!(f, "its Pod is gone; the address is Pod {pod}'s now"),
            Self::Reserved(service) => write!(f, "it is an address of Service {service}"),
            Self::Shared(service) => write!(
                f,
                "Service {service} claims it too, and without the right to list pods nobody can tell whose it is"
            ),
        }
    }
}

/// Whether an endpoint counts, and the UID of what lives there.
///
/// # Errors
/// Why not.
pub fn endpoint(
    index: &Index,
    config: &DiscoveryConfig,
    (id, service): (&ObjectId, &Service),
    endpoint: &SliceEndpoint,
) -> Result<Option<Arc<str>>, LeftOut> {
    let address = endpoint.address;
    if !is_dialled(address) {
        return Err(LeftOut::Special);
    }
    if index.is_own_address(address) {
        return Err(LeftOut::Ours);
    }
    let here = index.pods_at(address);
    if !index.sees_pods(&id.namespace) {
        unseen(index, config, id, address, &here)?;
        let ours = |other: &ObjectId| other.namespace == id.namespace && index.is_ourselves(other);
        if index.claimants(address).any(ours) {
            return Err(LeftOut::Ours);
        }
        return Ok(endpoint.uid.clone());
    }
    if here.is_empty() {
        let external = &config.external_endpoints;
        if service.selector.is_empty() && external.iter().any(|net| net.contains(&address)) {
            reserved(index, config, id, address)?;
            return Ok(endpoint.uid.clone());
        }
        return Err(LeftOut::NoPod);
    }
    let (pod_id, pod) = own(id, endpoint, &here)?;
    if index.is_own_pod(pod_id, pod) {
        return Err(LeftOut::Ours);
    }
    Ok(Some(Arc::clone(&pod.uid)))
}

/// Whether the Pod behind an endpoint of an Agent's Service calls for the Agent. What is on the network of
/// its node shares the address with others.
#[must_use]
pub fn is_caller(
    index: &Index,
    config: &DiscoveryConfig,
    (id, service, agent): (&ObjectId, &Service, &ObjectId),
    endpoint: &SliceEndpoint,
) -> bool {
    let address = endpoint.address;
    if !is_dialled(address) || index.is_own_address(address) {
        return false;
    }
    let here = index.pods_at(address);
    if !index.sees_pods(&id.namespace) {
        return unseen(index, config, id, address, &here).is_ok();
    }
    own(id, endpoint, &here).is_ok_and(|(_, pod)| {
        let belongs = service.selector.select(&pod.labels)
            || pod.agent.as_deref().is_some_and(|owner| *owner == *agent.name);
        belongs && !pod.host_network
    })
}

/// The Pod of the Service's own namespace at an address.
fn own<'a>(
    id: &ObjectId,
    endpoint: &SliceEndpoint,
    here: &[(&'a ObjectId, &'a Pod)],
) -> Result<(&'a ObjectId, &'a Pod), LeftOut> {
    let mut own = here.iter().filter(|(pod, _)| pod.namespace == id.namespace).copied().peekable();
    let Some((first, _)) = own.peek() else {
        let other = here.first().map(|(pod, _)| (*pod).clone());
        return Err(other.map_or(LeftOut::NoPod, LeftOut::Foreign));
    };
    let first = (*first).clone();
    own.find(|(_, pod)| endpoint.uid.as_ref().is_none_or(|uid| *uid == pod.uid))
        .ok_or(LeftOut::Replaced(first))
}

/// Where Pods are not known: what others claim too, or what is surely another's, counts for nobody.
fn unseen(
    index: &Index,
    config: &DiscoveryConfig,
    id: &ObjectId,
    address: IpAddr,
    here: &[(&ObjectId, &Pod)],
) -> Result<(), LeftOut> {
    if reserved(index, config, id, address)? {
        return Ok(());
    }
    // Other namespaces may be seen.
    let elsewhere =
        |(pod_id, pod): &&(&ObjectId, &Pod)| pod_id.namespace != id.namespace && !pod.host_network;
    if let Some((pod, _)) = here.iter().find(elsewhere) {
        return Err(LeftOut::Foreign((*pod).clone()));
    }
    let other = index.claimants(address).find(|other| other.namespace != id.namespace);
    other.map_or(Ok(()), |other| Err(LeftOut::Shared(other.clone())))
}

/// Whether an address is kept for this Service; the error is that it is kept for another one: the
/// controller's, the API server's, any `ClusterIP`.
fn reserved(
    index: &Index,
    config: &DiscoveryConfig,
    id: &ObjectId,
    address: IpAddr,
) -> Result<bool, LeftOut> {
    let kept = |other: &&ObjectId| {
        let (namespace, name) = (&*other.namespace, &*other.name);
        (namespace, name) == ("default", "kubernetes")
            || (namespace == config.controller.namespace && name == config.controller.name)
    };
    let holder = index.cluster_ip_of(address);
    match holder.or_else(|| index.claimants(address).find(kept)) {
        Some(holder) if holder == id => Ok(true),
        Some(holder) => Err(LeftOut::Reserved(holder.clone())),
        None => Ok(false),
    }
}

/// Metadata services outside the link-local range: Alibaba Cloud's, and AWS's over IPv6.
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Addresses that no pod has: whoever may write slices must not lead us to ourselves or to the
/// metadata service of a cloud.
fn is_dialled(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4 == METADATA_V4,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}
