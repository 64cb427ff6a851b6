//! What is to be done with a response while it passes, decided from the headers of both messages.
//!
//! Pure: reads headers, the route and the time of arrival; touches no body.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::task::TaskWatch;
use super::timeouts::BodyTimeouts;
use crate::body::Upload;
use crate::drain::Watch;
use crate::headers::names::Known;
use crate::headers::noted::Noted;
use crate::protocol::batch::BatchScanner;
use crate::protocol::jsonrpc::messages;
use crate::protocol::mcp::{self, StandIn};
use crate::protocol::subscription::Subscription;
use crate::proxy::call::Kind;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::{Again, Way};
use crate::route::Route;
use crate::session::Sessions;
use crate::session::token::TokenId;
use crate::workers::near::Near;

/// What is to be done.
#[derive(Debug)]
pub struct RelayPlan {
    /// What kind of call it turned out to be.
    pub kind: Kind,
    /// Limits and the keep-alive time.
    pub limits: BodyTimeouts,
    /// It is a 200.
    is_ok: bool,
    /// Its body is in a coding, and cannot be read.
    pub encoded: bool,
    /// How the stream is opened again whose backend has left it.
    pub again: Option<Again>,
    /// For a `text/event-stream` that is not encoded; boxed, for it is large.
    pub events: Option<Box<EventPlan>>,
    /// For a response that may begin a task.
    pub task: Option<Box<TaskWatch>>,
}

/// What is to be done with an event stream.
#[derive(Debug)]
pub struct EventPlan {
    /// Something may be added to the stream.
    pub open: bool,
    /// A GET that carries a session: it may end cleanly between events, since its client re-opens it.
    pub standalone: Option<Watch>,
    /// The subscription whose events it brings, which a drain ends in order.
    pub subscription: Option<Box<(Watch, Subscription)>>,
    /// The call that the stream answers, as far as it is one that can be answered in its server's place.
    pub awaited: Option<Awaited>,
    /// It begins behind an event that the client has named.
    pub resumes: bool,
    /// The stream may begin with a legacy `endpoint` event.
    pub legacy: Option<Legacy>,
}

/// What becomes of the URL of a legacy `endpoint` event.
#[derive(Debug)]
pub struct Legacy {
    /// Judges whether it leads to the backend.
    pub way: Way,
    /// Goes into it.
    pub pin: Option<HeaderValue>,
}

/// A request, or a batch, that an event stream answers.
#[derive(Debug)]
pub struct Awaited {
    /// What goes out if the stream ends without an answer; several if it answers a batch.
    pub answers: Vec<StandIn>,
    /// Looks at which of a batch are answered.
    pub batch: Option<Box<BatchScanner>>,
    /// The session that it belongs to, if the proxy looks after that, and since when it has lived there.
    pub session: Option<(Arc<Sessions>, TokenId, u64)>,
    /// The event that the stream begins behind.
    pub behind: Option<HeaderValue>,
    /// Counts it.
    pub route: Near<Route>,
}

// === impl RelayPlan ===

impl RelayPlan {
    /// The plan for a response with this head, of whose fields this was noted; `started` is the request's
    /// arrival.
    #[must_use]
    pub fn new<B>(
        (head, noted): (&Response<B>, Noted),
        facts: &Facts,
        way: &Way,
        watch: &Watch,
        started: Instant,
    ) -> Self {
        let Noted { names, is_events: events, .. } = noted;
        let kind = if events || facts.is_grpc_stream { Kind::Stream } else { Kind::Unary };
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
        let event_plan = || EventPlan {
            open,
            standalone: (get && facts.session.is_some()).then(|| watch.clone()),
            subscription: None,
            awaited: None,
            resumes: facts.has_last_event_id,
            legacy: (get && facts.session.is_none() && !facts.has_last_event_id)
                .then(|| Legacy { way: way.clone(), pin: None }),
        };
        Self {
            kind,
            is_ok: head.status() == StatusCode::OK,
            encoded,
            again: way.session.as_ref().filter(|_| open).and_then(|session| session.again.clone()),
            limits: BodyTimeouts {
                keep_alive,
                ..BodyTimeouts::of(kind.limits(&to.timeouts), started)
            },
            events: (events && !encoded).then(|| Box::new(event_plan())),
            task: None,
        }
    }

    /// The plan for a session's own stream whose backend's is still to come.
    #[must_use]
    pub fn held(way: &Way, watch: &Watch, started: Instant) -> Self {
        let (kind, to) = (Kind::Stream, &way.route.config.to);
        let keep_alive = Some(to.keep_alive).filter(|time| !time.is_zero());
        let limits = BodyTimeouts::of(kind.limits(&to.timeouts), started);
        Self {
            kind,
            is_ok: true,
            encoded: false,
            again: way.session.as_ref().and_then(|session| session.again.clone()),
            limits: BodyTimeouts { keep_alive, ..limits },
            events: Some(Box::new(EventPlan {
                open: true,
                standalone: Some(watch.clone()),
                subscription: None,
                awaited: None,
                resumes: false,
                legacy: None,
            })),
            task: None,
        }
    }

    /// The request's body has done its duty: what has to be known of it, if it is a call that the stream is to
    /// answer, is kept, and the rest forgotten.
    pub fn await_answer(
        &mut self,
        way: &Way,
        upload: &Upload,
        (sessions, watch): (&Arc<Sessions>, &Watch),
    ) {
        let session = way.session.as_deref();
        let resumed = session.and_then(|session| Some((session.id, session.resumes.as_ref()?)));
        let is_ok = self.is_ok;
        match (self.events.as_mut().filter(|events| is_ok && events.legacy.is_none()), resumed) {
            (Some(events), Some((_, call))) => {
                // Not the session's own.
                events.standalone = None;
                let behind = HeaderValue::from_bytes(&call.event).ok();
                events.awaited = Some(awaited(call.answers.clone(), behind, way, sessions));
            }
            // In a coding nothing can be seen, neither the answer nor the end of what the client has read.
            (None, Some((id, call))) => sessions.unanswered.keep(id, call.clone()),
            (Some(events), None) if events.standalone.is_none() => {
                let asked = upload.tap.all();
                let messages = messages(&asked);
                let subscription = Subscription::of(&messages);
                if subscription.is_some() {
                    // Such a stream is silent for as long as nothing changes.
                    self.limits.idle = None;
                }
                let subscription = subscription.filter(|_| events.open);
                events.subscription = subscription.map(|seen| Box::new((watch.clone(), seen)));
                // Of a stream to which nothing may be added the client may still ask for the rest.
                if session.is_some() || events.open && messages.iter().any(mcp::is_call) {
                    let answers = mcp::stand_ins(&messages, &way.route.config.host);
                    let is_waited_for = !answers.is_empty();
                    events.awaited = is_waited_for.then(|| awaited(answers, None, way, sessions));
                }
            }
            // In a coding too, where it cannot be ended in order.
            (None, None)
                if is_ok
                    && self.kind == Kind::Stream
                    && Subscription::of(&messages(&upload.tap.all())).is_some() =>
            {
                self.limits.idle = None;
            }
            _ => {}
        }
        if self.again.is_none() {
            upload.tap.forget();
        }
    }
}

fn awaited(
    answers: Vec<StandIn>,
    behind: Option<HeaderValue>,
    way: &Way,
    sessions: &Arc<Sessions>,
) -> Awaited {
    let session = way.session.as_ref();
    let session = session.map(|session| (Arc::clone(sessions), session.id, session.since));
    let batch = (answers.len() > 1).then(Box::default);
    Awaited { answers, batch, session, behind, route: way.route.clone() }
}
