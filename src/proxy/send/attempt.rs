//! One attempt: a request on one connection, and what came of it.
//!
//! Ends with the headers of a response. Never chooses an endpoint, and never decides about a retry: a
//! failure says what was known of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, request};
use http_body::Body;
use tokio::time::Instant;

use crate::body::{RequestBody, Upload};
use crate::headers;
use crate::proxy::error::ProxyError;
use crate::proxy::request::address::address;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::upstream::reuse::keep_alive_timeout;
use crate::upstream::{ConnectError, Lease, Leased, faults};

/// Why an attempt brought no response.
#[derive(Debug)]
pub enum Failure {
    /// No connection, and so nothing was written; `None` is that there is no endpoint.
    Unreachable(Box<Request<RequestBody>>, Option<ConnectError>),
    /// The connection broke, and the request is still there.
    Broken(Box<Broken>),
    /// The request is gone.
    Over(ProxyError),
}

/// An attempt that broke.
#[derive(Debug)]
pub struct Broken {
    /// To be sent again, if that is allowed.
    pub request: Box<Request<RequestBody>>,
    /// What the client is told if it is not.
    pub error: ProxyError,
    /// Bytes of the request were written.
    pub written: bool,
    /// The connection had carried a request before.
    pub reused: bool,
    /// Where it led.
    pub address: SocketAddr,
}

/// Sends the request; `age` is how long ago it arrived.
///
/// # Errors
/// [`Failure`], with the request where it is still there.
pub async fn attempt(
    way: &Way,
    facts: &Facts,
    mut lease: Lease,
    age: Duration,
    mut request: Box<Request<RequestBody>>,
) -> Result<Response<Leased>, Failure> {
    address(&mut request, facts, way, &lease);
    let upload = Arc::clone(request.body().upload());
    let copy = Copy::of(&request, &lease);
    let head = *request.method() == Method::HEAD;
    let to = &way.route.config.to;
    let limits = facts.kind.limits(&to.timeouts);
    let left = limits.total.map(|total| total.saturating_sub(age));
    let sent = match (limits.head, left) {
        (None, None) => lease.send(request).await,
        // Boxed: limits are rare, and a second request here would weigh on every connection.
        limits => match Box::pin(within(limits, &upload, lease.send(request))).await {
            Ok(sent) => sent,
            Err(limit) => {
                let host = way.route.config.host.clone();
                return Err(Failure::Over(ProxyError::HeadTimeout(host, limit)));
            }
        },
    };
    match sent {
        Ok(mut response) => {
            lease.endpoint().health.answered();
            if let Err(bad) = lease.settle(head, &mut response) {
                let host = way.route.config.host.clone();
                return Err(Failure::Over(ProxyError::BadResponse(host, Box::new(bad))));
            }
            upload.tap.forget();
            announced(&response, &lease);
            Ok(response.map(|incoming| Leased { incoming, lease }))
        }
        Err(mut failed) => {
            let unsent = failed.take_message();
            Err(broken(way, &lease, failed.into_error(), unsent, copy, &upload))
        }
    }
}

/// Waits for `sent`, at most for what is `left` of the request's time, and for `head` once the body has
/// been sent: a slow upload is no slow backend.
///
/// # Errors
/// The limit that was reached.
async fn within<F: Future>(
    (head, left): (Option<Duration>, Option<Duration>),
    upload: &Upload,
    sent: F,
) -> Result<F::Output, Duration> {
    let total = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
        left
    };
    let late = async {
        match head {
            Some(head) => upload.progress.overdue(head).await,
            None => std::future::pending().await,
        }
        head
    };
    let limit = tokio::select! {
        biased;
        sent = sent => return Ok(sent),
        limit = total => limit,
        limit = late => limit,
    };
    Err(limit.unwrap_or_default())
}

/// The backend may have said for how long it keeps idle connections.
fn announced<B>(response: &Response<B>, lease: &Lease) {
    if let Some(value) = response.headers().get(headers::KEEP_ALIVE)
        && let Some(timeout) = value.to_str().ok().and_then(keep_alive_timeout)
    {
        lease.endpoint().pool.announced(timeout);
    }
}

/// What follows from an attempt without a response.
fn broken(
    way: &Way,
    lease: &Lease,
    error: hyper::Error,
    unsent: Option<Request<RequestBody>>,
    copy: Option<Copy>,
    upload: &Arc<Upload>,
) -> Failure {
    if upload.progress.is_broken() {
        // The client's doing: it must not cost the endpoint its place.
        return Failure::Over(ProxyError::BrokenBody(error));
    }
    let endpoint = lease.endpoint();
    // A reused connection that closes says nothing of the endpoint: its idle time was over.
    if !lease.reused && endpoint.health.was_reset(Instant::now(), fastrand::u64(..)) {
        way.route.metrics.ejections.increment(1);
    }
    let host = way.route.config.host.clone();
    let malformed = faults::is_malformed(&error);
    let unprocessed = faults::unprocessed(&error);
    let error = match lease.fault(&error) {
        Some(bad) => ProxyError::BadResponse(host, Box::new(bad)),
        None if malformed => ProxyError::UpstreamProtocol(host, error),
        None => ProxyError::UpstreamReset(host, error),
    };
    let again = match (unsent, copy) {
        (Some(request), _) => Some((request, false)),
        (None, Some(copy)) if unprocessed => {
            RequestBody::again(upload).map(|body| (copy.with(body), false))
        }
        (None, Some(copy)) if copy.repeatable && !malformed && lease.closed_silently() => {
            Some((copy.with(RequestBody::empty(Arc::clone(upload))), true))
        }
        _ => None,
    };
    let Some((request, written)) = again else { return Failure::Over(error) };
    let (reused, address) = (lease.reused, endpoint.address);
    Failure::Broken(Box::new(Broken {
        request: Box::new(request),
        error,
        written,
        reused,
        address,
    }))
}

/// The head of a request that may have to be sent twice.
struct Copy {
    head: Box<request::Parts>,
    /// Though the backend may have processed it: idempotent (RFC 9110 section 9.2.2), without a body, and
    /// on a connection whose idle time may have been over.
    repeatable: bool,
}

// === impl Copy ===

impl Copy {
    /// None where no failure allows a repeat: only HTTP/2 says that a request was not processed.
    fn of(request: &Request<RequestBody>, lease: &Lease) -> Option<Self> {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE];
        let repeatable =
            lease.reused && safe.contains(request.method()) && request.body().is_end_stream();
        if !repeatable && !lease.is_http2() {
            return None;
        }
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        Some(Self { head: Box::new(copy.into_parts().0), repeatable })
    }

    fn with(self, body: RequestBody) -> Request<RequestBody> {
        Request::from_parts(*self.head, body)
    }
}
