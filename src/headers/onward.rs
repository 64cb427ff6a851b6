//! The fields of a request as a backend gets them: one pass over those that the client has sent, which stay as they
//! are, so that each attempt begins with the same ones.
//!
//! What concerns the client's connection is left out (RFC 9110 section 7.6.1); Host, Via, X-Forwarded-* and what is
//! asked of the next hop are added. Whoever takes the fields writes them, for either version of HTTP. Knows no
//! route and no connection.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE, VIA,
};
use http::uri::PathAndQuery;

use super::names::{Known, Meanings, Names};
use super::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, MCP_SESSION_ID, TRACEPARENT};

/// Where a request came from, as every backend is told.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Fields that its `Connection` names.
    pub named: Vec<HeaderName>,
    /// Its cookies came in several fields of HTTP/2, and become one, as a hop to HTTP/1.1 requires (RFC 9113
    /// section 8.2.3).
    pub joins_cookies: bool,
    /// What came before in X-Forwarded-* is believed.
    pub trusted: bool,
    /// The client's address.
    pub peer: HeaderValue,
    /// `http` or `https`.
    pub proto: &'static str,
    /// The Host that the client has used.
    pub host: Option<HeaderValue>,
    /// This hop in `Via`.
    pub via: HeaderValue,
    /// The trace it belongs to, if that is ours to say.
    pub trace: Option<Trace>,
}

/// What the next hop is told of a request's trace, in place of what the client has sent (W3C Trace Context).
#[derive(Clone, Debug)]
pub struct Trace {
    /// With the span of this hop.
    pub traceparent: HeaderValue,
    /// The trace begins at this hop: what came in `tracestate` was said of another one (section 3.3).
    pub begins: bool,
}

/// What is asked of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// To become a WebSocket (RFC 6455 section 4.1).
    Websocket,
    /// Trailers (RFC 9110 section 10.1.4).
    Trailers,
}

/// Whether a request's head may be needed once more when its response has begun.
#[derive(Clone, Copy, Debug, Default)]
pub enum Keep {
    /// It is not.
    #[default]
    No,
    /// It may.
    Yes,
    /// It may if its response names a session, and this is true of the first bytes of its body, as far as they are
    /// remembered.
    If(fn(&[u8]) -> bool),
}

/// A request on its way to one backend.
#[derive(Clone, Debug)]
pub struct Onward<'a> {
    /// Where it came from.
    pub origin: &'a Origin,
    /// What the names of the client's fields mean, in their order, where they are those that came.
    pub meanings: Option<&'a Meanings>,
    /// What is asked for.
    pub path: PathAndQuery,
    /// The backend's Host, or `:authority`; the client's, if it has none.
    pub authority: Option<HeaderValue>,
    /// What is asked of the next hop.
    pub ask: Ask,
    /// The whole, plain response is needed: no range, no condition, no coding.
    pub whole: bool,
    /// What the server calls the MCP session of the request, where the client calls it otherwise; `None` within if
    /// it has no name for it.
    pub session: Option<Option<HeaderValue>>,
    /// Whether the head may be needed once more.
    pub keep: Keep,
    /// The backend is another proxy, which is told `x-kagent-host`.
    pub names_host: bool,
}

/// Fields by which a client asks for less than a whole, plain response.
const LESS: Names = Names::all(&[
    Known::AcceptEncoding,
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::IfRange,
    Known::IfUnmodifiedSince,
    Known::Range,
]);

static TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
static WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
static IDENTITY: HeaderValue = HeaderValue::from_static("identity");

// === impl Onward ===

