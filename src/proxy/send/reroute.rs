//! What becomes of a request that got no answer: another try, by the route that is in force by then.
//!
//! A Service may get another port, or go and come back, and somebody may write down a route, while
//! requests wait for its pods. They go back to the table each time that it changed; nothing is dialled by a
//! route that is out of force.
//! `proxy/attempt.rs` sends, `proxy/lookup.rs` finds.

use std::sync::Arc;

use http::Request;

use crate::body::RequestBody;
use crate::proxy::Proxy;
use crate::proxy::error::Refusal;
use crate::proxy::record::Exchange;
use crate::proxy::request::facts::{ConnInfo, Facts};
use crate::proxy::request::rewrite;
use crate::proxy::send::attempt::Unsent;
use crate::proxy::send::resolve::{Routed, look};
use crate::proxy::send::retry::Troubles;
use crate::route::Route;

// === impl Proxy ===

impl Proxy {
    /// The patience of one request.
    pub(in crate::proxy) fn troubles<'a>(
        &'a self,
        conn: &ConnInfo,
        facts: &Facts,
        route: &Route,
        exchange: &Exchange,
    ) -> Troubles<'a> {
        let times = route.config.to.hold;
        // From the beginning: a wait for the route counts.
        let until = exchange.started() + if facts.card { times.card } else { times.request };
        Troubles::new(&self.holds, conn.peer.ip(), until)
    }

    /// What becomes of a request that got no answer: it is over, or it is sent again after a while, by
    /// the route that is in force then.
    ///
    /// # Errors
    /// It is over.
    pub(in crate::proxy) async fn again(
        &self,
        conn: &ConnInfo,
        facts: &Facts,
        (routed, troubles, unsent): (&mut Routed, &mut Troubles<'_>, Unsent),
        exchange: &mut Exchange,
    ) -> Result<Box<Request<RequestBody>>, Refusal> {
        let (mut request, error) = match unsent {
            Unsent::Unreachable(request, error) => (request, error),
            Unsent::Refused(refusal) if facts.reopened => return Err(refusal.without_answer()),
            Unsent::Refused(refusal) => return Err(refusal),
        };
        // A route that is out of force says nothing of the host; the table does.
        let retired = routed.route.cluster.is_retired() && !self.is_current(&routed.table);
        if !retired && let Err(error) = troubles.wait(&routed.route, error).await {
            let refusal = Refusal::new(error, *request);
            return Err(if facts.reopened { refusal.without_answer() } else { refusal });
        }
        if self.is_current(&routed.table) {
            return Ok(request);
        }
        if routed.query.take().is_some() {
            rewrite::drop_query(&mut request);
        }
        let next = match look(&self.routes(), conn, facts, &request) {
            Ok(next) => next,
            Err(_) => {
                troubles.resume();
                match self.wait_for_route(conn, facts, &request, exchange.started()).await {
                    Ok(next) => *next,
                    Err(error) => return Err(Refusal::unrouted(*error, *request)),
                }
            }
        };
        if !Arc::ptr_eq(&next.route, &routed.route) {
            next.route.cluster.budget.sent();
            exchange.on_route(&next.route, facts.kind);
            troubles.elsewhere();
        }
        *routed = next;
        rewrite::restore_query(&mut request, &mut routed.query);
        Ok(request)
    }
}
