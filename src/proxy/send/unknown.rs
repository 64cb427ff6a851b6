//! Whether a server knows a session, by what it answers.
//!
//! Reads no more of a response than it needs, and gives back what it has read. Decides nothing about the session.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;

use crate::body::{RequestBody, Upload};
use crate::protocol::mcp;
use crate::upstream::Leased;

/// What is read of a 400 to see whether it says that the session is unknown, and for how long.
const MAX_REFUSAL: usize = 16 * 1024;
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// Whether a response with this status may say that its server does not know the session.
#[must_use]
pub fn may_deny(status: StatusCode) -> bool {
    status == StatusCode::NOT_FOUND || status == StatusCode::BAD_REQUEST
}

/// The response, if its server knows the session.
///
/// # Errors
/// It does not: the request, to be sent again, if that is still there.
pub async fn judge(
    mut response: Response<Leased>,
    upload: &Arc<Upload>,
) -> Result<Response<Leased>, Option<Box<Request<RequestBody>>>> {
    let forgotten = match response.status() {
        StatusCode::NOT_FOUND => true,
        StatusCode::BAD_REQUEST => {
            let leased = response.body_mut();
            let mut said = BytesMut::new();
            let read = async {
                while said.len() < MAX_REFUSAL
                    && let Some(Ok(frame)) = leased.frame().await
                {
                    said.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
            };
            // What comes later is not looked at.
            let _in_time = tokio::time::timeout(REFUSAL_WAIT, read).await;
            let said = said.freeze();
            let forgotten = mcp::is_session_unknown(&said);
            response.body_mut().put_back(said);
            forgotten
        }
        _ => false,
    };
    if forgotten {
        return Err(response.into_body().into_request(upload));
    }
    Ok(response)
}
