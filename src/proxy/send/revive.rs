//! A session begun anew in place of one whose server is gone: `initialize` as the client once sent it, with the
//! headers of the request that needs it, and `notifications/initialized`.
//!
//! One at a time for each session; the others wait for it. Its answers never reach a client, but for the refusal
//! of its credentials. Carries no request of a client.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::attempt::attempt;
use super::begin::{agrees, answer, drain, message};
use super::dial;
use super::hold::Holds;
use super::resolve::resolve;
use super::retry::{PAUSES, Retry};
use super::trip::{Cause, Trip};
use crate::headers;
use crate::protocol::mcp::{self, Initialized};
use crate::proxy::call::Kind;
use crate::proxy::routes::Routes;
use crate::proxy::way::{InSession, Way};
use crate::session::homes::Home;
use crate::session::replicas::Settled;
use crate::session::{Sessions, now};
use crate::telemetry::family::SessionEvent;
use crate::upstream::{EndpointId, Lease, Leased, Want};

/// How soon a replica is asked again that another one has been before at.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a session waits for an endpoint that is not known here yet.
const LEARNING: Duration = Duration::from_secs(1);
/// What one try has, however long the request may wait, where another endpoint may do better.
const ONE_TRY: Duration = Duration::from_secs(10);

/// Why a session does not begin anew.
#[derive(Debug)]
pub enum NotRevived {
    /// The server does not take the client's credentials: its response is the client's.
    Refused(Box<Response<Leased>>),
    /// The server wants the client to ask elsewhere: its response is the client's.
    SentOn(Box<Response<Leased>>),
    /// The server does not take the session.
    NoSession,
    /// There was no server in time.
    Unavailable,
}

/// How a session has its new home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was begun there just now.
    Begun,
    /// Somebody has begun it there before; it may be forgotten by now.
    Learned,
}

/// What one try came to.
enum Tried {
    Begun(Home),
    /// Nobody is there, or not yet ready.
    Again,
    Not(NotRevived),
}

/// Begins sessions anew.
#[derive(Debug)]
pub struct Reviver {
    /// The table in force.
    pub routes: Arc<Routes>,
    /// Requests that wait.
    pub holds: Holds,
    /// All sessions.
    pub sessions: Arc<Sessions>,
}

// === impl Reviver ===

impl Reviver {
    /// Takes the route that is in force now; without one the last stays, which leads nowhere.
    pub fn follow(&self, trip: &mut Trip) {
        if !self.routes.is_current(&trip.way.table)
            && let Ok(way) = resolve(self.routes.current(), &trip.conn, &trip.facts)
        {
            let session = trip.way.session.take();
            trip.way = Way { session, ..way };
        }
    }

    /// Waits briefly for the endpoint of a session that another replica has just begun there: other endpoints may
    /// bring it, or another table.
    pub async fn learn(&self, trip: &mut Trip) {
        let until = Instant::now() + LEARNING;
        loop {
            let changed = std::pin::pin!(self.routes.changed());
            self.follow(trip);
            let cluster = &trip.way.route.cluster;
            let home = Want::Pinned(&trip.ticket.home.endpoint);
            if Instant::now() >= until || cluster.pick(home, &[]).is_some() {
                return;
            }
            self.pause(&trip.way, until, changed).await;
        }
    }

