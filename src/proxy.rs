//! The request path, top to bottom.
//!
//! [`Proxy::handle`] always answers, `Proxy::forward` may fail. Facts, route, connection, answer:
//! each step's result is the next one's input. It never opens a socket itself and never reads a body.

pub mod error;
pub mod reason;
pub mod record;
pub mod reply;
pub mod request;
pub mod send;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use ipnet::IpNet;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::body::RequestBody;
use crate::config::{Config, HoldTimes, ListenerLimits};
use crate::drain::Watch;
use crate::rewrite::origin::path_absolute;
use crate::route::{Route, RouteTable};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use error::{ProxyError, Refusal, Unanswered};
use record::Exchange;
use reply::ReplyBody;
use reply::card::{self, Card};
use reply::plan::Plan;
use reply::timeouts::ClockLimits;
use reply::tunnel;
use reply::watchdog::Carrier;
use request::facts::{self, ConnInfo, Kind};
use request::rewrite;
use send::attempt::{self, Sent};
use send::hold::Holds;
use send::resolve::{Refusals, Routed};

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
    watch: Watch,
    log: AccessLog,
    holds: Holds,
    /// For hosts that are not known yet.
    hold_times: HoldTimes,
    table_changed: Notify,
    /// Held by whoever makes the next table from the last one.
    writing: Mutex<()>,
    refusals: Refusals,
    /// Exchanges under way, all routes together.
    open: Arc<AtomicUsize>,
    /// Connections that became tunnels; the drain waits for them.
    tunnels: TaskTracker,
}

/// What follows where the answer is not passed on as it comes.
enum Instead {
    Card(Response<Sent>, Plan, Card),
    Tunnel(Response<Sent>, ClockLimits, OnUpgrade),
    Refuse(Refusal),
}

// === impl Instead ===