impl Onward<'_> {
    /// The fields for HTTP/1.1, one after another, but for those that frame the body. Returns whether the client
    /// has told a length.
    pub fn http1(&self, sent: &HeaderMap, mut put: impl FnMut(&HeaderName, &HeaderValue)) -> bool {
        if let Some(host) = self.authority.as_ref().or(self.origin.host.as_ref()) {
            put(&HOST, host);
        }
        let passes = self.passing(sent, Names::all(&[Known::ContentLength]), &mut put);
        match self.ask {
            Ask::Nothing => {}
            Ask::Websocket => {
                put(&CONNECTION, &HeaderValue::from_static("upgrade"));
                put(&UPGRADE, &WEBSOCKET);
            }
            Ask::Trailers => {
                put(&CONNECTION, &HeaderValue::from_static("te"));
                put(&TE, &TRAILERS);
            }
        }
        passes.has(Known::ContentLength)
    }

    /// The same for HTTP/2, whose length is a field like any other.
    #[must_use]
    pub fn http2(&self, sent: &HeaderMap) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(sent.len() + 4);
        self.passing(sent, Names::default(), &mut |name: &HeaderName, value: &HeaderValue| {
            map.append(name, value.clone());
        });
        if self.ask == Ask::Trailers {
            map.append(TE, TRAILERS.clone());
        }
        map
    }

    /// What both versions have in common, without `besides`. Returns what the client has sent of known fields,
    /// and what may pass.
    fn passing(
        &self,
        sent: &HeaderMap,
        besides: Names,
        put: &mut impl FnMut(&HeaderName, &HeaderValue),
    ) -> Names {
        let origin = self.origin;
        let left_out = self.left_out().and(besides);
        let mut passes = Names::default();
        let mut meanings = self.meanings.map_or(&[][..], Meanings::all).iter();
        for (name, value) in sent {
            let known = meanings.next().copied().unwrap_or_else(|| Known::of(name));
            debug_assert_eq!(known, Known::of(name), "these are the fields of another head");
            if !origin.named.is_empty() && origin.named.contains(name) {
                continue;
            }
            passes = known.map_or(passes, |known| passes.with(known));
            if !known.is_some_and(|known| left_out.has(known)) {
                put(name, value);
            }
        }
        if origin.joins_cookies && passes.has(Known::Cookie) {
            put(&COOKIE, &joined(sent.get_all(COOKIE).iter(), b"; "));
        }
        if self.whole {
            put(&ACCEPT_ENCODING, &IDENTITY);
        }
        if let Some(Some(id)) = &self.session {
            put(&MCP_SESSION_ID, id);
        }
        if let Some(trace) = &origin.trace {
            put(&TRACEPARENT, &trace.traceparent);
        }
        self.forwarded(sent, passes, put);
        put(&VIA, &origin.via);
        passes
    }

    /// What never passes as the client has sent it.
    fn left_out(&self) -> Names {
        let mut names = Names::HOP_BY_HOP
            .with(Known::Host)
            // We answer it ourselves, when we begin to read the body (RFC 9110 section 10.1.1).
            .with(Known::Expect)
            .with(Known::ForwardedFor);
        if !self.names_host {
            names = names.with(Known::KagentHost);
        }
        if !self.origin.trusted {
            names = names.with(Known::ForwardedProto).with(Known::ForwardedHost);
        }
        if self.origin.joins_cookies {
            names = names.with(Known::Cookie);
        }
        if self.session.is_some() {
            names = names.with(Known::McpSessionId);
        }
        if let Some(trace) = &self.origin.trace {
            names = names.with(Known::Traceparent);
            if trace.begins {
                names = names.with(Known::Tracestate);
            }
        }
        if self.whole { names.and(LESS) } else { names }
    }

    /// Appended for a trusted client, replaced for any other, so that nobody can forge a past.
    fn forwarded(
        &self,
        sent: &HeaderMap,
        passes: Names,
        put: &mut impl FnMut(&HeaderName, &HeaderValue),
    ) {
        let Origin { trusted, peer, proto, host, .. } = self.origin;
        let passes = if *trusted { passes } else { Names::default() };
        if passes.has(Known::ForwardedFor) {
            // Several fields are one list (RFC 9110 section 5.3). What is no text is left out.
            let before = sent.get_all(FORWARDED_FOR).iter().filter(|value| value.to_str().is_ok());
            put(&FORWARDED_FOR, &joined(before.chain([peer]), b", "));
        } else {
            put(&FORWARDED_FOR, peer);
        }
        if !passes.has(Known::ForwardedProto) {
            put(&FORWARDED_PROTO, &HeaderValue::from_static(proto));
        }
        if let Some(host) = host
            && !passes.has(Known::ForwardedHost)
        {
            put(&FORWARDED_HOST, host);
        }
    }
}

