//! Gets a request to a backend: one attempt after another, as far as D11 and D12 allow.
//!
//! Never reads a body: a dial that failed has not consumed it, and a request of which no byte was
//! written comes back from hyper. What comes out is the answer's head and the lease it lives on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::HeaderName;
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::error::{ProxyError, Refusal};
use super::exchange::Exchange;
use super::facts::{Facts, Kind};
use super::forward::address;
use super::hold::Holds;
use crate::body::{RequestBody, Upload};
use crate::headers;
use crate::route::Route;
use crate::upstream::reuse::keep_alive_timeout;
use crate::upstream::{ConnectError, Endpoint, Lease};

/// First pause between rounds over all endpoints; it doubles up to the second bound.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
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

/// Sends the request: tries endpoint after endpoint, then waits and tries again until the hold time is
/// over.
///
/// # Errors
/// The reason the last attempt failed.
pub async fn send(
    route: &Arc<Route>,
    facts: &Facts,
    (holds, source): (&Holds, IpAddr),
    mut request: Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Response<Sent>, Refusal> {
    let cluster = &route.cluster;
    let hold = if facts.card { route.config.to.hold.card } else { route.config.to.hold.request };
    let until = Instant::now() + hold;
    let (mut held, mut pause, mut repeated) = (None, FIRST_PAUSE, false);
    cluster.budget.sent();
    loop {
        let lease = match connect(route, facts.kind == Kind::Upgrade).await {
            Ok(lease) => lease,
            Err(error) => {
                let next = Instant::now() + pause;
                let waits = matches!(error, None | Some(ConnectError::Io(..)));
                if !waits || next > until {
                    return Err(Refusal::new(unreachable(route, error), request));
                }
                if held.is_none() {
                    held = holds.enter(source);
                    if held.is_none() {
                        return Err(Refusal::new(ProxyError::Overloaded, request));
                    }
                }
                if error.is_none() {
                    cluster.wanted();
                }
                tokio::time::sleep_until(next).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        drop(held.take());
        exchange.on_connection();
        match attempt(route, facts, lease, exchange.age(), request).await {
            Ok(response) => return Ok(response),
            Err(Attempt::Again { request: back, refusal, once }) => {
                let again = !(once && repeated) && cluster.budget.take(Instant::now());
                if !again {
                    return Err(refusal);
                }
                repeated |= once;
                route.metrics.retries.increment(1);
                request = *back;
            }
            Err(Attempt::Failed(refusal)) => return Err(refusal),
        }
    }
}

enum Attempt {
    /// May be sent again.
    Again {
        request: Box<Request<RequestBody>>,
        /// The answer if it is not.
        refusal: Refusal,
        /// Bytes of it were written: no more than once.
        once: bool,
    },
    /// The request is gone.
    Failed(Refusal),
}

/// A lease from one of the endpoints: a warm connection, or the first of the dials that succeeds.
/// The error is that of the last dial, `None` if there is no endpoint.
async fn connect(route: &Route, http1: bool) -> Result<Lease, Option<ConnectError>> {
    let Some(first) = route.cluster.pick(&[]) else { return Err(None) };
    if let Some(lease) = first.warm(http1) {
        route.metrics.reused.increment(1);
        return Ok(lease);
    }
    // Boxed: dials are large and rare, and their size would weigh on every connection.
    Box::pin(dial(route, first, http1)).await
}

async fn dial(
    route: &Route,
    first: Arc<Endpoint>,
    http1: bool,
) -> Result<Lease, Option<ConnectError>> {
    let deadline = route.config.to.timeouts.connect;
    let mut tried: Vec<SocketAddr> = vec![first.address];
    let mut dials = FuturesUnordered::new();
    let start = |endpoint: Arc<Endpoint>| async move {
        (Arc::clone(&endpoint), endpoint.dial(http1, deadline).await)
    };
    dials.push(start(first));
    let mut last = None;
    loop {
        let ended = tokio::select! {
            biased;
            ended = dials.next() => ended,
            () = tokio::time::sleep(SECOND_DIAL) => {
                match route.cluster.pick(&tried) {
                    Some(next) => {
                        tried.push(next.address);
                        dials.push(start(next));
                        continue;
                    }
                    None => dials.next().await,
                }
            }
        };
        match ended {
            Some((_, Ok(lease))) => {
                route.metrics.opened.increment(1);
                return Ok(lease);
            }
            Some((endpoint, Err(error))) => {
                tracing::debug!(%error, "dial failed");
                if endpoint.health.dial_failed(Instant::now(), fastrand::u64(..)) {
                    route.metrics.ejections.increment(1);
                }
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
            dials.push(start(next));
        }
    }
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
    if let Some(request) = unsent {
        return Attempt::Again { request: Box::new(request), refusal: refusal(error), once: false };
    }
    match copy {
        Some(head) if !parse => {
            let request = Request::from_parts(*head, RequestBody::empty(Arc::clone(&upload)));
            Attempt::Again { request: Box::new(request), refusal: refusal(error), once: true }
        }
        _ => Attempt::Failed(refusal(error)),
    }
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
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let (mut head, incoming) = response.into_parts();
    if let Some(value) = head.headers.get(KEEP_ALIVE).and_then(|value| value.to_str().ok())
        && let Some(timeout) = keep_alive_timeout(value)
    {
        lease.endpoint().pool.announced(timeout);
    }
    headers::strip_hop_by_hop(&mut head.headers);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        headers::ask_for_websocket(&mut head.headers);
    }
    head.version = Version::HTTP_11;
    Response::from_parts(head, Sent { incoming, lease })
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
