//! One host of the cluster: what may carry its calls, and the choice among that for one request.
//!
//! The choice is pure and the same for routing and for `explain`; among rules it is made in `route/rule.rs`. Knows
//! rules and ports, not the objects they came from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::host::HostKey;
use super::rule::{self, Rank, Rule};
use super::{NoRoute, Route, RouteMatch, RouteQuery};
use crate::plain_path::is_plain;
use crate::workers::near::Common;

/// An object of the cluster, or a caller: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// What is known of one host name of the cluster.
#[derive(Debug)]
pub struct Discovered {
    /// `name.namespace`.
    pub host: Box<str>,
    /// Whether it can be reached.
    pub state: HostState,
    /// What the cluster said, for `explain`: the considered marks and ports, each with its verdict.
    pub notes: Vec<Considered>,
    /// When its Service appeared, if we saw it come: what belongs to it may be a moment behind.
    pub since: Option<Instant>,
}

/// Whether a host can be reached.
#[derive(Debug)]
pub enum HostState {
    /// Yes.
    Open(OpenHost),
    /// Never as things stand; why, and what would change it.
    Refused(Box<str>),
    /// The same, because nothing marks the Service.
    Unmarked(Box<str>),
    /// Something of this name exists, and is not complete yet.
    Pending(Box<str>),
    /// Named by somebody, but no Service.
    Missing(Box<str>),
}

/// A host that can be reached.
#[derive(Debug)]
pub struct OpenHost {
    /// What tool servers' objects say to everybody, in the order of their names.
    pub rules: Vec<Rule>,
    /// What those of untrusted namespaces say to the Agents that use them: others do not pay for them.
    pub foreign: HashMap<ObjectId, Vec<Arc<Rule>>>,
    /// The Service's TCP ports: where each leads, or why nowhere.
    pub ports: Vec<(u16, Result<Common<Route>, NoRoute>)>,
    /// What holds where no rule does.
    pub fallback: Fallback,
    /// The Agent that owns it: rules need a path of their own to win.
    pub agent: Option<Box<ObjectId>>,
    /// Only these leading paths; empty is every path.
    pub paths: &'static [&'static str],
    /// Only these callers, and what is open to each beside the rules; `None` is everyone.
    pub callers: Option<BTreeMap<ObjectId, Opened>>,
}

/// What the `x-kagent-host` of untrusted objects open to one caller: what they write there, and nothing beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The host without a port.
    pub portless: bool,
    /// The host with one of these ports.
    pub ports: BTreeSet<u16>,
}

/// The port where no rule holds.
#[derive(Debug)]
pub enum Fallback {
    /// This one, and why.
    Port(Common<Route>, Box<str>),
    /// This one, which cannot be used.
    Unusable(NoRoute),
    /// Nothing says which.
    Undecided(Box<str>),
}

/// A candidate and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// What was considered.
    pub candidate: String,
    /// Taken, or why not.
    pub verdict: String,
}

// === impl ObjectId ===

impl ObjectId {
    /// From namespace and name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Opened ===

impl Opened {
    /// By one header with this port.
    #[must_use]
    pub fn by_header(port: Option<u16>) -> Self {
        Self { portless: port.is_none(), ports: port.into_iter().collect() }
    }

    /// What another one opens too.
    pub fn add(&mut self, other: &Self) {
        self.portless |= other.portless;
        self.ports.extend(&other.ports);
    }
}

// === impl Considered ===

impl Considered {
    /// A candidate and its verdict.
    #[must_use]
    pub fn new(candidate: impl Into<String>, verdict: impl Into<String>) -> Self {
        Self { candidate: candidate.into(), verdict: verdict.into() }
    }

    /// As error bodies and `explain` show it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "candidate": self.candidate, "verdict": self.verdict })
    }
}

// === impl Discovered ===

impl Discovered {
    /// Every route there is, once.
    pub fn routes(&self) -> impl Iterator<Item = &Common<Route>> {
        let HostState::Open(open) = &self.state else { return RoutesOf::default().into_iter() };
        let ports = open.ports.iter().filter_map(|(_, route)| route.as_ref().ok());
        let mut routes: RoutesOf<'_> = ports.collect();
        let foreign = open.foreign.values().flatten().map(Arc::as_ref);
        for route in open.rules.iter().chain(foreign).filter_map(|rule| rule.route.as_ref().ok()) {
            if !routes.iter().any(|known| known.is_same(route)) {
                routes.push(route);
            }
        }
        routes.into_iter()
    }

