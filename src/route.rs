//! From a host name and a path to a route: the table that is also the allow-list.
//!
//! Knows names, prefixes and clusters; never a socket, a body or Kubernetes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use hashlink::DefaultHashBuilder as QuickHash;
use rpds::HashTrieMapSync;

use crate::authority;
use crate::config::target::bare_host;
use crate::config::{KagentHost, RouteConfig};
use crate::plain_path::is_plain;
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::upstream::Cluster;
use crate::workers::near::{Common, Near};

pub mod caller;
pub mod discovered;
pub mod host;
pub mod rule;

pub use caller::{Caller, Callers, Proof, Uses};
pub use discovered::{Considered, Discovered, ObjectId, Opened};
pub use host::{BadHost, HostKey};

/// A host, a prefix, the cluster behind them, and the metric handles of both.
#[derive(Debug)]
pub struct Route {
    /// What was written in the configuration, or made from the cluster's objects.
    pub config: RouteConfig,
    /// Where it leads.
    pub cluster: Arc<Cluster>,
    /// Handles resolved once: at once for what somebody wrote down, at the first request for what was
    /// discovered, because most of a cluster's Services are never called.
    pub metrics: Handles,
    /// Who made it.
    pub source: RouteSource,
    /// What tells it from every other one: its host, a NUL, and its prefix or the Service's port. A session's token is
    /// bound to that.
    pub identity: Box<str>,
    /// Addresses that its Service claims and that are not dialled, each with the reason.
    pub left_out: ArcSwapOption<Vec<Considered>>,
}

/// Metric handles, made when first needed.
pub type Handles = LazyLock<RouteMetrics, Box<dyn FnOnce() -> RouteMetrics + Send>>;

/// Who made a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// Configuration, flags or environment.
    Static,
    /// The cluster's objects.
    Cluster,
}

/// A route for requests without `x-kagent-host`.
#[derive(Debug)]
pub struct DefaultRoute {
    /// Only requests with this Host, lower case and without its port.
    pub host: Option<String>,
    /// Only requests on the listener of this name.
    pub listener: Option<String>,
    /// Where it leads.
    pub route: Common<Route>,
}

/// All routes of one moment. Cheap to clone: what discovery changes shares everything else.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    statics: Arc<Statics>,
    cluster_domain: Arc<str>,
    discovered: HashTrieMapSync<HostKey, Arc<Discovered>>,
    /// Who calls.
    pub callers: Callers,
    /// Hosts may become known, from these namespaces; none is every namespace.
    discovering: Option<Arc<[String]>>,
}

#[derive(Debug, Default)]
struct Statics {
    /// Longest prefix first. Whoever asks adds none, and so cannot make them collide: the hash may be a quick one.
    hosts: HashMap<HostKey, Vec<Common<Route>>, QuickHash>,
    /// In the order written; the first that fits is taken.
    defaults: Vec<DefaultRoute>,
}

/// What the table is asked.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    /// The normalised `x-kagent-host`.
    pub host: &'a HostKey,
    /// The path, without its query.
    pub path: &'a str,
    /// A port in that header.
    pub port: Option<u16>,
    /// The request's Host, which may be no text: a hint, and rarely asked for.
    pub authority: Option<&'a [u8]>,
    /// The Agent that sends it, if known.
    pub caller: Option<&'a ObjectId>,
    /// The DNS suffix of the cluster.
    pub cluster_domain: &'a str,
}

/// What the table answers.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The route.
    pub route: Near<Route>,
    /// The query of the tool server's URL, which kagent drops: for requests without one.
    pub query: Option<Arc<str>>,
}

/// Why no route fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// The host is not in the table; [`RouteTable::near`] knows names that look alike.
    Host,
    /// The host is known, its prefixes do not match this path.
    Path(Vec<String>),
    /// A path-limited route, and a path that other software might read differently (D3).
    UnsafePath,
    /// The port in the header is none of the target's, which are these.
    Port(u16, Vec<u16>),
    /// The cluster has it, and it must not be reached; what would allow it.
    Forbidden(String),
    /// The same, because nothing marks it as an agent or MCP server.
    Unmarked(String),
    /// Several places fit; which.
    Ambiguous(String, Vec<String>),
    /// Something of this name exists, and has no Service yet.
    Pending(String),
    /// Somebody names this host, and there is no Service.
    Missing(String),
    /// It is known, and cannot be used as it is configured.
    Unusable(String),
}

