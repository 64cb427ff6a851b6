//! One record for each request: it counts and logs exactly once, on drop if need be.
//!
//! Opened before anything may fail, it rides inside the answer's body to the very end. Knows metrics
//! and the log; never a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;

use super::facts::ConnInfo;
use super::reason::Reason;
use crate::headers::X_KAGENT_HOST;
use crate::route::Route;
use crate::telemetry::access_log::Line;
use crate::telemetry::metrics::RequestLabels;

/// How an exchange ended; the same words stand in the log, the metric and the docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was passed on whole.
    Complete,
    /// The client left first.
    ClientGone,
    /// The backend broke off.
    UpstreamBroke,
    /// The proxy answered itself.
    Refused(Reason),
}

/// The record.
#[derive(Debug)]
pub struct Exchange {
    started: Instant,
    conn: ConnInfo,
    method: http::Method,
    path: String,
    target: String,
    traceparent: String,
    class: &'static str,
    route: Option<Arc<Route>>,
    status: u16,
    outcome: Outcome,
    bytes: u64,
    connect: Option<Duration>,
    head: Option<Duration>,
    first: Option<Duration>,
}

// === impl Outcome ===

impl Outcome {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::UpstreamBroke => "upstream_broke",
            Self::Refused(_) => "refused",
        }
    }
}

// === impl Exchange ===

impl Exchange {
    /// Opens the record.
    #[must_use]
    pub fn begin<B>(conn: &ConnInfo, request: &Request<B>) -> Self {
        conn.open.fetch_add(1, Ordering::Relaxed);
        let text = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Self {
            started: Instant::now(),
            conn: conn.clone(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            target: text(X_KAGENT_HOST.as_str()),
            traceparent: text("traceparent"),
            class: "unary",
            route: None,
            status: 0,
            outcome: Outcome::ClientGone,
            bytes: 0,
            connect: None,
            head: None,
            first: None,
        }
    }

    /// The route is known: the request counts as open there.
    pub fn on_route(&mut self, route: &Arc<Route>) {
        route.metrics.open.increment(1.0);
        self.route = Some(Arc::clone(route));
    }

    /// A connection is ours.
    pub fn on_connection(&mut self) {
        self.connect = Some(self.age());
    }

    /// The head of the answer is here.
    pub fn on_head<B>(&mut self, response: &Response<B>) {
        self.head = Some(self.age());
        self.status = response.status().as_u16();
        let events = response
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
        if events {
            self.class = "stream";
        }
    }

    /// The proxy answers itself.
    pub fn refused(&mut self, reason: Reason) {
        self.status = reason.status().as_u16();
        self.outcome = Outcome::Refused(reason);
    }

    /// `x-kagent-host` as sent, if it was readable.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Bytes pass.
    pub fn on_data(&mut self, bytes: usize) {
        if self.first.is_none() {
            self.first = Some(self.age());
        }
        self.bytes += bytes as u64;
    }

    /// The answer ended in this way; a record that is dropped without it says that the client left.
    pub fn ended(&mut self, outcome: Outcome) {
        if !matches!(self.outcome, Outcome::Refused(_)) {
            self.outcome = outcome;
        }
    }

    fn age(&self) -> Duration {
        Instant::now().saturating_duration_since(self.started)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.conn.open.fetch_sub(1, Ordering::Relaxed);
        let whole = self.age();
        let mut name = "";
        if let Some(route) = &self.route {
            name = &route.config.host;
            let metrics = &route.metrics;
            metrics.open.decrement(1.0);
            metrics.bytes.increment(self.bytes);
            metrics.whole.record(whole.as_secs_f64());
            if let Some(head) = self.head {
                metrics.head.record(head.as_secs_f64());
            }
            metrics.count(RequestLabels {
                class: self.class,
                status: self.status,
                outcome: self.outcome.as_str(),
            });
        }
        let reason = match self.outcome {
            Outcome::Refused(reason) => reason.word(),
            other => other.as_str(),
        };
        Line {
            peer: self.conn.peer,
            method: self.method.as_str(),
            path: &self.path,
            target: &self.target,
            route: name,
            class: self.class,
            status: self.status,
            outcome: reason,
            traceparent: &self.traceparent,
            bytes: self.bytes,
            connect: self.connect,
            head: self.head,
            first: self.first,
            whole,
        }
        .write();
    }
}
