//! What another replica asks about a session. Who has no key of sessions is not heard.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Admin;
use super::answer::text;
use crate::session::peers;

pub(super) async fn peer(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let letter = headers.get(peers::LETTER).map(HeaderValue::as_bytes).unwrap_or_default();
    let sealed = URL_SAFE_NO_PAD.decode(letter).ok();
    match sealed.and_then(|mut sealed| admin.sessions.hear(&mut sealed)) {
        Some(answer) => text(StatusCode::OK, URL_SAFE_NO_PAD.encode(answer)),
        None => text(
            StatusCode::FORBIDDEN,
            "refused: only replicas with the same sessions.keyFiles and a clock within a minute are heard\n",
        ),
    }
}
