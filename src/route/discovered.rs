//! One host of the cluster: what may carry its calls, and the choice among that for one request.
//!
//! The choice is pure and the same for routing and for `explain` (contract 2.3). Knows rules and ports,
//! not the objects they came from; `discovery/decide.rs` makes the parts, [`Discovered::choose`] is asked
//! by the table.

use std::sync::Arc;

use super::host::HostKey;
use super::{Ask, Chosen, NoRoute, Route, is_plain_path};

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
    pub state: State,
    /// What the cluster said, for `explain`: the considered marks and ports, each with its verdict.
    pub notes: Vec<Note>,
}

/// Whether a host can be reached.
#[derive(Debug)]
pub enum State {
    /// Yes.
    Open(Open),
    /// Never as things stand; why, and what would change it.
    Refused(Box<str>),
    /// Something of this name exists, and is not complete yet.
    Pending(Box<str>),
    /// Named by somebody, but no Service.
    Missing(Box<str>),
}

/// A host that can be reached.
#[derive(Debug)]
pub struct Open {
    /// What tool servers' objects say, in the order of their names.
    pub rules: Vec<Rule>,
    /// The Service's TCP ports.
    pub ports: Vec<(u16, Arc<Route>)>,
    /// What holds where no rule does.
    pub fallback: Fallback,
    /// Owned by an Agent: rules need a path of their own to win (contract 2.4(5)).
    pub agent: bool,
    /// Only these leading paths; empty is every path.
    pub paths: &'static [&'static str],
    /// Only these callers; `None` is everyone.
    pub callers: Option<Vec<ObjectId>>,
}

/// The port where no rule holds.
#[derive(Debug)]
pub enum Fallback {
    /// This one, and why.
    Port(Arc<Route>, Box<str>),
    /// This one, which cannot be used.
    Unusable(NoRoute),
    /// Nothing says which.
    Undecided(Box<str>),
}

/// What one `RemoteMCPServer` says of this host.
#[derive(Debug)]
pub struct Rule {
    /// The object.
    pub object: ObjectId,
    /// Whom it binds.
    pub standing: Standing,
    /// The path of its URL, `/` at least.
    pub path: Box<str>,
    /// Legacy SSE: clients post to paths beside that of the URL.
    pub sse: bool,
    /// The query of its URL, which kagent drops.
    pub query: Option<Arc<str>>,
    /// Where it leads, or why nowhere.
    pub route: Result<Arc<Route>, NoRoute>,
    /// The port it names.
    pub port: u16,
    /// The Agents that name it among their tools.
    pub callers: Vec<ObjectId>,
}

/// Whom a rule binds (D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everybody, before all others: it stands beside the Service.
    Own,
    /// Everybody: its namespace is trusted.
    Trusted,
    /// Those that name it.
    Callers,
}

/// A candidate and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
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

// === impl Note ===

