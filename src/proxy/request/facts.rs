//! What a request's head says, read once.
//!
//! Knows headers; never the table or a socket. `proxy.rs` routes by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::header::{ACCEPT, CONTENT_TYPE, EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::body::Incoming;

use tokio::sync::OwnedSemaphorePermit;

use crate::body::RequestBody;
use crate::config::{Limits, ListenerLimits, Timeouts};
use crate::headers::{self, Chain};
use crate::proxy::error::ProxyError;
use crate::proxy::request::framing;
use crate::rewrite::card::is_card_path;
use crate::route::HostKey;

/// One client connection.
#[derive(Debug)]
pub struct ConnInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The same for access lines, and without its port for `x-forwarded-for`: made once.
    pub peer_text: Box<str>,
    /// See `peer_text`.
    pub forwarded_for: HeaderValue,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Name of the listener it came on.
    pub listener: Arc<str>,
    /// Requests of this connection whose body or answer has not ended; each exchange and each body
    /// counts itself.
    pub open: Arc<AtomicUsize>,
    /// Its place among the connections, which a tunnel keeps.
    pub permit: Option<OwnedSemaphorePermit>,
}

// === impl ConnInfo ===

impl ConnInfo {
    /// A connection without requests.
    #[must_use]
    pub fn new(
        peer: SocketAddr,
        scheme: &'static str,
        listener: Arc<str>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let ip = peer.ip().to_canonical().to_string();
        // An address has no byte that a field may not have.
        let forwarded_for =
            HeaderValue::try_from(ip).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let peer_text = peer.to_string().into();
        Self { peer, peer_text, forwarded_for, scheme, listener, open: Arc::default(), permit }
    }
}

/// What routing needs to know of a request.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The normalised `x-kagent-host`, if there is one.
    pub target: Option<HostKey>,
    /// A port in that header, which must be one of the target's.
    pub port: Option<u16>,
    /// The Host as the client sent it: what is sent on is the backend's.
    pub authority: Option<HeaderValue>,
    /// The GET of an agent card, which waits longest for its backend.
    pub card: bool,
    /// A GET.
    pub get: bool,
    /// It carries `Mcp-Session-Id`.
    pub session: bool,
    /// It carries `Last-Event-ID`.
    pub resumes: bool,
    /// What kind of call it looks like, for the limits that hold before the answer's head.
    pub kind: Kind,
    /// A re-opened MCP event stream, which must not be answered with an error (D12).
    pub reopened: bool,
}

/// The kinds of calls, each with time limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Request and answer.
    Unary,
    /// An answer that is `text/event-stream`.
    Stream,
    /// A connection that becomes a tunnel.
    Upgrade,
}

// === impl Kind ===

impl Kind {
    /// The word in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Stream => "stream",
            Self::Upgrade => "upgrade",
        }
    }

    /// Its limits.
    #[must_use]
    pub const fn limits(self, timeouts: &Timeouts) -> &Limits {
        match self {
            Self::Unary => &timeouts.unary,
            Self::Stream => &timeouts.stream,
            Self::Upgrade => &timeouts.upgrade,
        }
    }
}

// === impl Facts ===

impl Facts {
    /// Reads the head.
    ///
    /// # Errors
    /// Whatever keeps the request from being routed; nothing has been dialled.
    pub fn read<B>(
        request: &Request<B>,
        cluster_domain: &str,
        limits: &ListenerLimits,
        pseudonym: &str,
    ) -> Result<Self, ProxyError> {
        let map = request.headers();
        if request.method() == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        framing::check(request).map_err(ProxyError::BadRequest)?;
        let line = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let bytes: usize = map.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
        if bytes + line > limits.max_head_bytes || map.len() > limits.max_head_fields {
            return Err(ProxyError::HeadTooLarge(limits.max_head_bytes, limits.max_head_fields));
        }
        match headers::via_chain(map, pseudonym) {
            Chain::Open => {}
            Chain::Loop => return Err(ProxyError::Loop("this proxy has seen the request before")),
            Chain::TooLong => return Err(ProxyError::Loop("more than ten proxies in Via")),
        }
        let (target, port) = target(map, cluster_domain)?.unzip();
        let port = port.flatten();
        let get = request.method() == Method::GET;
        let path = request.uri().path();
        let card = is_card_path(path);
        let session = map.contains_key(headers::MCP_SESSION_ID);
        let resumes = map.contains_key(headers::LAST_EVENT_ID);
        let events = get && wants_events(map);
        let kind = match events {
            _ if get && headers::asks_for_websocket(request.version(), map) => Kind::Upgrade,
            true => Kind::Stream,
            false => Kind::Unary,
        };
        Ok(Self {
            target,
            port,
            authority: host_of(request),
            card: get && card,
            get,
            session,
            resumes,
            kind,
            reopened: events && (session || resumes),
        })
    }
}

impl Facts {
    /// The Host as text.
    #[must_use]
    pub fn authority_text(&self) -> Option<&str> {
        self.authority.as_ref().and_then(|host| host.to_str().ok())
    }
}

/// A name, and the port behind it.
type Named = (HostKey, Option<u16>);

fn target(map: &HeaderMap, cluster_domain: &str) -> Result<Option<Named>, ProxyError> {
    let mut found: Option<Named> = None;
    for value in map.get_all(headers::X_KAGENT_HOST) {
        let text = value.to_str().map_err(|_| ProxyError::NotText)?;
        let parsed = HostKey::parse(text, cluster_domain)
            .map_err(|why| ProxyError::BadTarget(text.chars().take(253).collect(), why))?;
        match &found {
            Some(before) if *before != parsed => return Err(ProxyError::TwoTargets),
            _ => found = Some(parsed),
        }
    }
    Ok(found)
}

/// Whether `Accept` names event streams; media types have no case (RFC 9110 section 8.3.1).
fn wants_events(map: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    map.get_all(ACCEPT).iter().any(|value| {
        let mut windows = value.as_bytes().windows(EVENTS.len());
        windows.any(|window| window.eq_ignore_ascii_case(EVENTS))
    })
}

/// A re-opened MCP event stream (D12).
#[must_use]
pub fn reopens_events<B>(request: &Request<B>) -> bool {
    let map = request.headers();
    let again = [headers::MCP_SESSION_ID, headers::LAST_EVENT_ID];
    request.method() == Method::GET
        && wants_events(map)
        && again.iter().any(|h| map.contains_key(h))
}

/// The request with a body that is counted, and remembered where an error may need its id.
#[must_use]
pub fn with_body(conn: &ConnInfo, request: Request<Incoming>) -> Request<RequestBody> {
    let map = request.headers();
    let json = map.get(CONTENT_TYPE).is_some_and(|value| {
        let start = value.as_bytes().get(..16);
        start.is_some_and(|start| start.eq_ignore_ascii_case(b"application/json"))
    });
    let remember = json && request.method() == Method::POST;
    let expects = map.contains_key(EXPECT);
    request.map(|incoming| RequestBody::new(incoming, remember, expects, &conn.open))
}

/// The Host of a request, from its field or from HTTP/2's `:authority`.
#[must_use]
pub fn host_of<B>(request: &Request<B>) -> Option<HeaderValue> {
    let field = request.headers().get(HOST).cloned();
    field.or_else(|| request.uri().authority().and_then(|a| a.as_str().parse().ok()))
}
