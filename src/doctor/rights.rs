//! The rights that discovery needs, and what is missing of them.
//!
//! Pure: makes the questions for the API server's reviews and judges the answers. Which kinds are watched
//! is discovery's own list.

use serde_json::{Value, json};

use super::Finding;
use crate::discovery::object::{KagentApi, ObjectKind};
use crate::discovery::watch::{ObjectWatch, resource};

/// What every watch does.
const VERBS: [&str; 3] = ["get", "list", "watch"];

const OWN_REVIEW: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const REVIEW: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Whose rights are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Our own: the program runs in the proxy's pod.
    Own,
    /// Those of a `ServiceAccount`: namespace and name.
    Of(String, String),
}

/// A right, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Right {
    /// API group; empty is core.
    pub(super) group: String,
    /// Plural name.
    pub(super) resource: String,
    /// `get`, `list` or `watch`.
    pub(super) verb: &'static str,
    /// Only in this namespace.
    pub(super) namespace: Option<String>,
    /// Nothing is routed without it.
    pub(super) required: bool,
    /// `None` if the server would not say.
    pub(super) allowed: Option<bool>,
}

/// The rights that these watches need, not yet asked for.
pub(super) fn needed(watches: &[ObjectWatch]) -> Vec<Right> {
    let mut rights = Vec::new();
    for watch in watches {
        let kind = resource(watch.kind);
        rights.extend(VERBS.map(|verb| Right {
            group: kind.group.clone(),
            resource: kind.plural.clone(),
            verb,
            namespace: watch.namespace.clone(),
            required: watch.kind.is_required(),
            allowed: None,
        }));
    }
    // Whether an address in an EndpointSlice is really a pod's: tenants may write slices.
    let watched = watches.iter().any(|watch| watch.kind.plural() == "pods");
    for watch in watches.iter().filter(|watch| !watched && watch.kind == ObjectKind::Service) {
        rights.extend(VERBS.map(|verb| Right {
            group: String::new(),
            resource: "pods".to_owned(),
            verb,
            namespace: watch.namespace.clone(),
            required: false,
            allowed: None,
        }));
    }
    rights
}

// === impl Account ===

impl Account {
    /// As the remedies name it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Own => "this ServiceAccount".to_owned(),
            Self::Of(namespace, name) => format!("ServiceAccount {namespace}/{name}"),
        }
    }

    /// Path and body of the review of one right.
    pub(super) fn question(&self, right: &Right) -> (&'static str, Value) {
        let attributes = json!({
            "group": right.group,
            "resource": right.resource,
            "verb": right.verb,
            "namespace": right.namespace.as_deref().unwrap_or_default(),
        });
        let (path, kind, mut spec) = match self {
            Self::Own => (OWN_REVIEW, "SelfSubjectAccessReview", json!({})),
            Self::Of(namespace, name) => (
                REVIEW,
                "SubjectAccessReview",
                // What the server adds to a ServiceAccount by itself must be said here.
                json!({
                    "user": format!("system:serviceaccount:{namespace}:{name}"),
                    "groups": [
                        "system:serviceaccounts",
                        format!("system:serviceaccounts:{namespace}"),
                        "system:authenticated",
                    ],
                }),
            ),
        };
        if let Some(map) = spec.as_object_mut() {
            map.insert("resourceAttributes".to_owned(), attributes);
        }
        (path, json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec }))
    }
}

/// One finding for each resource that lacks something.
pub(super) fn judge(account: &Account, rights: &[Right]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut done: Vec<(&str, &str, Option<&str>)> = Vec::new();
    for right in rights {
        let key = (right.group.as_str(), right.resource.as_str(), right.namespace.as_deref());
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let same = |other: &&Right| {
            (other.group.as_str(), other.resource.as_str(), other.namespace.as_deref()) == key
        };
        let missing: Vec<&str> = rights
            .iter()
            .filter(same)
            .filter(|right| right.allowed == Some(false))
            .map(|right| right.verb)
            .collect();
        if !missing.is_empty() {
            findings.push(lacks(account, right, &missing));
        }
    }
    if rights.iter().any(|right| right.allowed.is_none()) {
        findings.push(Finding::warning(
            &account.name(),
            "the API server would not say which rights it has".to_owned(),
            "run doctor as a user who may create subjectaccessreviews, or in the proxy's pod"
                .to_owned(),
        ));
    }
    findings
}

fn lacks(account: &Account, right: &Right, missing: &[&str]) -> Finding {
    let place = match &right.namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in the cluster".to_owned(),
    };
    let of_1_0 = right.group == KagentApi::V1.group();
    let role = if right.namespace.is_some() { "Role" } else { "ClusterRole" };
    let what = format!(
        "may not {} {} {place}; {}",
        missing.join(", "),
        if of_1_0 { format!("{}.{}", right.resource, right.group) } else { right.resource.clone() },
        match (right.required, right.resource.as_str()) {
            (true, _) => "the proxy never becomes ready",
            (false, _) if of_1_0 =>
                "the proxy works as if there were none, which matters where kagent 1.0 is installed only",
            (false, "pods") =>
                "the proxy cannot tell whose an address in an EndpointSlice is: who may write slices can lead it to \
                 other pods, and an address that two namespaces claim counts for neither",
            (false, _) => "the proxy works as if there were none",
        }
    );
    let remedy = format!(
        "add to its {role}: {{apiGroups: [\"{}\"], resources: [{}], verbs: [get, list, watch]}}",
        right.group, right.resource
    );
    let subject = account.name();
    if right.required || !(of_1_0 || matches!(right.resource.as_str(), "pods" | "namespaces")) {
        Finding::error(&subject, what, remedy)
    } else {
        Finding::warning(&subject, what, remedy)
    }
}
