//! Objects of kinds that both API groups of kagent have.
//!
//! Pure. Which counts where both have one of a name depends on what is asked, and is not decided here.

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
    /// That of a group, or of the other one if this has none.
    pub(super) fn for_api(&self, api: KagentApi, id: &ObjectId) -> Option<&T> {
        let (first, second) = match api {
            KagentApi::V0 => (&self.v0, &self.v1),
            KagentApi::V1 => (&self.v1, &self.v0),
        };
        first.get(id).or_else(|| second.get(id))
    }

    /// Those of one group.
    pub(super) const fn of(&self, api: KagentApi) -> &HashMap<ObjectId, T> {
        match api {
            KagentApi::V0 => &self.v0,
            KagentApi::V1 => &self.v1,
        }
    }

    /// The ids of all; an id that both groups have comes twice.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.v0.keys().chain(self.v1.keys())
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
