//! What the admin API says: plain text for people, JSON for programs. Knows no path.

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

/// A sentence, or several.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    of_type(status, "text/plain; charset=utf-8", body)
}

/// A value.
pub(super) fn json(value: &Value) -> Response {
    of_type(StatusCode::OK, "application/json", value.to_string())
}

/// These bytes, whatever they are.
pub(super) fn of_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut answer = Response::new(Body::from(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// The path is known, or nobody's; the method is not for it.
pub(super) fn not_allowed(methods: &str) -> Response {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {methods}\n"));
    if let Ok(methods) = HeaderValue::try_from(methods) {
        answer.headers_mut().insert(header::ALLOW, methods);
    }
    answer
}

/// So much is under way already that this has to be asked later.
pub(super) fn busy(why: impl Into<Bytes>) -> Response {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