// === impl Route ===

impl Route {
    /// A route whose handles are made when first needed; `label` stands in its series.
    #[must_use]
    pub fn new(
        config: RouteConfig,
        cluster: Arc<Cluster>,
        metrics: &Metrics,
        label: &str,
        source: RouteSource,
    ) -> Self {
        let (metrics, label) = (metrics.clone(), label.to_owned());
        let metrics = Handles::new(Box::new(move || metrics.route(&label)));
        let rest = match (source, config.to.targets.first()) {
            (RouteSource::Cluster, Some(target)) => format!(":{}", target.port),
            _ => config.prefix.clone(),
        };
        let identity = format!("{}\0{rest}", config.host).into();
        Self { config, cluster, metrics, source, identity, left_out: ArcSwapOption::empty() }
    }

    /// Whether a port written behind the host is one of the targets'.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.config.to.targets.iter().any(|target| target.port == port)
    }
}

// === impl DefaultRoute ===

impl DefaultRoute {
    fn fits(&self, host: &str, listener: &str) -> bool {
        let name = host_name(host);
        self.host.as_ref().is_none_or(|host| name.eq_ignore_ascii_case(host))
            && self.listener.as_ref().is_none_or(|name| name == listener)
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Puts routes in order. Their hosts must have passed [`HostKey::parse`] or be plain DNS names.
    #[must_use]
    pub fn new(
        routes: Vec<Common<Route>>,
        defaults: Vec<DefaultRoute>,
        cluster_domain: &str,
    ) -> Self {
        let mut hosts: HashMap<HostKey, Vec<Common<Route>>, QuickHash> = HashMap::default();
        for route in routes {
            let host = bare_host(&route.config.host, cluster_domain);
            hosts.entry(HostKey::from(host)).or_default().push(route);
        }
        for list in hosts.values_mut() {
            list.sort_by_key(|route| std::cmp::Reverse(route.config.prefix.len()));
        }
        let statics = Arc::new(Statics { hosts, defaults });
        Self { statics, cluster_domain: cluster_domain.into(), ..Self::default() }
    }

    /// This table with the discovered part of another one.
    #[must_use]
    pub fn with_discovered_of(self, other: &Self) -> Self {
        let Self { statics, cluster_domain, callers, .. } = self;
        let callers = other.callers.clone().with(callers.written());
        Self { statics, cluster_domain, callers, ..other.clone() }
    }

    /// The DNS suffix of the cluster.
    #[must_use]
    pub fn cluster_domain(&self) -> &str {
        &self.cluster_domain
    }

    /// Whether hosts that are not known may become so.
    #[must_use]
    pub const fn is_discovering(&self) -> bool {
        self.discovering.is_some()
    }

    /// Whether the Services of a namespace are seen.
    #[must_use]
    pub fn watches(&self, namespace: &str) -> bool {
        self.discovering
            .as_ref()
            .is_some_and(|all| all.is_empty() || all.iter().any(|name| name == namespace))
    }

    /// Whether this host may become known: Services are named `name.namespace`, their pods
    /// `pod.name.namespace` with the suffix.
    #[must_use]
    pub fn may_learn(&self, host: &HostKey) -> bool {
        let name = host.as_str();
        let labels = name.split('.').count();
        let namespace = name.rsplit('.').next().unwrap_or_default();
        (2..=3).contains(&labels) && host.may_be_discovered() && self.watches(namespace)
    }

    /// Hosts may become known from now on, in these namespaces; none is all of them.
    pub fn set_discovering(&mut self, namespaces: &[String]) {
        self.discovering = Some(namespaces.into());
    }

    /// What the cluster says of a host; `None` forgets it. Everything else stays as it is.
    pub fn set_discovered(&mut self, host: HostKey, discovered: Option<Arc<Discovered>>) {
        match discovered {
            Some(discovered) => self.discovered.insert_mut(host, discovered),
            None => {
                self.discovered.remove_mut(&host);
            }
        }
    }

    /// Forgets all that the cluster has said.
    pub fn forget_discovered(&mut self) {
        self.discovered = HashTrieMapSync::default();
        self.callers = Callers::default().with(self.callers.written());
    }

    /// The Agent behind an address, where exactly one is known (D6).
    #[must_use]
    pub fn caller(&self, address: IpAddr) -> Option<&Common<Caller>> {
        self.callers.get(address)
    }

    /// What the cluster says of a host.
    #[must_use]
    pub fn discovered(&self, host: &HostKey) -> Option<&Arc<Discovered>> {
        self.discovered.get(host)
    }

    /// The route for a host and a path. What somebody wrote down wins: the longest whole-segment
    /// prefix; paths that no static route of the host takes are left to the cluster's objects. `chain`
    /// takes every candidate and why it lost.
    ///
    /// # Errors
    /// [`NoRoute`], with what would have fitted.
    pub fn resolve(
        &self,
        ask: &RouteQuery<'_>,
        mut chain: Option<&mut Vec<Considered>>,
    ) -> Result<RouteMatch, NoRoute> {
        // pod.name.namespace is a name of the cluster's DNS only with its suffix.
        let discovered = match self.discovered.is_empty() {
            true => None,
            false => self.discovered.get(ask.host).filter(|_| ask.host.may_be_discovered()),
        };
        if let Some(routes) = self.statics.hosts.get(ask.host) {
            match resolve_static(routes, ask, chain.as_deref_mut()) {
                Err(NoRoute::Path(_)) if discovered.is_some() => {}
                answer => return answer,
            }
        }
        match discovered {
            Some(discovered) => discovered.choose(ask, chain),
            None => Err(NoRoute::Host),
        }
    }

    /// The route for a request without `x-kagent-host`, by its Host and the listener it came on.
    #[must_use]
    pub fn resolve_default(&self, host: &str, listener: &str) -> Option<Near<Route>> {
        let found = self.statics.defaults.iter().find(|route| route.fits(host, listener));
        found.map(|found| found.route.near())
    }

    /// The route for a request whose `x-kagent-host` nobody here knows: a default route to another proxy.
    #[must_use]
    pub fn resolve_next(&self, host: &str, listener: &str) -> Option<Near<Route>> {
        let next = |route: &&DefaultRoute| {
            route.route.config.to.kagent_host == KagentHost::Pass && route.fits(host, listener)
        };
        self.statics.defaults.iter().find(next).map(|found| found.route.near())
    }

    /// Whether it is one of the default routes.
    #[must_use]
    pub fn is_default(&self, route: &Route) -> bool {
        self.statics.defaults.iter().any(|default| default.route.is_same(route))
    }

    /// Whether a name is the host of this route, in any spelling.
    #[must_use]
    pub fn is_host_of(&self, host: &HostKey, route: &Route) -> bool {
        host.as_str() == bare_host(&route.config.host, &self.cluster_domain)
    }

    /// Whether a host name in a URL that the backend wrote means the backend of this route.
    #[must_use]
    pub fn is_backend(&self, host: &str, route: &Route) -> bool {
        let same = HostKey::parse(host, &self.cluster_domain)
            .is_ok_and(|(key, _)| self.is_host_of(&key, route));
        let to = &route.config.to;
        let written = to.host_header.as_deref().map(host_name);
        same || to.targets.iter().any(|target| target.host == host)
            || written.is_some_and(|written| written.eq_ignore_ascii_case(host))
    }

    /// Every static route, hosts in order, default routes first.
    #[must_use]
    pub fn statics(&self) -> Vec<Common<Route>> {
        let mut all: Vec<_> = self.statics.hosts.values().flatten().cloned().collect();
        all.extend(self.statics.defaults.iter().map(|default| default.route.clone()));
        all.sort_by(|a, b| {
            (&a.config.host, &a.config.prefix).cmp(&(&b.config.host, &b.config.prefix))
        });
        all
    }

    /// What the cluster says, in no order.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Discovered>> {
        self.discovered.values()
    }

