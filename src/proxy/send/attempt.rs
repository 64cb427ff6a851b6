//! Gets a request to a backend: one attempt after another, as far as `proxy/troubles.rs` allows.
//!
//! Never reads a body: a dial that failed has not consumed it, and a request of which no byte was
//! written comes back from hyper. What comes out is the answer's head and the lease it lives on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{RequestBody, Upload};
use crate::headers;
use crate::proxy::error::{ProxyError, Refusal};
use crate::proxy::record::Exchange;
use crate::proxy::request::facts::{Facts, Kind};
use crate::proxy::request::rewrite;
use crate::proxy::send::retry::Troubles;
use crate::route::Route;
use crate::upstream::reuse::keep_alive_timeout;
use crate::upstream::{ConnectError, Endpoint, Lease};

/// A dial that takes longer gets company (RFC 8305 section 5).
const SECOND_DIAL: Duration = Duration::from_millis(250);

/// An answer's body, and the lease it lives on.
#[derive(Debug)]
pub struct Sent {
    /// The backend's bytes.
    pub incoming: Incoming,
    /// Held until they end.
    pub lease: Lease,
}

/// Why a request got no answer.
#[derive(Debug)]
pub enum Unsent {
    /// It is over.
    Refused(Refusal),
    /// Nothing could be reached, and nothing was written; `None` is that there is no endpoint.
    Unreachable(Box<Request<RequestBody>>, Option<ConnectError>),
}

/// Sends the request to one endpoint after another, as far as a failure allows a repeat.
///
/// # Errors
/// The reason the last attempt failed, or that nothing could be reached.
pub async fn send(
    route: &Arc<Route>,
    facts: &Facts,
    troubles: &mut Troubles<'_>,
    mut request: Box<Request<RequestBody>>,
    exchange: &mut Exchange,
) -> Result<Response<Sent>, Unsent> {
    let http1 = facts.kind == Kind::Upgrade;
    loop {
        let lease = match connect(route, http1, troubles).await {
            Ok(lease) => lease,
            Err(error) => return Err(Unsent::Unreachable(request, error)),
        };
        troubles.resume();
        exchange.on_connection();
        let broken = match attempt(route, facts, lease, exchange.age(), request).await {
            Ok(response) => return Ok(response),
            Err(Attempt::Failed(refusal)) => return Err(Unsent::Refused(refusal)),
            Err(Attempt::Again(broken)) => broken,
        };
        if !Box::pin(troubles.may_repeat(route, &broken)).await {
            return Err(Unsent::Refused(broken.refusal));
        }
        route.metrics.retries.increment(1);
        request = broken.request;
    }
}

enum Attempt {
    /// May be sent again.
    Again(Box<Broken>),
    /// The request is gone.
    Failed(Refusal),
}

/// An attempt that may be made again.
pub(in crate::proxy) struct Broken {
    request: Box<Request<RequestBody>>,
    /// The answer if it is not.
    refusal: Refusal,
    /// Bytes of the request were written: no more than once.
    pub(in crate::proxy) written: bool,
    /// The connection had carried a request before.
    pub(in crate::proxy) reused: bool,
    /// Where it led.
    pub(in crate::proxy) address: SocketAddr,
}

/// A lease from one of the endpoints: a warm connection, or the first of the dials that succeeds.
/// The error is that of the last dial, `None` if there is no endpoint.
async fn connect(
    route: &Route,
    http1: bool,
    troubles: &Troubles<'_>,
) -> Result<Lease, Option<ConnectError>> {
    let had = troubles.had();
    let picked = route.cluster.pick(had).or_else(|| route.cluster.pick(&[]));
    let Some(first) = picked else { return Err(None) };
    if had.is_empty()
        && let Some(lease) = first.warm(http1)
    {
        route.metrics.reused.increment(1);
        return Ok(lease);
    }
    let limit = route.config.to.timeouts.connect;
    let left = troubles.left();
    // Boxed, as waiting is.
    Box::pin(dial(route, first, http1, left.map_or(limit, |left| left.min(limit)))).await
}

