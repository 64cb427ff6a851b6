//! Getting a request to a backend: its way, the wait for one, attempts, retries.
//!
//! One loop for requests that any endpoint may answer; those of sessions, which one endpoint may, have a loop of their
//! own in `session.rs`. A Service may get another port, or go and come back, while requests wait for its pods: after
//! each failure the table is asked again if it has changed, and nothing is dialled by a route that is out
//! of force. Ends with the headers of a response; never reads or writes a response body.

pub mod attempt;
pub mod begin;
pub mod course;
pub mod delivered;
pub mod dial;
pub mod gather;
pub mod hold;
pub mod home;
pub mod lost;
pub mod refusal;
pub mod reopen;
pub mod resolve;
pub mod resume;
pub mod retry;
pub mod revive;
pub mod session;
pub mod stand_in;
pub mod task;
pub mod trip;
pub mod unknown;
pub mod whole;

use std::sync::Arc;

use http::Request;
use tokio::time::Instant;

use self::attempt::{Failure, attempt};
use self::delivered::Delivered;
use self::hold::Holds;
use self::refusal::{Refusals, explain_refusal};
use self::resolve::{Unrouted, resolve};
use self::retry::Retry;
use self::revive::Reviver;
use self::session::SessionDelivery;
use self::task::TaskHome;
use super::call::Kind;
use super::error::{ProxyError, Refused};
use super::instead::Care;
use super::record::Recorder;
use super::request::conn::Connection;
use super::request::facts::Facts;
use super::routes::Routes;
use super::way::Way;
use crate::body::{RequestBody, Upload};
use crate::config::HoldTimes;
use crate::headers::client::fingerprint;
use crate::protocol::mcp::may_be_initialize;
use crate::route::{NoRoute, RouteTable};
use crate::session::Sessions;
use crate::session::probes::Prober;
use crate::session::token::looks_like_one;
use crate::telemetry::family::SessionEvent;
use crate::telemetry::metrics::Counted;

/// Delivers requests.
#[derive(Debug)]
pub struct Delivery {
    /// The table in force.
    pub routes: Arc<Routes>,
    holds: Holds,
    /// For hosts that are not known yet.
    unknown: HoldTimes,
    refusals: Refusals,
    sessions: Arc<SessionDelivery>,
}

type Boxed = Box<Request<RequestBody>>;

/// So many bytes of a body show whether it may be an `initialize`.
const BEGINNING: usize = 256;

// === impl Delivery ===

impl Delivery {
    /// Delivers by these routes; hosts that are not known yet wait for `unknown`.
    #[must_use]
    pub fn new(
        table: RouteTable,
        holds: Holds,
        unknown: HoldTimes,
        sessions: Arc<Sessions>,
    ) -> Self {
        let routes = Arc::new(Routes::new(table));
        let reviver = Reviver { routes: Arc::clone(&routes), holds: holds.clone(), sessions };
        let sessions = Arc::new(SessionDelivery::new(reviver));
        Self { routes, holds, unknown, refusals: Refusals::default(), sessions }
    }