    /// The route of one request. `chain` takes every candidate and why it lost.
    ///
    /// # Errors
    /// [`NoRoute`], with the candidates where there are too many.
    pub fn choose(
        &self,
        ask: &RouteQuery<'_>,
        mut chain: Option<&mut Vec<Considered>>,
    ) -> Result<RouteMatch, NoRoute> {
        if let Some(chain) = chain.as_deref_mut() {
            chain.extend(self.notes.iter().cloned());
        }
        let open = match &self.state {
            HostState::Open(open) => open,
            HostState::Refused(why) => return Err(NoRoute::Forbidden(why.to_string())),
            HostState::Unmarked(why) => return Err(NoRoute::Unmarked(why.to_string())),
            HostState::Pending(why) => return Err(NoRoute::Pending(why.to_string())),
            HostState::Missing(why) => return Err(NoRoute::Missing(why.to_string())),
        };
        open.admits(ask)?;
        if let Some(port) = ask.port
            && !open.has_port(port, ask.caller)
        {
            return Err(NoRoute::Port(port, open.ports_for(ask.caller)));
        }
        let matching = open.matching(ask, chain.as_deref_mut());
        let path = rule::decoded(ask.path);
        if matching.iter().any(|rule| rule.limits(&path)) && !is_plain(ask.path) {
            return Err(NoRoute::UnsafePath);
        }
        match matching.as_slice() {
            [] => open.without_rules(ask, chain),
            [only] => only.chosen(ask, chain),
            several => rule::choose_among(several, ask, chain),
        }
    }
}

type RoutesOf<'a> = Vec<&'a Common<Route>>;

// === impl OpenHost ===

impl OpenHost {
    fn admits(&self, ask: &RouteQuery<'_>) -> Result<(), NoRoute> {
        if !self.paths.is_empty() {
            if !is_plain(ask.path) {
                return Err(NoRoute::UnsafePath);
            }
            if !self.paths.iter().any(|allowed| is_below(ask.path, allowed)) {
                return Err(NoRoute::Forbidden(format!(
                    "the kagent controller is reachable for agents on these paths only, and this is none: {}",
                    self.paths.join(", ")
                )));
            }
        }
        let Some(callers) = &self.callers else { return Ok(()) };
        if ask.caller.is_some_and(|caller| callers.contains_key(caller)) {
            return Ok(());
        }
        Err(NoRoute::Forbidden(
            "this Service is exposed only by RemoteMCPServers in untrusted namespaces, and only to Agents of \
             kagent 0.x that list them as tools; to open it to all, put the RemoteMCPServer into the Service's \
             namespace, annotate the Service with kagent-proxy.dev/route=true, or add the namespace to \
             discovery.trustedNamespaces"
                .to_owned(),
        ))
    }

    /// What tool servers' objects say to this caller.
    fn rules_for(&self, caller: Option<&ObjectId>) -> impl Iterator<Item = &Rule> {
        let foreign = caller.and_then(|caller| self.foreign.get(caller));
        self.rules.iter().chain(foreign.into_iter().flatten().map(Arc::as_ref))
    }

    fn has_port(&self, port: u16, caller: Option<&ObjectId>) -> bool {
        let named = |rule: &Rule| rule.port == port && rule.route.is_ok();
        self.ports.iter().any(|(number, _)| *number == port) || self.rules_for(caller).any(named)
    }

    /// The ports that a caller may write behind the host, in order.
    fn ports_for(&self, caller: Option<&ObjectId>) -> Vec<u16> {
        let named = self.rules_for(caller).filter(|rule| rule.route.is_ok()).map(|rule| rule.port);
        let mut ports: BTreeSet<u16> = named.collect();
        // A header may name a port that the Service does not have.
        let opened = self.opened_to(caller);
        let there = self.ports.iter().map(|(number, _)| *number);
        ports.extend(there.filter(|port| opened.is_none_or(|opened| opened.ports.contains(port))));
        ports.into_iter().collect()
    }

    /// Where untrusted objects alone open it: what their headers open to this caller.
    fn opened_to(&self, caller: Option<&ObjectId>) -> Option<&Opened> {
        self.callers.as_ref()?.get(caller?)
    }

