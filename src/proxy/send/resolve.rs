//! From a request's facts to its way, by one table.
//!
//! The one place where a request finds its route; `explain` asks the same functions. Pure: waits for
//! nothing, opens nothing.

use http::HeaderValue;

use crate::proxy::request::conn::Connection;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::route::{Caller, Considered, HostKey, NoRoute, RouteMatch, RouteQuery, RouteTable};
use crate::workers::near::{Common, Near};

/// Why a request has no route, in short; `refusal.rs` makes the error of it.
#[derive(Debug)]
pub enum Unrouted {
    /// No `x-kagent-host`, and no default route.
    NoTarget,
    /// The table says so.
    Not(NoRoute),
}

/// The way of a request by this table.
///
/// # Errors
/// [`Unrouted`]; nothing has been dialled.
pub fn resolve(table: Near<RouteTable>, conn: &Connection, facts: &Facts) -> Result<Way, Unrouted> {
    let caller = table.caller(conn.peer.ip());
    let RouteMatch { route, query } = route_of(&table, conn, (facts, caller), None)?;
    let caller = caller.map(Common::near);
    Ok(Way { table, route, query, caller, session: None })
}

/// The route of a request: by `x-kagent-host`, or by a default route where that header is absent, or names a host that
/// only the next proxy may know.
/// `chain` takes every candidate and why it lost.
///
/// # Errors
/// [`Unrouted`]; nothing has been dialled.
pub fn route(
    table: &RouteTable,
    conn: &Connection,
    facts: &Facts,
    chain: Option<&mut Vec<Considered>>,
) -> Result<RouteMatch, Unrouted> {
    route_of(table, conn, (facts, table.caller(conn.peer.ip())), chain)
}

fn route_of(
    table: &RouteTable,
    conn: &Connection,
    (facts, caller): (&Facts, Option<&Common<Caller>>),
    chain: Option<&mut Vec<Considered>>,
) -> Result<RouteMatch, Unrouted> {
    let Some(host) = &facts.target else {
        let host = facts.host_text().unwrap_or_default();
        let route = table.resolve_default(host, &conn.listener).ok_or(Unrouted::NoTarget)?;
        return Ok(RouteMatch { route, query: None });
    };
    match table.resolve(&query(table, host, facts, caller), chain) {
        Err(NoRoute::Host) => {
            let authority = facts.host_text().unwrap_or_default();
            let next = table.resolve_next(authority, &conn.listener);
            let found = next.map(|route| RouteMatch { route, query: None });
            found.ok_or(Unrouted::Not(NoRoute::Host))
        }
        answer => answer.map_err(Unrouted::Not),
    }
}

/// What the table is asked for a request of this caller.
#[must_use]
pub fn query<'a>(
    table: &'a RouteTable,
    host: &'a HostKey,
    facts: &'a Facts,
    caller: Option<&'a Common<Caller>>,
) -> RouteQuery<'a> {
    RouteQuery {
        host,
        path: facts.path.path(),
        port: facts.port,
        authority: facts.origin.host.as_ref().map(HeaderValue::as_bytes),
        caller: caller.map(|caller| &caller.id),
        cluster_domain: table.cluster_domain(),
    }
}
