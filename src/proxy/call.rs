//! The kinds of calls, each with time limits of its own.
//!
//! Plain data, shared by all rooms of the request path; knows no message and no connection.

use crate::config::{Limits, Timeouts};

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
