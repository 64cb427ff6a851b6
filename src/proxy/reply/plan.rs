//! What is to be done with an answer while it passes, decided from the heads of both messages.
//!
//! Pure: reads heads, the route and the clock's start; touches no body. `proxy/stream.rs` carries it out.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, response};
use tokio::time::Instant;

use crate::drain::Watch;
use crate::proxy::reply::timeouts::ClockLimits;
use crate::proxy::request::facts::{Facts, Kind};
use crate::route::{Route, RouteTable};

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// What kind of call it turned out to be.
    pub kind: Kind,
    /// Limits and the keep-alive time.
    pub limits: ClockLimits,
    /// For a `text/event-stream` that is not encoded.
    pub events: Option<EventPlan>,
}

/// What is to be done with an event stream.
#[derive(Debug)]
pub struct EventPlan {
    /// A GET that carries a session: it may end cleanly between events, since its client re-opens it.
    pub standalone: Option<Watch>,
    /// The stream may begin with a legacy `endpoint` event, whose URL these judge.
    pub legacy: Option<(Arc<RouteTable>, Arc<Route>)>,
}

// === impl Plan ===

impl Plan {
    /// The plan for an answer with this head; `started` is the request's arrival.
    #[must_use]
    pub fn new(
        head: &response::Parts,
        facts: &Facts,
        (table, route): (&Arc<RouteTable>, &Arc<Route>),
        watch: &Watch,
        started: Instant,
    ) -> Self {
        let events = is_event_stream(&head.headers);
        let kind = if events { Kind::Stream } else { Kind::Unary };
        let to = &route.config.to;
        let encoded = head.headers.contains_key(CONTENT_ENCODING);
        // Only to such a body may anything be added (D15).
        let open = events
            && !encoded
            && head.status == StatusCode::OK
            && !head.headers.contains_key(CONTENT_LENGTH);
        let keep_alive = Some(to.keep_alive).filter(|time| open && !time.is_zero());
        let get = open && facts.get;
        let event_plan = EventPlan {
            standalone: (get && facts.session).then(|| watch.clone()),
            legacy: (get && !facts.session && !facts.resumes)
                .then(|| (Arc::clone(table), Arc::clone(route))),
        };
        Self {
            kind,
            limits: ClockLimits {
                keep_alive,
                ..ClockLimits::of(kind.limits(&to.timeouts), started)
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
