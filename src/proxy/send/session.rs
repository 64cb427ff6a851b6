//! A session's request on its way to where the session lives, and what becomes of it when that is gone.
//!
//! What surely did not run is sent again by the session that was begun anew; what may have run is not, but where
//! that does no harm. Reads no response beyond what says that a session is unknown.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};

use super::attempt::{Failure, attempt};
use super::begin::drain;
use super::course::{Course, MAX_CLOSED, MAX_MOVES};
use super::delivered::Delivered;
use super::gather::{gathered, taken_back};
use super::revive::{Found, NotRevived, Reviver};
use super::trip::{Cause, Trip};
use super::unknown::{is_unknown, may_deny};
use super::whole::{is_awaited, whole};
use crate::body::{RequestBody, Upload};
use crate::config::{KagentHost, SessionMode, StandaloneGet};
use crate::headers;
use crate::protocol::jsonrpc::{Message, is_one_way};
use crate::protocol::mcp;
use crate::proxy::call::Kind;
use crate::proxy::error::{ProxyError, Refused};
use crate::proxy::instead::{Care, Instead};
use crate::proxy::record::Recorder;
use crate::proxy::request::conn::Connection;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::{InSession, Way};
use crate::session::{Admission, Ticket};
use crate::telemetry::family::SessionEvent;
use crate::upstream::Leased;

type Boxed = Box<Request<RequestBody>>;

/// Delivers the requests of sessions.
#[derive(Debug)]
pub struct SessionDelivery {
    pub(super) reviver: Reviver,
}

/// How a trip ends without a response.
pub(super) enum End {
    /// Whether it ran is not known.
    Unknown(ProxyError),
    /// It did not run, and the session is gone.
    Gone(Boxed),
    /// It did not run, and no session can take its place.
    NoSession,
    /// It did not run, and cannot be sent again; the session may go on.
    TooLarge,
    /// It did not run; there was no server in time.
    Unavailable,
    /// The client itself broke off.
    Client(ProxyError),
}

/// Why one try brought no response.
enum Tried {
    /// The connection closed, and the request may be sent again.
    Closed(Boxed),
    /// The session's server is not there.
    Lost(Boxed, Cause),
    /// It answers that it does not know the session.
    Denied(Box<Response<Leased>>),
    /// It answers that the session's own stream is open already.
    Occupied(Box<Response<Leased>>),
    /// The request is gone.
    Over(End),
}

/// Why a request gets no other home.
enum Homeless {
    /// This is the client's.
    Answered(Box<Response<Leased>>),
    /// Its trip ends.
    End(End),
}

impl From<End> for Homeless {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

// === impl Homeless ===

impl Homeless {
    /// What the trip ends with.
    fn ends(self) -> Result<Response<Leased>, End> {
        match self {
            Self::Answered(response) => Ok(*response),
            Self::End(end) => Err(end),
        }
    }
}

// === impl SessionDelivery ===

impl SessionDelivery {
    /// By what begins sessions anew.
    #[must_use]
    pub fn new(reviver: Reviver) -> Self {
        Self { reviver }
    }

    /// The session that a request belongs to, if the proxy looks after it.
    ///
    /// # Errors
    /// Its token does not count here, or sessions have no stream of their own: nothing is dialled.
    pub fn ticket(&self, way: &Way, facts: &Facts) -> Result<Option<Box<Ticket>>, Instead> {
        let Some(token) = facts.pin.as_ref().or(facts.session.as_ref()) else { return Ok(None) };
        if is_refused_stream(way, facts) {
            return Err(Instead::NoStream);
        }
        if way.route.config.to.kagent_host == KagentHost::Pass {
            // The next proxy's, also where both have the same key.
            return Ok(None);
        }
        let config = &way.route.config;
        let caller = way.caller.as_ref().map(|caller| (&*caller.id.namespace, &*caller.id.name));
        match self.reviver.sessions.admit(token, &way.route.identity, caller) {
            Admission::Foreign => Ok(None),
            // It may be another proxy's behind us; ours reaches no server.
            Admission::Refused(no) if no.other_key && config.to.sessions == SessionMode::Pass => {
                Ok(None)
            }
            Admission::Refused(no) => {
                tracing::debug!(
                    host = config.host,
                    why = no.why,
                    "a session's token does not count"
                );
                let cause = if no.ended { "ended" } else { "bad_token" };
                way.route.metrics.session(SessionEvent::Lost(cause));
                let params = no.session.as_ref().and_then(|session| session.params.as_deref());
                Err(Instead::NoSession { bad_request: params.is_some_and(mcp::is_python_1) })
            }
            Admission::Admitted(ticket) => Ok(Some(ticket)),
        }
    }

