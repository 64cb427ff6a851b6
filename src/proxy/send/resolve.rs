//! From a request's facts to its route, and the wait for a host that is not known yet (D12).
//!
//! The one place where a request finds its route; `explain.rs` asks the same function. Opens nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::proxy::Proxy;
use crate::proxy::error::{Misrouted, ProxyError};
use crate::proxy::reason::Reason;
use crate::proxy::request::facts::{ConnInfo, Facts};
use crate::route::{Ask, Chosen, HostKey, NoRoute, Note, Route, RouteTable};

/// Refused routes are logged with their chain no more often than this: a client that is wrong is so
/// in every request.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Names alike are looked for no more often than this.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Where a request goes, by one table.
#[derive(Debug)]
pub(in crate::proxy) struct Routed {
    /// The snapshot for the whole request.
    pub(in crate::proxy) table: Arc<RouteTable>,
    /// Where it goes.
    pub(in crate::proxy) route: Arc<Route>,
    /// A query that kagent dropped.
    pub(in crate::proxy) query: Option<Arc<str>>,
}

/// Why a request has no route, in short; [`story`] makes the error of it.
#[derive(Debug)]
pub(in crate::proxy) enum Unrouted {
    /// No `x-kagent-host`, and no default route.
    NoTarget,
    /// The table says so.
    Not(NoRoute),
}

/// The route of a request: by `x-kagent-host`, or by a default route where that header is absent.
///
/// # Errors
/// What the client is told; nothing has been dialled.
pub fn route<B>(
    table: &RouteTable,
    facts: &Facts,
    conn: &ConnInfo,
    request: &Request<B>,
    chain: Option<&mut Vec<Note>>,
) -> Result<Chosen, ProxyError> {
    find(table, facts, conn, request, chain)
        .map_err(|why| story(why, table, facts, conn, request, || true))
}

fn find<B>(
    table: &RouteTable,
    facts: &Facts,
    conn: &ConnInfo,
    request: &Request<B>,
    chain: Option<&mut Vec<Note>>,
) -> Result<Chosen, Unrouted> {
    let Some(host) = &facts.target else {
        let host = facts.authority_text().unwrap_or_default();
        let route = table.resolve_default(host, &conn.listener).ok_or(Unrouted::NoTarget)?;
        return Ok(Chosen { route, query: None });
    };
    table.resolve(&ask(table, host, facts, conn, request), chain).map_err(Unrouted::Not)
}

/// The route by a table, with that table.
pub(in crate::proxy) fn look<B>(
    table: &Arc<RouteTable>,
    conn: &ConnInfo,
    facts: &Facts,
    request: &Request<B>,
) -> Result<Routed, Unrouted> {
    let Chosen { route, query } = find(table, facts, conn, request, None)?;
    Ok(Routed { table: Arc::clone(table), route, query })
}

fn ask<'a, B>(
    table: &'a RouteTable,
    host: &'a HostKey,
    facts: &'a Facts,
    conn: &ConnInfo,
    request: &'a Request<B>,
) -> Ask<'a> {
    Ask {
        host,
        path: request.uri().path(),
        port: facts.port,
        authority: facts.authority_text(),
        caller: table.caller(conn.peer.ip()),
        cluster_domain: table.cluster_domain(),
    }
}

/// The error for a request without a route. Asks again for every candidate and its verdict: what is
/// refused may cost a little more, but once, however long it was held. `near` is asked, for an unknown
/// host, whether names alike may be looked for.
fn story<B>(
    why: Unrouted,
    table: &RouteTable,
    facts: &Facts,
    conn: &ConnInfo,
    request: &Request<B>,
    near: impl FnOnce() -> bool,
) -> ProxyError {
    let (Unrouted::Not(why), Some(host)) = (why, &facts.target) else {
        return ProxyError::MissingTarget;
    };
    let mut told = Vec::new();
    let asked = table.resolve(&ask(table, host, facts, conn, request), Some(&mut told));
    let why = asked.err().unwrap_or(why);
    let near = if why == NoRoute::Host && near() { table.near(host) } else { Vec::new() };
    misrouted(host.as_str(), why, (told, near), table)
}

