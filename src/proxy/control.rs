//! What the rest of the program does with the proxy besides handing it requests.
//!
//! Makes it, replaces its table, asks what is open and waits for the end. No request passes through here but one that
//! could not be read.

use std::sync::Arc;

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use tokio_util::task::TaskTracker;

use super::Proxy;
use super::error::ProxyError;
use super::posted::PostedCalls;
use super::record::{self, Books};
use super::reply::{Egress, unread};
use super::request::Ingress;
use super::request::conn::Connection;
use super::send::Delivery;
use super::send::hold::Holds;
use crate::config::{Config, ListenerLimits};
use crate::drain::Watch;
use crate::route::RouteTable;
use crate::session::Sessions;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;
use crate::workers::near::Common;
use crate::workers::per_worker::Tally;
use crate::workers::value::OwnValue;

impl Proxy {
    /// A proxy over these routes; `pseudonym` names this instance in `Via`.
    ///
    /// # Errors
    /// When the pseudonym is no header value.
    pub fn new(
        routes: RouteTable,
        metrics: Metrics,
        (log, traces): (AccessLog, Traces),
        config: &Config,
        watch: Watch,
        pseudonym: String,
        sessions: Arc<Sessions>,
    ) -> Result<Self, InvalidHeaderValue> {
        let ingress = Ingress {
            limits: config.listener.clone(),
            trusted: config.trusted_proxies.clone(),
            via: OwnValue::new(HeaderValue::try_from(format!("1.1 {pseudonym}"))?),
            pseudonym,
        };
        let holds = Holds::new(config.hold.clone(), metrics.held());
        let unknown = config.discovery.inherited.hold;
        let delivery = Delivery::new(routes, holds, unknown, Arc::clone(&sessions));
        let public_url = config.public_url.clone();
        let egress = Egress { public_url, watch, tunnels: TaskTracker::new(), sessions };
        metrics.series_cap().set(config.sight.max_series);
        let books = Common::new(Books {
            open: Tally::default(),
            log,
            sees_calls: config.sight.calls,
            feed: metrics.feed().clone(),
            posted: PostedCalls::default(),
            traces,
        });
        Ok(Self { ingress, delivery, egress, metrics, books })
    }

    /// Counts and logs a request whose head the parser has refused with the response `theirs`; returns the
    /// one that takes its place.
    #[must_use]
    pub fn unread(&self, conn: &Connection, theirs: &[u8]) -> Vec<u8> {
        let error = self.record_unread(conn, unread::is_too_large(theirs));
        unread::response(&error, theirs)
    }

    /// Counts and logs it only.
    pub fn record_unread(&self, conn: &Connection, too_large: bool) -> ProxyError {
        let limits = self.limits();
        let error = match too_large {
            true => ProxyError::HeadTooLarge(limits.max_head_bytes, limits.max_head_fields),
            false => ProxyError::Unreadable,
        };
        self.metrics.rejected(error.reason().word());
        record::unread(conn, error.reason(), &self.books.log);
        error
    }

    /// The table of this moment.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.delivery.routes.snapshot()
    }

    /// Whether calls are read.
    #[must_use]
    pub fn sees_calls(&self) -> bool {
        self.books.sees_calls
    }

    /// What a head may have.
    #[must_use]
    pub fn limits(&self) -> &ListenerLimits {
        &self.ingress.limits
    }

    /// Puts another table in force, from the next request on, made from the one before it: what
    /// two writers change is never lost.
    pub fn update(&self, change: impl FnOnce(&RouteTable) -> RouteTable) {
        self.delivery.routes.update(change);
    }

    /// Calls, streams and tunnels under way.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.books.open.total()
    }

    /// Waits until every tunnel has ended; for when no connection is left that could begin one.
    pub async fn tunnels_ended(&self) {
        self.egress.tunnels.close();
        self.egress.tunnels.wait().await;
    }
}