impl Note {
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
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let State::Open(open) = &self.state else { return RoutesOf::default().into_iter() };
        let mut routes: RoutesOf<'_> = open.ports.iter().map(|(_, route)| route).collect();
        for route in open.rules.iter().filter_map(|rule| rule.route.as_ref().ok()) {
            if !routes.iter().any(|known| Arc::ptr_eq(known, route)) {
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
        ask: &Ask<'_>,
        mut chain: Option<&mut Vec<Note>>,
    ) -> Result<Chosen, NoRoute> {
        if let Some(chain) = chain.as_deref_mut() {
            chain.extend(self.notes.iter().cloned());
        }
        let open = match &self.state {
            State::Open(open) => open,
            State::Refused(why) => return Err(NoRoute::Forbidden(why.to_string())),
            State::Pending(why) => return Err(NoRoute::Pending(why.to_string())),
            State::Missing(why) => return Err(NoRoute::Missing(why.to_string())),
        };
        open.admits(ask)?;
        if let Some(port) = ask.port
            && !open.has_port(port)
        {
            return Err(NoRoute::Port(port));
        }
        let matching = open.matching(ask, chain.as_deref_mut());
        match matching.as_slice() {
            [] => open.without_rules(ask, chain),
            [only] => only.chosen(ask, chain),
            several => choose_among(several, ask, chain),
        }
    }
}

type RoutesOf<'a> = Vec<&'a Arc<Route>>;

// === impl Open ===

impl Open {
    fn admits(&self, ask: &Ask<'_>) -> Result<(), NoRoute> {
        if !self.paths.is_empty() {
            if !is_plain_path(ask.path) {
                return Err(NoRoute::UnsafePath);
            }
            if !self.paths.iter().any(|allowed| super::has_prefix(ask.path, allowed)) {
                return Err(NoRoute::Forbidden(format!(
                    "the kagent controller is reachable for agents on {} only, not on this path",
                    self.paths.join(" and ")
                )));
            }
        }
        let Some(callers) = &self.callers else { return Ok(()) };
        if ask.caller.is_some_and(|caller| callers.contains(caller)) {
            return Ok(());
        }
        Err(NoRoute::Forbidden(
            "only RemoteMCPServers of other, untrusted namespaces name this Service, and they count for \
             the Agents that use them alone; add their namespace to discovery.trustedNamespaces, or \
             annotate the Service with kagent-proxy.dev/route=true"
                .to_owned(),
        ))
    }

    fn has_port(&self, port: u16) -> bool {
        let named = |rule: &Rule| rule.port == port && rule.route.is_ok();
        self.ports.iter().any(|(number, _)| *number == port) || self.rules.iter().any(named)
    }

    /// The rules that hold for this request and outrank the others: all of the best standing, and of
    /// those the best matches of the path.
    fn matching(&self, ask: &Ask<'_>, mut chain: Option<&mut Vec<Note>>) -> Vec<&Rule> {
        let mut best: Vec<&Rule> = Vec::new();
        let mut rank: Rank = (false, false, 0);
        for rule in &self.rules {
            let verdict = match rule.rank(ask, self.agent) {
                Err(why) => why.to_owned(),
                Ok(this) if this < rank => "a better match won".to_owned(),
                Ok(this) => {
                    if this > rank {
                        let lost = best.drain(..);
                        if let Some(chain) = chain.as_deref_mut() {
                            chain.extend(
                                lost.map(|rule| Note::new(rule.to_string(), "a better match won")),
                            );
                        }
                    }
                    rank = this;
                    best.push(rule);
                    continue;
                }
            };
            if let Some(chain) = chain.as_deref_mut() {
                chain.push(Note::new(rule.to_string(), verdict));
            }
        }
        best
    }

