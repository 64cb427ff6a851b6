//! What a request's head says, read once; nobody reads a header of it afterwards.
//!
//! Knows headers; never the table or a socket.

use std::sync::Arc;

use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::Ingress;
use super::conn::Connection;
use super::fields::Fields;
use crate::config::ListenerLimits;
use crate::headers::etag::IfNoneMatch;
use crate::headers::names::{Known, Meanings};
use crate::headers::onward::{Origin, Trace};
use crate::headers::{self, Chain};
use crate::protocol::methods;
use crate::proxy::call::Kind;
use crate::proxy::error::ProxyError;
use crate::proxy::request::framing;
use crate::rewrite::card::is_card_path;
use crate::rewrite::pin;
use crate::route::HostKey;

/// What the head of a request says.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The normalised `x-kagent-host`, if there is one.
    pub target: Option<HostKey>,
    /// A port in that header, which must be one of the target's.
    pub port: Option<u16>,
    /// Where it came from, as every backend is told.
    pub origin: Origin,
    /// What the names of its fields mean, in their order.
    pub meanings: Meanings,
    /// Path and query as the client sent them.
    pub path: PathAndQuery,
    /// It is a GET.
    pub is_get: bool,
    /// It is a DELETE.
    pub is_delete: bool,
    /// It is the GET or HEAD of an agent card, which waits longest for its backend.
    pub is_card: bool,
    /// `If-None-Match` of the GET of a card, which the proxy answers itself.
    pub if_none_match: Option<Box<IfNoneMatch>>,
    /// Its `Mcp-Session-Id`.
    pub session: Option<HeaderValue>,
    /// The token that stood in its query: the stream that a legacy client posts for. It is not in `path` any more.
    pub pin: Option<HeaderValue>,
    /// It is one of MCP 2026-07-28 or later.
    pub is_modern: bool,
    /// It carries `Last-Event-ID`.
    pub has_last_event_id: bool,
    /// It takes trailers (RFC 9110 section 10.1.4).
    pub takes_trailers: bool,
    /// What kind of call it looks like, for the limits that hold before the response's headers.
    pub kind: Kind,
    /// It is a call of A2A over gRPC that is answered by a stream: nothing in the response's head tells that.
    pub is_grpc_stream: bool,
    /// A re-opened MCP event stream, which must not be answered with an error (D12).
    pub reopened: bool,
}

// === impl Facts ===

impl Facts {
    /// Reads the head that came on `conn`, in which `fields` were found, of a request whose next hop is told of this
    /// `trace`. Shared, since a session's request keeps it, and moves would cost as much.
    ///
    /// # Errors
    /// Whatever keeps the request from being routed; nothing has been dialled.
    pub fn read<B>(
        request: &Request<B>,
        fields: Fields,
        (conn, trace): (&Connection, Option<Trace>),
        ingress: &Ingress,
        cluster_domain: &str,
    ) -> Result<Arc<Self>, ProxyError> {
        let (map, names) = (request.headers(), fields.names);
        if request.method() == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        framing::check(request, &fields).map_err(ProxyError::BadRequest)?;
        let path = request.uri().path_and_query();
        let line = path.map_or(0, |path| path.as_str().len());
        within(&ingress.limits, line + fields.bytes, map)?;
        if names.has(Known::Via) {
            not_around(map, &ingress.pseudonym)?;
        }
        let (target, port) = target(&fields, map, cluster_domain)?.unzip();
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let (path, pin) = match pin::take(&path) {
            Some((without, token)) => (without, HeaderValue::from_str(token).ok()),
            None => (path, None),
        };
        let is_get = request.method() == Method::GET;
        let is_card = (is_get || request.method() == Method::HEAD) && is_card_path(path.path());
        let compares = is_card && is_get && names.has(Known::IfNoneMatch);
        let has_last_event_id = names.has(Known::LastEventId);
        let events = is_get && names.has(Known::Accept) && wants_events(map);
        let is_modern = fields.is_modern();
        let upgrades = is_get && names.has(Known::Upgrade);
        let is_grpc_stream = fields.is_grpc
            && methods::Method::of_grpc(path.path()).is_some_and(|method| method.streams());
        let kind = match events || is_grpc_stream {
            _ if upgrades && headers::asks_for_websocket(request.version(), map) => Kind::Upgrade,
            true => Kind::Stream,
            false => Kind::Unary,
        };
        Ok(Arc::new(Self {
            target,
            port: port.flatten(),
            origin: origin(request, &fields, (conn, trace), ingress),
            meanings: fields.meanings,
            is_get,
            is_delete: request.method() == Method::DELETE,
            is_card,
            if_none_match: compares.then(|| IfNoneMatch::of(map)),
            path,
            is_grpc_stream,
            reopened: events && (fields.session.is_some() || has_last_event_id),
            session: fields.session,
            pin,
            is_modern,
            has_last_event_id,
            takes_trailers: names.has(Known::Te) && headers::takes_trailers(map),
            kind,
        }))
    }

