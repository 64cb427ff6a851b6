//! A request with its whole body here, so that it can be sent once more.
//!
//! Reads what a client sends within a bound of bytes and of time. Knows no session and no endpoint.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body::Body;

use crate::body::replay::MAX_REPLAY;
use crate::body::{RequestBody, Upload};
use crate::upstream::Leased;

/// How long a client may take to send what has to be sent again.
const GATHER_WAIT: Duration = Duration::from_secs(10);

/// The request of a response that is given up, with what is left of its body; `None` if its server goes on reading that
/// for too long.
pub async fn taken_back(leased: Leased, upload: &Arc<Upload>) -> Option<Box<Request<RequestBody>>> {
    tokio::time::timeout(GATHER_WAIT, leased.into_unfinished(upload)).await.ok()?
}

/// The request with its whole body here, to be sent once or again; `None` if it is too large to be remembered, or
/// never ends. One of which nothing has been read, and that would not be remembered, is left as it is.
pub async fn gathered(
    request: Box<Request<RequestBody>>,
    upload: &Upload,
) -> Option<Box<Request<RequestBody>>> {
    let large = request.body().size_hint().exact().is_some_and(|size| size > MAX_REPLAY as u64);
    if upload.progress.bytes() == 0 && (large || !upload.tap.is_listening()) {
        return Some(request);
    }
    let (head, body) = request.into_parts();
    match body.gather(GATHER_WAIT).await {
        Ok(body) => Some(Box::new(Request::from_parts(head, body))),
        Err(rest) => {
            rest.discard();
            None
        }
    }
}
