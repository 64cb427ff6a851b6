//! JSON answers of sessions, held until they are whole: a body that is cut off behind its head ends the sessions of
//! some clients (Python 2.x, Go), and a head that was not passed on can be replaced.
//!
//! Holds small ones only, for a short time, and never an event stream. Reads no message.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::attempt::{Failure, cut_off};
use crate::body::Upload;
use crate::headers::names::Known;
use crate::headers::noted::Noted;
use crate::proxy::way::Way;
use crate::upstream::Leased;

/// A larger body passes as it comes, and so does the rest of one that grows larger.
const MAX_HELD: usize = 64 * 1024;
/// So does what takes longer.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Whether the rest of its body is waited for: it is small JSON, and has not come with its head as most have.
#[must_use]
pub fn is_awaited(response: &Response<Leased>) -> bool {
    let leased = response.body();
    let is_long = || leased.size_hint().exact().is_some_and(|length| length > MAX_HELD as u64);
    !leased.is_here()
        && response.status() == StatusCode::OK
        && is_plain_json(leased.noted())
        && !is_long()
}

/// The response, with what comes in time of its body.
///
/// # Errors
/// The body is cut off.
pub async fn whole(
    mut response: Response<Leased>,
    upload: &Arc<Upload>,
    way: &Way,
) -> Result<Response<Leased>, Failure> {
    let mut held = BytesMut::new();
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
const fn is_plain_json(noted: Noted) -> bool {
    noted.is_json && !noted.names.has(Known::Trailer)
}
