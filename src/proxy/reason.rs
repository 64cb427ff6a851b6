//! The closed set of reasons for which the proxy answers itself (D10): word, status, what to do.
//!
//! One table, which docs/errors.md repeats and a test compares. Never 404: MCP clients read that as "session lost",
//! the Go A2A client as permanent. Knows nothing of requests and errors.

use http::StatusCode;

use crate::protocol::grpc::Code;

/// Why the proxy answered, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No `x-kagent-host`.
    MissingTarget,
    /// `x-kagent-host` is no usable host name, or names a port the target does not have.
    BadTarget,
    /// A head that could be read in two ways, or a body that is broken.
    BadRequest,
    /// A path that could be read in two ways, on a path-limited route.
    BadPath,
    /// CONNECT.
    MethodNotAllowed,
    /// The head is beyond the limits.
    HeaderTooLarge,
    /// Not in the table.
    UnknownTarget,
    /// The cluster has it, and it must not be reached.
    ForbiddenTarget,
    /// Several places fit.
    AmbiguousTarget,
    /// In the table, and nothing there can be reached.
    NoReadyEndpoint,
    /// Too many requests wait for a backend already.
    Overloaded,
    /// Nothing answers at the address.
    ConnectTimeout,
    /// There is something, and it does not speak the protocol.
    ConnectFailed,
    /// The connection ended before an answer.
    UpstreamReset,
    /// The answer is not HTTP.
    UpstreamProtocol,
    /// The answer's head did not come in time.
    HeadTimeout,
    /// The request came around.
    Loop,
    /// A fault of the proxy itself: a panic.
    Internal,
}

// === impl Reason ===

impl Reason {
    /// All of them, in the order of the documentation.
    pub const ALL: &[Self] = &[
        Self::MissingTarget,
        Self::BadTarget,
        Self::BadRequest,
        Self::BadPath,
        Self::MethodNotAllowed,
        Self::HeaderTooLarge,
        Self::UnknownTarget,
        Self::ForbiddenTarget,
        Self::AmbiguousTarget,
        Self::NoReadyEndpoint,
        Self::Overloaded,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::HeadTimeout,
        Self::Loop,
        Self::Internal,
    ];

