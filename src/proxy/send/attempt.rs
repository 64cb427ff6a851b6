//! One attempt: a request on one connection, and what came of it.
//!
//! Ends with the headers of a response. Never chooses an endpoint, and never decides about a retry: a
//! failure says what was known of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Request, Response, request};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::body::{RequestBody, Upload};
use crate::config::SessionMode;
use crate::headers;
use crate::headers::names::Known;
use crate::headers::noted::Noted;
use crate::protocol::jsonrpc::Message;
use crate::protocol::mcp::{DISCOVER, INITIALIZE, chosen_version, may_repeat};
use crate::proxy::error::ProxyError;
use crate::proxy::request::address::address;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::telemetry::metrics::Counted;
use crate::upstream::reuse::keep_alive_timeout;
use crate::upstream::{Brought, ConnectError, Lease, Leased, SendError, Unsent};

/// How long a response that begins a session waits for the answer in its body, and in how many bytes.
const FIRST_BYTES: Duration = Duration::from_secs(5);
const MAX_BEGINNING: usize = 64 * 1024;
/// How long the rest of a message is waited for when its backend has left.
const READ_ON: Duration = Duration::from_millis(500);

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
    request: Box<Request<RequestBody>>,
) -> Result<Response<Leased>, Failure> {
    let onward = address(facts, way, &lease);
    let upload = Arc::clone(request.body().upload());
    let in_session = way.session.is_some();
    if !lease.is_http2() && !in_session {
        // Nothing over HTTP/1.1 says that a request was not processed.
        upload.tap.keep_start();
    }
    let repeatable = is_repeatable(&request, facts, &lease);
    let to = &way.route.config.to;
    let limits = facts.kind.limits(&to.timeouts);
    let left = limits.total.map(|total| total.saturating_sub(age));
    let sent = match (limits.head, left) {
        (None, None) => lease.send(request, &onward).await,
        // Boxed: limits are rare, and a second request here would weigh on every connection.
        limits => match Box::pin(within(limits, &upload, lease.send(request, &onward))).await {
            Ok(sent) => sent,
            Err(limit) => {
                if let Some(request) = lease.take_request() {
                    request.into_body().discard();
                }
                let host = way.route.config.host.clone();
                return Err(Failure::Over(ProxyError::HeadTimeout(host, limit)));
            }
        },
    };
    match sent {
        Ok(response) => {
            lease.endpoint().health.answered();
            dropped(way, &lease);
            announced(&response, &lease);
            let begins = facts.session.is_none() && !facts.is_get;
            if begins
                && response.body().1.names.has(Known::McpSessionId)
                && to.sessions != SessionMode::Pass
                && is_initialize(&upload)
            {
                // Boxed: sessions begin rarely.
                return Box::pin(begun(way, response, lease, &upload)).await;
            }
            if !in_session {
                drop(lease.take_head());
            }
            Ok(response.map(|brought| Leased::new(brought, lease)))
        }
        Err(failed) => {
            dropped(way, &lease);
            // Boxed, as all that is rare.
            let request = (repeatable, facts.is_modern);
            Err(Box::pin(broken(way, lease, failed, request, &upload)).await)
        }
    }
}

/// The response by which a session begins, once its answer is here: servers begin an event stream before they know
/// what it will say, and a client that has read a head cannot be given another session. What is read stands in its body,
/// where the protocol's version is looked for.
async fn begun(
    way: &Way,
    response: Response<Brought>,
    lease: Lease,
    upload: &Arc<Upload>,
) -> Result<Response<Leased>, Failure> {
    let mut response = response.map(|brought| Leased::new(brought, lease));
    let Noted { names, is_events, .. } = response.body().noted();
    let coded = names.has(Known::ContentEncoding);
    let mut said = BytesMut::new();
    let read = async {
        while said.len() < MAX_BEGINNING
            && let Some(frame) = response.body_mut().frame().await
        {
            said.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
            // In a coding nothing can be seen.
            if coded || chosen_version(&said, is_events).is_some() {
                break;
            }
        }
        Ok(())
    };
    // Or it is late: then the client has the head before.
    match tokio::time::timeout(FIRST_BYTES, read).await.unwrap_or(Ok(())) {
        Ok(()) => {
            response.body_mut().put_back(said.freeze());
            response.body_mut().forget_request();
            Ok(response)
        }
        Err(error) => Err(cut_off(way, response, error, upload)),
    }
}

/// What follows from a response that broke off before its client had anything of it; what changes nothing may be asked
/// once more.
pub(super) fn cut_off(
    way: &Way,
    response: Response<Leased>,
    error: SendError,
    upload: &Arc<Upload>,
) -> Failure {
    let address = response.body().endpoint().address;
    let error = ProxyError::UpstreamReset(way.route.config.host.clone(), Box::new(error));
    let request = response.into_body().into_request(upload);
    let is_modern = request
        .as_deref()
        .is_some_and(|request| request.headers().contains_key(headers::MCP_METHOD));
    match request.zip(harmless(way, is_modern, upload)) {
        Some((request, body)) => Failure::Broken(Box::new(Broken {
            request: Box::new(request.map(|_| body)),
            error,
            written: true,
            reused: true,
            address,
        })),
        None => Failure::Over(error),
    }
}

