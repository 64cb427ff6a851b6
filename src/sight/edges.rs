//! The edges of the graph: who calls which route, seen or declared.
//!
//! Pure: two looks in, edges out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::look::{Counts, Look, ToolKey};
use crate::protocol::methods::Protocol;
use crate::telemetry::series::host_of;

/// An edge fails if more than one of so many of its recent calls did.
const FAILING: u64 = 20;
/// It is slow if one in a hundred of its recent calls took longer, in milliseconds.
const SLOW: f64 = 5_000.0;

/// From a caller to a route.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The caller, `namespace/name`, or `unknown`.
    pub from: String,
    /// The route's label.
    pub to: String,
    /// The Agent that the route leads to, `namespace/name`, where it does.
    pub agent: Option<String>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether the caller says that it uses the route; `None` if it says nothing.
    pub declared: Option<bool>,
    /// The caller's calls cannot be told from those of others, or are not read.
    pub anonymous: bool,
    /// Tools that the caller names and has never called.
    pub unused_tools: Vec<String>,
    /// Tools that it calls and does not name, though it names others, each with how many calls.
    pub undeclared_tools: Vec<(String, u64)>,
    /// Since the start.
    pub total: Counts,
    /// Within the window.
    pub recent: Counts,
    /// Streams that are open.
    pub streams: usize,
}

/// Every edge that was seen or is declared, in the order of their names.
#[must_use]
pub fn edges(first: &Look, last: &Look) -> Vec<Edge> {
    let (now, before) = (last.edges(), first.edges());
    let mut streams = BTreeMap::<(&str, &str), usize>::new();
    for (route, note) in last.streams() {
        *streams.entry((&*note.caller, route)).or_default() += 1;
    }
    let known = last.known_agents();
    let called = called(last);
    let mut edges = Vec::new();
    let mut seen = BTreeSet::new();
    for (key, total) in &now {
        let (from, to, protocol) = *key;
        seen.extend(last.declared_hosts(to).map(|host| (from, host)));
        let (unused_tools, undeclared_tools) = tools(last, *key, &called);
        let recent = total.since(before.get(key));
        edges.push(Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            agent: last.agent_at(to, &known),
            protocol,
            declared: last.declares(from, to, ""),
            anonymous: false,
            unused_tools,
            undeclared_tools,
            total: total.clone(),
            recent,
            streams: streams.get(&(from, to)).copied().unwrap_or_default(),
        });
    }
    let declared = last
        .uses
        .iter()
        .flat_map(|(from, uses)| uses.hosts.keys().map(move |host| (from, host, uses)));
    for (from, host, uses) in declared {
        if seen.contains(&(from.as_str(), Cow::Borrowed(&**host))) {
            continue;
        }
        let agent = last.agent_at(host, &known);
        let anonymous = uses.anonymous || !last.sees_calls;
        let named = uses.hosts.get(host).filter(|_| !anonymous);
        let protocol = if agent.is_some() { Protocol::A2a } else { Protocol::Mcp };
        edges.push(Edge {
            from: from.clone(),
            to: host.to_string(),
            agent,
            protocol,
            declared: Some(true),
            anonymous,
            unused_tools: named
                .map_or_else(Vec::new, |tools| tools.iter().map(|tool| tool.to_string()).collect()),
            undeclared_tools: Vec::new(),
            total: Counts::default(),
            recent: Counts::default(),
            streams: streams.get(&(from, host)).copied().unwrap_or_default(),
        });
    }
    edges
}

/// The tools that are called, by caller and host, each with how many calls by which route.
type Called<'l> = BTreeMap<(&'l str, &'l str), Vec<(ToolKey<'l>, u64)>>;

fn called(look: &Look) -> Called<'_> {
    let mut called = Called::new();
    for (key, counts) in look.tools() {
        if !key.tool.is_empty() {
            let tools = called.entry((key.caller, host_of(key.route))).or_default();
            tools.push((key, counts.calls));
        }
    }
    called
}

/// What the caller of an edge declares and does not call, and what it calls and does not declare.
fn tools(
    look: &Look,
    (from, to, protocol): (&str, &str, Protocol),
    called: &Called<'_>,
) -> (Vec<String>, Vec<(String, u64)>) {
    if protocol != Protocol::Mcp {
        return Default::default();
    }
    let called = called.get(&(from, host_of(to))).map_or(&[][..], Vec::as_slice);
    // A route that is not declared at all has no tool that is.
    let undeclared = called.iter().filter(|(key, _)| {
        let is_here = key.route == to && look.declares(from, to, "") == Some(true);
        is_here && look.declares(from, to, key.tool) == Some(false)
    });
    let named = look.uses.get(from).and_then(|uses| look.named(uses, to));
    let is_called = |tool: &str| called.iter().any(|(key, _)| key.tool == tool);
    let unused = named.iter().flat_map(|tools| tools.iter()).filter(|tool| !is_called(tool));
    (
        unused.map(ToString::to_string).collect(),
        undeclared.map(|(key, calls)| (key.tool.to_owned(), *calls)).collect(),
    )
}

// === impl Edge ===

impl Edge {
    /// The node that it leads to.
    #[must_use]
    pub fn to_node(&self) -> &str {
        self.agent.as_deref().unwrap_or(&self.to)
    }

    /// What is to be said of it first.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let recent = &self.recent;
        if self.total.calls == 0 && self.anonymous {
            "declared"
        } else if self.total.calls == 0 {
            "unused"
        } else if self.declared == Some(false) || !self.undeclared_tools.is_empty() {
            "undeclared"
        } else if recent.errors.saturating_mul(FAILING) > recent.calls {
            "failing"
        } else if recent.millis(0.99).is_some_and(|p99| p99 > SLOW) {
            "slow"
        } else {
            "ok"
        }
    }

    /// As the admin API tells it.
    #[must_use]
    pub fn json(&self, window: Duration) -> Value {
        let mut json = self.total.json(&self.recent, window);
        if let Some(map) = json.as_object_mut() {
            map.insert("from".to_owned(), json!(self.from));
            map.insert("to".to_owned(), json!(self.to));
            map.insert("protocol".to_owned(), json!(self.protocol.word()));
            map.insert("state".to_owned(), json!(self.state()));
            map.insert("declared".to_owned(), json!(self.declared));
            map.insert("unusedTools".to_owned(), json!(self.unused_tools));
            let undeclared = self.undeclared_tools.iter().map(|(tool, _)| tool);
            map.insert("undeclaredTools".to_owned(), undeclared.cloned().collect());
            map.insert("openStreams".to_owned(), json!(self.streams));
        }
        json
    }
}
