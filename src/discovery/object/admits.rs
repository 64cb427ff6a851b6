//! Which namespaces an object lets refer to it: `spec.allowedNamespaces`.
//!
//! Pure. The form is that of Gateway API routes; without it only the object's own namespace may (kagent,
//! `validateCrossNamespaceReferences`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{items, text};

/// The labels of a namespace.
pub type NamespaceLabels = BTreeMap<Box<str>, Box<str>>;

/// The namespaces whose Agents may use an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admits {
    /// Its own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Its own, and those whose labels meet all of these.
    Selected(Vec<Requirement>),
}

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: Box<str>,
    operator: Operator,
    values: Vec<Box<str>>,
}

/// `LabelSelectorRequirement.operator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// One that we do not know: nothing meets it.
    Unknown,
}

/// Reads `spec.allowedNamespaces`.
pub(super) fn admits(json: &Value) -> Admits {
    match text(json, "/spec/allowedNamespaces/from") {
        Some("All") => Admits::All,
        Some("Selector") => {
            let selector = json.pointer("/spec/allowedNamespaces/selector").unwrap_or(&Value::Null);
            let labels = selector.get("matchLabels").and_then(Value::as_object);
            let labels = labels.into_iter().flatten().map(|(key, value)| Requirement {
                key: key.as_str().into(),
                operator: Operator::In,
                values: value.as_str().map(Box::from).into_iter().collect(),
            });
            let expressions = items(selector, "/matchExpressions").map(requirement);
            Admits::Selected(labels.chain(expressions).collect())
        }
        _ => Admits::Same,
    }
}

fn requirement(json: &Value) -> Requirement {
    Requirement {
        key: text(json, "/key").unwrap_or_default().into(),
        operator: match text(json, "/operator") {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("Exists") => Operator::Exists,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => Operator::Unknown,
        },
        values: items(json, "/values").filter_map(Value::as_str).map(Box::from).collect(),
    }
}

/// Reads the labels of a namespace.
pub(super) fn labels(json: &Value) -> NamespaceLabels {
    let labels = json.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}

// === impl Admits ===

impl Admits {
    /// Whether a namespace other than the object's own may refer to it. Without knowledge of the namespace a selector
    /// says nothing, and is taken to admit it.
    #[must_use]
    pub fn foreign(&self, labels: Option<&NamespaceLabels>) -> bool {
        match (self, labels) {
            (Self::Same, _) => false,
            (Self::All, _) | (Self::Selected(_), None) => true,
            (Self::Selected(all), Some(labels)) => all.iter().all(|one| one.is_met(labels)),
        }
    }
}

// === impl Requirement ===

impl Requirement {
    fn is_met(&self, labels: &NamespaceLabels) -> bool {
        let found = labels.get(&self.key);
        let listed = found.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_is_admitted_as_kubernetes_selects() {
        let plain = [("team", "a"), ("tier", "gold")];
        let known = labels(
            &json!({ "metadata": { "labels": plain.into_iter().collect::<BTreeMap<_, _>>() } }),
        );
        for (allowed, by_labels, unknown) in [
            (json!(null), false, false),
            (json!({}), false, false),
            (json!({ "from": "Same" }), false, false),
            (json!({ "from": "None" }), false, false),
            (json!({ "from": "All" }), true, true),
            (json!({ "from": "Selector" }), true, true),
            (selector(&json!({ "matchLabels": { "team": "a" } })), true, true),
            (selector(&json!({ "matchLabels": { "team": "b" } })), false, true),
            (selector(&json!({ "matchLabels": { "team": "a", "tier": "x" } })), false, true),
            (expression("team", "In", &["b", "a"]), true, true),
            (expression("team", "In", &["b"]), false, true),
            (expression("team", "NotIn", &["b"]), true, true),
            (expression("gone", "NotIn", &["b"]), true, true),
            (expression("team", "NotIn", &["a"]), false, true),
            (expression("team", "Exists", &[]), true, true),
            (expression("gone", "Exists", &[]), false, true),
            (expression("gone", "DoesNotExist", &[]), true, true),
            (expression("team", "DoesNotExist", &[]), false, true),
            (expression("team", "Like", &["a"]), false, true),
        ] {
            let read = admits(&json!({ "spec": { "allowedNamespaces": allowed } }));
            assert_eq!(read.foreign(Some(&known)), by_labels, "{allowed}");
            assert_eq!(read.foreign(None), unknown, "{allowed}");
        }
    }

    fn selector(selector: &Value) -> Value {
        json!({ "from": "Selector", "selector": selector })
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        let one = json!({ "key": key, "operator": operator, "values": values });
        selector(&json!({ "matchExpressions": [one] }))
    }
}