/// The error in the words that the client gets.
fn misrouted(
    host: &str,
    error: NoRoute,
    (chain, near): (Vec<Note>, Vec<String>),
    table: &RouteTable,
) -> ProxyError {
    let mut candidates = near;
    let (reason, detail) = match error {
        NoRoute::UnsafePath => (
            Reason::BadPath,
            "the path has dot segments, empty segments, backslashes or encoded separators"
                .to_owned(),
        ),
        NoRoute::Port(port) => (
            Reason::BadTarget,
            format!(
                "port {port} in x-kagent-host is none of the target's ports; leave the port out"
            ),
        ),
        NoRoute::Host => (Reason::UnknownTarget, unknown(host, table)),
        NoRoute::Path(prefixes) => {
            candidates = prefixes;
            (Reason::UnknownTarget, format!("host {host:?} has routes, none for this path"))
        }
        NoRoute::Missing(why) => (Reason::UnknownTarget, why),
        NoRoute::Pending(why) => (Reason::NoReadyEndpoint, why),
        NoRoute::Forbidden(why) | NoRoute::Unmarked(why) => (Reason::ForbiddenTarget, why),
        NoRoute::Unusable(why) => (Reason::ConnectFailed, why),
        NoRoute::Ambiguous(why, which) => {
            candidates = which;
            (Reason::AmbiguousTarget, why)
        }
    };
    ProxyError::Misrouted(Box::new(Misrouted {
        host: host.to_owned(),
        reason,
        detail,
        candidates,
        chain,
        discovering: table.is_discovering(),
    }))
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

// === impl Proxy ===

impl Proxy {
    /// What a request is, and its route by the table of this moment, if there is one.
    ///
    /// # Errors
    /// It cannot be routed whatever the table says.
    pub(in crate::proxy) fn routed(
        &self,
        conn: &ConnInfo,
        request: &Request<RequestBody>,
    ) -> Result<(Facts, Option<Routed>), ProxyError> {
        let table = self.routes();
        let facts = Facts::read(request, table.cluster_domain(), &self.limits, &self.pseudonym)?;
        let routed = look(&table, conn, &facts, request).ok();
        Ok((facts, routed))
    }

    /// The route of a request that had none a moment ago, waited for where it may still come (D12).
    pub(in crate::proxy) async fn wait_for_route(
        &self,
        conn: &ConnInfo,
        facts: &Facts,
        request: &Request<RequestBody>,
        began: Instant,
    ) -> Result<Box<Routed>, Box<ProxyError>> {
        let mut held = None;
        loop {
            let mut changed = std::pin::pin!(self.table_changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let table = self.routes();
            let why = match look(&table, conn, facts, request) {
                Ok(routed) => return Ok(Box::new(routed)),
                Err(why) => why,
            };
            if let Some(until) = self.patience(&table, &why, facts, began) {
                if held.is_none() {
                    held = self.holds.enter(conn.peer.ip());
                }
                if held.is_none() {
                    return Err(Box::new(ProxyError::Overloaded));
                }
                if tokio::time::timeout_at(until, changed).await.is_ok() {
                    continue;
                }
            }
            let error = story(why, &table, facts, conn, request, || self.refusals.may_look());
            self.log_refusal(&error);
            return Err(Box::new(error));
        }
    }

    /// Until when a request waits for what keeps it from its route; `None` is not at all. Hosts that the
    /// cluster does not know wait as long as any request waits for a backend, and so does a Service that
    /// came a moment before the object that marks it, or that says which port; the card of an Agent that
    /// exists waits as long as cards do.
    fn patience(
        &self,
        table: &RouteTable,
        why: &Unrouted,
        facts: &Facts,
        began: Instant,
    ) -> Option<Instant> {
        let (Unrouted::Not(why), Some(host)) = (why, &facts.target) else { return None };
        let times = self.hold_times;
        let until = match why {
            NoRoute::Host | NoRoute::Missing(_) if table.may_learn(host) => began + times.request,
            NoRoute::Pending(_) if facts.card => began + times.card,
            NoRoute::Pending(_) => began + times.request,
            NoRoute::Unmarked(_) | NoRoute::Ambiguous(..) => {
                let since = table.discovered(host)?.since?;
                (since + times.request).min(began + times.request)
            }
            _ => return None,
        };
        (until > Instant::now()).then_some(until)
    }

    /// Says why a request was not routed, now and then.
    fn log_refusal(&self, error: &ProxyError) {
        let ProxyError::Misrouted(misrouted) = error else { return };
        if self.refusals.may_log() {
            let notes = misrouted.chain.iter();
            let chain: Vec<_> = notes.map(|n| format!("{}: {}", n.candidate, n.verdict)).collect();
            let (host, reason) = (&misrouted.host, misrouted.reason.word());
            let (detail, chain) = (&misrouted.detail, chain.join("; "));
            tracing::info!(host, reason, detail, chain, "a request found no route");
        }
    }
}

/// What refused requests may cost: one line of the log, or one look for names alike, in a while.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Refusals {
    logged: AtomicU64,
    looked: AtomicU64,
}

// === impl Refusals ===

impl Refusals {
    fn may_log(&self) -> bool {
        is_first(&self.logged, LOG_EVERY)
    }

    /// Whoever asks for names that do not exist must not get much of our time.
    fn may_look(&self) -> bool {
        is_first(&self.looked, LOOK_EVERY)
    }
}

/// Whether nobody else has asked in this period.
fn is_first(last: &AtomicU64, every: Duration) -> bool {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Periods since the first refusal, from 1.
    let age = Instant::now().saturating_duration_since(*START).as_millis();
    let period = 1 + u64::try_from(age / every.as_millis().max(1)).unwrap_or(u64::MAX - 1);
    last.swap(period, Ordering::Relaxed) != period
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_alike_are_looked_for_now_and_then_only() {
        let refusals = Refusals::default();
        assert!(refusals.may_look());
        assert!((0..100).all(|_| !refusals.may_look()));
        tokio::time::advance(LOOK_EVERY).await;
        assert!(refusals.may_look());
        assert!(refusals.may_log(), "that is another matter");
    }
}
