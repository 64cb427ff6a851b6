//! Namespaces: which there are, and whose objects the Agents of one may use.
//!
//! Pure. Where Namespaces cannot be seen, nothing is said of them.

use std::sync::Arc;

use super::{Ids, Index};
use crate::discovery::object::{Admits, KagentApi, NamespaceLabels};
use crate::route::ObjectId;

// === impl Index ===

impl Index {
    pub(super) fn set_namespace(&mut self, name: &Arc<str>, new: Option<NamespaceLabels>) {
        let old = self.namespaces.get(name);
        if old == new.as_ref() {
            return;
        }
        if old.is_none() || new.is_none() {
            self.touch_named_in(name);
        }
        // Objects elsewhere may admit it by its labels.
        self.uses_dirty.extend(self.agents.ids().filter(|id| *id.namespace == **name).cloned());
        match new {
            Some(new) => self.namespaces.insert(Arc::clone(name), new),
            None => self.namespaces.remove(name),
        };
    }

    /// What is said of hosts that somebody names depends on whether their namespace exists.
    fn touch_named_in(&mut self, namespace: &str) {
        let named = self
            .remotes_at
            .keys()
            .chain(self.literals_at.keys())
            .filter(|service| *service.namespace == *namespace);
        let named: Ids = named.cloned().collect();
        self.touch_all(&named);
    }

    /// Whether namespaces are known and this one is not among them.
    #[must_use]
    pub fn lacks_namespace(&self, name: &str) -> bool {
        !self.namespaces.is_empty() && !self.namespaces.contains_key(name)
    }

    /// Whether an Agent of this namespace may use an Agent, which the latter says.
    #[must_use]
    pub fn admits_to_agent(&self, from: &str, id: &ObjectId) -> bool {
        self.admits(from, id, self.agents.of(KagentApi::V0).get(id).map(|agent| &agent.admits))
    }

    /// Whether an Agent of this namespace and group may use a tool server, which the latter's object says.
    #[must_use]
    pub fn admits_to_remote(&self, (from, api): (&str, KagentApi), id: &ObjectId) -> bool {
        self.admits(from, id, self.remote(api, id).map(|remote| &remote.admits))
    }

    /// What is not known admits everybody.
    fn admits(&self, from: &str, id: &ObjectId, admits: Option<&Admits>) -> bool {
        let foreign = || admits.is_none_or(|admits| admits.foreign(self.namespaces.get(from)));
        *id.namespace == *from || foreign()
    }
}
