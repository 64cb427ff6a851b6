//! Toward the backend: the request as it should arrive there.
//!
//! Changes heads only; never reads a body, opens no connection. `proxy/attempt.rs` sends the result.

use std::sync::Arc;

use http::header::{EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Request, Version};
use http_body::Body;
use ipnet::IpNet;

use crate::body::RequestBody;
use crate::config::Scheme;
use crate::headers;
use crate::proxy::request::facts::{ConnInfo, host_of};
use crate::route::{HostKey, Route, Source};
use crate::upstream::Lease;

/// Makes the request what the backend should see, but for its Host, which depends on the endpoint.
pub fn rewrite(
    request: &mut Request<RequestBody>,
    conn: &ConnInfo,
    via: &HeaderValue,
    trusted: &[IpNet],
    route: &Route,
    websocket: bool,
) {
    if let Some(host) = host_of(request) {
        request.headers_mut().insert(HOST, host);
    }
    let http2 = request.version() == Version::HTTP_2;
    let map = request.headers_mut();
    let trailers = headers::takes_trailers(map);
    headers::strip_hop_by_hop(map);
    if websocket {
        headers::ask_for_websocket(map);
    } else if trailers {
        headers::ask_for_trailers(map);
    }
    if http2 {
        headers::join_cookies(map);
    }
    let peer = conn.peer.ip();
    let from = &conn.forwarded_for;
    headers::forwarded(map, from, conn.scheme, headers::is_trusted(peer, trusted));
    headers::add_via(map, via);
    map.remove(headers::X_KAGENT_HOST);
    // We answer it ourselves, when we begin to read the body (RFC 9110 section 10.1.1).
    map.remove(EXPECT);
    *request.version_mut() = Version::HTTP_11;
    // hyper reads over 1xx answers (RFC 9110 section 15.2); 101 is none of these.
    let dropped = route.metrics.informational.clone();
    hyper::ext::on_informational(request, move |_| dropped.increment(1));
}

/// Gives a request the query of the tool server's URL back, which kagent drops (contract 1.1). A query
/// of its own is left alone; then there is none to restore.
pub fn restore_query(request: &mut Request<RequestBody>, query: &mut Option<Arc<str>>) {
    if request.uri().query().is_some() {
        *query = None;
    }
    if let Some(query) = query {
        let path = format!("{}?{query}", request.uri().path());
        set_path(request, PathAndQuery::try_from(path));
    }
}

/// Takes a query away again that was restored for another route.
pub fn drop_query(request: &mut Request<RequestBody>) {
    let path = PathAndQuery::try_from(request.uri().path());
    set_path(request, path);
}

/// A path that is none leaves the request as it is.
fn set_path<E>(request: &mut Request<RequestBody>, path: Result<PathAndQuery, E>) {
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = path.ok().or(parts.path_and_query);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// The Host a direct client would have sent (D1), and a target in the form the protocol asks for.
pub fn address(
    request: &mut Request<RequestBody>,
    route: &Route,
    host: Option<&HostKey>,
    lease: &Lease,
) {
    let target = &lease.endpoint().target;
    let authority = match (&route.config.to.host_header, route.source, host) {
        (Some(host), ..) => HeaderValue::from_str(host).ok(),
        (None, Source::Cluster, Some(host)) => {
            HeaderValue::try_from(target.authority_of(host.given())).ok()
        }
        _ => lease.endpoint().authority.clone(),
    };
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if lease.is_http2() {
        request.headers_mut().remove(HOST);
        // A tunnel cannot begin there; the request goes on without it.
        let trailers = headers::takes_trailers(request.headers());
        headers::strip_hop_by_hop(request.headers_mut());
        if trailers {
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
        let scheme = if target.scheme == Scheme::Https { "https" } else { "http" };
        let authority = authority.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
        return;
    }
    *request.version_mut() = Version::HTTP_11;
    if let Some(host) = authority {
        request.headers_mut().insert(HOST, host);
    }
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Left to itself, hyper drops a GET's body of unknown length without a word.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.uri_mut() = Uri::from(path);
}
