//! What can end a request inside the proxy.
//!
//! Plain data. Knows neither how a request got here nor what the client is told.

use http::Request;

use super::reason::Reason;
use crate::body::RequestBody;
use crate::route::{BadHost, Considered};
use crate::upstream::{BadResponse, ConnectError, SendError};

/// Everything that ends a request inside the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No `x-kagent-host`.
    #[error(
        "the request has no x-kagent-host header; kagent 0.x sets it when proxy.url is set, and a \
         RemoteMCPServer whose url is the proxy does in its headersFrom"
    )]
    MissingTarget,
    /// Not ASCII.
    #[error("x-kagent-host is not plain ASCII text")]
    NotText,
    /// Not a host name.
    #[error("x-kagent-host {0:?} is refused: {1}")]
    BadTarget(String, BadHost),
    /// Two values that differ: usually a `headersFrom` entry beside kagent's own.
    #[error(
        "two x-kagent-host headers differ; send one: a RemoteMCPServer's headersFrom must not name it \
         where kagent sets it"
    )]
    TwoTargets,
    /// The table has no route for it.
    #[error("{}", .0.detail)]
    Misrouted(Box<Misrouted>),
    /// Headers that software may read in two ways.
    #[error("the request's headers are ambiguous: {0}")]
    BadRequest(&'static str),
    /// A request line or headers that the parser cannot read.
    #[error(
        "the request cannot be read: its method, target, version, a header or a length is malformed"
    )]
    Unreadable,
    /// A body that breaks off, or whose chunks cannot be read.
    #[error("the request's body is broken: {0}")]
    BrokenBody(Box<SendError>),
    /// CONNECT.
    #[error("CONNECT is not served: this is a reverse proxy")]
    Connect,
    /// The request's headers are beyond the limits.
    #[error("the request's headers have more than {0} bytes or {1} fields")]
    HeadTooLarge(usize, usize),
    /// The request came around.
    #[error("forwarding loop: {0}")]
    Loop(&'static str),
    /// Known, and nothing there can be reached.
    #[error("no endpoint of {0} can be reached: {1}")]
    NoReadyEndpoint(String, String),
    /// Nothing there can be reached, and too many wait for something.
    #[error("the backend is unreachable, and the queue of waiting requests is full")]
    Overloaded,
    /// The dial timed out.
    #[error("{0}")]
    ConnectTimeout(Box<ConnectError>),
    /// The dial failed in a way that waiting does not mend.
    #[error("{0}")]
    ConnectFailed(Box<ConnectError>),
    /// The connection ended before a response.
    #[error("{0} closed the connection before it responded: {1}")]
    UpstreamReset(String, Box<SendError>),
    /// The response is not HTTP.
    #[error("{0} responded with something that is not HTTP: {1}")]
    UpstreamProtocol(String, Box<SendError>),
    /// The response is HTTP and cannot be passed on.
    #[error("the response of {0} cannot be passed on: {1}")]
    BadResponse(String, Box<BadResponse>),
    /// The connection turned into something else without being asked.
    #[error("{0} switched protocols without being asked")]
    UnaskedUpgrade(String),
    /// A fault of the proxy itself; the log has its place.
    #[error("the proxy has failed; its log says where")]
    Internal,
    /// The response's headers did not come in time.
    #[error("{0} sent no response headers within {1:?}")]
    HeadTimeout(String, std::time::Duration),
}

/// Why the table has no route, and how it came to that.
#[derive(Debug)]
pub struct Misrouted {
    /// The host asked for, normalised.
    pub host: String,
    /// The word.
    pub reason: Reason,
    /// What is wrong and what to do.
    pub detail: String,
    /// What would have fitted, or fits alike.
    pub candidates: Vec<String>,
    /// Every candidate with its verdict.
    pub chain: Vec<Considered>,
    /// Hosts may still become known.
    pub discovering: bool,
}

/// An error, and what is left of the request it ends.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: ProxyError,
    /// The body of a request that was not sent: its first bytes may still be read.
    pub body: Option<RequestBody>,
}

/// A request that is not answered: an error on a re-opened MCP event stream would end its session,
/// where a closed connection is only tried again (D12).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed without a response")]
pub struct Unanswered;

// === impl ProxyError ===

impl ProxyError {
    /// Its reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::MissingTarget => Reason::MissingTarget,
            Self::NotText | Self::BadTarget(..) | Self::TwoTargets => Reason::BadTarget,
            Self::Misrouted(misrouted) => misrouted.reason,
            Self::BadRequest(_) | Self::Unreadable | Self::BrokenBody(_) => Reason::BadRequest,
            Self::Connect => Reason::MethodNotAllowed,
            Self::HeadTooLarge(..) => Reason::HeaderTooLarge,
            Self::Loop(_) => Reason::Loop,
            Self::NoReadyEndpoint(..) => Reason::NoReadyEndpoint,
            Self::Overloaded => Reason::Overloaded,
            Self::ConnectTimeout(_) => Reason::ConnectTimeout,
            Self::ConnectFailed(_) => Reason::ConnectFailed,
            Self::UpstreamReset(..) => Reason::UpstreamReset,
            Self::UpstreamProtocol(..) | Self::BadResponse(..) | Self::UnaskedUpgrade(_) => {
                Reason::UpstreamProtocol
            }
            Self::HeadTimeout(..) => Reason::HeadTimeout,
            Self::Internal => Reason::Internal,
        }
    }

    /// Whether the same request may go through a little later. A re-opened MCP event stream is closed
    /// without a response then: an error would end its session, a closed connection is only tried again
    /// (D12).
    #[must_use]
    pub fn may_pass_later(&self) -> bool {
        match self {
            Self::Misrouted(misrouted) => {
                let waits = [Reason::UnknownTarget, Reason::NoReadyEndpoint];
                misrouted.discovering && waits.contains(&misrouted.reason)
            }
            Self::NoReadyEndpoint(..)
            | Self::Overloaded
            | Self::ConnectTimeout(_)
            | Self::ConnectFailed(_)
            | Self::UpstreamReset(..)
            | Self::UpstreamProtocol(..)
            | Self::HeadTimeout(..) => true,
            _ => false,
        }
    }

    /// Whether the backend may have done what it was asked: the request was written, and not answered in a way
    /// that could be read.
    #[must_use]
    pub const fn may_have_run(&self) -> bool {
        matches!(
            self,
            Self::UpstreamReset(..)
                | Self::UpstreamProtocol(..)
                | Self::BadResponse(..)
                | Self::HeadTimeout(..)
        )
    }

    /// What would have fitted.
    #[must_use]
    pub fn candidates(&self) -> &[String] {
        match self {
            Self::Misrouted(misrouted) => &misrouted.candidates,
            _ => &[],
        }
    }

    /// Every candidate with its verdict.
    #[must_use]
    pub fn chain(&self) -> Vec<serde_json::Value> {
        let Self::Misrouted(misrouted) = self else { return Vec::new() };
        misrouted.chain.iter().map(Considered::to_json).collect()
    }
}

// === impl Refused ===

impl Refused {
    /// Ends a request that is still here.
    #[must_use]
    pub fn unsent(error: ProxyError, request: Request<RequestBody>) -> Self {
        Self { error, body: Some(request.into_body()) }
    }

    /// Ends a request that is gone: it was handed to a connection.
    #[must_use]
    pub const fn sent(error: ProxyError) -> Self {
        Self { error, body: None }
    }
}
