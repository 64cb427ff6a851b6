//! Why the proxy answers itself: a closed set of reasons (D10), and the answer each one makes.
//!
//! Knows nothing of how a request got here. Never 404: MCP clients read that as "session lost", the
//! Go A2A client as permanent.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::json;

use super::exchange::{Exchange, Outcome};
use super::reply::ReplyBody;
use crate::headers::X_KAGENT_PROXY_ERROR;
use crate::route::{BadHost, HostKey, NoRoute};
use crate::upstream::ConnectError;

/// Everything that ends a request inside the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// No `x-kagent-host`.
    #[error("the request has no x-kagent-host header; kagent sets it when proxy.url is set")]
    MissingTarget,
    /// Not ASCII.
    #[error("x-kagent-host is not plain ASCII text")]
    NotText,
    /// Not a host name.
    #[error("x-kagent-host {0:?} is refused: {1}")]
    BadTarget(String, BadHost),
    /// Two values that differ: usually a `headersFrom` entry beside kagent's own.
    #[error("two x-kagent-host headers differ; send one")]
    TwoTargets,
    /// A port that the target does not have.
    #[error("port {0} in x-kagent-host is none of the target's ports; leave the port out")]
    WrongPort(u16),
    /// A path that software may read in two ways, on a path-limited route.
    #[error("the path has dot segments, empty segments, backslashes or encoded separators")]
    UnsafePath,
    /// CONNECT.
    #[error("CONNECT is not served: this is a reverse proxy")]
    Connect,
    /// The host or the path is in no route.
    #[error("{0}")]
    UnknownTarget(String, Vec<String>),
    /// The request's head is beyond the limits.
    #[error("the request's head is larger than {0} bytes or {1} fields")]
    HeadTooLarge(usize, usize),
    /// The request came around.
    #[error("forwarding loop: {0}")]
    Loop(&'static str),
    /// Known, and nothing there can be reached.
    #[error("no endpoint of {0} can be reached: {1}")]
    NoReadyEndpoint(String, String),
    /// The dial timed out.
    #[error("{0}")]
    ConnectTimeout(ConnectError),
    /// The dial failed in a way that waiting does not mend.
    #[error("{0}")]
    ConnectFailed(ConnectError),
    /// The connection ended before an answer.
    #[error("{0} closed the connection before it answered: {1}")]
    UpstreamReset(String, hyper::Error),
    /// The answer is not HTTP.
    #[error("{0} answered with something that is not HTTP: {1}")]
    UpstreamProtocol(String, hyper::Error),
    /// The head did not come in time.
    #[error("{0} sent no response head within {1:?}")]
    HeadTimeout(String, std::time::Duration),
}

/// An error, and the request it ends, as far as it has not been sent.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: ProxyError,
    jsonrpc: bool,
}

// === impl ProxyError ===

impl ProxyError {
    /// From the table's answer.
    #[must_use]
    pub fn no_route(target: &HostKey, why: NoRoute) -> Self {
        let host = target.as_str();
        match why {
            NoRoute::UnsafePath => Self::UnsafePath,
            NoRoute::Host(near) => {
                let text = format!(
                    "no route for host {host:?}; an operator may add one with --route {host}=HOST:PORT"
                );
                Self::UnknownTarget(text, near)
            }
            NoRoute::Path(prefixes) => {
                let text = format!("host {host:?} has routes, none for this path");
                Self::UnknownTarget(text, prefixes)
            }
        }
    }

    /// The one word of the header, the metric and the log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.answer().1
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.answer().0
    }

    const fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::MissingTarget => (StatusCode::BAD_REQUEST, "missing_target"),
            Self::NotText | Self::BadTarget(..) | Self::TwoTargets | Self::WrongPort(_) => {
                (StatusCode::BAD_REQUEST, "bad_target")
            }
            Self::UnsafePath => (StatusCode::BAD_REQUEST, "bad_path"),
            Self::Connect => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::UnknownTarget(..) => (StatusCode::SERVICE_UNAVAILABLE, "unknown_target"),
            Self::HeadTooLarge(..) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large")
            }
            Self::Loop(_) => (StatusCode::LOOP_DETECTED, "loop"),
            Self::NoReadyEndpoint(..) => (StatusCode::SERVICE_UNAVAILABLE, "no_ready_endpoint"),
            Self::ConnectTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "connect_timeout"),
            Self::ConnectFailed(_) => (StatusCode::BAD_GATEWAY, "connect_failed"),
            Self::UpstreamReset(..) => (StatusCode::BAD_GATEWAY, "upstream_reset"),
            Self::UpstreamProtocol(..) => (StatusCode::BAD_GATEWAY, "upstream_protocol"),
            Self::HeadTimeout(..) => (StatusCode::GATEWAY_TIMEOUT, "head_timeout"),
        }
    }

    /// What would have fitted.
    #[must_use]
    pub fn candidates(&self) -> &[String] {
        match self {
            Self::UnknownTarget(_, candidates) => candidates,
            _ => &[],
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Ends `request` with `error`.
    pub fn new<B>(error: ProxyError, request: Request<B>) -> Self {
        let json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        Self { error, jsonrpc: json && request.method() == http::Method::POST }
    }

    /// Ends a request that is gone: it was handed to a connection.
    #[must_use]
    pub fn sent(error: ProxyError, jsonrpc: bool) -> Self {
        Self { error, jsonrpc }
    }

    /// The answer: JSON-RPC for a JSON POST, problem details (RFC 9457) otherwise.
    pub async fn answer(self, mut exchange: Exchange) -> Response<ReplyBody> {
        let status = self.error.status();
        let reason = self.error.reason();
        let detail = self.error.to_string();
        let candidates = self.error.candidates();
        let (content_type, body) = if self.jsonrpc {
            let data = json!({"reason": reason, "candidates": candidates});
            let error = json!({"code": -32603, "message": detail, "data": data});
            let body = json!({"jsonrpc": "2.0", "id": null, "error": error});
            ("application/json", body)
        } else {
            let body = json!({
                "type": "about:blank",
                "title": status.canonical_reason(),
                "status": status.as_u16(),
                "detail": detail,
                "reason": reason,
                "candidates": candidates,
            });
            ("application/problem+json", body)
        };
        exchange.refused(status, Outcome::Refused(reason));
        let mut response = Response::new(ReplyBody::local(Bytes::from(body.to_string()), exchange));
        *response.status_mut() = status;
        if let Ok(phrase) = hyper::ext::ReasonPhrase::try_from(reason.as_bytes()) {
            response.extensions_mut().insert(phrase);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(X_KAGENT_PROXY_ERROR, HeaderValue::from_static(reason));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}
