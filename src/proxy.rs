//! The request path, top to bottom.
//!
//! [`Proxy::handle`] always answers, `Proxy::forward` may fail. Facts, route, connection, answer:
//! each step's result is the next one's input. It never opens a socket itself and never reads a body.

pub mod error;
pub mod exchange;
pub mod facts;
pub mod forward;
pub mod reply;

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::config::ListenerLimits;
use crate::route::RouteTable;
use crate::telemetry::metrics::Metrics;
use error::{ProxyError, Refusal};
use exchange::Exchange;
use facts::{ConnInfo, Facts};
use reply::ReplyBody;

/// Carries requests.
#[derive(Debug)]
pub struct Proxy {
    routes: ArcSwap<RouteTable>,
    metrics: Metrics,
    limits: ListenerLimits,
    trusted: Vec<IpNet>,
    pseudonym: String,
    via: HeaderValue,
}

// === impl Proxy ===

impl Proxy {
    /// A proxy over these routes; `pseudonym` names this instance in `Via`.
    ///
    /// # Errors
    /// When the pseudonym is no header value.
    pub fn new(
        routes: RouteTable,
        metrics: Metrics,
        limits: ListenerLimits,
        trusted: Vec<IpNet>,
        pseudonym: String,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let via = HeaderValue::try_from(format!("1.1 {pseudonym}"))?;
        Ok(Self { routes: ArcSwap::from_pointee(routes), metrics, limits, trusted, pseudonym, via })
    }

    /// The table of this moment.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// Answers one request, whatever happens.
    ///
    /// # Errors
    /// None; the type is what hyper asks for.
    pub async fn handle(
        &self,
        conn: &ConnInfo,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Infallible> {
        let mut exchange = Exchange::begin(conn, &request);
        Ok(match self.forward(conn, request, &mut exchange).await {
            Ok(response) => {
                response.map(|body| ReplyBody::stream(body.incoming, body.lease, exchange))
            }
            Err(refusal) => {
                self.metrics.rejected(refusal.error.reason());
                refusal.answer(exchange).await
            }
        })
    }

    async fn forward(
        &self,
        conn: &ConnInfo,
        request: Request<Incoming>,
        exchange: &mut Exchange,
    ) -> Result<Response<forward::Sent>, Refusal> {
        let table = self.routes();
        let facts =
            match Facts::read(&request, table.cluster_domain(), &self.limits, &self.pseudonym) {
                Ok(facts) => facts,
                Err(error) => return Err(Refusal::new(error, request)),
            };
        let route = match table.resolve(&facts.target, request.uri().path()) {
            Ok(route) => route,
            Err(why) => {
                return Err(Refusal::new(ProxyError::no_route(&facts.target, why), request));
            }
        };
        drop(table);
        exchange.on_route(&route);
        if let Some(port) = facts.port
            && !route.has_port(port)
        {
            return Err(Refusal::new(ProxyError::WrongPort(port), request));
        }
        let request = forward::rewrite(request, conn, &self.via, &self.trusted);
        let response = forward::send(&route, &facts, request, exchange).await?;
        exchange.on_head(&response);
        Ok(response)
    }
}
