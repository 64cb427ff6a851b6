//! A session's request on its way to where the session lives, and what becomes of it when that is gone.
//!
//! What surely did not run is sent again by the session that was begun anew; what may have run is not, but where
//! that does no harm. Reads no response beyond what says that a session is unknown.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;

use super::attempt::{Failure, attempt};
use super::delivered::Delivered;
use super::dial;
use super::lost::lost;
use super::revive::{NotRevived, Reviver};
use super::trip::{Cause, Trip};
use super::unknown::{is_unknown, may_deny};
use crate::backoff::Pauses;
use crate::body::replay::MAX_REPLAY;
use crate::body::{RequestBody, Upload};
use crate::config::{SessionMode, StandaloneGet};
use crate::headers;
use crate::protocol::jsonrpc::Message;
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
use crate::telemetry::metrics::Counted;
use crate::upstream::{Lease, Leased};

/// A session is begun anew at most this often for one request.
const MAX_MOVES: u32 = 3;
/// How often a request is sent once more on a new connection, and the pauses before all but the first.
const MAX_CLOSED: u32 = 3;
const CLOSED_PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_millis(400));
/// How long a client may take to send what has to be sent again.
const GATHER_WAIT: Duration = Duration::from_secs(10);

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
    /// The request is gone.
    Over(End),
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
        let config = &way.route.config;
        let caller = way.caller.as_ref().map(|caller| (&*caller.namespace, &*caller.name));
        match self.reviver.sessions.admit(token, &config.host, caller) {
            Admission::Foreign => Ok(None),
            // It may be another proxy's behind us.
            Admission::Refused(_) if config.to.sessions == SessionMode::Pass => Ok(None),
            Admission::Refused(why) => {
                tracing::debug!(host = config.host, why, "a session's token does not count");
                way.route.metrics.session(SessionEvent::Lost("bad_token"));
                Err(Instead::NoSession { bad_request: false })
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
        facts: &Facts,
        (way, ticket): (Way, Box<Ticket>),
        request: Boxed,
        record: &mut Recorder,
    ) -> Result<Delivered, Refused> {
        let upload = Arc::clone(request.body().upload());
        let mut trip = Trip {
            conn: Arc::clone(conn),
            facts: facts.clone(),
            way,
            ticket,
            started: record.started(),
            care: Care::None,
            stream_lost: false,
            is_new: true,
        };
        trip.way.route.metrics.session(SessionEvent::Carried);
        record.in_session(trip.ticket.id.short());
        if record.enter(&trip.way.route, facts.kind) {
            trip.way.route.cluster.budget.sent();
        }
        let reopened = is_own_stream(facts);
        let ended = match self.carry(&mut trip, request, !reopened).await {
            Ok(response) => return Ok(self.arrived(response, trip, &upload, record)),
            Err(End::Gone(request)) if reopened => {
                return self.reopen(trip, request, record).await;
            }
            Err(ended) => ended,
        };
        record.cared(Care::Lost);
        self.stand_in(ended, &trip, &upload)
    }

    fn arrived(
        self: &Arc<Self>,
        mut response: Response<Leased>,
        mut trip: Trip,
        upload: &Arc<Upload>,
        record: &mut Recorder,
    ) -> Delivered {
        record.enter(&trip.way.route, trip.facts.kind);
        record.on_connection(response.body().since());
        record.cared(trip.care);
        let streams = response.status() == StatusCode::OK
            && headers::is_event_stream(response.headers())
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
        let (mut fresh, mut moves) = (0, 0);
        loop {
            let cause;
            (request, cause) = match self.try_home(trip, request, fresh).await {
                Ok(response) => {
                    self.note_end(trip, &response);
                    return Ok(response);
                }
                // A session that has just begun is known: that is what the server answers to this request.
                Err(Tried::Denied(response)) if moves > 0 => return Ok(*response),
                Err(Tried::Denied(response)) => match response.into_body().into_request(&upload) {
                    Some(request) => (request, Cause::Forgotten),
                    None => return Err(End::NoSession),
                },
                Err(Tried::Closed(again)) => {
                    // An idle connection that closed says nothing of the session; one that was opened for it may
                    // be the last of a server that is about to end, which shows a moment later.
                    trip.way.route.metrics.add(Counted::Retries, 1);
                    if trip.care == Care::None {
                        trip.care = Care::Replayed;
                    }
                    if fresh > 0 {
                        tokio::time::sleep(CLOSED_PAUSES.after(fresh - 1)).await;
                    }
                    (request, fresh) = (again, fresh + 1);
                    continue;
                }
                Err(Tried::Lost(request, cause)) => (request, cause),
                Err(Tried::Over(end)) => return Err(end),
            };
            if trip.facts.is_delete {
                return Err(End::Gone(request));
            }
            let Some(whole) = gathered(request, &upload).await else { return Err(End::NoSession) };
            request = whole;
            let one_way = is_post(&request) && Message::read(&upload.tap.all()).is_one_way();
            if !revive || one_way || moves == MAX_MOVES {
                return Err(End::Gone(request));
            }
            if !is_revivable(trip) {
                return Err(End::NoSession);
            }
            if is_own_stream(&trip.facts) && cause == Cause::Forgotten && !trip.stream_lost {
                // Some servers have no such stream, and a session that nobody calls need not live: unless a stream
                // that was there has broken off, it begins when a call has brought the session back.
                let slot = self.reviver.sessions.homes.slot(trip.ticket.id);
                slot.leaves(trip.ticket.home.since).await;
                continue;
            }
            match self.moved(trip, request.headers(), cause).await {
                Ok(()) => {
                    // Ids of events were those of the server that is gone.
                    request.headers_mut().remove(headers::LAST_EVENT_ID);
                    (fresh, moves) = (0, moves + 1);
                }
                Err(NotRevived::Refused(response)) => return Ok(*response),
                Err(NotRevived::NoSession) => return Err(End::NoSession),
                Err(NotRevived::Unavailable) => return Err(End::Unavailable),
            }
        }
    }

    /// One try, where the session lives as far as is known; on a new connection behind one that has closed, and this is
    /// the `fresh`th of those.
    async fn try_home(
        &self,
        trip: &mut Trip,
        request: Boxed,
        fresh: u32,
    ) -> Result<Response<Leased>, Tried> {
        let upload = Arc::clone(request.body().upload());
        let lease = match self.home(trip, fresh > 0).await {
            Ok(lease) => lease,
            Err(cause) => return Err(Tried::Lost(request, cause)),
        };
        let Trip { way, facts, started, .. } = &*trip;
        let age = Instant::now().saturating_duration_since(*started);
        let failure = match attempt(way, facts, lease, age, request).await {
            // What a legacy server says of its stream is the client's.
            Ok(response) if facts.pin.is_some() || !may_deny(response.status()) => {
                return Ok(response);
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

    /// A connection to where the session lives.
    async fn home(&self, trip: &mut Trip, fresh: bool) -> Result<Lease, Cause> {
        self.reviver.follow(trip);
        // A ticket of this moment was looked up there.
        if !std::mem::take(&mut trip.is_new)
            && let Some(home) = self.reviver.sessions.homes.of(trip.ticket.id)
            && home.since > trip.ticket.home.since
        {
            trip.ticket.home = home;
        }
        if trip.ticket.is_young() {
            self.reviver.learn(trip).await;
        }
        trip.way.session = Some(Box::new(InSession {
            token: trip.facts.session.clone(),
            server_id: trip.ticket.home.id.clone(),
            again: None,
        }));
        let http1 = trip.facts.kind == Kind::Upgrade;
        dial::to(&trip.way.route, &trip.ticket.home.endpoint, fresh, http1).await
    }

    /// Begins the session anew, or learns where somebody else has.
    async fn moved(
        &self,
        trip: &mut Trip,
        head: &http::HeaderMap,
        cause: Cause,
    ) -> Result<(), NotRevived> {
        self.reviver.revive(trip, head, cause).await?;
        trip.care = Care::Revived;
        Ok(())
    }

    /// A session that its client has ended is forgotten.
    fn note_end(&self, trip: &Trip, response: &Response<Leased>) {
        if trip.facts.is_delete && response.status().is_success() {
            self.close(trip);
        }
    }

    /// Its client wants the session no more.
    fn close(&self, trip: &Trip) {
        self.reviver.sessions.homes.forget(trip.ticket.id);
        trip.way.route.metrics.session(SessionEvent::Closed);
    }

    /// What the client is told when its session's server tells it nothing.
    pub(super) fn stand_in(
        &self,
        end: End,
        trip: &Trip,
        upload: &Arc<Upload>,
    ) -> Result<Delivered, Refused> {
        let metrics = &trip.way.route.metrics;
        let instead = |instead| Ok(Delivered::Instead(instead));
        let host = &trip.way.route.config.host;
        if trip.facts.is_delete && !matches!(end, End::Client(_)) {
            self.close(trip);
            return instead(Instead::Ended);
        }
        let no_session = || {
            metrics.session(SessionEvent::Lost("not_revived"));
            let params = trip.ticket.session.params.as_deref();
            Instead::NoSession { bad_request: params.is_some_and(mcp::is_python_1) }
        };
        let whole = upload.tap.all();
        let message = Message::read(&whole);
        match end {
            End::Client(error) => Err(Refused::sent(error)),
            End::Gone(..) if trip.facts.pin.is_some() => instead(no_session()),
            End::NoSession => instead(no_session()),
            End::Unknown(_) | End::Unavailable | End::Gone(..) if message.is_one_way() => {
                instead(Instead::Taken)
            }
            End::Unknown(error) if trip.facts.pin.is_some() => Err(Refused::sent(error)),
            End::Unknown(error) => match lost(&error, &message, host, true) {
                Some(answer) => {
                    metrics.session(SessionEvent::AnsweredLost);
                    instead(answer)
                }
                None => Err(Refused::sent(error)),
            },
            End::Gone(..) | End::Unavailable => match (&message.id, &message.method) {
                (Some(id), Some(method)) if method == mcp::TOOLS_CALL => {
                    instead(Instead::Answer(mcp::call_not_run(id, host)))
                }
                (Some(id), Some(_)) => instead(Instead::Answer(mcp::unanswered(id, host))),
                _ => instead(no_session()),
            },
        }
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

/// The request with its whole body here, to be sent once or again; `None` if it is too large to be remembered, or
/// never ends. One of which nothing has been read, and that would not be remembered, is left as it is.
async fn gathered(request: Boxed, upload: &Upload) -> Option<Boxed> {
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
