//! Header names, and what heads say of the connection they came on and of the way they came.
//!
//! Knows header maps and nothing of routes or sockets.

pub mod client;
pub mod etag;
pub mod mcp;
pub mod names;
pub mod noted;
pub mod onward;

use std::net::IpAddr;

use http::Version;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use ipnet::IpNet;

/// The original host name, without its port (kagent `adk_api_translator.go`, `ProxyHostHeader`).
pub const X_KAGENT_HOST: HeaderName = HeaderName::from_static("x-kagent-host");
/// Session of MCP streamable HTTP (MCP 2025-03-26, "Session Management").
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// What client and server of a session agreed upon (MCP 2025-06-18, "Protocol Version Header").
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The method of the request's call, as its body has it (MCP 2026-07-28, "Standard Request Headers").
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// What that names: a tool, a prompt, a resource or a task (the same).
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The version that a client of A2A speaks (A2A 1.0 section 3.6).
pub const A2A_VERSION: HeaderName = HeaderName::from_static("a2a-version");
/// The media type of A2A's binding to HTTP and JSON (A2A 1.0 section 14.1); `application/json` is taken too.
pub const A2A_JSON: &[u8] = b"application/a2a+json";
/// The conversation that all calls of one turn belong to (kagent, `kagent/adk/_remote_a2a_tool.py`).
pub const ROOT_CONTEXT: HeaderName = HeaderName::from_static("x-kagent-root-context-id");
/// Where a re-opened event stream goes on (WHATWG HTML, server-sent events).
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What traces call a request (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to that (W3C Trace Context section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Why the proxy itself answered; the value is a word of `proxy/reason.rs`.
pub const X_KAGENT_PROXY_ERROR: HeaderName = HeaderName::from_static("x-kagent-proxy-error");

/// How long a connection may idle (RFC 2068 section 19.7.1.1); concerns one connection only.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Removes what concerns one connection only: the fields of RFC 9110 section 7.6.1 and every field
/// that `Connection` names. `Trailer` stays: it describes the message.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One look at each field costs less than one look-up for each name, and most messages have few or none.
    let mut found = [false; HOP_BY_HOP];
    for name in headers.keys() {
        if let Some(found) = hop_by_hop(name.as_str()).and_then(|at| found.get_mut(at)) {
            *found = true;
        }
    }
    if found == [false; HOP_BY_HOP] {
        return;
    }
    if found.first() == Some(&true) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    // In the order of `hop_by_hop`.
    let names: [HeaderName; HOP_BY_HOP] =
        [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, TE, TRANSFER_ENCODING, UPGRADE];
    for (name, _) in names.into_iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(name);
    }
}

/// Fields that concern one connection only.
const HOP_BY_HOP: usize = 7;

/// The place of a field among them.
fn hop_by_hop(name: &str) -> Option<usize> {
    Some(match name {
        "connection" => 0,
        "keep-alive" => 1,
        "proxy-connection" => 2,
        "http2-settings" => 3,
        "te" => 4,
        "transfer-encoding" => 5,
        "upgrade" => 6,
        _ => return None,
    })
}

/// Fields that `Connection` names, and that are there.
#[must_use]
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    // One option that cannot be read hides none of the others.
    let options =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let options = options.filter_map(|option| std::str::from_utf8(option.trim_ascii()).ok());
    options
        // What nearly every client says; no field is called so that is not removed anyway.
        .filter(|option| !option.eq_ignore_ascii_case("keep-alive"))
        .filter(|option| headers.contains_key(*option))
        .filter_map(|option| option.parse().ok())
        .collect()
}

/// Removes from trailers what may stand in a head only (RFC 9110 section 6.5.1): what frames the message,
/// what concerns one connection, and what says where a request goes or came from, for a reader may merge
/// trailers into the head.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    let ours =
        [CONTENT_LENGTH, TRAILER, HOST, VIA, X_KAGENT_HOST, X_KAGENT_PROXY_ERROR, MCP_SESSION_ID];
    for name in ours {
        trailers.remove(name);
    }
    for name in [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST] {
        trailers.remove(name);
    }
}

/// Whether a message is `text/event-stream`, with parameters or without.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_events)
}

/// Whether a `Content-Type` is `text/event-stream`, with parameters or without.
fn is_events(kind: &HeaderValue) -> bool {
    let start = kind.as_bytes().get(..17);
    start.is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}

/// Whether a `Content-Type` is JSON, with parameters or without.
fn is_json(kind: &HeaderValue) -> bool {
    is_type(kind, b"application/json") || is_type(kind, A2A_JSON)
}

/// Whether a `Content-Type` is `text/plain`, with parameters or without.
fn is_plain_text(kind: &HeaderValue) -> bool {
    is_type(kind, b"text/plain")
}