    /// Gets a session's request to the session, wherever that lives by now.
    ///
    /// # Errors
    /// [`Refused`]: it has no message that could be answered.
    pub async fn deliver(
        self: &Arc<Self>,
        conn: &Arc<Connection>,
        facts: &Arc<Facts>,
        (way, ticket): (Way, Box<Ticket>),
        request: Boxed,
        record: &mut Recorder,
    ) -> Result<Delivered, Refused> {
        let upload = Arc::clone(request.body().upload());
        let mut trip = Trip {
            conn: Arc::clone(conn),
            facts: Arc::clone(facts),
            way,
            ticket,
            started: record.started(),
            care: Care::None,
            was_open: false,
            behind: None,
            is_new: true,
        };
        trip.way.route.metrics.session(SessionEvent::Carried);
        record.in_session(trip.ticket.id.short());
        record.enter(&trip.way, facts.kind);
        let reopened = is_own_stream(facts);
        // Boxed, for it is rare.
        if facts.has_last_event_id
            && let Some(event) = request.headers().get(headers::LAST_EVENT_ID).cloned()
            && let Some(asked) = Box::pin(self.resumed(&trip, &event)).await
        {
            return Box::pin(self.resume(trip, request, asked, record)).await;
        }
        let ended = match self.carry(&mut trip, request, !reopened).await {
            Ok(response) => return Ok(self.arrived(response, trip, &upload, record)),
            Err(End::Gone(request)) if reopened => {
                // Boxed, for it is rare.
                return Box::pin(self.reopen(trip, request, record)).await;
            }
            Err(ended) => ended,
        };
        record.cared(Care::Lost);
        self.stand_in(ended, &trip, &upload)
    }

    pub(super) fn arrived(
        self: &Arc<Self>,
        mut response: Response<Leased>,
        mut trip: Trip,
        upload: &Arc<Upload>,
        record: &mut Recorder,
    ) -> Delivered {
        record.enter(&trip.way, trip.facts.kind);
        record.on_connection(response.body().since());
        record.cared(trip.care);
        let streams = response.status() == StatusCode::OK
            && response.body().noted().is_events
            && is_revivable(&trip);
        if streams && (is_own_stream(&trip.facts) || is_harmless(upload)) {
            let session = trip.way.session.take();
            let again = self.again(&trip, upload);
            trip.way.session = session.map(|session| Box::new(InSession { again, ..*session }));
        } else {
            response.body_mut().forget_request();
        }
        Delivered::Response(response, trip.way)
    }

    /// Carries the request until it is answered; a session that is gone begins anew if `revive`.
    pub(super) async fn carry(
        &self,
        trip: &mut Trip,
        mut request: Boxed,
        revive: bool,
    ) -> Result<Response<Leased>, End> {
        let upload = Arc::clone(request.body().upload());
        let mut course = Course::default();
        loop {
            let cause;
            (request, cause) = match self.try_home(trip, request, course.fresh).await {
                Ok(response) => {
                    self.note_end(trip, &response);
                    return Ok(response);
                }
                // A session that has just begun is known: that is what the server answers to this request.
                Err(Tried::Denied(response)) if course.begun || course.moves == MAX_MOVES => {
                    return Ok(*response);
                }
                Err(Tried::Denied(response)) => {
                    match taken_back(response.into_body(), &upload).await {
                        Some(request) => (request, Cause::Forgotten),
                        None => return Err(End::TooLarge),
                    }
                }
                Err(Tried::Closed(again)) => {
                    // An idle connection that closed says nothing of the session; one that was opened for it may
                    // be the last of a server that is about to end, which shows a moment later.
                    trip.replay();
                    if let Some(pause) = course.until_sent() {
                        tokio::time::sleep(pause).await;
                    }
                    (request, course.fresh) = (again, course.fresh + 1);
                    continue;
                }
                Err(Tried::Occupied(response)) => {
                    // Boxed, for it is rare.
                    let free =
                        Box::pin(self.until_free(trip, (response, &upload), &mut course)).await;
                    request = match free {
                        Ok(request) => request,
                        Err(homeless) => return homeless.ends(),
                    };
                    continue;
                }
                Err(Tried::Lost(request, cause)) => (request, cause),
                Err(Tried::Over(end)) => return Err(end),
            };
            // Boxed, for it is rare.
            let found = Box::pin(self.find_home(trip, (request, cause), revive, &mut course));
            request = match found.await {
                Ok(request) => request,
                Err(homeless) => return homeless.ends(),
            };
        }
    }

