//! What a session is begun anew with: messages of our own in its client's name, and how their answers are read.
//!
//! Knows no endpoint and no session; sends nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;

use crate::body::RequestBody;
use crate::headers;
use crate::protocol::mcp::{self, Initialized};
use crate::upstream::Leased;

/// Bytes that are read of an answer to `initialize`.
const MAX_ANSWER: usize = 1024 * 1024;
/// How long the rest of a response is read, so that its connection can be used again.
const REST: Duration = Duration::from_millis(200);

/// Fields of the client's request that say something of that request only.
const OF_THE_REQUEST: [HeaderName; 11] = [
    headers::MCP_SESSION_ID,
    headers::LAST_EVENT_ID,
    headers::MCP_PROTOCOL_VERSION,
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    TRAILER,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];

/// A message of our own in the client's name.
pub fn message(head: &HeaderMap, json: String) -> Box<Request<RequestBody>> {
    let body = RequestBody::own(Bytes::from(json), Arc::default());
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    let map = request.headers_mut();
    *map = head.clone();
    for name in &OF_THE_REQUEST {
        map.remove(name);
    }
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    map.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Box::new(request)
}

/// What the server says to the `initialize` called `id`; `None` if it breaks off before.
pub async fn answer(response: &mut Response<Leased>, id: &str) -> Option<Initialized> {
    let events = headers::is_event_stream(response.headers());
    let mut body = BytesMut::new();
    while body.len() < MAX_ANSWER {
        let frame = response.body_mut().frame().await;
        let ended = frame.is_none();
        if let Some(frame) = frame {
            body.extend_from_slice(frame.ok()?.data_ref().map_or(&[], |data| data));
        }
        if (events || ended)
            && let Some(answer) = mcp::initialize_answer(&body, events, id)
        {
            return Some(answer);
        }
        if ended {
            // It has said something else, and would again.
            return Some(Initialized::Refused);
        }
    }
    Some(Initialized::Refused)
}

/// Reads what is left, so that the connection can be used again.
pub async fn drain(response: Response<Leased>) {
    let mut leased = response.into_body();
    let rest = async {
        while let Some(frame) = leased.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    if tokio::time::timeout(REST, rest).await == Ok(true) {
        leased.recycle();
    }
}

/// Whether a server that takes `version` is one that the client can go on with: the one with which the session `began`;
/// where that is not known, the one it has been speaking (`MCP-Protocol-Version`, sent from 2025-06-18 on), or one from
/// before that header.
pub fn agrees(
    version: &str,
    began: Option<&str>,
    spoken: Option<&HeaderValue>,
    params: &str,
) -> bool {
    match (began, spoken) {
        (Some(began), _) => began == version,
        (None, Some(spoken)) => spoken == version,
        (None, None) => {
            version <= "2025-03-26" || mcp::asked_version(params).as_deref() == Some(version)
        }
    }
}
