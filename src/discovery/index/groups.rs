//! Objects of kinds that both API groups of kagent have.
//!
//! Pure. Where both have one of the same name, the newer group's counts (D36).

use std::collections::HashMap;

use crate::discovery::object::KagentApi;
use crate::route::ObjectId;

/// Objects of one kind, of both groups.
#[derive(Debug)]
pub(super) struct BothGroups<T> {
    v0: HashMap<ObjectId, T>,
    v1: HashMap<ObjectId, T>,
}

// === impl BothGroups ===

impl<T> Default for BothGroups<T> {
    fn default() -> Self {
        Self { v0: HashMap::new(), v1: HashMap::new() }
    }
}

impl<T> BothGroups<T> {
    /// The one that counts.
    pub(super) fn get(&self, id: &ObjectId) -> Option<&T> {
        self.v1.get(id).or_else(|| self.v0.get(id))
    }

    /// One that does not count, for the newer group has its name.
    pub(super) fn outranked(&self, id: &ObjectId) -> Option<&T> {
        self.v0.get(id).filter(|_| self.v1.contains_key(id))
    }

    /// The names of all, those of both groups twice.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.v0.keys().chain(self.v1.keys())
    }

    /// Those of one group.
    pub(super) const fn of(&self, api: KagentApi) -> &HashMap<ObjectId, T> {
        match api {
            KagentApi::V0 => &self.v0,
            KagentApi::V1 => &self.v1,
        }
    }

    /// An object as it is now; `None` if it is gone.
    pub(super) fn set(&mut self, api: KagentApi, id: &ObjectId, new: Option<T>) {
        let objects = match api {
            KagentApi::V0 => &mut self.v0,
            KagentApi::V1 => &mut self.v1,
        };
        match new {
            Some(new) => objects.insert(id.clone(), new),
            None => objects.remove(id),
        };
    }
}
