//! What became of one request, noted as it happens, counted and logged exactly once, on drop.
//!
//! Opened before anything may fail, it rides inside the response's body to the very end. Knows metrics
//! and the log; never a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use tokio::time::Instant;

use crate::body::{RequestBody, Upload};
use crate::proxy::call::Kind;
use crate::proxy::instead::Care;
use crate::proxy::reason::Reason;
use crate::proxy::request::conn::{ConnTask, Connection};
use crate::proxy::request::facts::Facts;
use crate::proxy::request::fields::Fields;
use crate::route::Route;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Counted;
use crate::telemetry::record::{Outcome, Record};
use crate::workers::near::Near;
use crate::workers::per_worker::Tally;

/// Where every record is entered.
#[derive(Debug)]
pub struct Books {
    /// Requests under way, all routes together.
    pub open: Tally,
    /// Takes a line of each.
    pub log: AccessLog,
}

/// Takes the notes.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    conn: Arc<Connection>,
    task: ConnTask,
    method: http::Method,
    head: HeadCopy,
    kind: Kind,
    books: Near<Books>,
    upload: Arc<Upload>,
    /// Counted as an open stream or tunnel.
    is_stream: bool,
    reopened: bool,
    session: Option<u32>,
    care: Care,
    events: u64,
    route: Option<Arc<Route>>,
    status: u16,
    outcome: Outcome,
    bytes: u64,
    connect: Option<Duration>,
    response_headers: Option<Duration>,
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

// === impl Recorder ===

impl Recorder {
    /// Opens the record.
    #[must_use]
    pub fn begin(
        conn: &Arc<Connection>,
        task: ConnTask,
        books: Near<Books>,
        (request, fields): (&Request<RequestBody>, &Fields),
    ) -> Self {
        books.open.add(1);
        conn.open.fetch_add(1, Ordering::Relaxed);
        conn.unanswered.fetch_add(1, Ordering::Relaxed);
        Self {
            started: Instant::now(),
            conn: Arc::clone(conn),
            task,
            method: request.method().clone(),
            head: HeadCopy::of(request.uri().path(), fields),
            kind: Kind::Unary,
            books,
            upload: Arc::clone(request.body().upload()),
            is_stream: false,
            reopened: false,
            session: None,
            care: Care::None,
            events: 0,
            route: None,
            status: 0,
            outcome: Outcome::ClientGone,
            bytes: 0,
            connect: None,
            response_headers: None,
            first: None,
        }
    }

    /// The request goes by this route from now on: it counts as open there, and for the share of requests that may be
    /// retried. The one place where a request comes to a route and leaves another one. Returns whether it went by
    /// another one before, or by none.
    pub fn enter(&mut self, route: &Arc<Route>, kind: Kind) -> bool {
        if self.route.as_ref().is_some_and(|before| Arc::ptr_eq(before, route)) {
            return false;
        }
        self.kind = kind;
        route.metrics.enter();
        route.cluster.budget.sent();
        if let Some(left) = self.route.replace(Arc::clone(route)) {
            left.metrics.leave();
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

    /// It belongs to the session that logs call this.
    pub fn in_session(&mut self, session: u32) {
        self.session = Some(session);
    }

    /// This was done for its session.
    pub fn cared(&mut self, care: Care) {
        self.care = care;
    }

    /// Whether it is a re-opened MCP event stream.
    #[must_use]
    pub const fn reopened(&self) -> bool {
        self.reopened
    }

    /// A connection is ours since then. Returns how long after the request arrived that was.
    pub fn on_connection(&mut self, since: Instant) -> Duration {
        let age = since.saturating_duration_since(self.started);
        self.connect = Some(age);
        age
    }

    /// The head of the answer is here, and with it the kind of call.
    pub fn on_head(&mut self, status: StatusCode, kind: Kind) {
        self.response_headers = Some(self.age());
        self.status = status.as_u16();
        self.kind = kind;
        if kind != Kind::Unary
            && let Some(route) = &self.route
        {
            self.is_stream = true;
            route.metrics.begin_stream();
        }
    }

    /// The client gets this status in place of the backend's.
    pub fn instead(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    /// The proxy answers itself.
    pub fn refused(&mut self, reason: Reason) {
        self.status = reason.status().as_u16();
        self.outcome = Outcome::Refused(reason.word());
    }

    /// A fault of the proxy ends it; a status that the client has seen stays.
    pub fn failed(&mut self) {
        if self.response_headers.is_none() {
            self.status = Reason::Internal.status().as_u16();
        }
        self.outcome = Outcome::Refused(Reason::Internal.word());
    }

    /// The proxy closes without an answer.
    pub fn unanswered(&mut self, reason: Reason) {
        self.outcome = Outcome::Refused(reason.word());
    }

    /// `x-kagent-host` as sent, if it was readable.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.target()
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
            route.metrics.add(Counted::Comments, 1);
        }
    }

    /// A tunnel has ended, after so many bytes from the client and from the backend.
    pub fn on_tunnel(&mut self, up: u64, down: u64) {
        self.upload.progress.add(up);
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

    /// What is known by now.
    fn record(&self) -> Record<'_> {
        Record {
            peer: &self.conn.peer_text,
            method: self.method.as_str(),
            path: self.head.path(),
            target: self.head.target(),
            route: self.route.as_ref().map_or("", |route| &route.config.host),
            class: self.kind.as_str(),
            status: self.status,
            outcome: self.outcome,
            session: self.session,
            care: self.care.word(),
            traceparent: self.head.traceparent(),
            bytes: self.bytes,
            is_stream: self.is_stream,
            events: self.events,
            request_bytes: self.upload.progress.bytes(),
            connect: self.connect,
            response_headers: self.response_headers,
            first: self.first,
            whole: self.age(),
        }
    }

    /// How long ago that was.
    #[must_use]
    pub fn age(&self) -> Duration {
        Instant::now().saturating_duration_since(self.started)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed();
        }
        self.conn.open.fetch_sub(1, Ordering::Relaxed);
        self.conn.unanswered.fetch_sub(1, Ordering::Relaxed);
        self.books.open.add(-1);
        let record = self.record();
        if let Some(route) = &self.route {
            route.metrics.finish(&record);
        }
        self.books.log.finish(&record);
    }
}

/// Logs a request whose head could not be read: nothing is known of it but its client.
pub fn unread(conn: &Connection, reason: Reason, log: &AccessLog) {
    log.finish(&Record {
        peer: &conn.peer_text,
        method: "",
        path: "",
        target: "",
        route: "",
        class: Kind::Unary.as_str(),
        status: reason.status().as_u16(),
        outcome: Outcome::Refused(reason.word()),
        session: None,
        care: "",
        traceparent: "",
        bytes: 0,
        is_stream: false,
        events: 0,
        request_bytes: 0,
        connect: None,
        response_headers: None,
        first: None,
        whole: Duration::ZERO,
    });
}

// === impl HeadCopy ===

impl HeadCopy {
    fn of(path: &str, fields: &Fields) -> Self {
        let (target, traceparent) = (text(&fields.target), text(&fields.traceparent));
        let path_end = path.len();
        let target_end = path_end + target.len();
        let mut text = String::with_capacity(target_end + traceparent.len());
        text.extend([path, target, traceparent]);
        Self { text: text.into(), path_end, target_end }
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

fn text(value: &Option<HeaderValue>) -> &str {
    value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default()
}
