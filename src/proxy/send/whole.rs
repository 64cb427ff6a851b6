//! JSON answers of sessions, held until they are whole: a body that is cut off behind its head ends the sessions of
//! some clients (Python 2.x, Go), and a head that was not passed on can be replaced.
//!
//! Holds small ones only, for a short time, and never an event stream. Reads no message.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, TRAILER};
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::attempt::{Failure, cut_off};
use crate::body::Upload;
use crate::proxy::way::Way;
use crate::upstream::Leased;

/// A larger body passes as it comes, and so does the rest of one that grows larger.
const MAX_HELD: usize = 64 * 1024;
/// So does what takes longer.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The response, with its body here if that is small JSON.
///
/// # Errors
/// The body is cut off.
pub async fn whole(
    mut response: Response<Leased>,
    upload: &Arc<Upload>,
    way: &Way,
) -> Result<Response<Leased>, Failure> {
    let length = response.body().size_hint().exact();
    let is_long = length.is_some_and(|length| length == 0 || length > MAX_HELD as u64);
    if is_long || response.status() != StatusCode::OK || !is_json(&response) {
        return Ok(response);
    }
    // Most have come with their head.
    match response.body_mut().frame().now_or_never() {
        Some(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) if response.body().is_end_stream() => {
                response.body_mut().put_back(data);
                Ok(response)
            }
            // Boxed, as waiting is.
            Ok(data) => Box::pin(rest(data, response, upload, way)).await,
            Err(_trailers) => Ok(response),
        },
        Some(Some(Err(error))) => Err(cut_off(way, response, error, upload)),
        Some(None) => Ok(response),
        None => Box::pin(rest(Bytes::new(), response, upload, way)).await,
    }
}

/// The response, with what comes in time of the rest of its body.
async fn rest(
    first: Bytes,
    mut response: Response<Leased>,
    upload: &Arc<Upload>,
    way: &Way,
) -> Result<Response<Leased>, Failure> {
    let mut held = BytesMut::from(&first[..]);
    let until = Instant::now() + MAX_WAIT;
    while held.len() <= MAX_HELD && !response.body().is_end_stream() {
        match tokio::time::timeout_at(until, response.body_mut().frame()).await {
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { break };
                held.extend_from_slice(&data);
            }
            Ok(Some(Err(error))) => return Err(cut_off(way, response, error, upload)),
            Ok(None) | Err(_) => break,
        }
    }
    response.body_mut().put_back(held.freeze());
    Ok(response)
}

/// Whether it is JSON without trailers, which could not be passed on behind a body that was held.
fn is_json(response: &Response<Leased>) -> bool {
    let map = response.headers();
    let kind = map.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/json") && !map.contains_key(TRAILER)
}
