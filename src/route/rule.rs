//! What one tool server's object says of a host, and the choice among several of them.
//!
//! Pure: one request, no table.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::{Considered, NoRoute, ObjectId, Route, RouteMatch, RouteQuery};
use crate::workers::near::Common;

/// What one `RemoteMCPServer` says of this host.
#[derive(Debug)]
pub struct Rule {
    /// The object.
    pub object: ObjectId,
    /// Whom it binds.
    pub standing: Authority,
    /// The path of its URL as written, `/` at least.
    pub path: Box<str>,
    /// The same, as it is compared: see [`decoded`].
    pub decoded: Box<str>,
    /// Legacy SSE: clients post to paths beside that of the URL.
    pub sse: bool,
    /// The query of its URL, which kagent drops.
    pub query: Option<Arc<str>>,
    /// Where it leads, or why nowhere.
    pub route: Result<Common<Route>, NoRoute>,
    /// The port it names.
    pub port: u16,
    /// The Agents that name it among their tools.
    pub callers: BTreeSet<ObjectId>,
}

/// Whom a rule binds (D5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Everybody, before all others: it stands beside the Service.
    Own,
    /// Everybody: its namespace is trusted.
    Trusted,
    /// Those that name it.
    Callers,
}

/// Better is greater: the path fits, not only the server of a legacy SSE path; it stands beside the
/// Service; how well the path fits.
pub(super) type Rank = (bool, bool, usize);

// === impl Rule ===

impl Rule {
    /// How well it fits a path, decoded; the error says why it does not hold.
    pub(super) fn rank(
        &self,
        port: Option<u16>,
        path: &str,
        agent: bool,
    ) -> Result<Rank, &'static str> {
        if port.is_some_and(|port| port != self.port) {
            return Err("the header names another port");
        }
        let own = &*self.decoded;
        if agent && own == "/" {
            return Err("an Agent owns the Service, and the object has no path of its own");
        }
        let fit = if own == path {
            usize::MAX
        } else if super::has_prefix(path, own.trim_end_matches('/')) {
            own.len() + 1
        } else if self.sse && !agent {
            1
        } else {
            return Err("its path does not fit");
        };
        Ok((fit > 1, self.standing == Authority::Own, fit))
    }

    /// Whether it takes this path, decoded, because it lies below its own: the path must then be read in
    /// one way only, or a backend could be led beside what the object's URL names (D3).
    pub(super) fn limits(&self, path: &str) -> bool {
        let own = self.decoded.trim_end_matches('/');
        !own.is_empty() && *self.decoded != *path && super::has_prefix(path, own)
    }

    pub(super) fn chosen(
        &self,
        ask: &RouteQuery<'_>,
        chain: Option<&mut Vec<Considered>>,
    ) -> Result<RouteMatch, NoRoute> {
        let route = match &self.route {
            Ok(route) => route.near(),
            Err(why) => return Err(why.clone()),
        };
        if let Some(chain) = chain {
            chain.push(Considered::new(self.to_string(), "taken: its path fits best"));
        }
        let query = self.query.as_ref().filter(|_| *self.decoded == *decoded(ask.path));
        Ok(RouteMatch { route, query: query.cloned() })
    }

    /// Whether both mean the same place.
    fn agrees(&self, other: &Self) -> bool {
        let same = match (&self.route, &other.route) {
            (Ok(one), Ok(two)) => one.is_same(two),
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
pub(super) fn choose_among(
    several: &[&Rule],
    ask: &RouteQuery<'_>,
    mut chain: Option<&mut Vec<Considered>>,
) -> Result<RouteMatch, NoRoute> {
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
                Considered::new(rule.to_string(), verdict)
            }));
        }
        return first.chosen(ask, chain);
    }
    if let Some(chain) = chain {
        chain.extend(several.iter().map(|rule| Considered::new(rule.to_string(), "equal match")));
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

/// A path as kagent sends it: decoded, because it builds the URL from Go's `url.Path`.
/// Clients encode what they must, so both sides of a comparison are decoded.
#[must_use]
pub fn decoded(path: &str) -> Cow<'_, str> {
    percent_decode_str(path).decode_utf8_lossy()
}