fn is_type(kind: &HeaderValue, known: &[u8]) -> bool {
    kind.as_bytes().split_at_checked(known.len()).is_some_and(|(start, rest)| {
        let rest = rest.trim_ascii_start();
        start.eq_ignore_ascii_case(known) && (rest.is_empty() || rest.starts_with(b";"))
    })
}

/// Whether the sender takes trailers (RFC 9110 section 10.1.4).
#[must_use]
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Whether an HTTP/1.1 request asks to become a WebSocket (RFC 6455 section 4.1): `Connection` names
/// `upgrade`, and the only protocol asked for is `websocket`.
#[must_use]
pub fn asks_for_websocket(version: Version, headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    version == Version::HTTP_11
        && protocols.next().is_some_and(websocket)
        && protocols.next().is_none()
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

/// Writes what [`strip_hop_by_hop`] has removed: this hop becomes a WebSocket.
pub fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Whether this hop's peer may say who came before it.
#[must_use]
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// What the `Via` chain of a request says about loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Nothing to object to.
    Open,
    /// This very instance has seen the request before.
    Loop,
    /// More than ten proxies.
    TooLong,
}

/// Reads the `Via` fields (RFC 9110 section 7.6.3); `own` is this instance's pseudonym.
#[must_use]
pub fn via_chain(headers: &HeaderMap, own: &str) -> Chain {
    let mut hops = 0;
    for hop in
        headers.get_all(VIA).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','))
    {
        hops += 1;
        if hop.split_whitespace().nth(1) == Some(own) {
            return Chain::Loop;
        }
    }
    if hops > 10 { Chain::TooLong } else { Chain::Open }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn named_and_standard_hop_by_hop_fields_go_others_stay_in_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-Secret, keep-alive"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("accept", "application/json"),
            ("accept", "text/event-stream"),
            ("trailer", "x-sum"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for (name, _) in &headers {
            let mut alone = HeaderMap::new();
            alone.insert(name, HeaderValue::from_static("x"));
            strip_hop_by_hop(&mut alone);
            let passes = ["x-secret", "accept", "trailer"].contains(&name.as_str());
            assert_eq!(alone.is_empty(), !passes, "{name} alone");
        }
        strip_hop_by_hop(&mut headers);
        let left: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(
            left,
            [("accept", "application/json"), ("accept", "text/event-stream"), ("trailer", "x-sum")]
        );
    }

    #[test]
    fn an_option_that_cannot_be_read_hides_no_other() {
        for value in [&b"x-secret, \xe9"[..], b"\xe9 ,\tX-Secret", b"x-secret,\x80x-other"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_bytes(value).unwrap());
            headers.insert("x-secret", HeaderValue::from_static("1"));
            strip_hop_by_hop(&mut headers);
            assert!(headers.is_empty(), "{value:?}: {headers:?}");
        }
    }

    /// As RFC 9110 section 7.6.1 says it, without regard to cost.
    fn stripped(headers: &HeaderMap) -> HeaderMap {
        let mut left = headers.clone();
        for value in headers.get_all(CONNECTION) {
            for name in value.to_str().unwrap().split(',') {
                left.remove(name.trim());
            }
        }
        for name in ["connection", "keep-alive", "proxy-connection", "http2-settings", "te"] {
            left.remove(name);
        }
        left.remove(TRANSFER_ENCODING);
        left.remove(UPGRADE);
        left
    }

    proptest! {
        #[test]
        fn what_one_look_finds_is_what_the_rfc_names(
            fields in proptest::collection::vec((
                prop::sample::select(vec![
                    "connection", "Connection", "keep-alive", "proxy-connection", "te", "upgrade",
                    "http2-settings", "transfer-encoding", "x-a", "x-b", "close", "accept",
                ]),
                "(x-a|X-B|close|[kK]eep-[aA]live|te|upgrade|accept|, ?| ){0,5}",
            ), 0..8)
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                );
            }
            let expected = stripped(&headers);
            strip_hop_by_hop(&mut headers);
            prop_assert_eq!(headers, expected);
        }
    }

    #[test]
    fn only_our_own_pseudonym_is_a_loop() {
        let mut headers = HeaderMap::new();
        headers.insert(VIA, HeaderValue::from_static("1.1 other, 1.1 kagent-proxy-b"));
        assert_eq!(via_chain(&headers, "kagent-proxy-a"), Chain::Open);
        assert_eq!(via_chain(&headers, "kagent-proxy-b"), Chain::Loop);
        let long = ["1.1 x"; 11].join(", ");
        headers.insert(VIA, HeaderValue::from_str(&long).unwrap());
        assert_eq!(via_chain(&headers, "kagent-proxy-a"), Chain::TooLong);
    }
}
