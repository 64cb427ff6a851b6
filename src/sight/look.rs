//! One look at everything that is counted of calls, beside what is declared at that moment.
//!
//! Plain data and sums over it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::protocol::methods::{OTHER, Protocol};
use crate::route::discovered::HostState;
use crate::route::{RouteTable, Uses};
use crate::telemetry::metrics::{Metrics, RouteSight};
use crate::telemetry::operations::{Durations, ErrorType, UNKNOWN};
use crate::telemetry::series::host_of;
use crate::telemetry::streams::StreamNote;

/// One moment.
#[derive(Debug)]
pub struct Look {
    /// When.
    pub taken: Instant,
    /// Every route that is counted for.
    pub sights: Vec<RouteSight>,
    /// What Agents say that they use, by `namespace/name`.
    pub uses: BTreeMap<String, Arc<Uses>>,
    /// The hosts of Agents' Services, each with the Agent, `namespace/name`: a Service may have another name.
    pub agents: BTreeMap<String, String>,
    /// Hosts that have an Agent's name, and are none's.
    pub namesakes: BTreeSet<String>,
    /// Routes that can be called, and hosts that cannot.
    pub routes: usize,
    /// See `routes`.
    pub refused: usize,
    /// Calls are read; else nothing is used or unused.
    pub sees_calls: bool,
}

/// Calls that were counted together.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// How many.
    pub calls: u64,
    /// How many of them ended with an error.
    pub errors: u64,
    /// How long they took.
    pub durations: Durations,
}

/// What tells the calls of one tool, or of one method, from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolKey<'l> {
    /// The route.
    pub route: &'l str,
    /// Who calls.
    pub caller: &'l str,
    /// What is spoken.
    pub protocol: Protocol,
    /// The method.
    pub method: &'static str,
    /// The tool; empty for other methods.
    pub tool: &'l str,
}

// === impl Look ===

impl Look {
    /// How it is now, by this table, where calls are read if `sees_calls`.
    #[must_use]
    pub fn of(taken: Instant, metrics: &Metrics, table: &RouteTable, sees_calls: bool) -> Self {
        let sights = metrics.sight();
        let uses: BTreeMap<_, _> = table
            .callers
            .uses()
            .map(|(agent, uses)| (agent.to_string(), Arc::clone(uses)))
            .collect();
        let (mut routes, mut refused) = (table.statics().len(), 0);
        let (mut agents, mut others) = (BTreeMap::new(), Vec::new());
        let callers: BTreeSet<&str> = callers(&sights).collect();
        for discovered in table.hosts() {
            match &discovered.state {
                HostState::Open(open) => {
                    routes += discovered.routes().count();
                    // That of a pod is shown as what it is.
                    let Some(name) = agent_at(&discovered.host) else { continue };
                    match &open.agent {
                        Some(agent) => {
                            drop(agents.insert(discovered.host.to_string(), agent.to_string()))
                        }
                        None => others.push((name, &discovered.host)),
                    }
                }
                HostState::Unmarked(_) => {}
                HostState::Refused(_) | HostState::Pending(_) | HostState::Missing(_) => {
                    refused += 1;
                }
            }
        }
        let with_hosts: BTreeSet<&String> = agents.values().collect();
        let is_agent = |name: &String| {
            uses.contains_key(name) || callers.contains(&**name) || with_hosts.contains(name)
        };
        others.retain(|(name, _)| is_agent(name));
        let namesakes = others.into_iter().map(|(_, host)| host.to_string()).collect();
        Self { taken, sights, uses, agents, namesakes, routes, refused, sees_calls }
    }

    /// The Agent whose host a route's is, among all that are `known`: the one that the cluster names, else the one of
    /// the host's name.
    #[must_use]
    pub fn agent_at(&self, route: &str, known: &BTreeSet<&str>) -> Option<String> {
        let host = host_of(route);
        match self.agents.get(host) {
            Some(agent) => Some(agent.clone()),
            None if self.namesakes.contains(host) => None,
            None => agent_at(host).filter(|agent| known.contains(&**agent)),
        }
    }

