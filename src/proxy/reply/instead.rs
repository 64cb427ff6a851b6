//! The responses that stand in for a backend's, where an error would end a client's session or make it call
//! again.
//!
//! Knows what is to be said; never why.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::body::ReplyBody;
use super::plan::RelayPlan;
use crate::drain::Watch;
use crate::proxy::call::Kind;
use crate::proxy::instead::Instead;
use crate::proxy::record::Recorder;
use crate::telemetry::record::Outcome;

/// The response. A session that is unknown is told of without a body: some clients take a JSON-RPC error for that
/// of one call, and keep the dead session.
pub fn response(instead: Instead, watch: &Watch, mut record: Box<Recorder>) -> Response<ReplyBody> {
    let mut kind = "application/json";
    let (status, body) = match instead {
        Instead::NoSession { bad_request: false } => (StatusCode::NOT_FOUND, None),
        Instead::NoSession { bad_request: true } => (StatusCode::BAD_REQUEST, None),
        Instead::Ended => (StatusCode::NO_CONTENT, None),
        Instead::Taken => (StatusCode::ACCEPTED, None),
        Instead::NoStream => (StatusCode::METHOD_NOT_ALLOWED, None),
        Instead::Answer(json) => (StatusCode::OK, Some(json)),
        Instead::Events(events) => {
            kind = "text/event-stream";
            (StatusCode::OK, Some(events))
        }
        Instead::Held(reopening, way) => {
            record.on_head(StatusCode::OK, Kind::Stream);
            let plan = RelayPlan::held(&way, watch, record.started());
            let mut response = Response::new(ReplyBody::held(reopening, plan, record));
            let map = response.headers_mut();
            map.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            map.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            return response;
        }
    };
    record.on_head(status, Kind::Unary);
    record.ended(Outcome::StoodIn);
    let has_body = body.is_some();
    let bytes = body.map_or_else(Bytes::new, Bytes::from);
    let mut response = Response::new(ReplyBody::local(bytes, record));
    *response.status_mut() = status;
    let map = response.headers_mut();
    if has_body {
        map.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        map.insert(ALLOW, HeaderValue::from_static("POST, DELETE"));
    }
    response
}