impl From<Refusal> for Instead {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
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
        log: AccessLog,
        config: &Config,
        watch: Watch,
        pseudonym: String,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let via = HeaderValue::try_from(format!("1.1 {pseudonym}"))?;
        let holds = Holds::new(config.hold.clone(), metrics.held());
        Ok(Self {
            routes: ArcSwap::from_pointee(routes),
            metrics,
            limits: config.listener.clone(),
            trusted: config.trusted_proxies.clone(),
            public_url: config.public_url.clone(),
            pseudonym,
            via,
            watch,
            log,
            holds,
            hold_times: config.discovery.inherited.hold,
            table_changed: Notify::new(),
            writing: Mutex::new(()),
            refusals: Refusals::default(),
            open: Arc::default(),
            tunnels: TaskTracker::new(),
        })
    }

    /// The table of this moment.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// Whether a table is the one of this moment.
    fn is_current(&self, table: &Arc<RouteTable>) -> bool {
        Arc::ptr_eq(&self.routes.load(), table)
    }

    /// What a head may have.
    #[must_use]
    pub fn limits(&self) -> &ListenerLimits {
        &self.limits
    }

    /// Puts another table in force, from the next request on, made from the one before it: what
    /// two writers change is never lost.
    pub fn update(&self, change: impl FnOnce(&RouteTable) -> RouteTable) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.routes.store(Arc::new(change(&self.routes.load_full())));
        self.table_changed.notify_waiters();
    }

    /// Calls, streams and tunnels under way.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until every tunnel has ended; for when no connection is left that could begin one.
    pub async fn tunnels_ended(&self) {
        self.tunnels.close();
        self.tunnels.wait().await;
    }

    /// Answers one request, whatever happens; `carrier` is the task that reads the answer's body.
    ///
    /// A connection keeps the room of this future for as long as the answer lasts. So the request, of
    /// which each step would reserve one more copy, is boxed, and no argument lies in it a second time.
    ///
    /// # Errors
    /// [`Unanswered`] makes hyper close the connection, or reset the stream, without an answer.
    pub fn handle<'a>(
        &'a self,
        conn: &'a Arc<ConnInfo>,
        carrier: Carrier,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<ReplyBody>, Unanswered>> + Send + 'a {
        let request = Box::new(facts::with_body(conn, request));
        let mut exchange = Exchange::begin((conn, carrier), &self.open, &self.log, &request);
        async move {
            let instead = match self.forward(conn, request, &mut exchange).await {
                Ok((response, plan)) => {
                    return Ok(response.map(|sent| ReplyBody::stream(sent, plan, exchange)));
                }
                Err(instead) => instead,
            };
            // Boxed, as all that is rare.
            Box::pin(self.answer(instead, exchange)).await
        }
    }

    async fn answer(
        &self,
        instead: Instead,
        mut exchange: Exchange,
    ) -> Result<Response<ReplyBody>, Unanswered> {
        Ok(match instead {
            Instead::Card(response, plan, card) => {
                card::answer(response, plan, card, exchange).await
            }
            Instead::Tunnel(response, limits, client) => {
                tunnel::open(response, client, limits, exchange, &self.tunnels)
            }
            Instead::Refuse(refusal) => {
                self.metrics.rejected(refusal.error.reason().word());
                if refusal.closes() {
                    exchange.unanswered(refusal.error.reason());
                    return Err(Unanswered);
                }
                refusal.answer(exchange).await
            }
        })
    }

    async fn forward(
        &self,
        conn: &ConnInfo,
        mut request: Box<Request<RequestBody>>,
        exchange: &mut Exchange,
    ) -> Result<(Response<Sent>, Plan), Instead> {
        let (facts, routed) = match self.routed(conn, &request) {
            Ok(found) => found,
            Err(error) => return Err(Refusal::unrouted(error, *request).into()),
        };
        let mut routed = match routed {
            Some(routed) => routed,
            // Boxed, as waiting is.
            None => match Box::pin(self.wait_for_route(conn, &facts, &request, exchange.started()))
                .await
            {
                Ok(routed) => *routed,
                Err(error) => return Err(Refusal::unrouted(*error, *request).into()),
            },
        };
        rewrite::restore_query(&mut request, &mut routed.query);
        let route = &routed.route;
        exchange.on_route(route, facts.kind);
        let card = Card::prepare(&mut request, &facts, conn, route, self.public_url.as_deref());
        let websocket = facts.kind == Kind::Upgrade && route.config.to.websocket;
        let client = websocket.then(|| hyper::upgrade::on(&mut *request));
        let upload = Arc::clone(request.body().upload());
        rewrite::rewrite(&mut request, conn, &self.via, &self.trusted, route, websocket);
        route.cluster.budget.sent();
        let mut troubles = self.troubles(conn, &facts, route, exchange);
        let mut response = loop {
            let sent = attempt::send(&routed.route, &facts, &mut troubles, request, exchange).await;
            let unsent = match sent {
                Ok(response) => break response,
                Err(unsent) => unsent,
            };
            let again = (&mut routed, &mut troubles, unsent);
            request = Box::pin(self.again(conn, &facts, again, exchange)).await?;
        };
        let Routed { table, route, .. } = routed;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else {
                let error = ProxyError::UnaskedUpgrade(route.config.host.clone());
                return Err(Refusal::sent(error, upload).into());
            };
            exchange.on_head(response.status(), Kind::Upgrade);
            let limits = ClockLimits::of(&route.config.to.timeouts.upgrade, exchange.started());
            return Err(Instead::Tunnel(response, limits, client));
        }
        stay_on_proxy(&mut response, &table, &route);
        let (head, sent) = response.into_parts();
        let plan = Plan::new(&head, &facts, (&table, &route), &self.watch, exchange.started());
        exchange.on_head(head.status, plan.kind);
        let response = Response::from_parts(head, sent);
        match card {
            Some(card) => Err(Instead::Card(response, plan, card.judged_by(table, route))),
            None => Ok((response, plan)),
        }
    }
}

/// A redirect to the backend becomes one on the origin the client uses (R12): a Python client's POST
/// carries the backend's Host, so servers build their `Location` from it.
fn stay_on_proxy<B>(response: &mut Response<B>, table: &RouteTable, route: &Route) {
    let Some(location) = response.headers().get(LOCATION) else { return };
    let path = location
        .to_str()
        .ok()
        .and_then(|url| path_absolute(url, &|host| table.is_backend(host, route)));
    if let Some(path) = path.and_then(|path| HeaderValue::try_from(path).ok()) {
        response.headers_mut().insert(LOCATION, path);
    }
}
