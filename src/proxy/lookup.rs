//! From a request's facts to its route, and the wait for a host that is not known yet (D12).
//!
//! The one place where a request finds its route; `explain.rs` asks the same function. Opens nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{Method, Request};
use tokio::time::Instant;

use super::Proxy;
use super::error::{Misrouted, ProxyError};
use super::facts::{self, ConnInfo, Facts};
use super::reason::Reason;
use crate::body::RequestBody;
use crate::rewrite::card::is_card_path;
use crate::route::{Ask, Chosen, NoRoute, Note, Route, RouteTable};

/// Refused routes are logged with their chain no more often than this: a client that is wrong is so
/// in every request.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What a request is and where it goes, by one table.
#[derive(Debug)]
pub(super) struct Routed {
    /// The snapshot for the whole request.
    pub(super) table: Arc<RouteTable>,
    /// What its head says.
    pub(super) facts: Facts,
    /// Where it goes.
    pub(super) route: Arc<Route>,
    /// A query that kagent dropped.
    pub(super) query: Option<Arc<str>>,
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
    let Some(host) = &facts.target else {
        let host = facts::host_of(request);
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let route = table.resolve_default(host, &conn.listener).ok_or(ProxyError::MissingTarget)?;
        return Ok(Chosen { route, query: None });
    };
    let authority = facts::host_text(request);
    let ask = Ask {
        host,
        path: request.uri().path(),
        port: facts.port,
        authority,
        caller: table.caller(conn.peer.ip()),
        cluster_domain: table.cluster_domain(),
    };
    let error = match table.resolve(&ask, chain) {
        Ok(chosen) => return Ok(chosen),
        Err(error) => error,
    };
    let mut told = Vec::new();
    // Asked again for the whole story; what is refused may cost a little more.
    let error = table.resolve(&ask, Some(&mut told)).err().unwrap_or(error);
    Err(misrouted(host.as_str(), error, told, table.is_discovering()))
}

/// The error in the words that the client gets.
fn misrouted(host: &str, error: NoRoute, chain: Vec<Note>, discovering: bool) -> ProxyError {
    let mut candidates = Vec::new();
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
        NoRoute::Host(near) => {
            candidates = near;
            (Reason::UnknownTarget, unknown(host, discovering))
        }
        NoRoute::Path(prefixes) => {
            candidates = prefixes;
            (Reason::UnknownTarget, format!("host {host:?} has routes, none for this path"))
        }
        NoRoute::Missing(why) => (Reason::UnknownTarget, why),
        NoRoute::Pending(why) => (Reason::NoReadyEndpoint, why),
        NoRoute::Forbidden(why) => (Reason::ForbiddenTarget, why),
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
        discovering,
    }))
}

fn unknown(host: &str, discovering: bool) -> String {
    let by_hand = format!("an operator may add one with --route {host}=HOST:PORT");
    match host.split_once('.') {
        Some((name, namespace)) if discovering && !namespace.contains('.') => {
            format!(
                "no route for host {host:?}: there is no Service {name} in namespace {namespace}; {by_hand}"
            )
        }
        _ if discovering => format!(
            "no route for host {host:?}: Services are named name.namespace, and other hosts are never \
             discovered; {by_hand}"
        ),
        _ => format!("no route for host {host:?}; {by_hand}"),
    }
}

// === impl Proxy ===

impl Proxy {
    /// Facts and route of a request, by the table of this moment.
    pub(super) fn routed(
        &self,
        conn: &ConnInfo,
        request: &Request<RequestBody>,
    ) -> Result<Routed, ProxyError> {
        let table = self.routes();
        let facts = Facts::read(request, table.cluster_domain(), &self.limits, &self.pseudonym)?;
        let Chosen { route, query } = route(&table, &facts, conn, request, None)?;
        Ok(Routed { table, facts, route, query })
    }

    /// The same for a request that has no route yet, waited for where it may still come: hosts that the
    /// cluster does not know as long as any request waits for a backend, the card of an Agent that
    /// exists for as long as cards wait (D12).
    pub(super) async fn wait_for_route(
        &self,
        mut error: ProxyError,
        conn: &ConnInfo,
        request: &Request<RequestBody>,
    ) -> Result<Box<Routed>, Box<ProxyError>> {
        let (started, mut held) = (Instant::now(), None);
        while let Some(patience) = self.patience(&error, request) {
            let mut changed = std::pin::pin!(self.table_changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            error = match self.routed(conn, request) {
                Ok(routed) => return Ok(Box::new(routed)),
                Err(error) => error,
            };
            if held.is_none() {
                held = self.holds.enter(conn.peer.ip());
            }
            if held.is_none() {
                return Err(Box::new(ProxyError::Overloaded));
            }
            if tokio::time::timeout_at(started + patience, changed).await.is_err() {
                break;
            }
        }
        self.log_refusal(&error);
        Err(Box::new(error))
    }

    /// How long in all a request waits for what keeps it from its route; `None` is not at all.
    fn patience(&self, error: &ProxyError, request: &Request<RequestBody>) -> Option<Duration> {
        let ProxyError::Misrouted(misrouted) = error else { return None };
        let card = request.method() == Method::GET && is_card_path(request.uri().path());
        match misrouted.reason {
            _ if !misrouted.discovering => None,
            // Only names of Services may come.
            Reason::UnknownTarget if misrouted.host.matches('.').count() == 1 => {
                Some(self.hold_times.request)
            }
            Reason::NoReadyEndpoint if card => Some(self.hold_times.card),
            Reason::NoReadyEndpoint => Some(self.hold_times.request),
            _ => None,
        }
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

/// Lets one line through in a while.
#[derive(Debug, Default)]
pub(super) struct Refusals(AtomicU64);

// === impl Refusals ===

impl Refusals {
    fn may_log(&self) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Periods since the first refusal, from 1.
        let period = 1 + Instant::now().duration_since(*START).as_secs() / LOG_EVERY.as_secs();
        self.0.swap(period, Ordering::Relaxed) != period
    }
}
