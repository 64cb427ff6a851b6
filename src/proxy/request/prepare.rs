//! A request's head as every backend may see it: what concerns this hop only is taken out, what came
//! before is written down.
//!
//! Done once, whatever route and endpoint follow. Never reads a body.

use http::header::{EXPECT, HOST};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;

use super::Ingress;
use super::conn::Connection;
use super::facts::Facts;
use crate::body::RequestBody;
use crate::headers;
use crate::proxy::call::Kind;

/// Prepares the head. Returns the client's side of a tunnel, if the request asks for one.
pub fn prepare(
    request: &mut Request<RequestBody>,
    facts: &Facts,
    conn: &Connection,
    ingress: &Ingress,
) -> Option<OnUpgrade> {
    let upgrade = (facts.kind == Kind::Upgrade).then(|| hyper::upgrade::on(&mut *request));
    let http2 = request.version() == Version::HTTP_2;
    let map = request.headers_mut();
    if let Some(host) = &facts.host {
        map.insert(HOST, host.clone());
    }
    headers::strip_hop_by_hop(map);
    if http2 {
        headers::join_cookies(map);
    }
    let trusted = headers::is_trusted(conn.peer.ip(), &ingress.trusted);
    headers::forwarded(map, &conn.forwarded_for, conn.scheme, trusted);
    headers::add_via(map, &ingress.via);
    map.remove(headers::X_KAGENT_HOST);
    // We answer it ourselves, when we begin to read the body (RFC 9110 section 10.1.1).
    map.remove(EXPECT);
    upgrade
}
