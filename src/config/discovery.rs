//! The section `discovery`: whether and how the cluster's own objects become routes.
//!
//! Plain data and its reading; knows nothing of Kubernetes clients.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::json;

use super::file::{Map, Reader};
use super::scalar::{FILE, NETWORK, SWITCH, ScalarKind};
use super::target::parse_host;
use super::{Config, RouteTarget};

/// What is discovered, and whose word counts.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscoveryConfig {
    /// Off unless asked for: a sidecar has no cluster to watch.
    pub enabled: bool,
    /// How to reach the API server; without it the pod's service account, else the user's kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Only these namespaces, with namespaced Roles; empty is the whole cluster.
    pub namespaces: Vec<String>,
    /// Whose `RemoteMCPServer` objects count for Services of other namespaces (D5); `None` is the
    /// controller's namespace, `*` is all.
    pub trusted_namespaces: Option<Vec<String>>,
    /// Service of the kagent controller, which is reachable on a few paths only (D4).
    pub controller: ServiceName,
    /// What is dialled.
    pub endpoints: Endpoints,
    /// Where Services without a selector may lead to addresses that are no Pod's (D42).
    pub external_endpoints: Vec<IpNet>,
    /// Our own zone; without it that of our own address in our Service's `EndpointSlice` (D6).
    pub zone: Option<String>,
    /// Our own addresses, the primary family first: what has one among its endpoints is ourselves.
    pub pod_ips: Vec<IpAddr>,
    /// Authorities for `https` tool servers whose CA Secret we may not read, PEM.
    pub ca_bundle: Option<PathBuf>,
    /// What discovered routes inherit from `routeDefaults`; its targets, Host and TLS have no meaning.
    pub inherited: RouteTarget,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceName {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// What a discovered route dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Ready pods.
    Pods,
    /// The Service's `ClusterIP`.
    Service,
}

// === impl DiscoveryConfig ===

impl Default for DiscoveryConfig {
    fn default() -> Self {
        let (name, namespace) = ("kagent-controller".to_owned(), "kagent".to_owned());
        Self {
            enabled: false,
            kubeconfig: None,
            namespaces: Vec::new(),
            trusted_namespaces: None,
            controller: ServiceName { name, namespace },
            endpoints: Endpoints::Pods,
            external_endpoints: Vec::new(),
            zone: None,
            pod_ips: Vec::new(),
            ca_bundle: None,
            inherited: RouteTarget::new(Vec::new()),
        }
    }
}

impl DiscoveryConfig {
    /// Whether objects of this namespace count for everybody.
    #[must_use]
    pub fn trusts(&self, namespace: &str) -> bool {
        match &self.trusted_namespaces {
            None => namespace == self.controller.namespace,
            Some(list) => list.iter().any(|trusted| trusted == "*" || trusted == namespace),
        }
    }

    /// The namespaces whose objects do.
    fn trusted(&self) -> Vec<String> {
        let own = || vec![self.controller.namespace.clone()];
        self.trusted_namespaces.clone().unwrap_or_else(own)
    }
}

impl Reader<'_> {
    pub(super) fn discovery(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(mut section) = self.section(map, "discovery") else { return };
        let discovery = &mut config.discovery;
        self.set(&mut section, "enabled", &mut discovery.enabled, SWITCH);
        self.set(&mut section, "kubeconfig", &mut discovery.kubeconfig, FILE);
        self.scalars(&mut section, "namespaces", &mut discovery.namespaces, NAMESPACE);
        let mut trusted = discovery.trusted();
        if self.scalars(&mut section, "trustedNamespaces", &mut trusted, TRUSTED).is_some() {
            discovery.trusted_namespaces = Some(trusted);
        }
        self.set(&mut section, "controller", &mut discovery.controller, SERVICE);
        self.set(&mut section, "endpoints", &mut discovery.endpoints, ENDPOINTS);
        let external = &mut discovery.external_endpoints;
        self.scalars(&mut section, "externalEndpoints", external, NETWORK);
        self.set(&mut section, "zone", &mut discovery.zone, ZONE);
        self.set(&mut section, "podIps", &mut discovery.pod_ips, POD_IPS);
        self.set(&mut section, "caBundleFile", &mut discovery.ca_bundle, FILE);
        self.end(&section);
    }
}

const ZONE: ScalarKind<Option<String>> =
    ScalarKind::optional(|text| Ok(Some(text.to_owned()).filter(|text| !text.is_empty())));
const POD_IPS: ScalarKind<Vec<IpAddr>> =
    ScalarKind::text_shown(pod_ips, |_, addresses| json!(addresses));
const NAMESPACE: ScalarKind<String> = ScalarKind::text(namespace);
const TRUSTED: ScalarKind<String> =
    ScalarKind::text(|text| if text == "*" { Ok(text.to_owned()) } else { namespace(text) });
const SERVICE: ScalarKind<ServiceName> =
    ScalarKind::text_shown(service_name, |_, of| json!(format!("{}.{}", of.name, of.namespace)));

fn service_name(text: &str) -> Result<ServiceName, String> {
    let wrong = || format!("{text:?} is not a Service; write name.namespace");
    let (name, space) = text.split_once('.').ok_or_else(wrong)?;
    if parse_host(text).is_err() || space.contains('.') {
        return Err(wrong());
    }
    Ok(ServiceName { name: name.to_owned(), namespace: space.to_owned() })
}

const ENDPOINTS: ScalarKind<Endpoints> =
    ScalarKind::words(&["pods", "service"], |text| match text {
        "pods" => Ok(Endpoints::Pods),
        "service" => Ok(Endpoints::Service),
        _ => Err(format!("{text:?} is not known; write pods or service")),
    });

fn namespace(text: &str) -> Result<String, String> {
    match parse_host(text) {
        Ok(name) if !name.contains('.') => Ok(name),
        _ => Err(format!("{text:?} is not the name of a namespace")),
    }
}

/// The addresses of a pod, as the downward API gives them: with commas between.
pub(super) fn pod_ips(text: &str) -> Result<Vec<IpAddr>, String> {
    let all = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    let parsed = all.map(|one| {
        one.parse().map_err(|_| {
            format!("{one:?} is not an IP address; give the pod's own by the downward API (status.podIPs)")
        })
    });
    parsed.collect()
}