/// Values as one list. Of nothing but bytes of values, it is one.
fn joined<'a>(values: impl Iterator<Item = &'a HeaderValue>, between: &[u8]) -> HeaderValue {
    let values: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&values.join(between)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_LENGTH, EXPECT};
    use proptest::prelude::*;

    use super::*;
    use crate::headers::{TRACESTATE, X_KAGENT_HOST, strip_hop_by_hop};

    const PEER: HeaderValue = HeaderValue::from_static("10.0.0.9");
    const VIA_US: HeaderValue = HeaderValue::from_static("1.1 us");
    const BACKEND: HeaderValue = HeaderValue::from_static("tools.ns:8080");

    /// Fields by which a client asks for less, by name.
    const LESS_NAMES: [&str; 7] = [
        "accept-encoding",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
    ];

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn origin(sent: &HeaderMap, trusted: bool, host: Option<HeaderValue>) -> Origin {
        Origin {
            named: crate::headers::named_by_connection(sent),
            joins_cookies: sent.get_all(COOKIE).iter().nth(1).is_some(),
            trusted,
            peer: PEER,
            proto: "https",
            host,
            via: VIA_US,
            trace: None,
        }
    }

    fn written(onward: &Onward<'_>, sent: &HeaderMap) -> (HeaderMap, bool) {
        let mut map = HeaderMap::new();
        let told = onward.http1(sent, |name, value| {
            map.append(name, value.clone());
        });
        (map, told)
    }

    /// The same as change after change in a map, each as its RFC says it, without regard to cost.
    fn expected(onward: &Onward<'_>, sent: &HeaderMap, http2: bool) -> HeaderMap {
        let Origin { trusted, peer, proto, host, via, trace, .. } = onward.origin;
        let mut map = sent.clone();
        strip_hop_by_hop(&mut map);
        if map.get_all(COOKIE).iter().nth(1).is_some() {
            let crumbs: Vec<_> = map.get_all(COOKIE).iter().map(|v| v.to_str().unwrap()).collect();
            map.insert(COOKIE, crumbs.join("; ").parse().unwrap());
        }
        let before = map.get_all(FORWARDED_FOR).iter().map(|v| v.to_str().unwrap());
        let chain = before.chain([peer.to_str().unwrap()]).collect::<Vec<_>>().join(", ");
        let chain = if *trusted { chain.parse().unwrap() } else { peer.clone() };
        map.insert(FORWARDED_FOR, chain);
        if !trusted || !map.contains_key(FORWARDED_PROTO) {
            map.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
        }
        if !trusted {
            map.remove(FORWARDED_HOST);
        }
        if let Some(host) = host
            && !map.contains_key(FORWARDED_HOST)
        {
            map.insert(FORWARDED_HOST, host.clone());
        }
        map.append(VIA, via.clone());
        for name in [HOST, EXPECT] {
            map.remove(name);
        }
        if !onward.names_host {
            map.remove(X_KAGENT_HOST);
        }
        if let Some(id) = &onward.session {
            map.remove(MCP_SESSION_ID);
            map.extend(id.clone().map(|id| (MCP_SESSION_ID, id)));
        }
        if let Some(trace) = trace {
            map.insert(TRACEPARENT, trace.traceparent.clone());
            if trace.begins {
                map.remove(TRACESTATE);
            }
        }
        if onward.whole {
            for name in LESS_NAMES {
                map.remove(name);
            }
            map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        match onward.ask {
            Ask::Websocket if !http2 => crate::headers::ask_for_websocket(&mut map),
            Ask::Trailers => {
                map.insert(TE, HeaderValue::from_static("trailers"));
                if !http2 {
                    map.insert(CONNECTION, HeaderValue::from_static("te"));
                }
            }
            _ => {}
        }
        if !http2 && let Some(host) = onward.authority.as_ref().or(host.as_ref()) {
            map.insert(HOST, host.clone());
        }
        map
    }

    proptest! {
        #[test]
        fn one_pass_writes_what_change_after_change_makes(
            fields in proptest::collection::vec((
                prop::sample::select(vec![
                    "accept", "accept-encoding", "connection", "Connection", "cookie", "expect",
                    "content-length", "host", "if-none-match", "keep-alive", "mcp-session-id", "range",
                    "te", "transfer-encoding", "upgrade", "http2-settings", "proxy-connection", "via",
                    "x-a", "x-b", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
                    "x-kagent-host", "trailer", "traceparent", "tracestate",
                ]),
                "(x-a|X-B|close|[kK]eep-[aA]live|te|via|cookie|x-forwarded-for|content-length|, ?| ){0,5}",
            ), 0..40),
            trusted: bool,
            whole: bool,
            host in prop::option::of(Just(HeaderValue::from_static("proxy.kagent"))),
            authority in prop::option::of(Just(BACKEND)),
            ask in prop::sample::select(vec![Ask::Nothing, Ask::Websocket, Ask::Trailers]),
            session in prop::option::of(prop::option::of(Just(HeaderValue::from_static("server's")))),
            begins in prop::option::of(any::<bool>()),
            names_host: bool,
            remembers: bool,
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let sent = map(&fields);
            let mut origin = origin(&sent, trusted, host);
            let traceparent = HeaderValue::from_static("ours");
            origin.trace = begins.map(|begins| Trace { traceparent, begins });
            let path = PathAndQuery::from_static("/");
            let keep = Keep::No;
            let origin = &origin;
            let mut meanings = Meanings::default();
            sent.iter().for_each(|(name, _)| meanings.push(Known::of(name)));
            let meanings = remembers.then_some(&meanings);
            let onward =
                Onward { origin, meanings, path, authority, ask, whole, session, keep, names_host };
            let mut expected_1 = expected(&onward, &sent, false);
            let (got, told) = written(&onward, &sent);
            prop_assert_eq!(told, expected_1.remove(CONTENT_LENGTH).is_some());
            prop_assert_eq!(got, expected_1);
            prop_assert_eq!(onward.http2(&sent), expected(&onward, &sent, true));
            prop_assert_eq!(sent, map(&fields), "what the client has sent stays");
        }
    }

    #[test]
    fn forged_forwarding_fields_are_replaced_and_trusted_ones_extended() {
        let sent = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-host", "forged"),
        ]);
        for (trusted, chain, host) in
            [(false, "10.0.0.9", "real"), (true, "1.2.3.4, 5.6.7.8, 10.0.0.9", "forged")]
        {
            let origin = origin(&sent, trusted, Some(HeaderValue::from_static("real")));
            let path = PathAndQuery::from_static("/");
            let (authority, ask) = (Some(BACKEND), Ask::Nothing);
            let (whole, session, keep, names_host) = (false, None, Keep::No, false);
            let origin = &origin;
            let meanings = None;
            let onward =
                Onward { origin, meanings, path, authority, ask, whole, session, keep, names_host };
            let (got, _) = written(&onward, &sent);
            assert_eq!(got.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), [chain]);
            assert_eq!(got["x-forwarded-host"], host);
            assert_eq!(got["x-forwarded-proto"], "https");
            assert_eq!(got["host"], BACKEND);
        }
    }
}