    /// Waits a while for a session's own stream that its server has open already, as this response says; the request to
    /// be sent once more.
    async fn until_free(
        &self,
        trip: &mut Trip,
        (mut response, upload): (Box<Response<Leased>>, &Arc<Upload>),
        course: &mut Course,
    ) -> Result<Boxed, Homeless> {
        let place = self.reviver.holds.enter_in_session(trip.ticket.id);
        let pause = course.until_free(trip.way.route.config.to.hold.session);
        let Some((_place, pause)) = place.zip(pause) else {
            return Err(Homeless::Answered(response));
        };
        let request = response.body_mut().take_request(upload).ok_or(End::TooLarge)?;
        drain(*response).await;
        trip.replay();
        tokio::time::sleep(pause).await;
        Ok(request)
    }

    /// Finds the session of a request that did not run another home, or begins it anew if `revive`; the request to be
    /// sent there.
    async fn find_home(
        &self,
        trip: &mut Trip,
        (request, cause): (Boxed, Cause),
        revive: bool,
        course: &mut Course,
    ) -> Result<Boxed, Homeless> {
        if cause == Cause::OurOwn {
            return Err(End::Unavailable.into());
        }
        let upload = Arc::clone(request.body().upload());
        let Some(mut request) = gathered(request, &upload).await else {
            return Err(End::TooLarge.into());
        };
        if !revive || course.moves == MAX_MOVES {
            return Err(End::Gone(request).into());
        }
        let sessions = &self.reviver.sessions;
        let one_way = is_post(&request) && is_one_way(&upload.tap.all());
        if trip.facts.is_delete || one_way {
            // Nothing begins anew for it, and yet it is meant for a session that may live.
            match sessions.find(trip.ticket.id, &trip.ticket.home).await {
                Some(home) => trip.ticket.home = home,
                None => return Err(End::Gone(request).into()),
            }
            (course.fresh, course.moves) = (0, course.moves + 1);
            return Ok(request);
        }
        if !is_revivable(trip) {
            return Err(End::NoSession.into());
        }
        if is_own_stream(&trip.facts) && cause == Cause::Forgotten && !trip.was_open {
            // Some servers have no such stream, and a session that nobody calls need not live: unless a stream
            // was there before, it begins when a call has brought the session back.
            let slot = sessions.homes.follow(trip.ticket.id);
            let is_ended = || sessions.homes.is_ended(trip.ticket.id);
            // What follows one that has ended is told of nothing.
            if !is_ended() {
                slot.leaves(trip.ticket.home.since).await;
            }
            return if is_ended() { Err(End::NoSession.into()) } else { Ok(request) };
        }
        let found = self.reviver.revive(trip, request.headers(), cause).await;
        course.begun = match found {
            Ok(found) => found == Found::Begun,
            Err(NotRevived::Refused(response)) => {
                trip.way.route.metrics.session(SessionEvent::Lost("refused"));
                return Err(Homeless::Answered(response));
            }
            Err(NotRevived::SentOn(response)) => return Err(Homeless::Answered(response)),
            Err(NotRevived::NoSession) => return Err(End::NoSession.into()),
            Err(NotRevived::Unavailable) => return Err(End::Unavailable.into()),
        };
        trip.care = Care::Revived;
        // Ids of events were those of the server that is gone.
        request.headers_mut().remove(headers::LAST_EVENT_ID);
        (course.fresh, course.moves) = (0, course.moves + 1);
        Ok(request)
    }

