//! The request path, top to bottom.
//!
//! [`Proxy::handle`] always answers, `Proxy::forward` may fail. Facts, route, connection, answer:
//! each step's result is the next one's input. It never opens a socket itself and never reads a body.

pub mod card;
pub mod error;
pub mod exchange;
pub mod facts;
pub mod forward;
pub mod reason;
pub mod reply;

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::body::RequestBody;
use crate::config::ListenerLimits;
use crate::route::{Route, RouteTable};
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
    public_url: Option<String>,
    pseudonym: String,
    via: HeaderValue,
}

/// What [`Proxy::handle`] needs to answer.
struct Forwarded {
    response: Response<forward::Sent>,
    /// The origin that goes into an agent card, if this is one.
    card: Option<String>,
    route: Arc<Route>,
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
        public_url: Option<String>,
        pseudonym: String,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let via = HeaderValue::try_from(format!("1.1 {pseudonym}"))?;
        Ok(Self {
            routes: ArcSwap::from_pointee(routes),
            metrics,
            limits,
            trusted,
            public_url,
            pseudonym,
            via,
        })
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
        let request = facts::with_body(request);
        Ok(match self.forward(conn, request, &mut exchange).await {
            Ok(Forwarded { response, card: None, .. }) => {
                response.map(|sent| ReplyBody::stream(sent.incoming, sent.lease, exchange))
            }
            Ok(Forwarded { response, card: Some(origin), route }) => {
                card::answer(response, &origin, &route, &self.routes(), exchange).await
            }
            Err(refusal) => {
                self.metrics.rejected(refusal.error.reason().word());
                refusal.answer(exchange).await
            }
        })
    }

    async fn forward(
        &self,
        conn: &ConnInfo,
        mut request: Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<Forwarded, Refusal> {
        let table = self.routes();
        let facts =
            match Facts::read(&request, table.cluster_domain(), &self.limits, &self.pseudonym) {
                Ok(facts) => facts,
                Err(error) => return Err(Refusal::new(error, request)),
            };
        let route = match route(&table, &facts, conn, &request) {
            Ok(route) => route,
            Err(error) => return Err(Refusal::new(error, request)),
        };
        drop(table);
        exchange.on_route(&route);
        let card = if facts.card {
            card::prepare(&mut request, conn, &route, self.public_url.as_deref())
        } else {
            None
        };
        let request = forward::rewrite(request, conn, &self.via, &self.trusted);
        let response = forward::send(&route, &facts, request, exchange).await?;
        exchange.on_head(&response);
        Ok(Forwarded { response, card, route })
    }
}

/// The one place where a request finds its route: by `x-kagent-host`, or by a default route where that
/// header is absent.
fn route<B>(
    table: &RouteTable,
    facts: &Facts,
    conn: &ConnInfo,
    request: &Request<B>,
) -> Result<Arc<Route>, ProxyError> {
    let Some(target) = &facts.target else {
        let host = facts::host_of(request);
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        return table.resolve_default(host, &conn.listener).ok_or(ProxyError::MissingTarget);
    };
    let found = table.resolve(target, request.uri().path());
    let route = found.map_err(|why| ProxyError::no_route(target, why))?;
    match facts.port.filter(|port| !route.has_port(*port)) {
        Some(port) => Err(ProxyError::WrongPort(port)),
        None => Ok(route),
    }
}
