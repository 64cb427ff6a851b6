//! What one finished request was, as plain data for every sink: metrics, the access log.
//!
//! Each sink is one method that reads it, and adding one touches nobody else. Knows nothing of how a
//! request is served.

use std::time::Duration;

use super::operations::ErrorType;

/// How a request ended; the same words stand in the log, the metric and the docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response was passed on whole.
    Complete,
    /// The client left first.
    ClientGone,
    /// The backend broke off.
    UpstreamBroke,
    /// The backend was silent for longer than the route's idle limit.
    IdleTimeout,
    /// The request took longer than the route's total limit.
    TotalTimeout,
    /// A session's own stream was ended between two events, because the program drains.
    Drained,
    /// The proxy answered in the place of a session's server.
    StoodIn,
    /// The proxy answered itself, for this reason.
    Refused(&'static str),
}

/// What one finished request was.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The client's address.
    pub peer: &'a str,
    /// Request method.
    pub method: &'a str,
    /// Request path, without its query: queries may carry session ids.
    pub path: &'a str,
    /// `x-kagent-host` as sent, if it was readable.
    pub target: &'a str,
    /// Route taken, empty if none.
    pub route: &'a str,
    /// Kind of call, a plain word.
    pub class: &'static str,
    /// Status of the response; 0 when there was none.
    pub status: u16,
    /// How a call of gRPC ended, by its number; `None` for other requests, and where the response did not say.
    pub grpc_status: Option<u8>,
    /// How it ended.
    pub outcome: Outcome,
    /// What a session is called in logs, if it is one of ours: never its token.
    pub session: Option<u32>,
    /// What was done for the session, empty if nothing.
    pub care: &'static str,
    /// The Agent that sent it, `namespace/name`, or `unknown`; empty without a route.
    pub caller: &'a str,
    /// How surely that is known, a plain word; empty if it is unknown.
    pub caller_by: &'static str,
    /// What was spoken, a plain word; empty if no call was seen.
    pub protocol: &'static str,
    /// The method of the first call, as it was sent.
    pub rpc_method: &'a str,
    /// The tool or prompt that it names, as it was sent.
    pub tool: &'a str,
    /// How it ended; `None` if no call was seen.
    pub rpc_error: Option<ErrorType>,
    /// Calls of the request, notifications among them.
    pub calls: u32,
    /// `x-kagent-root-context-id` as sent: the conversation that all calls of a turn share.
    pub conversation: &'a str,
    /// `traceparent` as sent (W3C Trace Context).
    pub traceparent: &'a str,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// It was an event stream or a tunnel.
    pub is_stream: bool,
    /// Events of an event stream that passed whole.
    pub events: u64,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// To the connection that carried it.
    pub connect: Option<Duration>,
    /// To the response's headers.
    pub response_headers: Option<Duration>,
    /// To the first body bytes, of an event stream to the end of its first event.
    pub first: Option<Duration>,
    /// To the end.
    pub whole: Duration,
}

// === impl Record ===

impl Record<'_> {
    /// One of which nothing is known but this.
    #[must_use]
    pub const fn bare(class: &'static str, status: u16, outcome: Outcome) -> Self {
        Self {
            peer: "",
            method: "",
            path: "",
            target: "",
            route: "",
            class,
            status,
            grpc_status: None,
            outcome,
            session: None,
            care: "",
            caller: "",
            caller_by: "",
            protocol: "",
            rpc_method: "",
            tool: "",
            rpc_error: None,
            calls: 0,
            conversation: "",
            traceparent: "",
            bytes: 0,
            is_stream: false,
            events: 0,
            request_bytes: 0,
            connect: None,
            response_headers: None,
            first: None,
            whole: Duration::ZERO,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The word of the metric: one for all refusals, which are counted by reason elsewhere.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroke => "upstream_broke",
            Self::IdleTimeout => "idle_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::Drained => "drained",
            Self::StoodIn => "stood_in",
            Self::Refused(_) => "refused",
        }
    }

    /// The plain word of the access log, which says the reason of a refusal.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Refused(reason) => reason,
            other => other.word(),
        }
    }
}
