//! Getting a request to a backend: its way, the wait for one, attempts, retries.
//!
//! One loop. A Service may get another port, or go and come back, while requests wait for its pods: after
//! each failure the table is asked again if it has changed, and nothing is dialled by a route that is out
//! of force. Ends with the headers of a response; never reads or writes a response body.

pub mod attempt;
pub mod dial;
pub mod hold;
pub mod refusal;
pub mod resolve;
pub mod retry;

use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;

use self::attempt::{Failure, attempt};
use self::hold::Holds;
use self::refusal::{Refusals, explain_refusal};
use self::resolve::{Unrouted, resolve};
use self::retry::Retry;
use super::call::Kind;
use super::error::{ProxyError, Refused};
use super::record::Recorder;
use super::request::conn::Connection;
use super::request::facts::Facts;
use super::routes::Routes;
use super::way::Way;
use crate::body::RequestBody;
use crate::config::HoldTimes;
use crate::route::{NoRoute, RouteTable};
use crate::upstream::Leased;

/// Delivers requests.
#[derive(Debug)]
pub struct Delivery {
    /// The table in force.
    pub routes: Routes,
    holds: Holds,
    /// For hosts that are not known yet.
    unknown: HoldTimes,
    refusals: Refusals,
}

type Boxed = Box<Request<RequestBody>>;

// === impl Delivery ===

impl Delivery {
    /// Delivers by these routes; hosts that are not known yet wait for `unknown`.
    #[must_use]
    pub fn new(table: RouteTable, holds: Holds, unknown: HoldTimes) -> Self {
        Self { routes: Routes::new(table), holds, unknown, refusals: Refusals::default() }
    }

    /// Gets the request to a backend. Returns the response and the way it was sent.
    ///
    /// # Errors
    /// [`Refused`], with what is left of the request.
    pub async fn deliver(
        &self,
        conn: &Connection,
        facts: &Facts,
        mut request: Boxed,
        record: &mut Recorder,
    ) -> Result<(Response<Leased>, Way), Refused> {
        let mut retry = Retry::new(&self.holds, conn.peer.ip(), record.started());
        let mut way = match resolve(&self.routes.current(), conn, facts) {
            Ok(way) => way,
            // Boxed, as waiting is.
            Err(_) => match Box::pin(self.wait_for_way(conn, facts, &mut retry)).await {
                Ok(way) => way,
                Err(error) => return Err(Refused::unsent(error, *request)),
            },
        };
        loop {
            if record.enter(&way.route, facts.kind) {
                way.route.cluster.budget.sent();
                retry.on_route(&way.route, facts.is_card);
            }
            let http1 = facts.kind == Kind::Upgrade;
            let failure = match dial::lease(&way.route, http1, &retry).await {
                Ok(lease) => {
                    retry.release();
                    let age = record.on_connection(lease.since);
                    match attempt(&way, facts, lease, age, request).await {
                        Ok(response) => return Ok((response, way)),
                        Err(failure) => failure,
                    }
                }
                Err(error) => Failure::Unreachable(request, error),
            };
            (request, way) = Box::pin(self.after(failure, way, conn, facts, &mut retry)).await?;
        }
    }

    /// What becomes of a request that got no response: it is over, or it is sent again after a while, by
    /// the route that is in force then.
    async fn after(
        &self,
        failure: Failure,
        way: Way,
        conn: &Connection,
        facts: &Facts,
        retry: &mut Retry<'_>,
    ) -> Result<(Boxed, Way), Refused> {
        let request = match failure {
            Failure::Over(error) => return Err(Refused::sent(error)),
            Failure::Broken(broken) => {
                if !retry.may_repeat(&way.route, &broken).await {
                    return Err(Refused::sent(broken.error));
                }
                way.route.metrics.retries.increment(1);
                broken.request
            }
            Failure::Unreachable(request, error) => {
                // A route that is out of force says nothing of the host; the table does.
                let retired = way.route.cluster.is_retired() && !self.routes.is_current(&way.table);
                if !retired && let Err(error) = retry.wait(&way.route, error).await {
                    return Err(Refused::unsent(error, *request));
                }
                request
            }
        };
        if self.routes.is_current(&way.table) {
            return Ok((request, way));
        }
        if let Ok(way) = resolve(&self.routes.current(), conn, facts) {
            return Ok((request, way));
        }
        match self.wait_for_way(conn, facts, retry).await {
            Ok(way) => Ok((request, way)),
            Err(error) => Err(Refused::unsent(error, *request)),
        }
    }

    /// The way of a request that had none a moment ago, waited for where it may still come (D12).
    async fn wait_for_way(
        &self,
        conn: &Connection,
        facts: &Facts,
        retry: &mut Retry<'_>,
    ) -> Result<Way, ProxyError> {
        loop {
            let mut changed = std::pin::pin!(self.routes.changed());
            // From here on no change is missed.
            changed.as_mut().enable();
            let table = self.routes.current();
            let why = match resolve(&table, conn, facts) {
                Ok(way) => {
                    retry.release();
                    return Ok(way);
                }
                Err(why) => why,
            };
            if let Some(until) = self.patience(&table, &why, facts, retry.started()) {
                if !retry.hold() {
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
        table: &Arc<RouteTable>,
        why: &Unrouted,
        facts: &Facts,
        started: Instant,
    ) -> Option<Instant> {
        let (Unrouted::Not(why), Some(host)) = (why, &facts.target) else { return None };
        let times = self.unknown;
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
