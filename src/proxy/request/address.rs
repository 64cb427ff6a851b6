//! Everything in a request's head that depends on its route or its endpoint.
//!
//! Idempotent: each attempt writes it over what the attempt before has written, so nothing is ever
//! undone. Never reads a body, opens no connection.

use http::header::{ACCEPT_ENCODING, CONNECTION, HOST, TE, UPGRADE};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Request, Version};

use super::facts::{CARD_FIELDS, Facts};
use crate::body::RequestBody;
use crate::config::{Cards, Scheme};
use crate::headers;
use crate::proxy::call::Kind;
use crate::proxy::way::{InSession, Way};
use crate::route::Source;
use crate::upstream::Lease;

/// Writes the request as it goes to this endpoint on this way.
pub fn address(request: &mut Request<RequestBody>, facts: &Facts, way: &Way, lease: &Lease) {
    let http2 = lease.is_http2();
    hop_fields(request, facts, way, http2);
    if facts.card.is_some() {
        card_fields(request, facts, way);
    }
    if let Some(session) = &way.session {
        name_session(request.headers_mut(), session);
    }
    let authority = authority(facts, way, lease);
    let path = path(facts, way);
    if http2 {
        request.headers_mut().remove(HOST);
        let scheme = match lease.endpoint().target.scheme {
            Scheme::Https => "https",
            Scheme::Http | Scheme::H2c => "http",
        };
        let authority = authority.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
    } else {
        if let Some(host) = authority {
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = Uri::from(path);
        *request.version_mut() = Version::HTTP_11;
    }
}

/// The server's own name for the session; the client's token stays here.
fn name_session(map: &mut HeaderMap, session: &InSession) {
    match &session.server_id {
        Some(id) => drop(map.insert(headers::MCP_SESSION_ID, id.clone())),
        None => drop(map.remove(headers::MCP_SESSION_ID)),
    }
}

/// The Host that a direct client would have sent.
fn authority(facts: &Facts, way: &Way, lease: &Lease) -> Option<HeaderValue> {
    let route = &way.route;
    match (&route.config.to.host_header, route.source, &facts.target) {
        (Some(host), ..) => HeaderValue::from_str(host).ok(),
        (None, Source::Cluster, Some(host)) => {
            HeaderValue::try_from(lease.endpoint().target.authority_of(host.given())).ok()
        }
        _ => lease.endpoint().authority.clone(),
    }
}

/// The client's path and query; without a query, that of the tool server's URL, which kagent drops.
fn path(facts: &Facts, way: &Way) -> PathAndQuery {
    if let (Some(query), None) = (&way.query, facts.path.query())
        && let Ok(path) = PathAndQuery::try_from(format!("{}?{query}", facts.path.path()))
    {
        return path;
    }
    facts.path.clone()
}

/// What is said to the next hop only. Most requests say nothing.
fn hop_fields(request: &mut Request<RequestBody>, facts: &Facts, way: &Way, http2: bool) {
    let map = request.headers_mut();
    if facts.kind == Kind::Upgrade || facts.takes_trailers {
        for name in [CONNECTION, UPGRADE, TE] {
            map.remove(name);
        }
        // A tunnel cannot begin on HTTP/2; the request goes on without it.
        match facts.kind {
            Kind::Upgrade if way.route.config.to.websocket && !http2 => {
                headers::ask_for_websocket(map);
            }
            _ if !facts.takes_trailers => {}
            _ if http2 => {
                map.insert(TE, HeaderValue::from_static("trailers"));
            }
            _ => headers::ask_for_trailers(map),
        }
    }
}

/// A card that is rewritten must come whole and plain; one that passes is asked for as the client did.
fn card_fields(request: &mut Request<RequestBody>, facts: &Facts, way: &Way) {
    let map = request.headers_mut();
    for name in &CARD_FIELDS {
        map.remove(name);
    }
    if way.route.config.to.cards == Cards::Rewrite {
        map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    } else if let Some(sent) = &facts.card {
        map.extend(HeaderMap::clone(sent));
    }
}