    /// Gets the request to a backend.
    ///
    /// # Errors
    /// [`Refused`], with what is left of the request.
    pub async fn deliver(
        &self,
        conn: &Arc<Connection>,
        facts: &Arc<Facts>,
        mut request: Boxed,
        record: &mut Recorder,
    ) -> Result<Delivered, Refused> {
        let mut retry = Retry::new(&self.holds, conn.peer.ip(), record.started());
        let mut way = match resolve(self.routes.current(), conn, facts) {
            Ok(way) => way,
            // Boxed, as waiting is.
            Err(_) => {
                match Box::pin(self.wait_for_way(conn, facts, &mut request, &mut retry)).await {
                    Ok(way) => way,
                    Err(error) => return Err(Refused::unsent(error, *request)),
                }
            }
        };
        if facts.session.is_some() || facts.pin.is_some() {
            match self.sessions.ticket(&way, facts) {
                Ok(None) => {}
                Ok(Some(ticket)) => {
                    let way = (way, ticket);
                    // Boxed: most requests have no session.
                    let delivery = self.sessions.deliver(conn, facts, way, request, record);
                    return Box::pin(delivery).await;
                }
                Err(instead) => {
                    record.enter(&way, facts.kind);
                    record.cared(Care::Lost);
                    request.into_body().discard();
                    return Ok(Delivered::Instead(instead));
                }
            }
        }
        let mut home = None;
        let sessions = self.sessions();
        if TaskHome::is_wanted(sessions, &way, &request) {
            // Boxed: most routes have one endpoint.
            home = Box::pin(TaskHome::find(sessions, &way, &mut request)).await;
        }
        loop {
            if record.enter(&way, facts.kind) {
                retry.on_route(&way.route, facts.is_card);
            }
            let http1 = facts.kind == Kind::Upgrade;
            let leased = match home {
                None => dial::lease(&way.route, http1, &retry).await,
                Some(_) => Box::pin(TaskHome::lease(&mut home, &way.route, http1, &retry)).await,
            };
            let failure = match leased {
                Ok(lease) => {
                    retry.release();
                    let age = record.on_connection(lease.since);
                    match attempt(&way, facts, lease, age, request).await {
                        Ok(response) => return Ok(Delivered::Response(response, way)),
                        Err(failure) => failure,
                    }
                }
                Err(error) => Failure::Unreachable(request, error),
            };
            let upload = record.upload();
            let after = Box::pin(self.after(failure, way, conn, facts, &mut retry, upload)).await;
            (request, way) = match after {
                Ok(again) => again,
                Err(end) => return end,
            };
        }
    }

    /// A request that asks for the newest revision of MCP is about to be refused like this: its client will go on with
    /// an older one, here or at another replica.
    pub async fn probe_refused(
        &self,
        conn: &Connection,
        facts: &Facts,
        client: u64,
        error: &ProxyError,
    ) {
        if error.may_pass_later() {
            self.sessions().probe_refused(prober(conn, facts, client)).await;
        }
    }

    fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions.reviver.sessions
    }

    /// Whether a client goes on with this one because the newest revision of MCP was refused to it right before. Of one
    /// that may be so, the first bytes of its body are waited for.
    async fn is_fallback(
        &self,
        conn: &Connection,
        facts: &Facts,
        request: &mut Request<RequestBody>,
        begun: Instant,
    ) -> bool {
        let may = !(facts.is_get || facts.is_delete || facts.is_modern || facts.session.is_some());
        let probes = &self.sessions().probes;
        if !may || !probes.may_precede(begun) {
            return false;
        }
        if !probes.precedes(prober(conn, facts, fingerprint(request.headers())), begun) {
            return false;
        }
        let mut is_initialize = false;
        let look = |start: &[u8]| {
            is_initialize = may_be_initialize(start);
            is_initialize || start.len() >= BEGINNING
        };
        request.body_mut().peek(look).await;
        is_initialize
    }

    /// What becomes of a request that got no response: it is sent again after a while, by the route that is in
    /// force then, or it ends like this.
    async fn after(
        &self,
        failure: Failure,
        way: Way,
        conn: &Connection,
        facts: &Facts,
        retry: &mut Retry<'_>,
        upload: &Upload,
    ) -> Result<(Boxed, Way), Result<Delivered, Refused>> {
        let mut request = match failure {
            Failure::Over(error) => return Err(unanswered(error, &way, upload)),
            Failure::Broken(mut broken) => {
                if self.is_fallback(conn, facts, &mut broken.request, retry.started()).await {
                    retry.hurry();
                }
                if !retry.may_repeat(&way.route, &broken).await {
                    return Err(unanswered(broken.error, &way, upload));
                }
                way.route.metrics.add(Counted::Retries, 1);
                broken.request
            }
            Failure::Unreachable(mut request, error) => {
                // A route that is out of force says nothing of the host; the table does.
                let retired = way.route.cluster.is_retired() && !self.routes.is_current(&way.table);
                if self.is_fallback(conn, facts, &mut request, retry.started()).await {
                    retry.hurry();
                }
                if !retired && let Err(error) = retry.wait(&way.route, error).await {
                    return Err(Err(Refused::unsent(error, *request)));
                }
                request
            }
        };
        if self.routes.is_current(&way.table) {
            return Ok((request, way));
        }
        if let Ok(way) = resolve(self.routes.current(), conn, facts) {
            return Ok((request, way));
        }
        match self.wait_for_way(conn, facts, &mut request, retry).await {
            Ok(way) => Ok((request, way)),
            Err(error) => Err(Err(Refused::unsent(error, *request))),
        }
    }

    /// The way of a request that had none a moment ago, waited for where it may still come (D12).
    async fn wait_for_way(
        &self,
        conn: &Connection,
        facts: &Facts,
        request: &mut Request<RequestBody>,
        retry: &mut Retry<'_>,
    ) -> Result<Way, ProxyError> {
        let is_fallback = self.is_fallback(conn, facts, request, retry.started()).await;
        loop {
            let mut changed = std::pin::pin!(self.routes.changed());
            // From here on no change is missed.
            changed.as_mut().enable();
            let table = self.routes.current();
            let why = match resolve(table.clone(), conn, facts) {
                Ok(way) => {
                    retry.release();
                    return Ok(way);
                }
                Err(why) => why,
            };
            if let Some(until) = self.patience(&table, &why, facts, retry.started())
                && !is_fallback
            {
                // Of what the cluster has there are not more than it has.
                let known = facts.target.as_ref().filter(|host| table.discovered(host).is_some());
                if !retry.hold(known.map(|host| host.as_str())) {
                    return Err(ProxyError::Overloaded);
                }
                if tokio::time::timeout_at(until, changed).await.is_ok() {
                    continue;
                }
            }
            let suggest = || self.refusals.may_suggest();
            let error = explain_refusal(why, &table, conn, facts, suggest);
            self.refusals.log(&error);
            return Err(error);
        }
    }

    /// Until when a request waits for what keeps it from its route; `None` is not at all. Hosts that the
    /// cluster does not know wait as long as any request waits for a backend, and so does a Service that
    /// came a moment before the object that marks it, or that says which port; the card of an Agent that
    /// exists waits as long as cards do.
    fn patience(
        &self,
        table: &RouteTable,
        why: &Unrouted,
        facts: &Facts,
        started: Instant,
    ) -> Option<Instant> {
        let (Unrouted::Not(why), Some(host)) = (why, &facts.target) else { return None };
        let mut times = self.unknown;
        if !facts.is_delete
            && facts.session.as_ref().is_some_and(|id| looks_like_one(id.as_bytes()))
        {
            // Its session would end with an error.
            times.request = times.request.max(times.session);
        }
        let until = match why {
            NoRoute::Host | NoRoute::Missing(_) if table.may_learn(host) => started + times.request,
            NoRoute::Pending(_) if facts.is_card => started + times.card,
            NoRoute::Pending(_) => started + times.request,
            NoRoute::Unmarked(_) | NoRoute::Ambiguous(..) => {
                let since = table.discovered(host)?.since?;
                (since + times.request).min(started + times.request)
            }
            _ => return None,
        };
        (until > Instant::now()).then_some(until)
    }
}

/// The end of a request that was sent and not answered: an error, but for a call that must not be made again.
fn unanswered(error: ProxyError, way: &Way, upload: &Upload) -> Result<Delivered, Refused> {
    match lost::lost(&error, &upload.tap.all(), &way.route.config.host, false) {
        Some(instead) => {
            way.route.metrics.session(SessionEvent::AnsweredLost);
            Ok(Delivered::Instead(instead))
        }
        None => Err(Refused::sent(error)),
    }
}

/// The client of a request with this fingerprint, and the host that it is for: as kagent names it, or behind a default
/// route as its client does.
fn prober(conn: &Connection, facts: &Facts, fingerprint: u64) -> Prober {
    let named = facts.target.as_ref().map(|host| host.as_str());
    let host = named.or_else(|| facts.host_text()).unwrap_or_default();
    Prober::new(conn.peer.ip(), fingerprint, host)
}
