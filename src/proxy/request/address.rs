//! Everything in a request's head that depends on its route or its endpoint.
//!
//! Pure: the head stays as the client has sent it, and each attempt is written from it anew. Never reads a body,
//! opens no connection.

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::facts::Facts;
use crate::config::{Cards, KagentHost};
use crate::headers::onward::{Ask, Keep, Onward};
use crate::protocol::mcp::may_be_initialize;
use crate::proxy::call::Kind;
use crate::proxy::way::Way;
use crate::rewrite::pin;
use crate::route::RouteSource;
use crate::upstream::Lease;
use crate::workers::value::OwnValue;

/// The request as it goes to this endpoint on this way.
#[must_use]
pub fn address<'a>(facts: &'a Facts, way: &Way, lease: &Lease) -> Onward<'a> {
    let to = &way.route.config.to;
    Onward {
        origin: &facts.origin,
        // Fields of a session's request may be others by now.
        meanings: (facts.session.is_none() && facts.pin.is_none()).then_some(&facts.meanings),
        path: path(facts, way),
        authority: authority(facts, way, lease),
        ask: match facts.kind {
            // A tunnel cannot begin on HTTP/2; the request goes on without it.
            Kind::Upgrade if to.websocket && !lease.is_http2() => Ask::Websocket,
            _ if facts.takes_trailers => Ask::Trailers,
            _ => Ask::Nothing,
        },
        // One that is rewritten must come whole and plain; one that passes is asked for as the client did.
        whole: facts.is_card && to.cards == Cards::Rewrite,
        // The client's token stays here.
        session: way.session.as_ref().map(|session| session.server_id.clone()),
        // A session may turn out to be gone when its server answers, or as it begins.
        keep: match (&way.session, &facts.session) {
            (Some(_), _) => Keep::Yes,
            (None, Some(_)) => Keep::No,
            (None, None) => Keep::If(may_be_initialize),
        },
        names_host: to.kagent_host == KagentHost::Pass,
    }
}

/// The Host that a direct client would have sent.
fn authority(facts: &Facts, way: &Way, lease: &Lease) -> Option<HeaderValue> {
    let route = &way.route;
    match (&route.config.to.host_header, route.source, &facts.target) {
        (Some(host), ..) => HeaderValue::from_str(host).ok(),
        (None, RouteSource::Cluster, Some(host)) => {
            HeaderValue::try_from(lease.endpoint().target.authority_of(host.given())).ok()
        }
        _ => lease.endpoint().authority.as_ref().map(OwnValue::near),
    }
}

/// The client's path and query; without a query, that of the tool server's URL, which kagent drops.
fn path(facts: &Facts, way: &Way) -> PathAndQuery {
    if let (Some(token), None) = (&facts.pin, &way.session) {
        // It is none of ours: another proxy's behind us, which knows the rest of the URL.
        let path = pin::put(facts.path.as_str().as_bytes(), token.as_bytes());
        return PathAndQuery::try_from(path).unwrap_or_else(|_| facts.path.clone());
    }
    if let (Some(query), None) = (&way.query, facts.path.query())
        && let Ok(path) = PathAndQuery::try_from(format!("{}?{query}", facts.path.path()))
    {
        return path;
    }
    facts.path.clone()
}
