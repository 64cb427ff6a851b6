//! What a request is answered with where no backend's response can be had, and an error would do harm.
//!
//! Plain data, and the events that carry it. Knows no status and no bytes of HTTP.

use super::way::{Reopening, Way};
use crate::protocol::mcp::StandIn;
use crate::protocol::sse::message_event;
use crate::route::Route;
use crate::telemetry::family::SessionEvent;

/// What is answered.
#[derive(Debug)]
pub enum Instead {
    /// There is no such session; clients that lose more by that are told of a bad request.
    NoSession {
        /// The client is such a one.
        bad_request: bool,
    },
    /// The session has ended.
    Ended,
    /// The message is taken; nobody waits for what becomes of it.
    Taken,
    /// Sessions have no event stream of their own here.
    NoStream,
    /// This JSON-RPC response.
    Answer(String),
    /// A stream of these events.
    Events(String),
    /// An event stream that begins when its backend's does. A client that was refused twice would never ask again.
    Held(Reopening, Box<Way>),
}

/// What was done for a session while a request of it was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Care {
    /// Nothing out of the ordinary.
    #[default]
    None,
    /// The session began.
    Opened,
    /// The request was sent once more to its server, on another connection.
    Replayed,
    /// The session was begun anew, and the request sent by it.
    Revived,
    /// The request was answered in its server's place.
    Lost,
}

/// Events that answer calls in the place of their server, each of them counted for the route.
#[must_use]
pub fn events(answers: &[StandIn], route: &Route) -> String {
    let each = answers.iter().inspect(|_| route.metrics.session(SessionEvent::AnsweredLost));
    each.map(|one| message_event(&one.answer)).collect()
}

// === impl Care ===

impl Care {
    /// The word of the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Opened => "opened",
            Self::Replayed => "replayed",
            Self::Revived => "revived",
            Self::Lost => "lost",
        }
    }
}
