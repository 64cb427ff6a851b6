//! What is kept of a Pod: whose address is whose, and what selects it.
//!
//! Read straight from the API server's bytes, so that the rest of a Pod, most of a cluster's bytes, is
//! never built. Knows no client and no Service but for its selector.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::object::is_kagent;

/// A running Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its UID.
    pub uid: Arc<str>,
    /// Its addresses: those of its node if it uses the host's network.
    pub addresses: Box<[IpAddr]>,
    /// Uses the network of its node.
    pub host_network: bool,
    /// It is being deleted.
    pub leaving: bool,
    /// A hash of the UID of the object that controls it.
    pub controller: Option<u64>,
    /// The Agent of kagent that owns it without anything between.
    pub agent: Option<Box<str>>,
    /// Its labels.
    pub labels: Labels,
}

/// Labels, each as a hash of its key and value, in order: a selector of a Service only asks whether a
/// label is there. Most of a Pod's bytes would be its labels otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[u64]>);

/// A Pod as the API server sends it, without what is not kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "PodJson")]
pub struct PodObject {
    metadata: ObjectMeta,
    /// `None` if it does not run.
    pub pod: Option<Pod>,
}

#[derive(Deserialize)]
struct PodJson {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<Arc<str>>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<Box<str>>,
    uid: Option<String>,
    controller: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: Option<String>,
}

// === impl Labels ===

impl Labels {
    /// From keys and values.
    pub fn new<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hashes: Vec<u64> = labels.map(hash).collect();
        hashes.sort_unstable();
        Self(hashes.into())
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a selector of these labels takes something with those: every one is there. Without a
    /// label it takes nothing (`ServiceSpec.selector`).
    #[must_use]
    pub fn select(&self, labels: &Self) -> bool {
        !self.is_empty() && self.0.iter().all(|wanted| labels.0.binary_search(wanted).is_ok())
    }
}

fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

// === impl PodObject ===

impl From<PodJson> for PodObject {
    fn from(told: PodJson) -> Self {
        let PodJson { metadata, spec, status } = told;
        let Metadata { name, namespace, uid, resource_version, .. } = metadata;
        let phase = status.as_ref().and_then(|status| status.phase.as_deref());
        let pod = uid.filter(|_| phase == Some("Running")).map(|uid| {
            let owners = metadata.owner_references.as_deref().unwrap_or_default();
            let controls = |owner: &&Owner| owner.controller == Some(true);
            let controller = owners.iter().find(controls).and_then(|owner| owner.uid.as_deref());
            let labels = metadata.labels.iter().flatten();
            Pod {
                uid,
                addresses: status.map(Status::addresses).unwrap_or_default(),
                host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
                leaving: metadata.deletion_timestamp.is_some(),
                controller: controller.map(hash),
                agent: owners.iter().find(|owner| owner.is_agent()).and_then(|o| o.name.clone()),
                labels: Labels::new(labels.map(|(key, value)| (key.as_str(), value.as_str()))),
            }
        });
        let metadata = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
        Self { metadata, pod }
    }
}

impl Owner {
    fn is_agent(&self) -> bool {
        self.kind.as_deref() == Some("Agent") && self.api_version.as_deref().is_some_and(is_kagent)
    }
}

impl Status {
    fn addresses(self) -> Box<[IpAddr]> {
        let several = self.pod_ips.into_iter().flatten().filter_map(|one| one.ip);
        let mut all: Vec<IpAddr> = several.filter_map(|ip| ip.parse().ok()).collect();
        if all.is_empty() {
            all.extend(self.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        all.iter().map(IpAddr::to_canonical).collect()
    }
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Option<Pod> {
        serde_json::from_value::<PodObject>(json).unwrap().pod
    }

    #[test]
    fn what_is_kept_is_what_whose_address_needs() {
        let pod = read(serde_json::json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "labels": { "app": "x", "tier": "y" }, "annotations": { "large": "text" },
                "ownerReferences": [
                    { "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "name": "helper", "uid": "o" },
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "p", "controller": true },
                ],
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": { "hostNetwork": true, "containers": [{ "name": "c", "env": [1, 2, 3] }] },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] },
        }));
        let pod = pod.unwrap();
        assert_eq!(
            *pod.addresses,
            ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
        assert!(pod.host_network && pod.leaving);
        assert_eq!(pod.agent.as_deref(), Some("helper"));
        assert_eq!(pod.controller, Some(hash("p")));
        assert!(Labels::new([("app", "x")].into_iter()).select(&pod.labels));
        assert!(Labels::new([("tier", "y"), ("app", "x")].into_iter()).select(&pod.labels));
        for other in [[("app", "y")], [("app", "")], [("appx", "")], [("x", "app")]] {
            assert!(!Labels::new(other.into_iter()).select(&pod.labels), "{other:?}");
        }
        assert!(!Labels::default().select(&pod.labels), "nothing selects nothing");
    }

    #[test]
    fn a_pod_that_does_not_run_has_no_address() {
        for phase in [Some("Pending"), Some("Succeeded"), Some("Failed"), Some("Unknown"), None] {
            let pod = read(serde_json::json!({
                "metadata": { "uid": "u" }, "status": { "phase": phase, "podIP": "10.0.0.1" },
            }));
            assert_eq!(pod, None, "{phase:?}");
        }
        let early = read(serde_json::json!({
            "metadata": { "uid": "u" }, "status": { "phase": "Running", "podIP": "10.0.0.1" },
        }));
        assert_eq!(*early.unwrap().addresses, [IpAddr::from([10, 0, 0, 1])], "without podIPs");
    }
}
