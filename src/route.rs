//! From a host name and a path to a route: the table that is also the allow-list.
//!
//! Knows names, prefixes and clusters; never a socket, a body or Kubernetes. `proxy.rs` asks
//! [`RouteTable::resolve`] once for each request.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::RouteConfig;
use crate::config::target::bare_host;
use crate::telemetry::metrics::RouteMetrics;
use crate::upstream::Cluster;

/// A host name in the one form in which names are compared: lower case, no trailing dot, no cluster
/// suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostKey(Box<str>);

/// A host, a prefix, the cluster behind them, and the metric handles of both.
#[derive(Debug)]
pub struct Route {
    /// What was written in the configuration.
    pub config: RouteConfig,
    /// Where it leads.
    pub cluster: Arc<Cluster>,
    /// Handles resolved once.
    pub metrics: RouteMetrics,
}

/// A route for requests without `x-kagent-host`.
#[derive(Debug)]
pub struct DefaultRoute {
    /// Only requests with this Host, lower case and without its port.
    pub host: Option<String>,
    /// Only requests on the listener of this name.
    pub listener: Option<String>,
    /// Where it leads.
    pub route: Arc<Route>,
}

/// All routes of one moment.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Longest prefix first.
    hosts: HashMap<HostKey, Vec<Arc<Route>>>,
    /// In the order written; the first that fits is taken.
    defaults: Vec<DefaultRoute>,
    cluster_domain: String,
}

/// Why no route fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// The host is not in the table; known names that look alike.
    Host(Vec<String>),
    /// The host is known, its prefixes do not match this path.
    Path(Vec<String>),
    /// A path-limited route, and a path that other software might read differently (D3).
    UnsafePath,
}

/// Why a header value is no host name; the sentence ends up in the error body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing in it.
    #[error("the value is empty")]
    Empty,
    /// Longer than DNS allows (RFC 1035 section 2.3.4).
    #[error("the value is longer than 253 bytes")]
    TooLong,
    /// An IP literal or `localhost`: never a Service.
    #[error("IP addresses and localhost are not routable; use the Service's name.namespace")]
    Address,
    /// A label that RFC 1123 section 2.1 does not allow.
    #[error("a label has characters other than letters, digits and '-'")]
    Label,
    /// The part after the colon is no port.
    #[error("the part after ':' is not a port")]
    Port,
}

// === impl HostKey ===

