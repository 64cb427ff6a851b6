//! What a session is called in responses: by its token, which the client keeps for the session's whole life, and
//! never by its server's own id.
//!
//! Changes one header. Never reads a response's body.

use http::{HeaderValue, Response, StatusCode};

use crate::body::Upload;
use crate::config::SessionMode;
use crate::headers::MCP_SESSION_ID;
use crate::headers::names::Known;
use crate::protocol::mcp::{Initialized, chosen_version, initialize_params};
use crate::proxy::instead::Care;
use crate::proxy::record::Recorder;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::session::{Birth, Sessions};
use crate::telemetry::family::SessionEvent;
use crate::upstream::Leased;

/// Puts the token in place of the server's id, if the response has one. A session begins with the response to a
/// request that had none (MCP 2025-11-25, "Session Management").
pub fn name(
    response: &mut Response<Leased>,
    (facts, way): (&Facts, &Way),
    sessions: &Sessions,
    record: &mut Recorder,
) {
    if way.session.is_none() && facts.session.is_some() {
        // The client has its id from a time before the proxy.
        return;
    }
    if !response.body().noted().names.has(Known::McpSessionId) {
        return;
    }
    let Some(id) = response.headers().get(MCP_SESSION_ID) else { return };
    let token = match &way.session {
        // A legacy server's own; one that has been named to the server stays here.
        Some(session) if session.token.is_none() && session.server_id.is_none() => return,
        Some(session) => session.token.clone(),
        None if way.route.config.to.sessions == SessionMode::Pass => return,
        // TypeScript 1.x takes an id from any response, and would keep that of a failed request.
        None if !is_success(response.status()) => None,
        None => {
            let birth = Birth {
                route: &way.route.identity,
                endpoint: response.body().endpoint().id(),
                id,
                caller: way.caller.as_ref().map(|caller| caller.label.to_string()),
                params: params(record.upload()),
                version: version(response),
            };
            let Some((token, short)) = sessions.begin(birth) else { return };
            record.in_session(short.short());
            record.cared(Care::Opened);
            way.route.metrics.session(SessionEvent::Opened);
            Some(token)
        }
    };
    match token {
        Some(token) => drop(response.headers_mut().insert(MCP_SESSION_ID, token)),
        None => drop(response.headers_mut().remove(MCP_SESSION_ID)),
    }
}

/// The token for the stream of a legacy client, whose posts shall reach the same endpoint. `None` where sessions
/// pass.
#[must_use]
pub fn pin(response: &Response<Leased>, way: &Way, sessions: &Sessions) -> Option<HeaderValue> {
    if way.route.config.to.sessions == SessionMode::Pass {
        return None;
    }
    let birth = Birth {
        route: &way.route.identity,
        endpoint: response.body().endpoint().id(),
        id: &HeaderValue::from_static(""),
        caller: way.caller.as_ref().map(|caller| caller.label.to_string()),
        params: None,
        version: None,
    };
    sessions.begin(birth).map(|(token, _)| token)
}

fn is_success(status: StatusCode) -> bool {
    status.is_success()
}

/// What the server has chosen, where so much of its answer has been read.
fn version(response: &Response<Leased>) -> Option<String> {
    let events = response.body().noted().is_events;
    match chosen_version(response.body().read(), events)? {
        Initialized::Version(version) => Some(version),
        Initialized::Refused => None,
    }
}

fn params(upload: &Upload) -> Option<String> {
    initialize_params(&upload.replay()?)
}
