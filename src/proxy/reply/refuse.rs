//! The response of our own that an error makes.
//!
//! A JSON-RPC error where the request's id is known, problem details otherwise, and to a call of gRPC what its client
//! reads. Knows nothing of how the request got here.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::body::ReplyBody;
use super::trailers_only::trailers_only;
use crate::body::Upload;
use crate::headers::X_KAGENT_PROXY_ERROR;
use crate::protocol::jsonrpc::request_id;
use crate::proxy::error::{ProxyError, Refused};
use crate::proxy::reason::Reason;
use crate::proxy::record::Recorder;

/// Answers a request that is refused. Reads on in its body for its id, and reads the rest away.
pub async fn refuse(refused: Refused, mut record: Box<Recorder>) -> Response<ReplyBody> {
    let Refused { error, body } = refused;
    if let Some(mut body) = body {
        body.read_start().await;
        body.discard();
    }
    let reason = error.reason();
    if record.is_grpc() {
        record.refused_grpc(reason);
        return without_body(&error, ReplyBody::Local(None, record));
    }
    let start = record.upload().tap.take_start().unwrap_or_default();
    let status = record.refused(reason);
    let (content_type, text) = worded((&error, status), record.target(), &start);
    let mut response = Response::new(ReplyBody::local(text, record));
    *response.status_mut() = status;
    dress(&mut response, reason, content_type);
    response
}

/// The response to a request that panicked, whose record has been written; `is_grpc` if it was a call of gRPC.
#[must_use]
pub fn internal(upload: &Upload, is_grpc: bool) -> Response<ReplyBody> {
    let error = ProxyError::Internal;
    if is_grpc {
        return without_body(&error, ReplyBody::Unrecorded(None));
    }
    let start = upload.tap.take_start().unwrap_or_default();
    let (reason, status) = (error.reason(), error.reason().status());
    let (content_type, text) = worded((&error, status), "", &start);
    let mut response = Response::new(ReplyBody::Unrecorded(Some(text)));
    *response.status_mut() = status;
    dress(&mut response, reason, content_type);
    response
}

/// The media type and the text of an error; `start` is that of the request's body.
fn worded(
    (error, status): (&ProxyError, StatusCode),
    target: &str,
    start: &[u8],
) -> (&'static str, Bytes) {
    let (content_type, text) = match request_id(start) {
        Some(id) => ("application/json", json_rpc(error, target, id)),
        None => ("application/problem+json", problem((error, status), target)),
    };
    (content_type, Bytes::from(text))
}

/// For a client of gRPC; the body ends at once.
fn without_body(error: &ProxyError, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = trailers_only(error).map(|()| body);
    fields(error.reason(), response.headers_mut());
    response
}

fn dress(response: &mut Response<ReplyBody>, reason: Reason, content_type: &'static str) {
    if let Ok(phrase) = hyper::ext::ReasonPhrase::try_from(reason.word().as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields(reason, headers);
}

fn fields(reason: Reason, headers: &mut HeaderMap) {
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
}

/// The error as JSON-RPC 2.0 words it (section 5.1); `id` is JSON as the client wrote it.
fn json_rpc(error: &ProxyError, target: &str, id: &str) -> String {
    let reason = error.reason();
    let body = json!({
        "code": -32603,
        "message": error.to_string(),
        "data": {
            "reason": reason.word(),
            "target": target,
            "candidates": error.candidates(),
            "chain": error.chain(),
            "action": reason.action(),
        },
    });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{body}}}"#)
}

/// The error as problem details (RFC 9457), of an answer with this status.
#[must_use]
pub fn problem((error, status): (&ProxyError, StatusCode), target: &str) -> String {
    let reason = error.reason();
    json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": error.to_string(),
        "reason": reason.word(),
        "target": target,
        "candidates": error.candidates(),
        "chain": error.chain(),
        "action": reason.action(),
    })
    .to_string()
}