/// Counts the 1xx responses that were read over (RFC 9110 section 15.2).
fn dropped(way: &Way, lease: &Lease) {
    let interim = lease.interim();
    if interim > 0 {
        way.route.metrics.add(Counted::Informational, u64::from(interim));
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
fn announced(response: &Response<Brought>, lease: &Lease) {
    if response.body().1.names.has(Known::KeepAlive)
        && let Some(value) = response.headers().get(headers::KEEP_ALIVE)
        && let Some(timeout) = value.to_str().ok().and_then(keep_alive_timeout)
    {
        lease.endpoint().pool.announced(timeout);
    }
}

/// What follows from an attempt without a response.
async fn broken(
    way: &Way,
    mut lease: Lease,
    failed: Unsent,
    (repeatable, is_modern): (bool, bool),
    upload: &Arc<Upload>,
) -> Failure {
    let Unsent { error, request, written } = failed;
    if upload.progress.is_broken() {
        // The client's doing: it must not cost the endpoint its place.
        return Failure::Over(ProxyError::BrokenBody(Box::new(error)));
    }
    let endpoint = lease.endpoint().clone();
    let host = way.route.config.host.clone();
    let bad = error.bad_response();
    if bad.is_some() {
        endpoint.health.answered();
    } else if !lease.reused && endpoint.health.was_reset(Instant::now(), fastrand::u64(..)) {
        // A reused connection that closes says nothing of the endpoint: its idle time was over.
        way.route.metrics.add(Counted::Ejections, 1);
    }
    let (malformed, unprocessed) = (error.is_malformed(), error.is_unprocessed());
    let error = match bad {
        Some(bad) => ProxyError::BadResponse(host, Box::new(bad)),
        None if malformed => ProxyError::UpstreamProtocol(host, Box::new(error)),
        None => ProxyError::UpstreamReset(host, Box::new(error)),
    };
    let answered = malformed || bad.is_some();
    let request = match request {
        Some(request) if written => Some(read_on(request).await),
        request => request,
    };
    let rest = match lease.take_back() {
        Some(back) if unprocessed => {
            tokio::time::timeout(READ_ON, back.rest()).await.ok().flatten()
        }
        Some(back) => {
            // As below.
            back.discard();
            None
        }
        None => None,
    };
    let repeatable = repeatable && !answered && lease.closed_silently();
    let harmless = if written && !answered { harmless(way, is_modern, upload) } else { None };
    let again = match (request, lease.take_head()) {
        (Some(request), _) if !written => Some((request, false)),
        (Some(request), _) if repeatable => Some((request, true)),
        (Some(request), _) if let Some(body) = harmless => {
            Some((Box::new(request.map(|_| body)), true))
        }
        (Some(request), _) => {
            // A client that is still sending would not read the error otherwise.
            request.into_body().discard();
            None
        }
        (None, Some(head)) if unprocessed => {
            once_more(rest, upload).map(|body| (with(*head, body), false))
        }
        (None, Some(head)) if repeatable => {
            Some((with(*head, RequestBody::empty(Arc::clone(upload))), true))
        }
        (None, Some(head)) if let Some(body) = harmless => Some((with(*head, body), true)),
        _ => None,
    };
    let Some((request, written)) = again else { return Failure::Over(error) };
    let (reused, address) = (lease.reused, endpoint.address);
    Failure::Broken(Box::new(Broken { request, error, written, reused, address }))
}

/// Whether it may be sent twice though the backend may have processed it: idempotent (RFC 9110 section
/// 9.2.2), without a body, and on a connection whose idle time may have been over; or the opening of an event
/// stream that is opened again and again.
fn is_repeatable(request: &Request<RequestBody>, facts: &Facts, lease: &Lease) -> bool {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE];
    (lease.reused || facts.reopened)
        && safe.contains(request.method())
        && request.body().is_end_stream()
}

/// The request with as much of its body as may be remembered: whether it may be sent again, and what it is answered
/// with, is for its message to say.
async fn read_on(request: Box<Request<RequestBody>>) -> Box<Request<RequestBody>> {
    let (head, body) = request.into_parts();
    let body = body.gather(READ_ON).await.unwrap_or_else(|rest| rest);
    Box::new(Request::from_parts(head, body))
}

/// The body once more of a request of which the backend surely did nothing, with the rest of it that was not sent.
fn once_more(rest: Option<RequestBody>, upload: &Arc<Upload>) -> Option<RequestBody> {
    match rest.map(RequestBody::resumed) {
        None => RequestBody::again(upload),
        Some(Ok(body)) => Some(body),
        Some(Err(rest)) => {
            rest.discard();
            None
        }
    }
}

/// The body once more of an MCP request that changes nothing, if it was remembered whole: in a session, or one by which
/// a client begins (D45). Others are not sent again (D11).
fn harmless(way: &Way, is_modern: bool, upload: &Arc<Upload>) -> Option<RequestBody> {
    let whole = upload.replay()?;
    let message = Message::read(&whole);
    let method = message.method.filter(|_| message.id.is_some())?;
    // The name says little, so the head must say that it is MCP.
    let begins = || method == INITIALIZE || is_modern && method == DISCOVER;
    let may = if way.session.is_some() { may_repeat(&method) } else { begins() };
    may.then(|| RequestBody::own(whole, Arc::clone(upload)))
}

/// Whether the client's message asks for a session.
fn is_initialize(upload: &Upload) -> bool {
    let start = upload.tap.start().unwrap_or_default();
    Message::read(&start).method.is_some_and(|method| method == INITIALIZE)
}

fn with(head: request::Parts, body: RequestBody) -> Box<Request<RequestBody>> {
    Box::new(Request::from_parts(head, body))
}
