//! Toward the backend: the request as it should arrive there, and the attempts to get it there.
//!
//! Retries exactly what D11 allows. Never reads a body: a dial that failed has not consumed it, and a
//! request of which no byte was written comes back from hyper.

use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, HOST};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::time::Instant;

use super::error::{ProxyError, Refusal};
use super::exchange::Exchange;
use super::facts::{ConnInfo, Facts, Kind, host_of};
use crate::body::RequestBody;
use crate::config::Scheme;
use crate::headers;
use crate::route::Route;
use crate::upstream::{ConnectError, Lease};

/// First pause between rounds over all endpoints; it doubles up to the second bound.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// An answer's body, and the lease it lives on.
#[derive(Debug)]
pub struct Sent {
    /// The backend's bytes.
    pub incoming: Incoming,
    /// Held until they end.
    pub lease: Lease,
}

/// The request as the backend should see it, but for its Host, which depends on the endpoint.
#[must_use]
pub fn rewrite(
    mut request: Request<RequestBody>,
    conn: &ConnInfo,
    via: &HeaderValue,
    trusted: &[IpNet],
    route: &Route,
    websocket: bool,
) -> Request<RequestBody> {
    if let Some(host) = host_of(&request) {
        request.headers_mut().insert(HOST, host);
    }
    let http2 = request.version() == Version::HTTP_2;
    let map = request.headers_mut();
    headers::strip_hop_by_hop(map);
    if websocket {
        headers::ask_for_websocket(map);
    }
    if http2 {
        headers::join_cookies(map);
    }
    let peer = conn.peer.ip();
    headers::forwarded(map, peer, conn.scheme, headers::is_trusted(peer, trusted));
    headers::add_via(map, via);
    map.remove(headers::X_KAGENT_HOST);
    // We answer it ourselves, when we begin to read the body (RFC 9110 section 10.1.1).
    map.remove(EXPECT);
    *request.version_mut() = Version::HTTP_11;
    // hyper reads over 1xx answers (RFC 9110 section 15.2); 101 is none of these.
    let dropped = route.metrics.informational.clone();
    hyper::ext::on_informational(&mut request, move |_| dropped.increment(1));
    request
}

/// Tries endpoint after endpoint, then waits and tries again until the hold time is over.
///
/// # Errors
/// The reason the last attempt failed.
pub async fn send(
    route: &Arc<Route>,
    facts: &Facts,
    mut request: Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Response<Sent>, Refusal> {
    let hold = if facts.card { route.config.to.hold.card } else { route.config.to.hold.request };
    let until = Instant::now() + hold;
    let mut pause = FIRST_PAUSE;
    loop {
        let lease = match connect(route, facts.kind == Kind::Upgrade).await {
            Ok(lease) => lease,
            Err(error) => {
                let next = Instant::now() + pause;
                let waits = matches!(error, None | Some(ConnectError::Io(..)));
                if !waits || next > until {
                    return Err(Refusal::new(unreachable(route, error), request));
                }
                tokio::time::sleep_until(next).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        exchange.on_connection();
        match attempt(route, facts, lease, exchange.age(), request).await {
            Ok(response) => return Ok(response),
            Err(Attempt::Unsent(back)) => {
                // A warm connection that closed under us: the next one, without a pause.
                route.metrics.retries.increment(1);
                request = *back;
            }
            Err(Attempt::Failed(refusal)) => return Err(refusal),
        }
    }
}

enum Attempt {
    /// Not a byte was written.
    Unsent(Box<Request<RequestBody>>),
    /// The request is gone.
    Failed(Refusal),
}

/// One endpoint after the other; `None` if there is none.
async fn connect(route: &Arc<Route>, http1: bool) -> Result<Lease, Option<ConnectError>> {
    let mut tried = Vec::new();
    let mut last = None;
    while let Some(endpoint) = route.cluster.pick(&tried) {
        tried.push(endpoint.address);
        match endpoint.lease(http1, route.config.to.timeouts.connect).await {
            Ok(lease) => {
                let pool = &route.metrics;
                if lease.reused {
                    pool.reused.increment(1)
                } else {
                    pool.opened.increment(1)
                }
                return Ok(lease);
            }
            Err(error) => {
                tracing::debug!(%error, "attempt failed");
                last = Some(error);
            }
        }
    }
    Err(last)
}

async fn attempt(
    route: &Arc<Route>,
    facts: &Facts,
    mut lease: Lease,
    age: Duration,
    mut request: Request<RequestBody>,
) -> Result<Response<Sent>, Attempt> {
    address(&mut request, route, &lease);
    let upload = Arc::clone(request.body().upload());
    let limits = facts.kind.limits(&route.config.to.timeouts);
    let left = limits.total.map(|total| total.saturating_sub(age));
    let limit = [limits.head, left].into_iter().flatten().min();
    let sent = match limit {
        None => lease.send(request).await,
        Some(limit) => match tokio::time::timeout(limit, lease.send(request)).await {
            Ok(sent) => sent,
            Err(_) => {
                let error = ProxyError::HeadTimeout(route.config.host.clone(), limit);
                return Err(Attempt::Failed(Refusal::sent(error, upload)));
            }
        },
    };
    match sent {
        Ok(response) => {
            upload.forget_start();
            Ok(answer(response, lease))
        }
        Err(mut failed) => match failed.take_message() {
            Some(back) if lease.reused => Err(Attempt::Unsent(Box::new(back))),
            _ => {
                let error = failed.into_error();
                let host = route.config.host.clone();
                let error = if error.is_parse() {
                    ProxyError::UpstreamProtocol(host, error)
                } else {
                    ProxyError::UpstreamReset(host, error)
                };
                Err(Attempt::Failed(Refusal::sent(error, upload)))
            }
        },
    }
}

fn answer(response: Response<Incoming>, lease: Lease) -> Response<Sent> {
    let (mut head, incoming) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        headers::ask_for_websocket(&mut head.headers);
    }
    head.version = Version::HTTP_11;
    Response::from_parts(head, Sent { incoming, lease })
}

/// The Host a direct client would have sent (D1), and a target in the form the protocol asks for.
fn address(request: &mut Request<RequestBody>, route: &Route, lease: &Lease) {
    let target = &lease.endpoint().target;
    let authority = match &route.config.to.host_header {
        Some(host) => host.clone(),
        None => target.authority(),
    };
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if lease.is_http2() {
        request.headers_mut().remove(HOST);
        // A tunnel cannot begin there; the request goes on without it.
        headers::strip_hop_by_hop(request.headers_mut());
        let scheme = if target.scheme == Scheme::Https { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
        return;
    }
    if let Ok(host) = HeaderValue::try_from(authority) {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = Uri::from(path);
}

fn unreachable(route: &Route, error: Option<ConnectError>) -> ProxyError {
    let host = route.config.host.clone();
    match error {
        None => ProxyError::NoReadyEndpoint(host, "its name resolves to no address".to_owned()),
        Some(error @ ConnectError::Io(..)) => ProxyError::NoReadyEndpoint(host, error.to_string()),
        Some(error @ ConnectError::Timeout(..)) => ProxyError::ConnectTimeout(error),
        Some(
            error @ (ConnectError::Handshake(..) | ConnectError::Tls(..) | ConnectError::Name(_)),
        ) => ProxyError::ConnectFailed(error),
    }
}
