//! The names of a route's tools, which may become labels: those that its server lists, and those that the cluster
//! declares.
//!
//! What a client calls is never added, so no client can make series. Bounded. Knows no message.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Names of one route, more of which are not kept.
const MAX_NAMES: usize = 512;
/// A longer name is no label (MCP 2025-11-25, "Tools": names have 128 characters at most).
const MAX_NAME: usize = 128;

/// The tools of one route.
#[derive(Debug, Default)]
pub struct ToolNames(ArcSwap<BTreeSet<Box<str>>>);

// === impl ToolNames ===

impl ToolNames {
    /// These are tools of the route too.
    pub fn add<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        let known = self.0.load();
        let is_new = |name: &&str| name.len() <= MAX_NAME && !known.contains(*name);
        let new: Vec<&str> = names.into_iter().filter(is_new).collect();
        if new.is_empty() || known.len() >= MAX_NAMES {
            return;
        }
        self.0.rcu(|known| {
            let mut all = BTreeSet::clone(known);
            let room = MAX_NAMES.saturating_sub(all.len());
            all.extend(new.iter().take(room).map(|name| Box::from(*name)));
            Arc::new(all)
        });
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.load().contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_once_they_are_listed_and_within_bounds() {
        let tools = ToolNames::default();
        assert!(!tools.has("add"));
        let long = "x".repeat(MAX_NAME + 1);
        tools.add(["add", &long[1..], &long]);
        tools.add(["add", "sub"]);
        for (name, known) in
            [("add", true), ("sub", true), (&long[1..], true), (&long, false), ("", false)]
        {
            assert_eq!(tools.has(name), known, "{name}");
        }
        let many: Vec<String> = (0..2 * MAX_NAMES).map(|n| n.to_string()).collect();
        tools.add(many.iter().map(String::as_str));
        assert_eq!(tools.0.load().len(), MAX_NAMES);
        assert!(tools.has("add"), "those that are there stay");
    }
}
