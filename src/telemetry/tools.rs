//! The names of a host's tools, which may become labels: those that its server lists, and those that the cluster
//! declares.
//!
//! What a client calls is never added, so no client can make series. Bounded, and what a server lists takes no room
//! from what is declared. Knows no message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Names that a server lists, and names that are declared, more of which are not kept.
const MAX_NAMES: usize = 512;
/// A longer name is no label (MCP 2025-11-25, "Tools": names have 128 characters at most).
const MAX_NAME: usize = 128;

/// The tools of one host.
#[derive(Debug, Default)]
pub struct ToolNames(ArcSwap<Known>);

type Names = BTreeSet<Arc<str>>;

#[derive(Clone, Debug, Default)]
struct Known {
    listed: Names,
    /// By who says so.
    declared: BTreeMap<Box<str>, Names>,
    /// Both.
    all: Names,
}

// === impl ToolNames ===

impl ToolNames {
    /// The server has these tools too.
    pub fn add<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        let known = self.0.load();
        let is_new = |name: &&str| name.len() <= MAX_NAME && !known.listed.contains(*name);
        let new: Vec<Arc<str>> = names.into_iter().filter(is_new).map(Arc::from).collect();
        if new.is_empty() || known.listed.len() >= MAX_NAMES {
            return;
        }
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            let room = MAX_NAMES.saturating_sub(known.listed.len());
            known.listed.extend(new.iter().take(room).cloned());
            known.joined()
        });
    }

    /// Whoever this is declares these tools, and no others any more; `None` if it does not know of the host.
    pub fn declare<'n>(&self, by: &str, names: Option<impl IntoIterator<Item = &'n str>>) {
        let names: Option<Names> = names.map(|names| {
            let fits = names.into_iter().filter(|name| name.len() <= MAX_NAME);
            fits.take(MAX_NAMES).map(Arc::from).collect()
        });
        if self.0.load().declared.get(by) == names.as_ref() {
            return;
        }
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            match &names {
                Some(names) => known.declared.insert(by.into(), names.clone()),
                None => known.declared.remove(by),
            };
            known.joined()
        });
    }

    /// Whether anybody declares something of the host.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        !self.0.load().declared.is_empty()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.load().all.contains(name)
    }
}

// === impl Known ===

impl Known {
    fn joined(mut self) -> Self {
        // Many Agents declare the same ones.
        let declared: BTreeSet<_> = self.declared.values().flatten().collect();
        let declared = declared.into_iter().take(MAX_NAMES);
        self.all = self.listed.iter().chain(declared).cloned().collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(tools: &ToolNames, by: &str, names: &[&str]) {
        tools.declare(by, Some(names.iter().copied()));
    }

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
        assert_eq!(tools.0.load().listed.len(), MAX_NAMES);
        assert!(tools.has("add"), "those that are there stay");
        declare(&tools, "a/b", &["deploy"]);
        assert!(tools.has("deploy"), "a server takes no room from what is declared");
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        declare(&tools, "a/c", &many);
        assert!(tools.0.load().all.len() <= 2 * MAX_NAMES);
    }

    #[test]
    fn what_nobody_declares_any_more_is_forgotten() {
        let tools = ToolNames::default();
        tools.add(["listed"]);
        declare(&tools, "a/b", &["add", "sub"]);
        declare(&tools, "a/c", &["add"]);
        declare(&tools, "a/b", &["mul"]);
        for (name, known) in [("add", true), ("sub", false), ("mul", true), ("listed", true)] {
            assert_eq!(tools.has(name), known, "{name}");
        }
        tools.declare("a/b", None::<[&str; 0]>);
        assert!(!tools.has("mul") && tools.has("add") && tools.is_declared());
        tools.declare("a/c", None::<[&str; 0]>);
        assert!(!tools.has("add") && tools.has("listed") && !tools.is_declared());
    }
}
