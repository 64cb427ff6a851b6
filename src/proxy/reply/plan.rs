//! What is to be done with a response while it passes, decided from the headers of both messages.
//!
//! Pure: reads headers, the route and the time of arrival; touches no body.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;

use super::timeouts::BodyTimeouts;
use crate::drain::Watch;
use crate::headers::names::{Known, Names};
use crate::proxy::call::Kind;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;

/// What is to be done.
#[derive(Debug)]
pub struct RelayPlan {
    /// What kind of call it turned out to be.
    pub kind: Kind,
    /// Limits and the keep-alive time.
    pub limits: BodyTimeouts,
    /// For a `text/event-stream` that is not encoded.
    pub events: Option<EventPlan>,
}

/// What is to be done with an event stream.
#[derive(Debug)]
pub struct EventPlan {
    /// A GET that carries a session: it may end cleanly between events, since its client re-opens it.
    pub standalone: Option<Watch>,
    /// The stream may begin with a legacy `endpoint` event, whose URL is judged by this.
    pub legacy: Option<Way>,
}

// === impl RelayPlan ===

impl RelayPlan {
    /// The plan for a response with this head, whose fields had these names; `started` is the request's
    /// arrival.
    #[must_use]
    pub fn new<B>(
        (head, names): (&Response<B>, Names),
        facts: &Facts,
        way: &Way,
        watch: &Watch,
        started: Instant,
    ) -> Self {
        let events = names.has(Known::ContentType) && is_event_stream(head.headers());
        let kind = if events { Kind::Stream } else { Kind::Unary };
        let to = &way.route.config.to;
        let has = |known, name| names.has(known) && head.headers().contains_key(name);
        let encoded = has(Known::ContentEncoding, CONTENT_ENCODING);
        // Only to such a body may anything be added (D15).
        let open = events
            && !encoded
            && head.status() == StatusCode::OK
            && !has(Known::ContentLength, CONTENT_LENGTH);
        let keep_alive = Some(to.keep_alive).filter(|time| open && !time.is_zero());
        let get = open && facts.is_get;
        let event_plan = EventPlan {
            standalone: (get && facts.session.is_some()).then(|| watch.clone()),
            legacy: (get && facts.session.is_none() && !facts.has_last_event_id)
                .then(|| way.clone()),
        };
        Self {
            kind,
            limits: BodyTimeouts {
                keep_alive,
                ..BodyTimeouts::of(kind.limits(&to.timeouts), started)
            },
            events: (events && !encoded).then_some(event_plan),
        }
    }
}

/// Whether a message is `text/event-stream`, with parameters or without.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..17));
    value.is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}
