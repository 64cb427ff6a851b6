//! What the fields of a request's head say that is asked of every request, found in one look at each.
//!
//! Judges nothing. What is rare is only noted, and read where it is needed. Knows one head.

use http::{HeaderMap, HeaderValue};

use crate::headers::A2A_JSON;
use crate::headers::names::{Known, Meanings, Names};
use crate::protocol::grpc;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// Which of the known ones are there.
    pub names: Names,
    /// What each name means.
    pub meanings: Meanings,
    /// Which are there several times.
    pub several: Names,
    /// Bytes of all fields, as HTTP/1.1 writes them.
    pub bytes: usize,
    /// The first Host.
    pub host: Option<HeaderValue>,
    /// The first `x-kagent-host`.
    pub target: Option<HeaderValue>,
    /// The first `Mcp-Session-Id`.
    pub session: Option<HeaderValue>,
    /// The first `traceparent`.
    pub traceparent: Option<HeaderValue>,
    /// The body is JSON.
    pub is_json: bool,
    /// The body is messages of gRPC.
    pub is_grpc: bool,
    /// `Connection` says more than nearly every client does.
    pub names_fields: bool,
}

// === impl Fields ===

impl Fields {
    /// Looks at each.
    #[must_use]
    pub fn of(map: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in map {
            found.bytes += name.as_str().len() + value.len() + 4;
            let known = Known::of(name);
            found.meanings.push(known);
            if let Some(known) = known {
                found.see(known, value);
            }
        }
        found
    }

    /// Whether it is a request of MCP 2026-07-28 or later: those say their method in the head, and have no session.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.names.has(Known::McpMethod) && self.session.is_none()
    }

    fn see(&mut self, name: Known, value: &HeaderValue) {
        let first = |place: &mut Option<HeaderValue>| {
            if place.is_none() {
                *place = Some(value.clone());
            }
        };
        match name {
            Known::Host => first(&mut self.host),
            Known::KagentHost => first(&mut self.target),
            Known::McpSessionId => first(&mut self.session),
            Known::Traceparent => first(&mut self.traceparent),
            // The first one, as everywhere.
            Known::ContentType if !self.names.has(name) => {
                self.is_json = is_json(value);
                self.is_grpc = !self.is_json && grpc::is_grpc(value.as_bytes());
            }
            Known::Connection => {
                self.names_fields |= !value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
            }
            _ => {}
        }
        if self.names.has(name) {
            self.several = self.several.with(name);
        }
        self.names = self.names.with(name);
    }
}

fn is_json(value: &HeaderValue) -> bool {
    let begins = |kind: &[u8]| {
        let start = value.as_bytes().get(..kind.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(kind))
    };
    begins(b"application/json") || begins(A2A_JSON)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn the_first_of_each_is_found_and_more_are_noted() {
        let mut map = HeaderMap::new();
        let mut bytes = 0;
        for (name, value) in [
            ("host", "a"),
            ("content-type", "Application/JSON; charset=utf-8"),
            ("content-type", "text/plain"),
            ("x-kagent-host", "b.ns"),
            ("X-Kagent-Host", "c.ns"),
            ("mcp-session-id", "1"),
            ("traceparent", "00-1"),
            ("connection", "Keep-Alive"),
            ("x-other", ""),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            bytes += format!("{name}: {value}\r\n").len();
            map.append(name, HeaderValue::from_static(value));
        }
        let found = Fields::of(&map);
        assert_eq!(found.bytes, bytes);
        let values = [&found.host, &found.target, &found.session, &found.traceparent];
        let values = values.map(|value| value.as_ref().unwrap().to_str().unwrap());
        assert_eq!(values, ["a", "b.ns", "1", "00-1"]);
        assert!(found.is_json && !found.is_grpc && !found.names_fields);
        let meanings: Vec<_> = map.iter().map(|(name, _)| Known::of(name)).collect();
        assert_eq!(found.meanings.all(), meanings);
        let several = Names::all(&[Known::ContentType, Known::KagentHost]);
        assert_eq!(found.several, several);
        assert!(found.names.has(Known::Connection) && !found.names.has(Known::Te));
        map.append("connection", HeaderValue::from_static("x-other"));
        assert!(Fields::of(&map).names_fields);
        map.insert("content-type", HeaderValue::from_static("Application/A2A+json"));
        assert!(Fields::of(&map).is_json);
        map.insert("content-type", HeaderValue::from_static("application/grpc"));
        assert!(Fields::of(&map).is_grpc);
    }
}