    /// The explicit port, the Service's own word, or the port of the authority.
    fn without_rules(
        &self,
        ask: &Ask<'_>,
        mut chain: Option<&mut Vec<Note>>,
    ) -> Result<Chosen, NoRoute> {
        // Objects of others open what they name, for those that use them, and nothing beside it.
        if self.callers.is_some() && (ask.port.is_some() || !self.rules.is_empty()) {
            return Err(NoRoute::Forbidden(
                "the RemoteMCPServers that open this Service for the caller name another path or port"
                    .to_owned(),
            ));
        }
        let by_number = |port: u16| self.ports.iter().find(|(number, _)| *number == port);
        let mut take = |route: &Arc<Route>, what: String, why: &str| {
            if let Some(chain) = chain.as_deref_mut() {
                chain.push(Note::new(what, format!("taken: {why}")));
            }
            Ok(Chosen { route: Arc::clone(route), query: None })
        };
        if let Some((port, route)) = ask.port.and_then(by_number) {
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
        if let Some((port, route)) = ask.hint().and_then(by_number) {
            return take(route, format!("port {port}"), "the request's Host names it");
        }
        let ports: Vec<String> = self.ports.iter().map(|(port, _)| port.to_string()).collect();
        Err(NoRoute::Ambiguous(format!("{undecided}: ports {}", ports.join(", ")), ports))
    }
}

/// Better is greater: the path fits, not only the server of a legacy SSE path; it stands beside the
/// Service; how well the path fits.
type Rank = (bool, bool, usize);

// === impl Rule ===

impl Rule {
    /// The error says why it does not hold.
    fn rank(&self, ask: &Ask<'_>, agent: bool) -> Result<Rank, &'static str> {
        if ask.port.is_some_and(|port| port != self.port) {
            return Err("the header names another port");
        }
        let named = ask.caller.is_some_and(|caller| self.callers.contains(caller));
        if self.standing == Standing::Callers && !named {
            return Err("of another, untrusted namespace, and the caller does not use it");
        }
        if agent && &*self.path == "/" {
            return Err("an Agent owns the Service, and the object has no path of its own");
        }
        let path = if &*self.path == ask.path {
            usize::MAX
        } else if super::has_prefix(ask.path, self.path.trim_end_matches('/')) {
            self.path.len() + 1
        } else if self.sse && !agent {
            1
        } else {
            return Err("its path does not fit");
        };
        Ok((path > 1, self.standing == Standing::Own, path))
    }

    fn chosen(&self, ask: &Ask<'_>, chain: Option<&mut Vec<Note>>) -> Result<Chosen, NoRoute> {
        let route = match &self.route {
            Ok(route) => Arc::clone(route),
            Err(why) => return Err(why.clone()),
        };
        if let Some(chain) = chain {
            chain.push(Note::new(self.to_string(), "taken: its path fits best"));
        }
        let query = self.query.as_ref().filter(|_| &*self.path == ask.path);
        Ok(Chosen { route, query: query.cloned() })
    }

    /// Whether both mean the same place.
    fn agrees(&self, other: &Self) -> bool {
        let same = match (&self.route, &other.route) {
            (Ok(one), Ok(two)) => Arc::ptr_eq(one, two),
            (Err(one), Err(two)) => one == two,
            _ => false,
        };
        same && self.query == other.query
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteMCPServer {} (port {}, path {})", self.object, self.port, self.path)
    }
}

/// Equal matches: one that all agree on, or the one that the caller's Agent names; never a guess.
fn choose_among(
    several: &[&Rule],
    ask: &Ask<'_>,
    mut chain: Option<&mut Vec<Note>>,
) -> Result<Chosen, NoRoute> {
    let named: Vec<&Rule> = match ask.caller {
        Some(caller) => several.iter().copied().filter(|r| r.callers.contains(caller)).collect(),
        None => Vec::new(),
    };
    let taken = if agree(several) { several } else { named.as_slice() };
    if let (Some(first), true) = (taken.first(), agree(taken)) {
        let others = several.iter().filter(|rule| !std::ptr::eq(**rule, *first));
        if let Some(chain) = chain.as_deref_mut() {
            chain.extend(others.map(|rule| {
                let verdict =
                    if rule.agrees(first) { "says the same" } else { "the caller uses another" };
                Note::new(rule.to_string(), verdict)
            }));
        }
        return first.chosen(ask, chain);
    }
    if let Some(chain) = chain {
        chain.extend(several.iter().map(|rule| Note::new(rule.to_string(), "equal match")));
    }
    Err(NoRoute::Ambiguous(
        "several RemoteMCPServers fit this host and path alike and name different places"
            .to_owned(),
        several.iter().map(ToString::to_string).collect(),
    ))
}

fn agree(rules: &[&Rule]) -> bool {
    rules.split_first().is_some_and(|(first, rest)| rest.iter().all(|rule| rule.agrees(first)))
}

// === impl Ask ===

impl Ask<'_> {
    /// The port of the request's Host, where that names the same host: Python's A2A client sends it
    /// (contract 3.1). A hint, never more.
    fn hint(&self) -> Option<u16> {
        let (key, port) = HostKey::parse(self.authority?, self.cluster_domain).ok()?;
        port.filter(|_| key == *self.host)
    }
}
