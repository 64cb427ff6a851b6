//! What became of one request, noted as it happens, counted and logged exactly once, on drop.
//!
//! Opened before anything may fail, it rides inside the response's body to the very end. Knows metrics
//! and the log; never a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, Request, StatusCode};
use tokio::time::Instant;

use crate::body::{RequestBody, Upload};
use crate::headers::{TRACEPARENT, X_KAGENT_HOST};
use crate::proxy::call::Kind;
use crate::proxy::reason::Reason;
use crate::proxy::request::conn::{ConnTask, Connection};
use crate::proxy::request::facts::Facts;
use crate::route::Route;
use crate::telemetry::access_log::{AccessLog, Line};
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
    /// The backend was silent for longer than the route's idle limit.
    IdleTimeout,
    /// The exchange took longer than the route's total limit.
    TotalTimeout,
    /// A session's own stream was ended between two events, because the program drains.
    Drained,
    /// The proxy answered itself.
    Refused(Reason),
}

/// The record.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    conn: Arc<Connection>,
    task: ConnTask,
    method: http::Method,
    told: HeadCopy,
    kind: Kind,
    /// All exchanges of the proxy.
    open: Arc<AtomicUsize>,
    log: AccessLog,
    upload: Arc<Upload>,
    /// Counted as an open stream or tunnel.
    streams: bool,
    reopened: bool,
    events: u64,
    route: Option<Arc<Route>>,
    status: u16,
    outcome: Outcome,
    bytes: u64,
    connect: Option<Duration>,
    head: Option<Duration>,
    first: Option<Duration>,
}

/// What the record keeps of the request's head: copies in one piece, for what is cut out of the head
/// would keep the whole buffer that it came in.
#[derive(Debug)]
struct HeadCopy {
    /// Path, `x-kagent-host` and `traceparent`, one behind the other.
    text: Box<str>,
    path_end: usize,
    target_end: usize,
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
            Self::IdleTimeout => "idle_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::Drained => "drained",
            Self::Refused(_) => "refused",
        }
    }
}

// === impl Recorder ===