    /// The hosts by which this route may be declared: a tool server is by its own, an Agent by that of its name.
    pub fn declared_hosts<'l>(&self, route: &'l str) -> impl Iterator<Item = Cow<'l, str>> {
        let host = host_of(route);
        let agent = self.agents.get(host).and_then(|agent| agent.split_once('/'));
        let named = agent.map(|(namespace, name)| Cow::Owned(format!("{name}.{namespace}")));
        std::iter::once(Cow::Borrowed(host)).chain(named.filter(|named| **named != *host))
    }

    /// The tools of this route that its caller names; none for all of them. `None` if it does not say that it uses it.
    #[must_use]
    pub fn named<'l>(&self, uses: &'l Uses, route: &str) -> Option<&'l [Box<str>]> {
        let mut hosts = self.declared_hosts(route);
        hosts.find_map(|host| uses.hosts.get(&*host)).map(|tools| &**tools)
    }

    /// Every Agent that calls, says what it uses, or has a host.
    #[must_use]
    pub fn known_agents(&self) -> BTreeSet<&str> {
        // One whose calls cannot be told apart has no Service either.
        let known = self.uses.iter().filter(|(_, uses)| !uses.anonymous);
        let known = known.map(|(agent, _)| agent.as_str()).chain(callers(&self.sights));
        known.chain(self.agents.values().map(String::as_str)).collect()
    }

    /// All calls.
    #[must_use]
    pub fn all(&self) -> Counts {
        let mut all = Counts::default();
        for (key, durations) in self.sights.iter().flat_map(|sight| &sight.operations) {
            all.add(durations, key.error);
        }
        all
    }

    /// All calls that have come since an earlier look, whose series may have gone since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Counts {
        let (now, before) = (self.edges(), before.edges());
        let mut all = Counts::default();
        for (key, counts) in &now {
            all.join(&counts.since(before.get(key)));
        }
        all
    }

    /// Calls by caller, route and protocol.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<(&str, &str, Protocol), Counts> {
        let mut edges = BTreeMap::<_, Counts>::new();
        for sight in &self.sights {
            for (key, durations) in &sight.operations {
                let edge = edges.entry((&*key.caller, &*sight.route, key.protocol)).or_default();
                edge.add(durations, key.error);
            }
        }
        edges
    }

    /// Calls by caller, route, method and tool.
    #[must_use]
    pub fn tools(&self) -> BTreeMap<ToolKey<'_>, Counts> {
        let mut tools = BTreeMap::<_, Counts>::new();
        for sight in &self.sights {
            for (key, durations) in &sight.operations {
                let tool = ToolKey {
                    route: &sight.route,
                    caller: &key.caller,
                    protocol: key.protocol,
                    method: key.method,
                    tool: &key.tool,
                };
                tools.entry(tool).or_default().add(durations, key.error);
            }
        }
        tools
    }

    /// Open streams with their routes.
    pub fn streams(&self) -> impl Iterator<Item = (&str, &StreamNote)> {
        self.sights
            .iter()
            .flat_map(|sight| sight.streams.iter().map(|note| (sight.route.as_str(), note)))
    }

    /// Requests, and streams, that are under way.
    #[must_use]
    pub fn open(&self) -> (i64, i64) {
        let sum = |of: fn(&RouteSight) -> i64| self.sights.iter().map(of).sum();
        (sum(|sight| sight.open.0), sum(|sight| sight.open.1))
    }

    /// Whether a caller says that it uses this tool of a route; of the whole route if `tool` is empty. `None` if it says
    /// nothing.
    #[must_use]
    pub fn declares(&self, caller: &str, route: &str, tool: &str) -> Option<bool> {
        if caller == UNKNOWN || caller == OTHER {
            return None;
        }
        let uses = self.uses.get(caller)?;
        Some(self.named(uses, route).is_some_and(|tools| {
            tool.is_empty() || tools.is_empty() || tools.iter().any(|name| **name == *tool)
        }))
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, durations: &Durations, error: ErrorType) {
        let calls = durations.count();
        self.calls += calls;
        self.errors += if error.is_error() { calls } else { 0 };
        // How long those took whose answer was not seen here, nobody knows.
        if error != ErrorType::Unknown {
            self.durations.join(durations);
        }
    }

    fn join(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.durations.join(&other.durations);
    }

    /// What has come since an earlier moment; all of it if there was nothing then.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Self {
        // Fewer than before are of a series that has begun anew.
        let Some(before) = before.filter(|before| before.calls <= self.calls) else {
            return self.clone();
        };
        Self {
            calls: self.calls.saturating_sub(before.calls),
            errors: self.errors.saturating_sub(before.errors),
            durations: self.durations.since(&before.durations),
        }
    }

    /// All of them, and the rates and quantiles of `recent` ones.
    #[must_use]
    pub fn json(&self, recent: &Self, window: Duration) -> Value {
        json!({
            "calls": self.calls,
            "errors": self.errors,
            "rate": rate(recent.calls, window),
            "errorRate": rate(recent.errors, window),
            "p50Ms": recent.millis(0.5),
            "p50Bound": recent.bound(0.5),
            "p99Ms": recent.millis(0.99),
            "p99Bound": recent.bound(0.99),
        })
    }

    /// What this share of them did not exceed, in milliseconds, to thousandths.
    #[must_use]
    pub fn millis(&self, share: f64) -> Option<f64> {
        let found = self.durations.quantile(share)?;
        Some((found.time().as_secs_f64() * 1e6).round() / 1e3)
    }

    /// Whether that is only a bound: `below` where it was less, `above` where it was more.
    #[must_use]
    pub fn bound(&self, share: f64) -> Option<&'static str> {
        self.durations.quantile(share)?.word()
    }
}

/// The Agents that have called.
fn callers(sights: &[RouteSight]) -> impl Iterator<Item = &str> {
    let keys = sights.iter().flat_map(|sight| sight.operations.keys());
    keys.map(|key| &*key.caller).filter(|caller| caller.contains('/'))
}

/// The Agent of this host, if its Service has the Agent's name: `None` for the host of a pod.
fn agent_at(host: &str) -> Option<String> {
    let (name, namespace) = host.split_once('.').filter(|(_, space)| !space.contains('.'))?;
    Some(format!("{namespace}/{name}"))
}

/// Each second, to thousandths.
fn rate(count: u64, window: Duration) -> f64 {
    if window.is_zero() {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = count as f64;
    (count / window.as_secs_f64() * 1e3).round() / 1e3
}