    /// What the cluster says, hosts in order, and whether a static route takes the host's every path.
    #[must_use]
    pub fn all_discovered(&self) -> Vec<(Arc<Discovered>, bool)> {
        let whole = |host: &HostKey| {
            let routes = self.statics.hosts.get(host);
            routes.is_some_and(|routes| routes.iter().any(|route| route.config.prefix == "/"))
        };
        let mut all: Vec<_> =
            self.discovered.iter().map(|(host, d)| (Arc::clone(d), whole(host))).collect();
        all.sort_by(|(a, _), (b, _)| a.host.cmp(&b.host));
        all
    }

    /// Known hosts that share the first label, contain it, or are spelt alike; at most three, the nearest
    /// first. Looks at every name there is: a millisecond in a large cluster.
    #[must_use]
    pub fn near(&self, host: &HostKey) -> Vec<String> {
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let label = first(host.as_str());
        let distance = |known: &str| {
            let its = first(known);
            let alike =
                its == label || (label.len() > 3 && (its.contains(&label) || label.contains(&its)));
            // Most names are told apart by their length.
            let bound = 1 + label.len() / 5;
            if !alike && host.as_str().len().abs_diff(known.len()) > bound {
                return None;
            }
            let typos = strsim::damerau_levenshtein(host.as_str(), known);
            (alike || typos <= bound).then_some(typos)
        };
        let known = self.statics.hosts.keys().chain(self.discovered.keys());
        let mut near: Vec<_> = known
            .filter_map(|known| Some((distance(known.as_str())?, known.as_str().to_owned())))
            .collect();
        near.sort();
        near.dedup();
        near.into_iter().take(3).map(|(_, known)| known).collect()
    }
}

