//! What becomes of a request that got no answer: another route, where its own went out of force.
//!
//! A Service may get another port, another name behind it, or go and come back, while requests wait
//! for its pods. They go back to the table; nothing is dialled by a route that is out of force.
//! `proxy/attempt.rs` sends, `proxy/lookup.rs` finds.

use http::Request;

use super::Proxy;
use super::attempt::Unsent;
use super::error::{ProxyError, Refusal};
use super::exchange::Exchange;
use super::facts::{ConnInfo, Facts};
use super::forward;
use super::lookup::Routed;
use super::troubles::Troubles;
use crate::body::RequestBody;
use crate::route::Route;

// === impl Proxy ===

impl Proxy {
    /// The patience of one request.
    pub(super) fn troubles<'a>(
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

    /// What becomes of a request that got no answer: it is over, or it has another route from here on.
    ///
    /// # Errors
    /// It is over.
    pub(super) async fn reroute(
        &self,
        conn: &ConnInfo,
        facts: &Facts,
        routed: &mut Routed,
        unsent: Unsent,
        exchange: &mut Exchange,
    ) -> Result<Box<Request<RequestBody>>, Refusal> {
        let mut request = match unsent {
            Unsent::Refused(refusal) if facts.reopened => return Err(refusal.without_answer()),
            Unsent::Refused(refusal) => return Err(refusal),
            Unsent::Moved(request) => request,
        };
        if routed.query.take().is_some() {
            forward::drop_query(&mut request);
        }
        match self.wait_for_route(conn, facts, &request, exchange.started()).await {
            Ok(next) if next.route.cluster.is_retired() => {
                // No table holds such a route, and going around must end.
                let why = "its Service is changing".to_owned();
                let error = ProxyError::NoReadyEndpoint(next.route.config.host.clone(), why);
                Err(Refusal::new(error, *request))
            }
            Ok(next) => {
                *routed = *next;
                forward::restore_query(&mut request, &mut routed.query);
                exchange.on_route(&routed.route, facts.kind);
                Ok(request)
            }
            Err(error) => Err(Refusal::unrouted(*error, *request)),
        }
    }
}