    /// One try, where the session lives as far as is known; on a new connection behind one that has closed, and this is
    /// the `fresh`th of those.
    async fn try_home(
        &self,
        trip: &mut Trip,
        mut request: Boxed,
        fresh: u32,
    ) -> Result<Response<Leased>, Tried> {
        let upload = Arc::clone(request.body().upload());
        let lease = match self.home(trip, fresh > 0).await {
            Ok(lease) => lease,
            Err(cause) => return Err(Tried::Lost(request, cause)),
        };
        if trip.behind.is_some_and(|since| since != trip.ticket.home.since) {
            // The event is another server's.
            request.headers_mut().remove(headers::LAST_EVENT_ID);
        }
        let Trip { way, facts, started, .. } = &*trip;
        let age = lease.since.saturating_duration_since(*started);
        let failure = match attempt(way, facts, lease, age, request).await {
            Ok(response) if is_own_stream(facts) && response.status() == StatusCode::CONFLICT => {
                return Err(Tried::Occupied(Box::new(response)));
            }
            // What a legacy server says to a message is the client's.
            Ok(response) if facts.pin.is_some() || !may_deny(response.status()) => {
                if !is_awaited(&response) {
                    return Ok(response);
                }
                // Boxed, as waiting is.
                match Box::pin(whole(response, &upload, way)).await {
                    Ok(response) => return Ok(response),
                    Err(failure) => failure,
                }
            }
            Ok(mut response) => {
                let denied = is_unknown(&mut response, &upload).await;
                return if denied { Err(Tried::Denied(Box::new(response))) } else { Ok(response) };
            }
            Err(failure) => failure,
        };
        Err(match failure {
            Failure::Unreachable(request, _) => Tried::Lost(request, Cause::Unreachable),
            // It stands and breaks this request: that is no loss of the session.
            Failure::Broken(broken) if fresh == MAX_CLOSED && broken.written => {
                Tried::Over(End::Unknown(broken.error))
            }
            Failure::Broken(broken) if fresh == MAX_CLOSED => {
                Tried::Lost(broken.request, Cause::Unreachable)
            }
            Failure::Broken(broken) => Tried::Closed(broken.request),
            Failure::Over(error @ ProxyError::BrokenBody(_)) => Tried::Over(End::Client(error)),
            Failure::Over(error) => Tried::Over(End::Unknown(error)),
        })
    }

    /// A session that its client has ended is forgotten.
    fn note_end(&self, trip: &Trip, response: &Response<Leased>) {
        if trip.facts.is_delete && response.status().is_success() {
            self.close(trip);
        }
    }

    /// Its client wants the session no more.
    pub(super) fn close(&self, trip: &Trip) {
        self.reviver.sessions.end(trip.ticket.id);
        trip.way.route.metrics.session(SessionEvent::Closed);
    }
}

/// Whether a session's own stream is refused on this route.
fn is_refused_stream(way: &Way, facts: &Facts) -> bool {
    facts.is_get
        && facts.kind == Kind::Stream
        && facts.session.is_some()
        && !facts.has_last_event_id
        && way.route.config.to.standalone_get == StandaloneGet::Refuse
}

/// Whether it opens a session's own event stream.
pub(super) fn is_own_stream(facts: &Facts) -> bool {
    facts.is_get && facts.kind == Kind::Stream
}

/// Whether the client's message may be sent twice, whatever became of it.
fn is_harmless(upload: &Upload) -> bool {
    let start = upload.tap.start().unwrap_or_default();
    Message::read(&start).method.is_some_and(|method| mcp::may_repeat(&method))
}

pub(super) fn is_revivable(trip: &Trip) -> bool {
    let mode = trip.way.route.config.to.sessions;
    mode == SessionMode::Revive && trip.ticket.session.params.is_some()
}

fn is_post(request: &Boxed) -> bool {
    *request.method() == Method::POST
}