impl Recorder {
    /// Opens the record.
    #[must_use]
    pub fn begin(
        conn: &Arc<Connection>,
        task: ConnTask,
        open: &Arc<AtomicUsize>,
        log: &AccessLog,
        request: &Request<RequestBody>,
    ) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        conn.open.fetch_add(1, Ordering::Relaxed);
        Self {
            started: Instant::now(),
            conn: Arc::clone(conn),
            task,
            method: request.method().clone(),
            told: HeadCopy::of(request),
            kind: Kind::Unary,
            open: Arc::clone(open),
            log: log.clone(),
            upload: Arc::clone(request.body().upload()),
            streams: false,
            reopened: false,
            events: 0,
            route: None,
            status: 0,
            outcome: Outcome::ClientGone,
            bytes: 0,
            connect: None,
            head: None,
            first: None,
        }
    }

    /// The request goes by this route from now on, and counts as open there. Returns whether it went by
    /// another one before, or by none.
    pub fn enter(&mut self, route: &Arc<Route>, kind: Kind) -> bool {
        if self.route.as_ref().is_some_and(|before| Arc::ptr_eq(before, route)) {
            return false;
        }
        self.kind = kind;
        route.metrics.open.increment(1.0);
        if let Some(left) = self.route.replace(Arc::clone(route)) {
            left.metrics.open.decrement(1.0);
        }
        true
    }

    /// What has passed of the request's body.
    #[must_use]
    pub fn upload(&self) -> &Upload {
        &self.upload
    }

    /// The head has been read.
    pub fn read(&mut self, facts: &Facts) {
        self.reopened = facts.reopened;
    }

    /// Whether it is a re-opened MCP event stream.
    #[must_use]
    pub const fn reopened(&self) -> bool {
        self.reopened
    }

    /// A connection is ours.
    pub fn on_connection(&mut self) {
        self.connect = Some(self.age());
    }

    /// The head of the answer is here, and with it the kind of call.
    pub fn on_head(&mut self, status: StatusCode, kind: Kind) {
        self.head = Some(self.age());
        self.status = status.as_u16();
        self.kind = kind;
        if kind != Kind::Unary
            && let Some(route) = &self.route
        {
            self.streams = true;
            route.metrics.open_streams.increment(1.0);
        }
    }

    /// The proxy answers itself.
    pub fn refused(&mut self, reason: Reason) {
        self.status = reason.status().as_u16();
        self.outcome = Outcome::Refused(reason);
    }

    /// The proxy closes without an answer.
    pub fn unanswered(&mut self, reason: Reason) {
        self.outcome = Outcome::Refused(reason);
    }

    /// `x-kagent-host` as sent, if it was readable.
    #[must_use]
    pub fn target(&self) -> &str {
        self.told.target()
    }

    /// Bytes pass.
    pub fn on_data(&mut self, bytes: usize) {
        if self.first.is_none() && self.kind != Kind::Stream {
            self.first = Some(self.age());
        }
        self.bytes += bytes as u64;
    }

    /// So many events have passed whole.
    pub fn on_events(&mut self, events: u64) {
        self.events = events;
        if events > 0 && self.first.is_none() {
            self.first = Some(self.age());
        }
    }

    /// A comment of our own went out.
    pub fn on_comment(&self) {
        if let Some(route) = &self.route {
            route.metrics.comments.increment(1);
        }
    }

    /// A tunnel has ended, after so many bytes from the client and from the backend.
    pub fn on_tunnel(&mut self, up: u64, down: u64) {
        self.upload.add(up);
        self.bytes += down;
    }

    /// The answer ended in this way; a record that is dropped without it says that the client left.
    pub fn ended(&mut self, outcome: Outcome) {
        if !matches!(self.outcome, Outcome::Refused(_)) {
            self.outcome = outcome;
        }
    }

    /// What to end when the request must end although its client does not read.
    #[must_use]
    pub fn task(&self) -> &ConnTask {
        &self.task
    }

    /// When the request arrived.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How long ago that was.
    #[must_use]
    pub fn age(&self) -> Duration {
        Instant::now().saturating_duration_since(self.started)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.conn.open.fetch_sub(1, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
        let whole = self.age();
        let mut name = "";
        if let Some(route) = &self.route {
            name = &route.config.host;
            let metrics = &route.metrics;
            metrics.open.decrement(1.0);
            metrics.bytes.increment(self.bytes);
            metrics.request_bytes.increment(self.upload.bytes());
            if self.streams {
                metrics.open_streams.decrement(1.0);
                metrics.events.increment(self.events);
            }
            match self.outcome {
                Outcome::ClientGone => metrics.aborts_client.increment(1),
                Outcome::UpstreamBroke => metrics.aborts_upstream.increment(1),
                _ => {}
            }
            if let Some(first) = self.first.filter(|_| self.kind == Kind::Stream) {
                metrics.first_event.record(first.as_secs_f64());
            }
            metrics.whole.record(whole.as_secs_f64());
            if let Some(head) = self.head {
                metrics.head.record(head.as_secs_f64());
            }
            metrics.count(RequestLabels {
                class: self.kind.as_str(),
                status: self.status,
                outcome: self.outcome.as_str(),
            });
        }
        let reason = match self.outcome {
            Outcome::Refused(reason) => reason.word(),
            other => other.as_str(),
        };
        self.log.write(&Line {
            peer: &self.conn.peer_text,
            method: self.method.as_str(),
            path: self.told.path(),
            target: self.told.target(),
            route: name,
            class: self.kind.as_str(),
            status: self.status,
            outcome: reason,
            traceparent: self.told.traceparent(),
            bytes: self.bytes,
            events: self.events,
            request_bytes: self.upload.bytes(),
            connect: self.connect,
            head: self.head,
            first: self.first,
            whole,
        });
    }
}

// === impl HeadCopy ===

impl HeadCopy {
    fn of(request: &Request<RequestBody>) -> Self {
        let text = |name: &HeaderName| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        };
        let (path, target) = (request.uri().path(), text(&X_KAGENT_HOST));
        let path_end = path.len();
        let target_end = path_end + target.len();
        Self { text: [path, target, text(&TRACEPARENT)].concat().into(), path_end, target_end }
    }

    fn path(&self) -> &str {
        self.text.get(..self.path_end).unwrap_or_default()
    }

    fn target(&self) -> &str {
        self.text.get(self.path_end..self.target_end).unwrap_or_default()
    }

    fn traceparent(&self) -> &str {
        self.text.get(self.target_end..).unwrap_or_default()
    }
}