    /// The Host as text.
    #[must_use]
    pub fn host_text(&self) -> Option<&str> {
        self.origin.host.as_ref().and_then(|host| std::str::from_utf8(host.as_bytes()).ok())
    }
}

fn within(limits: &ListenerLimits, bytes: usize, map: &HeaderMap) -> Result<(), ProxyError> {
    if bytes > limits.max_head_bytes || map.len() > limits.max_head_fields {
        return Err(ProxyError::HeadTooLarge(limits.max_head_bytes, limits.max_head_fields));
    }
    Ok(())
}

fn not_around(map: &HeaderMap, pseudonym: &str) -> Result<(), ProxyError> {
    match headers::via_chain(map, pseudonym) {
        Chain::Open => Ok(()),
        Chain::Loop => Err(ProxyError::Loop("this proxy has seen the request before")),
        Chain::TooLong => Err(ProxyError::Loop("more than ten proxies in Via")),
    }
}

fn origin<B>(
    request: &Request<B>,
    fields: &Fields,
    (conn, trace): (&Connection, Option<Trace>),
    ingress: &Ingress,
) -> Origin {
    let named = match fields.names_fields {
        true => headers::named_by_connection(request.headers()),
        false => Vec::new(),
    };
    Origin {
        named,
        joins_cookies: request.version() == Version::HTTP_2 && fields.several.has(Known::Cookie),
        trusted: headers::is_trusted(conn.peer.ip(), &ingress.trusted),
        peer: conn.forwarded_for.clone(),
        proto: conn.scheme(),
        host: host_of(request, fields),
        via: ingress.via.near(),
        trace,
    }
}

/// A name, and the port behind it.
type Named = (HostKey, Option<u16>);

fn target(
    fields: &Fields,
    map: &HeaderMap,
    cluster_domain: &str,
) -> Result<Option<Named>, ProxyError> {
    let parse = |value: &HeaderValue| {
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| ProxyError::NotText)?;
        HostKey::parse(text, cluster_domain).map_err(|why| match value.to_str() {
            Ok(text) => ProxyError::BadTarget(text.chars().take(253).collect(), why),
            Err(_) => ProxyError::NotText,
        })
    };
    let Some(first) = &fields.target else { return Ok(None) };
    let found = parse(first)?;
    if fields.several.has(Known::KagentHost) {
        for value in map.get_all(headers::X_KAGENT_HOST) {
            if parse(value)? != found {
                return Err(ProxyError::TwoTargets);
            }
        }
    }
    Ok(Some(found))
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
fn host_of<B>(request: &Request<B>, fields: &Fields) -> Option<HeaderValue> {
    let authority = request.uri().authority().and_then(|a| a.as_str().parse().ok());
    authority.or_else(|| fields.host.clone())
}
