//! What can end a request inside the proxy, and the answer that each error makes.
//!
//! Status and word come from `proxy/reason.rs`. Knows nothing of how a request got here; the answer
//! goes to the client.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::json;

use crate::body::{RequestBody, Upload};
use crate::headers::X_KAGENT_PROXY_ERROR;
use crate::protocol::jsonrpc::request_id;
use crate::proxy::reason::Reason;
use crate::proxy::record::Exchange;
use crate::proxy::reply::ReplyBody;
use crate::proxy::request::facts;
use crate::route::{BadHost, Note};
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
    /// The table has no route for it.
    #[error("{}", .0.detail)]
    Misrouted(Box<Misrouted>),
    /// A head that software may read in two ways.
    #[error("the request's head is ambiguous: {0}")]
    BadRequest(&'static str),
    /// A body that breaks off, or whose chunks cannot be read.
    #[error("the request's body is broken: {0}")]
    BrokenBody(hyper::Error),
    /// CONNECT.
    #[error("CONNECT is not served: this is a reverse proxy")]
    Connect,
    /// The request's head is beyond the limits.
    #[error("the request's head is larger than {0} bytes or {1} fields")]
    HeadTooLarge(usize, usize),
    /// The request came around.
    #[error("forwarding loop: {0}")]
    Loop(&'static str),
    /// Known, and nothing there can be reached.
    #[error("no endpoint of {0} can be reached: {1}")]
    NoReadyEndpoint(String, String),
    /// Nothing there can be reached, and too many wait for something.
    #[error("the backend cannot be reached, and too many requests wait already")]
    Overloaded,
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
    /// The connection turned into something else without being asked.
    #[error("{0} switched protocols without being asked")]
    UnaskedUpgrade(String),
    /// The head did not come in time.
    #[error("{0} sent no response head within {1:?}")]
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
    pub chain: Vec<Note>,
    /// Hosts may still become known.
    pub discovering: bool,
}

/// An error, and what is left of the request it ends.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: ProxyError,
    /// Not sent, so its first bytes may still be read.
    body: Option<RequestBody>,
    upload: Arc<Upload>,
    closes: bool,
}

/// A request that is not answered: an error on a re-opened MCP event stream would end its session,
/// where a closed connection is only tried again (D12).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("closed without an answer")]
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
            Self::BadRequest(_) | Self::BrokenBody(_) => Reason::BadRequest,
            Self::Connect => Reason::MethodNotAllowed,
            Self::HeadTooLarge(..) => Reason::HeaderTooLarge,
            Self::Loop(_) => Reason::Loop,
            Self::NoReadyEndpoint(..) => Reason::NoReadyEndpoint,
            Self::Overloaded => Reason::Overloaded,
            Self::ConnectTimeout(_) => Reason::ConnectTimeout,
            Self::ConnectFailed(_) => Reason::ConnectFailed,
            Self::UpstreamReset(..) => Reason::UpstreamReset,
            Self::UpstreamProtocol(..) | Self::UnaskedUpgrade(_) => Reason::UpstreamProtocol,
            Self::HeadTimeout(..) => Reason::HeadTimeout,
        }
    }

    /// The error as JSON-RPC 2.0 words it (section 5.1); `id` is JSON as the client wrote it.
    fn json_rpc(&self, target: &str, id: &str) -> String {
        let reason = self.reason();
        let error = json!({
            "code": -32603,
            "message": self.to_string(),
            "data": {
                "reason": reason.word(),
                "target": target,
                "candidates": self.candidates(),
                "chain": self.chain(),
                "action": reason.action(),
            },
        });
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
    }

    /// The error as problem details (RFC 9457).
    fn problem(&self, target: &str) -> String {
        let reason = self.reason();
        json!({
            "type": "about:blank",
            "title": reason.status().canonical_reason(),
            "status": reason.status().as_u16(),
            "detail": self.to_string(),
            "reason": reason.word(),
            "target": target,
            "candidates": self.candidates(),
            "chain": self.chain(),
            "action": reason.action(),
        })
        .to_string()
    }

    /// What would have fitted.
    #[must_use]
    pub fn candidates(&self) -> &[String] {
        match self {
            Self::Misrouted(misrouted) => &misrouted.candidates,
            _ => &[],
        }
    }
}

impl ProxyError {
    /// Every candidate with its verdict.
    #[must_use]
    pub fn chain(&self) -> Vec<serde_json::Value> {
        let Self::Misrouted(misrouted) = self else { return Vec::new() };
        misrouted.chain.iter().map(Note::to_json).collect()
    }
}

// === impl Refusal ===

impl Refusal {
    /// Ends `request` with `error`.
    #[must_use]
    pub fn new(error: ProxyError, request: Request<RequestBody>) -> Self {
        let body = request.into_body();
        Self { error, upload: Arc::clone(body.upload()), body: Some(body), closes: false }
    }

    /// Ends a request that found no route. A re-opened MCP event stream is closed without an answer
    /// where the route may still come: an error would end its session (D12).
    #[must_use]
    pub fn unrouted(error: ProxyError, request: Request<RequestBody>) -> Self {
        let waits = [Reason::UnknownTarget, Reason::NoReadyEndpoint].contains(&error.reason());
        let waits = waits && matches!(&error, ProxyError::Misrouted(m) if m.discovering);
        let closes = waits && facts::reopens_events(&request);
        Self { closes, ..Self::new(error, request) }
    }

    /// Ends a request that is gone: it was handed to a connection.
    #[must_use]
    pub fn sent(error: ProxyError, upload: Arc<Upload>) -> Self {
        Self { error, upload, body: None, closes: false }
    }

    /// The same, but closed without an answer.
    #[must_use]
    pub fn without_answer(self) -> Self {
        Self { closes: true, ..self }
    }

    /// Whether it is closed without an answer.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.closes
    }

    /// The answer: a JSON-RPC error where the request's id is known, problem details (RFC 9457)
    /// otherwise.
    pub async fn answer(self, mut exchange: Exchange) -> Response<ReplyBody> {
        let Self { error, body, upload, .. } = self;
        if let Some(mut body) = body {
            body.read_start().await;
            body.discard();
        }
        let start = upload.take_start().unwrap_or_default();
        let reason = error.reason();
        let (content_type, text) = match request_id(&start) {
            Some(id) => ("application/json", error.json_rpc(exchange.target(), id)),
            None => ("application/problem+json", error.problem(exchange.target())),
        };
        exchange.refused(reason);
        let mut response = Response::new(ReplyBody::local(Bytes::from(text), exchange));
        *response.status_mut() = reason.status();
        if let Ok(phrase) = hyper::ext::ReasonPhrase::try_from(reason.word().as_bytes()) {
            response.extensions_mut().insert(phrase);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(X_KAGENT_PROXY_ERROR, HeaderValue::from_static(reason.word()));
        if reason.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if reason == Reason::BadRequest {
            // Where this head ends is certain, what its sender thinks follows is not.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if reason == Reason::MethodNotAllowed {
            let allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}
