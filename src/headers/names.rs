//! Which of the fields that this program reads, writes or takes out a head has, found in one look at each.
//!
//! A look-up in a head hashes its name, and most of what a message is asked for is not there. Knows names; never a
//! value.

use http::{HeaderMap, HeaderName};

/// A field that means something to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name of a field")]
pub enum Known {
    A2aVersion,
    Accept,
    AcceptEncoding,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Cookie,
    Expect,
    ForwardedFor,
    ForwardedHost,
    ForwardedProto,
    Host,
    Http2Settings,
    IfMatch,
    IfModifiedSince,
    IfNoneMatch,
    IfRange,
    IfUnmodifiedSince,
    KagentHost,
    KagentProxyError,
    KagentRootContextId,
    KeepAlive,
    LastEventId,
    Location,
    McpMethod,
    McpName,
    McpProtocolVersion,
    McpSessionId,
    ProxyConnection,
    Range,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names(u64);

/// What the names of a head's fields mean, in their order, so that no name is looked up twice. Of the first ones, which
/// are all of most heads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meanings {
    of: [Option<Known>; 32],
    count: usize,
}

// === impl Known ===

impl Known {
    /// What a name means. By its length first, which tells most names apart.
    #[must_use]
    pub fn of(name: &HeaderName) -> Option<Self> {
        let name = name.as_str();
        Some(match name.len() {
            2 if name == "te" => Self::Te,
            3 if name == "via" => Self::Via,
            4 if name == "host" => Self::Host,
            5 if name == "range" => Self::Range,
            6 if name == "accept" => Self::Accept,
            6 if name == "cookie" => Self::Cookie,
            6 if name == "expect" => Self::Expect,
            7 if name == "trailer" => Self::Trailer,
            7 if name == "upgrade" => Self::Upgrade,
            8 if name == "if-match" => Self::IfMatch,
            8 if name == "if-range" => Self::IfRange,
            8 if name == "location" => Self::Location,
            8 if name == "mcp-name" => Self::McpName,
            10 if name == "connection" => Self::Connection,
            10 if name == "keep-alive" => Self::KeepAlive,
            10 if name == "tracestate" => Self::Tracestate,
            10 if name == "mcp-method" => Self::McpMethod,
            11 if name == "traceparent" => Self::Traceparent,
            11 if name == "a2a-version" => Self::A2aVersion,
            12 if name == "content-type" => Self::ContentType,
            13 if name == "x-kagent-host" => Self::KagentHost,
            13 if name == "last-event-id" => Self::LastEventId,
            13 if name == "if-none-match" => Self::IfNoneMatch,
            14 if name == "content-length" => Self::ContentLength,
            14 if name == "mcp-session-id" => Self::McpSessionId,
            14 if name == "http2-settings" => Self::Http2Settings,
            15 if name == "accept-encoding" => Self::AcceptEncoding,
            15 if name == "x-forwarded-for" => Self::ForwardedFor,
            16 if name == "content-encoding" => Self::ContentEncoding,
            16 if name == "x-forwarded-host" => Self::ForwardedHost,
            16 if name == "proxy-connection" => Self::ProxyConnection,
            17 if name == "transfer-encoding" => Self::TransferEncoding,
            17 if name == "x-forwarded-proto" => Self::ForwardedProto,
            17 if name == "if-modified-since" => Self::IfModifiedSince,
            19 if name == "if-unmodified-since" => Self::IfUnmodifiedSince,
            20 if name == "x-kagent-proxy-error" => Self::KagentProxyError,
            20 if name == "mcp-protocol-version" => Self::McpProtocolVersion,
            24 if name == "x-kagent-root-context-id" => Self::KagentRootContextId,
            _ => return None,
        })
    }
}

// === impl Meanings ===

impl Meanings {
    /// That of the next field.
    pub fn push(&mut self, known: Option<Known>) {
        if let Some(room) = self.of.get_mut(self.count) {
            *room = known;
            self.count += 1;
        }
    }

    /// Those that are here.
    #[must_use]
    pub fn all(&self) -> &[Option<Known>] {
        self.of.get(..self.count).unwrap_or_default()
    }
}

// === impl Names ===

impl Names {
    /// Fields that concern one connection only (RFC 9110 section 7.6.1).
    pub const HOP_BY_HOP: Self = Self::all(&[
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::Http2Settings,
        Known::Te,
        Known::TransferEncoding,
        Known::Upgrade,
    ]);

    /// Those of a head.
    #[must_use]
    pub fn of(map: &HeaderMap) -> Self {
        map.keys().filter_map(Known::of).fold(Self::default(), Self::with)
    }

    /// These.
    #[must_use]
    pub const fn all(mut these: &[Known]) -> Self {
        let mut names = Self(0);
        while let [first, rest @ ..] = these {
            names = names.with(*first);
            these = rest;
        }
        names
    }

    /// With this one.
    #[must_use]
    pub const fn with(self, name: Known) -> Self {
        Self(self.0 | 1 << name as u32)
    }

    /// With all of those.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn has(self, name: Known) -> bool {
        self.0 & (1 << name as u32) != 0
    }

    /// Whether one of those is among them.
    #[must_use]
    pub const fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_found_by_its_spelling_and_no_other() {
        let spellings = "a2a-version accept accept-encoding connection content-encoding content-length \
            content-type cookie expect x-forwarded-for x-forwarded-host x-forwarded-proto host \
            http2-settings if-match if-modified-since if-none-match if-range if-unmodified-since \
            x-kagent-host x-kagent-proxy-error x-kagent-root-context-id mcp-method mcp-name \
            mcp-protocol-version keep-alive last-event-id location mcp-session-id \
            proxy-connection range te traceparent tracestate trailer transfer-encoding upgrade via";
        let mut all = Names::default();
        for spelling in spellings.split_whitespace() {
            let known = Known::of(&spelling.parse().unwrap()).unwrap();
            let words = spelling.strip_prefix("x-").unwrap_or(spelling).split('-');
            let camel = words.map(|word| word[..1].to_uppercase() + &word[1..]);
            assert_eq!(format!("{known:?}"), camel.collect::<String>());
            assert!(!all.has(known), "{spelling} is another one too");
            all = all.with(known);
            let other = spelling[1..].to_owned() + "z";
            assert_eq!(Known::of(&other.parse().unwrap()), None);
        }
        assert_eq!(all.0.count_ones(), Known::Via as u32 + 1, "none is left out");
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let mut map = HeaderMap::new();
        map.append("Via", "1.1 a".parse().unwrap());
        map.append("Via", "1.1 b".parse().unwrap());
        map.append("x-other", "1".parse().unwrap());
        let names = Names::of(&map);
        assert_eq!(names, Names::all(&[Known::Via]));
        assert!(names.has(Known::Via) && !names.has(Known::Te));
        assert!(names.has_any(Names::all(&[Known::Te, Known::Via])));
        assert!(!names.has_any(Names::HOP_BY_HOP));
        assert!(names.and(Names::HOP_BY_HOP).has(Known::Te));
    }
}
