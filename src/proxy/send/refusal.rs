//! The error for a request without a route: what is wrong, what would have fitted, what to do.
//!
//! Asks the table again for every candidate, so what is refused costs a little more; how often names are
//! compared and lines are logged is bounded here. Dials nothing.

use std::time::Duration;

use super::resolve::{Unrouted, query};
use crate::proxy::error::{Misrouted, ProxyError};
use crate::proxy::limiter::Limiter;
use crate::proxy::reason::Reason;
use crate::proxy::request::conn::Connection;
use crate::proxy::request::facts::Facts;
use crate::route::{NoRoute, RouteTable};

/// Refused routes are logged with their chain no more often than this: a client that is wrong is so
/// in every request.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Similar names are looked for no more often than this.
const SUGGEST_EVERY: Duration = Duration::from_millis(10);

/// The error for a request without a route. `suggest` is asked, for an unknown host, whether similar
/// names may be looked for.
pub fn explain_refusal(
    why: Unrouted,
    table: &RouteTable,
    conn: &Connection,
    facts: &Facts,
    suggest: impl FnOnce() -> bool,
) -> ProxyError {
    let (Unrouted::Not(why), Some(host)) = (why, &facts.target) else {
        return ProxyError::MissingTarget;
    };
    let mut chain = Vec::new();
    let caller = table.caller(conn.peer.ip());
    let asked = table.resolve(&query(table, host, facts, caller), Some(&mut chain));
    let why = asked.err().unwrap_or(why);
    let suggestions = if why == NoRoute::Host && suggest() { table.near(host) } else { Vec::new() };
    let (reason, detail, candidates) = in_words(host.as_str(), why, suggestions, table);
    ProxyError::Misrouted(Box::new(Misrouted {
        host: host.as_str().to_owned(),
        reason,
        detail,
        candidates,
        chain,
        discovering: table.is_discovering(),
    }))
}

/// Reason, detail and candidates.
fn in_words(
    host: &str,
    error: NoRoute,
    suggestions: Vec<String>,
    table: &RouteTable,
) -> (Reason, String, Vec<String>) {
    let (reason, detail) = match error {
        NoRoute::UnsafePath => (
            Reason::BadPath,
            "the path has dot segments, empty segments, backslashes or encoded separators"
                .to_owned(),
        ),
        NoRoute::Port(port, there) => {
            let there: Vec<String> = there.iter().map(ToString::to_string).collect();
            return (Reason::BadTarget, no_port(port, &there), there);
        }
        NoRoute::Host => return (Reason::UnknownTarget, unknown(host, table), suggestions),
        NoRoute::Path(prefixes) => {
            let detail = format!("host {host:?} has routes, none for this path");
            return (Reason::UnknownTarget, detail, prefixes);
        }
        NoRoute::Missing(why) => (Reason::UnknownTarget, why),
        NoRoute::Pending(why) => (Reason::NoReadyEndpoint, why),
        NoRoute::Forbidden(why) | NoRoute::Unmarked(why) => (Reason::ForbiddenTarget, why),
        NoRoute::Unusable(why) => (Reason::ConnectFailed, why),
        NoRoute::Ambiguous(why, which) => return (Reason::AmbiguousTarget, why, which),
    };
    (reason, detail, Vec::new())
}

fn no_port(port: u16, there: &[String]) -> String {
    let there = match there {
        [] => "; the caller may use none of them".to_owned(),
        ports => format!(", [{}]; write one, or none if there is only one", ports.join(", ")),
    };
    format!("port {port} in x-kagent-host is none of the target's ports{there}")
}

fn unknown(host: &str, table: &RouteTable) -> String {
    let by_hand = format!("an operator may add one with --route {host}=HOST:PORT");
    let why = match host.split_once('.') {
        _ if !table.is_discovering() => return format!("no route for host {host:?}; {by_hand}"),
        Some((name, namespace)) => match namespace.split_once('.') {
            None if !table.watches(namespace) => format!(
                "namespace {namespace} is not among discovery.namespaces, so nothing is known of it; add \
                 it there, with a Role"
            ),
            None => format!("there is no Service {name} in namespace {namespace}"),
            Some((service, namespace)) if !namespace.contains('.') => format!(
                "no pod is called {name} in Service {service} of namespace {namespace}, and other names of \
                 three labels are never discovered"
            ),
            Some(_) => NOT_A_SERVICE.to_owned(),
        },
        None => NOT_A_SERVICE.to_owned(),
    };
    format!("no route for host {host:?}: {why}; {by_hand}")
}

const NOT_A_SERVICE: &str =
    "Services are named name.namespace, and other hosts are never discovered";

/// What refused requests may cost: one line of the log, or one search for similar names, in a while.
#[derive(Debug, Default)]
pub struct Refusals {
    logged: Limiter,
    suggested: Limiter,
}

// === impl Refusals ===

impl Refusals {
    /// Says why a request was not routed, now and then.
    pub fn log(&self, error: &ProxyError) {
        let ProxyError::Misrouted(misrouted) = error else { return };
        if self.may_log() {
            let notes = misrouted.chain.iter();
            let chain: Vec<_> = notes.map(|n| format!("{}: {}", n.candidate, n.verdict)).collect();
            let (host, reason) = (&misrouted.host, misrouted.reason.word());
            let (detail, chain) = (&misrouted.detail, chain.join("; "));
            tracing::info!(host, reason, detail, chain, "a request found no route");
        }
    }

    fn may_log(&self) -> bool {
        self.logged.is_first(LOG_EVERY)
    }

    /// Whether similar names may be looked for: whoever asks for names that do not exist must not get much
    /// of our time.
    #[must_use]
    pub fn may_suggest(&self) -> bool {
        self.suggested.is_first(SUGGEST_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_alike_are_suggested_for_now_and_then_only() {
        let refusals = Refusals::default();
        assert!(refusals.may_suggest());
        assert!((0..100).all(|_| !refusals.may_suggest()));
        tokio::time::advance(SUGGEST_EVERY).await;
        assert!(refusals.may_suggest());
        assert!(refusals.may_log(), "that is another matter");
    }
}