    /// Finds the session a new home: the one that somebody else has found by now, or one begun here. `head` is that
    /// of the request that needs it.
    ///
    /// # Errors
    /// [`NotRevived`].
    pub async fn revive(
        &self,
        trip: &mut Trip,
        head: &HeaderMap,
        cause: Cause,
    ) -> Result<Found, NotRevived> {
        let until = Instant::now() + trip.way.route.config.to.hold.session;
        // A stream has its response while it waits, and costs no more than any that is silent.
        let streams = trip.facts.is_get && trip.facts.kind == Kind::Stream;
        let held = if streams { None } else { self.holds.enter_in_session(trip.ticket.id) };
        if held.is_none() && !streams {
            return Err(NotRevived::Unavailable);
        }
        let slot = self.sessions.homes.slot(trip.ticket.id);
        let Ok(_turn) = tokio::time::timeout_at(until, slot.turn.lock()).await else {
            return Err(NotRevived::Unavailable);
        };
        let claim = loop {
            if let Some(home) = slot.home()
                && home.since > trip.ticket.home.since
            {
                trip.ticket.home = home;
                return Ok(Found::Learned);
            }
            let settling = self.sessions.settle(trip.ticket.id, &trip.ticket.home);
            let settled = tokio::time::timeout_at(until, settling).await;
            match settled.unwrap_or(Settled::Busy) {
                Settled::Ours(claim) => break claim,
                Settled::Home(home) => {
                    slot.moved(home.clone());
                    trip.ticket.home = home;
                    return Ok(Found::Learned);
                }
                Settled::Ended => return Err(NotRevived::NoSession),
                Settled::Busy if Instant::now() + ASK_AGAIN < until => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Settled::Busy => return Err(NotRevived::Unavailable),
            }
        };
        let home = match self.begin_anew(trip, head, until).await {
            Ok(home) => home,
            Err(why) => {
                log_not_revived(trip, cause, &why);
                return Err(why);
            }
        };
        let is_ended = || self.sessions.homes.is_ended(trip.ticket.id);
        if !is_ended() {
            log_revived(trip, cause, &home);
            trip.way.route.metrics.session(SessionEvent::Revived(cause.word()));
            claim.moved(&home).await;
        }
        // Also meanwhile: a DELETE that came before has met no server, or another one.
        if is_ended() {
            self.give_back(trip, head, &home).await;
            return Err(NotRevived::NoSession);
        }
        trip.ticket.home = home;
        Ok(Found::Begun)
    }

    /// Ends at its server a session whose client has ended it meanwhile.
    async fn give_back(&self, trip: &Trip, head: &HeaderMap, home: &Home) {
        let way = in_session(trip.way.clone(), trip, home);
        let mut delete = message(head, String::new());
        *delete.method_mut() = Method::DELETE;
        let Some(lease) = to_same(&way, &home.endpoint).await else { return };
        let sent = attempt(&way, &trip.facts, lease, Duration::ZERO, delete);
        if let Ok(Ok(response)) = tokio::time::timeout(ONE_TRY, sent).await {
            drain(response).await;
        }
    }

    async fn begin_anew(
        &self,
        trip: &mut Trip,
        head: &HeaderMap,
        until: Instant,
    ) -> Result<Home, NotRevived> {
        let mut pauses = PAUSES;
        loop {
            match self.try_until(trip, head, until).await {
                Tried::Begun(home) => return Ok(home),
                Tried::Not(why) => return Err(why),
                Tried::Again => {}
            }
            let next = Instant::now() + pauses.take();
            if next >= until {
                return Err(NotRevived::Unavailable);
            }
            self.pause(&trip.way, next, std::pin::pin!(self.routes.changed())).await;
            self.follow(trip);
        }
    }

    /// One try that takes no longer than makes sense: a server that is alone may need as long to begin a session as
    /// its clients would wait for it.
    async fn try_until(&self, trip: &Trip, head: &HeaderMap, until: Instant) -> Tried {
        let cluster = &trip.way.route.cluster;
        let only = cluster.only();
        let mut tried = std::pin::pin!(self.try_once(trip, head));
        let short = until.min(Instant::now() + ONE_TRY);
        match tokio::time::timeout_at(short, &mut tried).await {
            Ok(tried) => tried,
            Err(_) if only.is_some() && cluster.only() == only => tokio::select! {
                tried = &mut tried => tried,
                () = cluster.wait(until) => Tried::Again,
            },
            Err(_) => Tried::Again,
        }
    }

    /// Waits until `next`, or for other endpoints or another table, whichever comes first.
    async fn pause(&self, way: &Way, next: Instant, changed: Pin<&mut Notified<'_>>) {
        if way.route.cluster.is_retired() {
            // Its endpoints do not come back; the table has to change.
            let _changed_or_not = tokio::time::timeout_at(next, changed).await;
        } else {
            tokio::select! {
                () = changed => {}
                () = way.route.cluster.wait(next) => {}
            }
        }
    }

