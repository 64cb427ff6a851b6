//! What a request's head says, read once; nobody reads a header of it afterwards.
//!
//! Knows headers; never the table or a socket.

use http::header::{self, ACCEPT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use crate::config::ListenerLimits;
use crate::headers::{self, Chain};
use crate::proxy::call::Kind;
use crate::proxy::error::ProxyError;
use crate::proxy::request::framing;
use crate::rewrite::card::is_card_path;
use crate::route::HostKey;

/// Fields that ask for less than a whole, plain response: a card that is rewritten is asked for without
/// them.
pub const CARD_FIELDS: [HeaderName; 7] = [
    header::ACCEPT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

/// What the head of a request says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The normalised `x-kagent-host`, if there is one.
    pub target: Option<HostKey>,
    /// A port in that header, which must be one of the target's.
    pub port: Option<u16>,
    /// The Host as the client sent it: what is sent on is the backend's.
    pub host: Option<HeaderValue>,
    /// Path and query as the client sent them.
    pub path: PathAndQuery,
    /// It is a GET.
    pub is_get: bool,
    /// It is a DELETE.
    pub is_delete: bool,
    /// Of the GET or HEAD of an agent card, which waits longest for its backend: its [`CARD_FIELDS`].
    pub card: Option<Box<HeaderMap>>,
    /// Its `Mcp-Session-Id`.
    pub session: Option<HeaderValue>,
    /// Of a session's request: its `MCP-Protocol-Version`, which is what client and server agreed upon (MCP
    /// 2025-06-18, "Protocol Version Header").
    pub protocol_version: Option<HeaderValue>,
    /// It carries `Last-Event-ID`.
    pub has_last_event_id: bool,
    /// It takes trailers (RFC 9110 section 10.1.4).
    pub takes_trailers: bool,
    /// What kind of call it looks like, for the limits that hold before the response's headers.
    pub kind: Kind,
    /// A re-opened MCP event stream, which must not be answered with an error (D12).
    pub reopened: bool,
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
        let path = request.uri().path_and_query();
        within(limits, path.map_or(0, |path| path.as_str().len()), map)?;
        match headers::via_chain(map, pseudonym) {
            Chain::Open => {}
            Chain::Loop => return Err(ProxyError::Loop("this proxy has seen the request before")),
            Chain::TooLong => return Err(ProxyError::Loop("more than ten proxies in Via")),
        }
        let (target, port) = target(map, cluster_domain)?.unzip();
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let is_get = request.method() == Method::GET;
        let is_card = (is_get || request.method() == Method::HEAD) && is_card_path(path.path());
        let session = map.get(headers::MCP_SESSION_ID).cloned();
        let protocol_version = match &session {
            Some(_) => map.get(headers::MCP_PROTOCOL_VERSION).cloned(),
            None => None,
        };
        let has_last_event_id = map.contains_key(headers::LAST_EVENT_ID);
        let events = is_get && wants_events(map);
        let kind = match events {
            _ if is_get && headers::asks_for_websocket(request.version(), map) => Kind::Upgrade,
            true => Kind::Stream,
            false => Kind::Unary,
        };
        Ok(Self {
            target,
            port: port.flatten(),
            host: host_of(request),
            is_get,
            is_delete: request.method() == Method::DELETE,
            protocol_version,
            card: is_card.then(|| card_fields(map)),
            path,
            reopened: events && (session.is_some() || has_last_event_id),
            session,
            has_last_event_id,
            takes_trailers: headers::takes_trailers(map),
            kind,
        })
    }

    /// The Host as text.
    #[must_use]
    pub fn host_text(&self) -> Option<&str> {
        self.host.as_ref().and_then(|host| host.to_str().ok())
    }
}

fn within(limits: &ListenerLimits, line: usize, map: &HeaderMap) -> Result<(), ProxyError> {
    let bytes: usize = map.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if bytes + line > limits.max_head_bytes || map.len() > limits.max_head_fields {
        return Err(ProxyError::HeadTooLarge(limits.max_head_bytes, limits.max_head_fields));
    }
    Ok(())
}

fn card_fields(map: &HeaderMap) -> Box<HeaderMap> {
    let mut fields = HeaderMap::new();
    for name in &CARD_FIELDS {
        for value in map.get_all(name) {
            fields.append(name, value.clone());
        }
    }
    Box::new(fields)
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

/// The Host of a request: HTTP/2's `:authority` (RFC 9113 section 8.3.1) or that of an absolute target,
/// which wins over the field (RFC 9112 section 3.2.2), else the field.
fn host_of<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority().and_then(|a| a.as_str().parse().ok());
    authority.or_else(|| request.headers().get(HOST).cloned())
}