async fn dial(
    route: &Route,
    first: Arc<Endpoint>,
    http1: bool,
    deadline: Duration,
) -> Result<Lease, Option<ConnectError>> {
    let mut tried: Vec<SocketAddr> = vec![first.address];
    let mut open: Vec<Arc<Endpoint>> = Vec::new();
    let mut dials = FuturesUnordered::new();
    let start = |endpoint: Arc<Endpoint>, open: &mut Vec<Arc<Endpoint>>| {
        open.push(Arc::clone(&endpoint));
        async move { (Arc::clone(&endpoint), endpoint.dial(http1, deadline).await) }
    };
    dials.push(start(first, &mut open));
    let mut last = None;
    loop {
        let ended = tokio::select! {
            biased;
            ended = dials.next() => ended,
            () = tokio::time::sleep(SECOND_DIAL) => {
                match route.cluster.pick(&tried) {
                    Some(next) => {
                        tried.push(next.address);
                        dials.push(start(next, &mut open));
                        continue;
                    }
                    None => dials.next().await,
                }
            }
        };
        match ended {
            Some((endpoint, Ok(lease))) => {
                route.metrics.opened.increment(1);
                // What was overtaken is slow or dead, and would be waited for again by the next one.
                let overtaken = open.iter().take_while(|other| !Arc::ptr_eq(other, &endpoint));
                overtaken.for_each(|other| dial_failed(route, other));
                return Ok(lease);
            }
            Some((endpoint, Err(error))) => {
                tracing::debug!(%error, "dial failed");
                dial_failed(route, &endpoint);
                open.retain(|other| !Arc::ptr_eq(other, &endpoint));
                last = Some(error);
            }
            None => return Err(last),
        }
        if dials.is_empty()
            && let Some(next) = route.cluster.pick(&tried)
        {
            if let Some(lease) = next.warm(http1) {
                route.metrics.reused.increment(1);
                return Ok(lease);
            }
            tried.push(next.address);
            dials.push(start(next, &mut open));
        }
    }
}

fn dial_failed(route: &Route, endpoint: &Endpoint) {
    if endpoint.health.dial_failed(Instant::now(), fastrand::u64(..)) {
        route.metrics.ejections.increment(1);
    }
}

async fn attempt(
    route: &Arc<Route>,
    facts: &Facts,
    mut lease: Lease,
    age: Duration,
    mut request: Box<Request<RequestBody>>,
) -> Result<Response<Sent>, Attempt> {
    rewrite::address(&mut request, route, facts.target.as_ref(), &lease);
    let upload = Arc::clone(request.body().upload());
    let copy = lease.reused.then(|| repeatable(&request)).flatten();
    let limits = facts.kind.limits(&route.config.to.timeouts);
    let left = limits.total.map(|total| total.saturating_sub(age));
    let limit = [limits.head, left].into_iter().flatten().min();
    let sent = match limit {
        None => lease.send(request).await,
        // Boxed: limits are rare, and a second request here would weigh on every connection.
        Some(limit) => match Box::pin(tokio::time::timeout(limit, lease.send(request))).await {
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
            lease.endpoint().health.answered();
            Ok(answer(response, lease))
        }
        Err(mut failed) => {
            let unsent = failed.take_message();
            Err(broken(route, &lease, failed.into_error(), unsent, copy, upload))
        }
    }
}

/// What follows from an attempt without an answer.
fn broken(
    route: &Route,
    lease: &Lease,
    error: hyper::Error,
    unsent: Option<Request<RequestBody>>,
    copy: Option<Box<request::Parts>>,
    upload: Arc<Upload>,
) -> Attempt {
    if upload.is_broken() {
        // The client's doing: it must not cost the endpoint its place.
        return Attempt::Failed(Refusal::sent(ProxyError::BrokenBody(error), upload));
    }
    // A reused connection that closes says nothing of the endpoint: its idle time was over.
    if !lease.reused && lease.endpoint().health.was_reset(Instant::now(), fastrand::u64(..)) {
        route.metrics.ejections.increment(1);
    }
    let host = route.config.host.clone();
    let parse = error.is_parse();
    let refusal = |error| {
        let error = if parse {
            ProxyError::UpstreamProtocol(host, error)
        } else {
            ProxyError::UpstreamReset(host, error)
        };
        Refusal::sent(error, Arc::clone(&upload))
    };
    let (request, written) = match (unsent, copy) {
        (Some(request), _) => (request, false),
        (None, Some(head)) if !parse && lease.closed_silently() => {
            (Request::from_parts(*head, RequestBody::empty(Arc::clone(&upload))), true)
        }
        _ => return Attempt::Failed(refusal(error)),
    };
    let request = Box::new(request);
    let (refusal, reused, address) = (refusal(error), lease.reused, lease.endpoint().address);
    Attempt::Again(Box::new(Broken { request, refusal, written, reused, address }))
}

/// The head of a request that may be sent twice: idempotent (RFC 9110 section 9.2.2) and without a
/// body.
fn repeatable(request: &Request<RequestBody>) -> Option<Box<request::Parts>> {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE];
    if !safe.contains(request.method()) || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy.into_parts().0))
}

fn answer(response: Response<Incoming>, lease: Lease) -> Response<Sent> {
    let (mut head, incoming) = response.into_parts();
    if let Some(value) = head.headers.get(headers::KEEP_ALIVE).and_then(|value| value.to_str().ok())
        && let Some(timeout) = keep_alive_timeout(value)
    {
        lease.endpoint().pool.announced(timeout);
    }
    headers::strip_hop_by_hop(&mut head.headers);
    // Only we may speak by it: a client must be able to tell our errors from a backend's.
    head.headers.remove(headers::X_KAGENT_PROXY_ERROR);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        headers::ask_for_websocket(&mut head.headers);
    }
    head.version = Version::HTTP_11;
    Response::from_parts(head, Sent { incoming, lease })
}