    async fn try_once(&self, trip: &Trip, head: &HeaderMap) -> Tried {
        let Some(params) = &trip.ticket.session.params else {
            return Tried::Not(NotRevived::NoSession);
        };
        let way = Way { session: None, ..trip.way.clone() };
        let retry = Retry::new(&self.holds, trip.conn.peer.ip(), trip.started);
        let leased = match way.route.cluster.only() {
            // It may be the address of several pods.
            Some(id) if id.uid.is_none() => dial::anew(&way.route, &id).await.ok(),
            _ => dial::lease(&way.route, false, &retry).await.ok(),
        };
        let Some(lease) = leased else { return Tried::Again };
        let endpoint = lease.endpoint().id();
        let id = format!("kagent-proxy-{:016x}", fastrand::u64(..));
        let ask = message(head, mcp::initialize(&id, params));
        let Ok(mut response) = attempt(&way, &trip.facts, lease, Duration::ZERO, ask).await else {
            return Tried::Again;
        };
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Tried::Not(NotRevived::Refused(Box::new(response)));
            }
            // Nothing has run, and the client asks again where it is sent: Starlette does so for `/mcp` of `/mcp/`.
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
                return Tried::Not(NotRevived::SentOn(Box::new(response)));
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Tried::Again;
            }
            _ => return Tried::Not(NotRevived::NoSession),
        }
        let answer = answer(&mut response, &id).await;
        let version = match answer {
            Some(Initialized::Version(version)) => version,
            Some(Initialized::Refused) => return Tried::Not(NotRevived::NoSession),
            None => return Tried::Again,
        };
        let began = trip.ticket.session.version.as_deref();
        if !agrees(&version, began, head.get(headers::MCP_PROTOCOL_VERSION), params) {
            return Tried::Not(NotRevived::NoSession);
        }
        let server_id = response.headers().get(headers::MCP_SESSION_ID).cloned();
        // Newer than the one that it replaces, whatever the clock of that replica said.
        let since = milliseconds().max(trip.ticket.home.since.saturating_add(1));
        let Some(home) = (Home { endpoint, id: server_id, since }).copied() else {
            return Tried::Not(NotRevived::NoSession);
        };
        drain(response).await;
        self.ready(way, trip, head, (home, version)).await
    }

    /// Tells the server that the session's client is ready, as the client once did.
    async fn ready(
        &self,
        way: Way,
        trip: &Trip,
        head: &HeaderMap,
        (home, version): (Home, String),
    ) -> Tried {
        let way = in_session(way, trip, &home);
        let mut ready = message(head, mcp::INITIALIZED.to_owned());
        if let Ok(version) = HeaderValue::try_from(version) {
            ready.headers_mut().insert(headers::MCP_PROTOCOL_VERSION, version);
        }
        let Some(lease) = to_same(&way, &home.endpoint).await else { return Tried::Again };
        match attempt(&way, &trip.facts, lease, Duration::ZERO, ready).await {
            Ok(response) if response.status().is_success() => {
                drain(response).await;
                Tried::Begun(home)
            }
            Ok(response) if response.status().is_client_error() => {
                Tried::Not(NotRevived::NoSession)
            }
            _ => Tried::Again,
        }
    }
}

/// The way to the session's server, in this home.
fn in_session(mut way: Way, trip: &Trip, home: &Home) -> Way {
    way.session = Some(Box::new(InSession {
        token: None,
        server_id: home.id.clone(),
        id: trip.ticket.id,
        since: home.since,
        again: None,
        resumes: None,
    }));
    way
}

/// A session that its operator may look for.
fn log_revived(trip: &Trip, cause: Cause, home: &Home) {
    let (host, session) = (&trip.way.route.config.host, hashed(trip));
    let (cause, to) = (cause.word(), home.endpoint.address);
    tracing::info!(host, session, cause, %to, "a session was revived");
}

fn log_not_revived(trip: &Trip, cause: Cause, why: &NotRevived) {
    let (host, session) = (&trip.way.route.config.host, hashed(trip));
    let cause = cause.word();
    let why = match why {
        NotRevived::Refused(_) => "its credentials are refused",
        NotRevived::SentOn(_) => "the server sends its client on",
        NotRevived::NoSession => "the server does not take it",
        NotRevived::Unavailable => "no server was there in time",
    };
    tracing::warn!(host, session, cause, why, "a session is not revived");
}

/// As the access line names it.
fn hashed(trip: &Trip) -> String {
    format!("{:08x}", trip.ticket.id.short())
}

async fn to_same(way: &Way, endpoint: &EndpointId) -> Option<Lease> {
    dial::to(&way.route, endpoint, false, false).await.ok()
}

fn milliseconds() -> u64 {
    u64::try_from(now().as_millis()).unwrap_or(u64::MAX)
}
