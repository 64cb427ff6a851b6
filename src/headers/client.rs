//! Who sends a request, as far as two requests of one client say it alike: clients behind a gateway share its address.
//!
//! Only fields count that no client and no gateway writes anew for each request: one too many would tell a client from
//! itself. Knows names of fields, and no client.

use http::HeaderMap;
use ring::digest::{Context, SHA256};

/// Whose request it is (RFC 9110 sections 10.1.5 and 11.6.2, RFC 7239), what gateways say of its address, and what it
/// carries from the turn that it belongs to (W3C Baggage; kagent, `kagent/adk/_remote_a2a_tool.py`). Traces are begun anew
/// for a request by some clients, and so do not count.
const TELLING: [&str; 8] = [
    "authorization",
    "baggage",
    "forwarded",
    "user-agent",
    "x-api-key",
    "x-forwarded-for",
    "x-real-ip",
    "x-user-id",
];
/// kagent's own, such as `x-kagent-root-context-id`.
const KAGENT: &str = "x-kagent-";

/// The same for two requests with the same telling fields, at every replica, and as good as never for others.
#[must_use]
pub fn fingerprint(map: &HeaderMap) -> u64 {
    let telling = |name: &str| TELLING.contains(&name) || name.starts_with(KAGENT);
    let fields = map.iter().filter(|(name, _)| telling(name.as_str()));
    // In any order: clients need not write them in the same.
    fields.fold(0, |sum: u64, (name, value)| {
        let mut hash = Context::new(&SHA256);
        // No name has a colon.
        for part in [name.as_str().as_bytes(), b":", value.as_bytes()] {
            hash.update(part);
        }
        let first =
            hash.finish().as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        sum.wrapping_add(first)
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> u64 {
        let fields = fields.iter();
        fingerprint(
            &fields
                .map(|(name, value)| {
                    (HeaderName::from_static(name), HeaderValue::from_static(value))
                })
                .collect(),
        )
    }

    #[test]
    fn what_changes_between_two_requests_of_a_client_tells_nothing() {
        let probe = of(&[
            ("user-agent", "python-httpx/1"),
            ("x-kagent-root-context-id", "c-1"),
            ("mcp-method", "server/discover"),
            ("mcp-protocol-version", "2026-07-28"),
            ("content-length", "9"),
            ("traceparent", "00-a"),
            ("x-request-id", "1"),
        ]);
        let initialize = [
            ("x-request-id", "2"),
            ("x-kagent-root-context-id", "c-1"),
            ("content-length", "200"),
            ("user-agent", "python-httpx/1"),
        ];
        assert_eq!(probe, of(&initialize));
        for (at, other) in [(1, "c-2"), (3, "node")] {
            let mut fields = initialize;
            fields[at].1 = other;
            assert_ne!(probe, of(&fields), "{other}");
        }
        for name in TELLING {
            assert_ne!(of(&[(name, "a")]), of(&[(name, "b")]), "{name}");
            assert_ne!(of(&[(name, "a")]), of(&[]), "{name}");
        }
    }
}