    /// The word of the header, the metric and the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.word_and_status().0
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.word_and_status().1
    }

    /// The code of the answer to a call of gRPC. [`Code::UNAVAILABLE`], on which clients may be set up to call again,
    /// only where nothing was sent; never NOT_FOUND or UNIMPLEMENTED, which clients take for the method's own.
    #[must_use]
    pub const fn grpc(self) -> Code {
        match self {
            Self::MissingTarget | Self::BadTarget | Self::BadPath => Code::INVALID_ARGUMENT,
            Self::HeaderTooLarge => Code::RESOURCE_EXHAUSTED,
            Self::ForbiddenTarget => Code::PERMISSION_DENIED,
            Self::UnknownTarget
            | Self::NoReadyEndpoint
            | Self::Overloaded
            | Self::ConnectTimeout
            | Self::ConnectFailed => Code::UNAVAILABLE,
            // The call may have run.
            Self::UpstreamReset => Code::UNKNOWN,
            Self::HeadTimeout => Code::DEADLINE_EXCEEDED,
            Self::BadRequest
            | Self::MethodNotAllowed
            | Self::AmbiguousTarget
            | Self::UpstreamProtocol
            | Self::Loop
            | Self::Internal => Code::INTERNAL,
        }
    }

    /// The status of the answer to a request of MCP 2026-07-28 or later. Clients that speak older revisions too take
    /// statuses of 4xx for a server that knows none but those ("Backward Compatibility"), but for 401 and 403.
    #[must_use]
    pub const fn modern_status(self) -> StatusCode {
        match self.status() {
            StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => StatusCode::INTERNAL_SERVER_ERROR,
            other => other,
        }
    }

    const fn word_and_status(self) -> (&'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::MissingTarget => ("missing_target", S::BAD_REQUEST),
            Self::BadTarget => ("bad_target", S::BAD_REQUEST),
            Self::BadRequest => ("bad_request", S::BAD_REQUEST),
            Self::BadPath => ("bad_path", S::BAD_REQUEST),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED),
            Self::HeaderTooLarge => ("header_too_large", S::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::UnknownTarget => ("unknown_target", S::SERVICE_UNAVAILABLE),
            Self::ForbiddenTarget => ("forbidden_target", S::FORBIDDEN),
            Self::AmbiguousTarget => ("ambiguous_target", S::INTERNAL_SERVER_ERROR),
            Self::NoReadyEndpoint => ("no_ready_endpoint", S::SERVICE_UNAVAILABLE),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE),
            Self::ConnectTimeout => ("connect_timeout", S::GATEWAY_TIMEOUT),
            Self::ConnectFailed => ("connect_failed", S::BAD_GATEWAY),
            Self::UpstreamReset => ("upstream_reset", S::BAD_GATEWAY),
            Self::UpstreamProtocol => ("upstream_protocol", S::BAD_GATEWAY),
            Self::HeadTimeout => ("head_timeout", S::GATEWAY_TIMEOUT),
            Self::Loop => ("loop", S::LOOP_DETECTED),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR),
        }
    }

    /// What a reader of the error can do.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::MissingTarget => {
                "send `x-kagent-host`: kagent 0.x does when `proxy.url` is set, a RemoteMCPServer in `headersFrom`"
            }
            Self::BadTarget => "one DNS name, no IP address, a port only if the target has it",
            Self::BadRequest => {
                "send one Host, one of Content-Length and `Transfer-Encoding: chunked`, and a whole body"
            }
            Self::BadPath => {
                "on a path-limited route: no dot segments, empty segments or encoded separators"
            }
            Self::MethodNotAllowed => "CONNECT is not served",
            Self::HeaderTooLarge => {
                "send fewer or shorter header fields: at most 64 KiB and 128 fields by default"
            }
            Self::UnknownTarget => "add a route; the candidates are near misses",
            Self::ForbiddenTarget => {
                "only agents and MCP servers are routable; the error says what would allow this one"
            }
            Self::AmbiguousTarget => {
                "several ports match, see `candidates`: write one into `x-kagent-host`, a RemoteMCPServer's URL or the annotation kagent.dev/mcp-service-port"
            }
            Self::NoReadyEndpoint => {
                "start the backend or wait for it: cards wait 20 s by default, others 2 s"
            }
            Self::Overloaded => {
                "too many requests wait for backends that are not there; see `hold` in the configuration"
            }
            Self::ConnectTimeout => {
                "check that the backend runs and that no NetworkPolicy drops the connection"
            }
            Self::ConnectFailed => "check the target's scheme, port and certificate",
            Self::UpstreamReset => {
                "see why the backend closed the connection before it responded; the call may have run"
            }
            Self::UpstreamProtocol => {
                "see what the error says of the response; if it is not HTTP, check the target's port and scheme"
            }
            Self::HeadTimeout => "raise the route's head or total limit, which are off by default",
            Self::Loop => "no target may lead back to this proxy; at most ten proxies in `Via`",
            Self::Internal => {
                "report a bug, with the panic's line of the log; other requests are not affected"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_the_same_table() {
        let docs = include_str!("../../docs/errors.md");
        let table = docs.split("| reason |").nth(1).unwrap().split("\n\n").next().unwrap();
        let written: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = Reason::ALL
            .iter()
            .map(|r| format!("| `{}` | {} | {} |", r.word(), r.status().as_u16(), r.action()))
            .collect();
        assert_eq!(written, expected);
        assert!(Reason::ALL.iter().all(|reason| reason.status() != StatusCode::NOT_FOUND));
    }

    /// Retry policies of clients name UNAVAILABLE, so what may have run is something else. NOT_FOUND and UNIMPLEMENTED
    /// are answers of the method itself, FAILED_PRECONDITION is one of A2A's (A2A 1.0 section 5.4).
    #[test]
    fn the_docs_have_the_codes_of_grpc() {
        let docs = include_str!("../../docs/errors.md");
        let table = docs.split("| refusal |").nth(1).unwrap().split("\n\n").next().unwrap();
        let written: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let row = |r: &Reason| format!("| `{}` | {} |", r.word(), r.grpc().word());
        assert_eq!(written, Reason::ALL.iter().map(row).collect::<Vec<_>>());
        let never = ["OK", "NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION"];
        assert!(Reason::ALL.iter().all(|reason| !never.contains(&reason.grpc().word())));
    }

    /// Statuses that make a client which tries MCP 2026-07-28 first go on with `initialize`, by the specification or as
    /// the SDKs for TypeScript and C# do.
    #[test]
    fn no_answer_to_a_modern_request_reads_as_that_of_an_older_server() {
        for reason in Reason::ALL {
            let status = reason.modern_status();
            assert!(status.is_server_error() || status == StatusCode::FORBIDDEN, "{reason:?}");
            let (old, has_changed) = (reason.status(), status != reason.status());
            assert_eq!(has_changed, old.is_client_error() && old != StatusCode::FORBIDDEN);
        }
        let docs = include_str!("../../docs/errors.md");
        let table = docs.split("| reason |").nth(2).unwrap().split("\n\n").next().unwrap();
        let written: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = Reason::ALL
            .iter()
            .map(|r| {
                let (modern, other) = (r.modern_status().as_u16(), r.status().as_u16());
                format!("| `{}` | {modern} | {other} |", r.word())
            })
            .collect();
        assert_eq!(written, expected);
    }
}