/// The longest prefix that fits.
fn resolve_static(
    routes: &[Common<Route>],
    ask: &RouteQuery<'_>,
    chain: Option<&mut Vec<Considered>>,
) -> Result<RouteMatch, NoRoute> {
    let limited = routes.iter().any(|route| route.config.prefix != "/");
    if limited && !is_plain(ask.path) {
        return Err(NoRoute::UnsafePath);
    }
    let route = routes.iter().find(|route| has_prefix(ask.path, &route.config.prefix));
    if let Some(chain) = chain {
        chain.extend(routes.iter().map(|candidate| {
            let verdict = match route {
                Some(route) if route.is_same(candidate) => "taken: static routes win",
                _ if has_prefix(ask.path, &candidate.config.prefix) => "a longer prefix won",
                _ => "its prefix does not fit",
            };
            let RouteConfig { host, prefix, .. } = &candidate.config;
            Considered::new(format!("static route {host}{prefix}"), verdict)
        }));
    }
    let Some(route) = route else {
        return Err(NoRoute::Path(routes.iter().map(|r| r.config.prefix.clone()).collect()));
    };
    match ask.port.filter(|port| !route.has_port(*port)) {
        Some(port) => {
            let there = route.config.to.targets.iter().map(|target| target.port).collect();
            Err(NoRoute::Port(port, there))
        }
        None => Ok(RouteMatch { route: route.near(), query: None }),
    }
}

/// A Host without its port and its last dot.
fn host_name(host: &str) -> &str {
    let (name, port) = authority::split(host);
    let digits = port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = if digits { name } else { host };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whole segments: `/docs` fits `/docs` and `/docs/x`, not `/docsy`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_whole_segments() {
        assert!(has_prefix("/docs", "/docs"));
        assert!(has_prefix("/docs/mcp", "/docs"));
        assert!(!has_prefix("/docsy", "/docs"));
        assert!(!has_prefix("/Docs", "/docs"));
    }
}
