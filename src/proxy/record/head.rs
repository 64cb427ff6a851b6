//! What the record keeps of a request's head: copies in one piece, for what is cut out of the head would keep the whole
//! buffer that it came in.
//!
//! Knows headers; no body and no route.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Request, Version};

use crate::headers::client::fingerprint;
use crate::headers::names::{Known, Names};
use crate::headers::{A2A_VERSION, MCP_METHOD, MCP_NAME, ROOT_CONTEXT, mcp};
use crate::protocol::calls::Call;
use crate::protocol::mcp::DISCOVER;
use crate::protocol::methods::{self, Method};
use crate::proxy::call::Kind;
use crate::proxy::reason::Reason;
use crate::proxy::request::conn::Connection;
use crate::proxy::request::fields::Fields;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::record::{Outcome, Record};
use crate::telemetry::trace::Hop;

/// Copies of what matters later.
#[derive(Debug)]
pub(super) struct HeadCopy {
    /// Each behind the one before: method, path, `x-kagent-host`, `traceparent`, conversation, what the head names.
    text: Box<str>,
    /// Where each but the last one ends.
    ends: [u32; 5],
    /// What the head says of its call (MCP 2026-07-28, "Standard Request Headers").
    said: Option<Said>,
    /// It has a header that only clients of MCP send.
    pub(super) speaks_mcp: bool,
    /// It is a request of MCP 2026-07-28 or later.
    pub(super) is_modern: bool,
    /// It has one that only clients of A2A send.
    pub(super) speaks_a2a: bool,
    /// It is a call of gRPC.
    pub(super) speaks_grpc: bool,
}

#[derive(Debug, Default)]
struct Said {
    method: Option<Method>,
    /// It names a tool, prompt or resource, whose name stands in the text, decoded.
    names: bool,
    /// Who asks which revision of MCP a server speaks.
    prober: Option<u64>,
}

// === impl HeadCopy ===

impl HeadCopy {
    /// Of a trace that begins here, ours takes the place of what the client has sent.
    pub(super) fn of<B>(request: &Request<B>, fields: &Fields, hop: Option<&Hop>) -> Self {
        const MCP: Names =
            Names::all(&[Known::McpMethod, Known::McpProtocolVersion, Known::McpSessionId]);
        let (path, map, names) = (request.uri().path(), request.headers(), fields.names);
        let ours = hop.filter(|hop| hop.begins()).map(|hop| hop.context.to_string());
        let target = text(&fields.target);
        let traceparent = ours.as_deref().unwrap_or_else(|| text(&fields.traceparent));
        let conversation = match names.has(Known::KagentRootContextId) {
            true => map.get(ROOT_CONTEXT).and_then(|value| value.to_str().ok()).unwrap_or_default(),
            false => "",
        };
        let said = names.has(Known::McpMethod).then(|| Said::of(map));
        let (said, name) = said.unzip();
        let name = name.flatten().unwrap_or_default();
        let pieces = [request.method().as_str(), path, target, traceparent, conversation];
        let mut end = 0;
        let ends = pieces.map(|piece| {
            end += piece.len();
            u32::try_from(end).unwrap_or(u32::MAX)
        });
        let mut text = String::with_capacity(end + name.len());
        text.extend(pieces);
        text.push_str(&name);
        Self {
            text: text.into(),
            ends,
            said,
            speaks_mcp: names.has_any(MCP),
            is_modern: fields.is_modern(),
            speaks_a2a: names.has(Known::A2aVersion) && map.contains_key(A2A_VERSION),
            // Only HTTP/2 carries it (gRPC, `PROTOCOL-HTTP2.md`).
            speaks_grpc: fields.is_grpc
                && request.version() == Version::HTTP_2
                && request.method() == http::Method::POST,
        }
    }

    /// Whether its fields are those of MCP, and of A2A: of gRPC only A2A is known here.
    pub(super) const fn speaks(&self) -> (bool, bool) {
        (self.speaks_mcp, self.speaks_a2a || self.speaks_grpc)
    }

    /// Of HTTP.
    pub(super) fn method(&self) -> &str {
        let [end, ..] = self.ends;
        self.piece(0, end)
    }

    pub(super) fn path(&self) -> &str {
        let [start, end, ..] = self.ends;
        self.piece(start, end)
    }

    pub(super) fn target(&self) -> &str {
        let [_, start, end, ..] = self.ends;
        self.piece(start, end)
    }

    pub(super) fn traceparent(&self) -> &str {
        let [.., start, end, _] = self.ends;
        self.piece(start, end)
    }

    /// The id of the trace in `traceparent` (W3C Trace Context section 3.2.2); empty if there is none.
    pub(super) fn trace(&self) -> &str {
        self.traceparent().split('-').nth(1).filter(|id| id.len() == 32).unwrap_or_default()
    }

    pub(super) fn conversation(&self) -> &str {
        let [.., start, end] = self.ends;
        self.piece(start, end)
    }

    /// What the head names, decoded.
    fn name(&self) -> &str {
        let [.., start] = self.ends;
        self.text.get(start as usize..).unwrap_or_default()
    }