    /// Objects of others open what they name, for those that use them, and nothing beside it.
    fn opens(&self, ask: &RouteQuery<'_>) -> Result<(), NoRoute> {
        let Some(opened) = self.opened_to(ask.caller) else { return Ok(()) };
        let named = match ask.port {
            Some(port) => opened.ports.contains(&port),
            None => opened.portless,
        };
        if named {
            return Ok(());
        }
        let rules = self.rules_for(ask.caller);
        let mut what: Vec<String> =
            rules.map(|rule| format!("port {} on path {}", rule.port, rule.path)).collect();
        what.extend(opened.portless.then(|| "x-kagent-host without a port".to_owned()));
        what.extend(opened.ports.iter().map(|port| format!("x-kagent-host with port {port}")));
        Err(NoRoute::Forbidden(format!(
            "the RemoteMCPServers that open this Service for the caller name only: {}",
            what.join("; ")
        )))
    }

    /// The rules that hold for this request and outrank the others: all of the best standing, and of
    /// those the best matches of the path.
    fn matching(
        &self,
        ask: &RouteQuery<'_>,
        mut chain: Option<&mut Vec<Considered>>,
    ) -> Vec<&Rule> {
        let mut best: Vec<&Rule> = Vec::new();
        let mut rank = Rank::default();
        let path = rule::decoded(ask.path);
        for rule in self.rules_for(ask.caller) {
            let verdict = match rule.rank(ask.port, &path, self.agent.is_some()) {
                Err(why) => why.to_owned(),
                Ok(this) if this < rank => "a better match won".to_owned(),
                Ok(this) => {
                    if this > rank {
                        let lost = best.drain(..);
                        if let Some(chain) = chain.as_deref_mut() {
                            chain.extend(lost.map(|rule| {
                                Considered::new(rule.to_string(), "a better match won")
                            }));
                        }
                    }
                    rank = this;
                    best.push(rule);
                    continue;
                }
            };
            if let Some(chain) = chain.as_deref_mut() {
                chain.push(Considered::new(rule.to_string(), verdict));
            }
        }
        best
    }

    /// The explicit port, the Service's own word, or the port of the authority.
    fn without_rules(
        &self,
        ask: &RouteQuery<'_>,
        mut chain: Option<&mut Vec<Considered>>,
    ) -> Result<RouteMatch, NoRoute> {
        self.opens(ask)?;
        let by_number = |port: u16| self.ports.iter().find(|(number, _)| *number == port);
        let mut take = |route: &Common<Route>, what: String, why: &str| {
            if let Some(chain) = chain.as_deref_mut() {
                chain.push(Considered::new(what, format!("taken: {why}")));
            }
            Ok(RouteMatch { route: route.near(), query: None })
        };
        if let Some((port, route)) = ask.port.and_then(by_number) {
            let route = route.as_ref().map_err(NoRoute::clone)?;
            return take(route, format!("port {port}"), "the header names it");
        }
        let undecided = match &self.fallback {
            Fallback::Port(route, why) => {
                let port = route.config.to.targets.first().map_or(0, |target| target.port);
                return take(route, format!("port {port}"), why);
            }
            Fallback::Unusable(why) => return Err(why.clone()),
            Fallback::Undecided(why) => why,
        };
        let opened = self.opened_to(ask.caller);
        let hint = ask.hint().filter(|port| opened.is_none_or(|o| o.ports.contains(port)));
        if let Some((port, route)) = hint.and_then(by_number) {
            let route = route.as_ref().map_err(NoRoute::clone)?;
            return take(route, format!("port {port}"), "the request's Host names it");
        }
        let ports: Vec<String> = self.ports.iter().map(|(port, _)| port.to_string()).collect();
        Err(NoRoute::Ambiguous(format!("{undecided}: ports {}", ports.join(", ")), ports))
    }
}

/// Whether a path is this one or below it; `*` is any one segment.
fn is_below(path: &str, allowed: &str) -> bool {
    let mut segments = path.split('/');
    allowed.split('/').all(|wanted| match segments.next() {
        Some(segment) => wanted == segment || wanted == "*" && !segment.is_empty(),
        None => false,
    })
}

// === impl RouteQuery ===

impl RouteQuery<'_> {
    /// The port of the request's Host, where that names the same host: Python's A2A client sends it.
    /// A hint, never more.
    fn hint(&self) -> Option<u16> {
        let authority = std::str::from_utf8(self.authority?).ok()?;
        let (key, port) = HostKey::parse(authority, self.cluster_domain).ok()?;
        port.filter(|_| key == *self.host)
    }
}