impl HostKey {
    /// Reads a header value (D2): `Helper.Team-A.svc.cluster.local.` becomes `helper.team-a`. The
    /// suffix goes only from three or more labels, so that a namespace may be called `svc`.
    ///
    /// # Errors
    /// [`BadHost`] for anything that is not a DNS name, with an optional port.
    pub fn parse(value: &str, cluster_domain: &str) -> Result<(Self, Option<u16>), BadHost> {
        let (name, port) = match value.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err(BadHost::Address),
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
                (name, Some(port.parse().map_err(|_| BadHost::Port)?))
            }
            Some(_) => return Err(BadHost::Port),
            None => (value, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        check_name(&name)?;
        let bare = bare_host(&name, cluster_domain);
        // A suffix must not hide what is refused without it: 2.3.svc.
        check_name(bare)?;
        Ok((Self(bare.into()), port))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(name: &str) -> Result<(), BadHost> {
    if name.is_empty() {
        return Err(BadHost::Empty);
    }
    if name.len() > 253 {
        return Err(BadHost::TooLong);
    }
    if name.starts_with('[') || name == "localhost" || name.ends_with(".localhost") {
        return Err(BadHost::Address);
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(label_ok) {
        return Err(BadHost::Label);
    }
    // Every form of an IPv4 address that resolvers take (inet_aton): 10.0.0.1, 0x7f000001, 127.1. A
    // namespace may be called 3, so one number is not enough.
    let number = |label: &str| {
        let hex = label.strip_prefix("0x");
        hex.map_or_else(
            || label.bytes().all(|b| b.is_ascii_digit()),
            |hex| hex.bytes().all(|b| b.is_ascii_hexdigit()),
        )
    };
    if name.split('.').all(number) { Err(BadHost::Address) } else { Ok(()) }
}

// === impl Route ===

impl Route {
    /// Whether a port written behind the host is one of the targets'.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.config.to.targets.iter().any(|target| target.port == port)
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// Puts routes in order. Their hosts must have passed [`HostKey::parse`] or be plain DNS names.
    #[must_use]
    pub fn new(routes: Vec<Arc<Route>>, defaults: Vec<DefaultRoute>, cluster_domain: &str) -> Self {
        let mut hosts: HashMap<HostKey, Vec<Arc<Route>>> = HashMap::new();
        for route in routes {
            let host = bare_host(&route.config.host, cluster_domain);
            hosts.entry(HostKey(host.into())).or_default().push(route);
        }
        for list in hosts.values_mut() {
            list.sort_by_key(|route| std::cmp::Reverse(route.config.prefix.len()));
        }
        Self { hosts, defaults, cluster_domain: cluster_domain.to_owned() }
    }

    /// The DNS suffix of the cluster.
    #[must_use]
    pub fn cluster_domain(&self) -> &str {
        &self.cluster_domain
    }

    /// The route for a host and a path: longest whole-segment prefix.
    ///
    /// # Errors
    /// [`NoRoute`], with what would have fitted.
    pub fn resolve(&self, host: &HostKey, path: &str) -> Result<Arc<Route>, NoRoute> {
        let Some(routes) = self.hosts.get(host) else {
            return Err(NoRoute::Host(self.near(host)));
        };
        let limited = routes.iter().any(|route| route.config.prefix != "/");
        if limited && !is_plain_path(path) {
            return Err(NoRoute::UnsafePath);
        }
        routes
            .iter()
            .find(|route| has_prefix(path, &route.config.prefix))
            .cloned()
            .ok_or_else(|| NoRoute::Path(routes.iter().map(|r| r.config.prefix.clone()).collect()))
    }

    /// The route for a request without `x-kagent-host`, by its Host and the listener it came on.
    #[must_use]
    pub fn resolve_default(&self, host: &str, listener: &str) -> Option<Arc<Route>> {
        let name = host_name(host);
        let fits = |route: &&DefaultRoute| {
            route.host.as_ref().is_none_or(|host| name.eq_ignore_ascii_case(host))
                && route.listener.as_ref().is_none_or(|name| name == listener)
        };
        self.defaults.iter().find(fits).map(|found| Arc::clone(&found.route))
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

    /// Every route, hosts in order, default routes first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Route>> {
        let mut all: Vec<_> = self.hosts.values().flatten().cloned().collect();
        all.extend(self.defaults.iter().map(|default| Arc::clone(&default.route)));
        all.sort_by(|a, b| {
            (&a.config.host, &a.config.prefix).cmp(&(&b.config.host, &b.config.prefix))
        });
        all
    }

    /// Known hosts that share the first label or begin alike; at most three.
    fn near(&self, host: &HostKey) -> Vec<String> {
        let label = host.as_str().split('.').next().unwrap_or_default();
        let alike = |known: &&HostKey| {
            let first = known.as_str().split('.').next().unwrap_or_default();
            first == label || (label.len() > 3 && (first.contains(label) || label.contains(first)))
        };
        let mut near: Vec<String> =
            self.hosts.keys().filter(alike).map(|known| known.as_str().to_owned()).collect();
        near.sort();
        near.truncate(3);
        near
    }
}

/// A Host without its port and its last dot.
fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whole segments: `/docs` fits `/docs` and `/docs/x`, not `/docsy`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// No dot segment, empty segment, backslash or encoded `/`, `\` or `.` (D3): such a path could lead a
/// backend outside the prefix that was checked.
fn is_plain_path(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%2e"].iter().any(|code| lower.contains(code));
    let mut segments = path.split('/').skip(1).peekable();
    let mut plain = !encoded && !path.contains('\\');
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        plain &= segment != "." && segment != ".." && (last || !segment.is_empty());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<String, BadHost> {
        HostKey::parse(value, "cluster.local").map(|(key, _)| key.as_str().to_owned())
    }

    #[test]
    fn every_spelling_of_a_service_is_one_key() {
        for spelling in [
            "helper.team-a",
            "Helper.Team-A.svc.cluster.local",
            "helper.team-a.",
            "helper.team-a.svc",
            "helper.team-a:8080",
        ] {
            assert_eq!(key(spelling).unwrap(), "helper.team-a", "{spelling}");
        }
        assert_eq!(key("x.svc").unwrap(), "x.svc", "a namespace may be called svc");
        assert_eq!(key("x.3").unwrap(), "x.3", "or 3");
        assert_eq!(key("pod-0.db.team-a.svc.cluster.local").unwrap(), "pod-0.db.team-a");
    }

    #[test]
    fn what_is_no_service_name_is_refused_with_its_reason() {
        for (value, why) in [
            ("", BadHost::Empty),
            (".", BadHost::Empty),
            ("169.254.169.254", BadHost::Address),
            ("[::1]", BadHost::Address),
            ("::1", BadHost::Address),
            ("localhost", BadHost::Address),
            ("a.localhost", BadHost::Address),
            ("0x7f000001", BadHost::Address),
            ("2130706433", BadHost::Address),
            ("127.1", BadHost::Address),
            ("0x7f.1", BadHost::Address),
            ("2.3.svc", BadHost::Address),
            ("a.localhost.svc", BadHost::Address),
            ("user@host.ns", BadHost::Label),
            ("a..b", BadHost::Label),
            ("a b.ns", BadHost::Label),
            ("helper.ns:http", BadHost::Port),
            ("helper.ns:99999", BadHost::Port),
            ("-a.ns", BadHost::Label),
        ] {
            assert_eq!(key(value).unwrap_err(), why, "{value:?}");
        }
        assert_eq!(key(&"a.".repeat(200)).unwrap_err(), BadHost::TooLong);
    }

    #[test]
    fn prefixes_match_whole_segments() {
        assert!(has_prefix("/docs", "/docs"));
        assert!(has_prefix("/docs/mcp", "/docs"));
        assert!(!has_prefix("/docsy", "/docs"));
        assert!(!has_prefix("/Docs", "/docs"));
    }

    #[test]
    fn paths_that_could_be_read_twice_are_not_plain() {
        for path in ["/a/../b", "/a/./b", "/a//b", "/a\\b", "/a%2Fb", "/a/%2e%2e/b", "/a%5cb"] {
            assert!(!is_plain_path(path), "{path}");
        }
        for path in ["/", "/mcp", "/mcp/", "/a%20b", "/.well-known/agent-card.json"] {
            assert!(is_plain_path(path), "{path}");
        }
    }
}