    fn piece(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Of the request by which a client finds out which revision of MCP a server speaks: the client's fingerprint.
    pub(super) fn probes(&self) -> Option<u64> {
        self.said.as_ref()?.prober
    }

    /// The call that it names itself (MCP 2026-07-28); only its body has an id.
    pub(super) fn call(&self) -> Option<Call> {
        let method = self.said.as_ref()?.method.clone()?;
        let names = self.said.as_ref().is_some_and(|said| said.names);
        let name = (names && method.names() != methods::Names::Nothing).then(|| self.name().into());
        Some(Call { id: None, method, name, trace: None })
    }

    /// Whether the head says something else of a call than its body does.
    pub(super) fn contradicts(&self, call: &Call) -> bool {
        let Some(said) = &self.said else { return false };
        said.method.as_ref().is_some_and(|method| *method != call.method)
            || said.names && call.name.as_deref().is_some_and(|name| name != self.name())
    }
}

// === impl Said ===

impl Said {
    /// With the name that it names.
    fn of(map: &HeaderMap) -> (Self, Option<Cow<'_, str>>) {
        let decoded = |name| {
            let value: Option<&HeaderValue> = map.get(name);
            value.and_then(|value| value.to_str().ok()).and_then(mcp::decoded)
        };
        let (method, name) = (decoded(MCP_METHOD), decoded(MCP_NAME));
        let prober = (method.as_deref() == Some(DISCOVER)).then(|| fingerprint(map));
        let method = method.map(|method| Method::of(&method));
        (Self { method, names: name.is_some(), prober }, name)
    }
}

fn text(value: &Option<HeaderValue>) -> &str {
    value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Logs a request whose head could not be read: nothing is known of it but its client.
pub fn unread(conn: &Connection, reason: Reason, log: &AccessLog) {
    let (class, status) = (Kind::Unary.as_str(), reason.status().as_u16());
    let outcome = Outcome::Refused(reason.word());
    log.finish(&Record { peer: &conn.peer_text, ..Record::bare(class, status, outcome) });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(fields: &[(&str, &str)]) -> HeadCopy {
        let mut request = Request::post("http://p/mcp?x=1");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        HeadCopy::of(&request, &Fields::of(request.headers()), None)
    }

    #[test]
    fn what_matters_is_copied() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let copy = copy(&[
            ("x-kagent-host", "tools.team-a"),
            ("traceparent", trace),
            ("x-kagent-root-context-id", "c-1"),
            ("a2a-version", "1.0"),
        ]);
        assert_eq!((copy.method(), copy.path()), ("POST", "/mcp"));
        assert_eq!(copy.target(), "tools.team-a");
        assert_eq!((copy.traceparent(), copy.conversation()), (trace, "c-1"));
        assert_eq!(copy.trace(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((copy.speaks_mcp, copy.speaks_a2a), (false, true));
        let bare = self::copy(&[("traceparent", "x"), ("mcp-protocol-version", "2025-06-18")]);
        assert_eq!((bare.target(), bare.conversation(), bare.trace()), ("", "", ""));
        assert_eq!((bare.speaks_mcp, bare.speaks_a2a), (true, false));
    }

    #[test]
    fn a_head_contradicts_its_body_where_both_say_something_else() {
        let call = Call {
            id: None,
            method: Method::of("tools/call"),
            name: Some("ä".into()),
            trace: None,
        };
        for (method, name, contradicts) in [
            ("tools/call", None, false),
            ("tools/call", Some("=?base64?w6Q=?="), false),
            ("tools/call", Some("other"), true),
            ("tools/list", None, true),
            ("tools/list", Some("=?base64?w6Q=?="), true),
            ("=?base64?dG9vbHMvY2FsbA==?=", Some("=?base64?w6Q=?="), false),
            ("=?base64?!?=", Some("=?base64?!?="), false),
            ("tools/call", Some(""), true),
            ("my/own", None, true),
        ] {
            let mut fields = vec![("mcp-method", method)];
            fields.extend(name.map(|name| ("mcp-name", name)));
            assert_eq!(copy(&fields).contradicts(&call), contradicts, "{fields:?}");
        }
        assert!(!copy(&[("mcp-name", "other")]).contradicts(&call), "without a method");
    }

    #[test]
    fn a_head_names_its_call() {
        let named =
            |fields: &[(&str, &str)]| copy(fields).call().map(|call| (call.method, call.name));
        for (fields, expected) in [
            (
                &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?w6Q=?=")][..],
                Some(("tools/call", Some("ä"))),
            ),
            (
                &[("mcp-method", "resources/read"), ("mcp-name", "file:///a")],
                Some(("resources/read", Some("file:///a"))),
            ),
            (&[("mcp-method", "tools/list"), ("mcp-name", "x")], Some(("tools/list", None))),
            (&[("mcp-method", "tools/call")], Some(("tools/call", None))),
            (&[("mcp-method", "=?base64?!?="), ("mcp-name", "x")], None),
            (&[("mcp-name", "x")], None),
            (&[], None),
        ] {
            let expected =
                expected.map(|(method, name)| (Method::of(method), name.map(Into::into)));
            assert_eq!(named(fields), expected, "{fields:?}");
        }
    }
}
