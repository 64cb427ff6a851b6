//! What the heads of MCP requests say of their messages since 2026-07-28 ("Standard Request Headers", SEP-2243).
//!
//! Reads fields; never a body.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::{MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION};

/// The first revision with tasks; revisions are dates.
const TASKS_SINCE: &str = "2025-11-25";

/// The task that a head names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadTask<'h> {
    /// This one (tasks extension, "Streamable HTTP: Routing Headers").
    Named(Cow<'h, str>),
    /// None: it is a request of another kind.
    Other,
    /// It does not say what kind of request it is.
    Unsaid,
}

// === impl HeadTask ===

impl<'h> HeadTask<'h> {
    /// Reads a head.
    #[must_use]
    pub fn of(head: &'h HeaderMap) -> Self {
        let said = |name| head.get(name).and_then(|value| value.to_str().ok());
        match said(MCP_METHOD) {
            None => match said(MCP_PROTOCOL_VERSION) {
                Some(version) if version.starts_with("20") && version < TASKS_SINCE => Self::Other,
                _ => Self::Unsaid,
            },
            Some(method) if method.starts_with("tasks/") => {
                said(MCP_NAME).and_then(decoded).map_or(Self::Unsaid, Self::Named)
            }
            Some(_) => Self::Other,
        }
    }
}

/// The value as it is, or what is encoded in it as `=?base64?...?=`.
#[must_use]
pub fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let encoded = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    match encoded {
        None => Some(Cow::Borrowed(value)),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn a_task_is_named_by_the_head_of_its_requests_only() {
        let spoken = |version: &str| {
            let mut head = HeaderMap::new();
            head.insert(MCP_PROTOCOL_VERSION, version.parse().unwrap());
            HeadTask::of(&head) == HeadTask::Other
        };
        for (version, has_none) in
            [("2025-06-18", true), ("2025-11-25", false), ("2026-07-28", false), ("1", false)]
        {
            assert_eq!(spoken(version), has_none, "{version}");
        }
        let named = |id: &str| HeadTask::Named(Cow::Owned(id.to_owned()));
        for (method, name, expected) in [
            ("tasks/get", "t-1", named("t-1")),
            ("tasks/update", "=?base64?w6k=?=", named("é")),
            ("tasks/cancel", "=?base64?!?=", HeadTask::Unsaid),
            ("tasks/get", "", HeadTask::Unsaid),
            ("tools/call", "t-1", HeadTask::Other),
            ("", "t-1", HeadTask::Unsaid),
        ] {
            let mut head = HeaderMap::new();
            for (field, value) in [("mcp-method", method), ("Mcp-Name", name)] {
                if !value.is_empty() {
                    head.insert(
                        HeaderName::from_bytes(field.as_bytes()).unwrap(),
                        value.parse().unwrap(),
                    );
                }
            }
            assert_eq!(HeadTask::of(&head), expected, "{method} {name}");
        }
    }
}
