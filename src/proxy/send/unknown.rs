//! Whether a server knows a session, by what it answers.
//!
//! Reads no more of a response than it needs, and gives back what it has read. Decides nothing about the session.

use std::time::Duration;

use bytes::BytesMut;
use http::{Response, StatusCode};
use http_body_util::BodyExt;

use crate::body::Upload;
use crate::protocol::jsonrpc::{Message, is_same_id};
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

/// Whether a response with such a status says that its server does not know the session. An error that answers the
/// request by its id is about the request.
pub async fn is_unknown(response: &mut Response<Leased>, upload: &Upload) -> bool {
    if response.status() == StatusCode::NOT_FOUND {
        return true;
    }
    let leased = response.body_mut();
    let mut said = BytesMut::new();
    let read = async {
        while said.len() < MAX_REFUSAL {
            match leased.frame().await {
                Some(Ok(frame)) => {
                    said.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    };
    // Only what says nothing else counts; what comes later is not looked at.
    let is_whole = tokio::time::timeout(REFUSAL_WAIT, read).await.unwrap_or(false);
    let said = said.freeze();
    let asked = upload.tap.all();
    let (asked, answered) = (Message::read(&asked).id, Message::read(&said).id);
    let about_it =
        answered.zip(asked).is_some_and(|(id, asked)| id != "null" && is_same_id(id, asked));
    let unknown = is_whole && !about_it && mcp::is_session_unknown(&said);
    response.body_mut().put_back(said);
    unknown
}
