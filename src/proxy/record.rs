//! What became of one request, noted as it happens, counted and logged exactly once, on drop.
//!
//! Opened before anything may fail, it rides inside the response's body to the very end. Knows metrics
//! and the log; never a socket.

mod calls;
mod ends;
mod grpc;
mod head;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, Version};
use tokio::time::Instant;

use self::calls::{Exchange, LoggedCalls, caller_label};
use self::head::HeadCopy;
pub use self::head::unread;
use crate::body::tap::Tap;
use crate::body::{RequestBody, Upload};
use crate::headers::noted::Noted;
use crate::headers::onward::Trace;
use crate::protocol::grpc::Code;
use crate::proxy::call::Kind;
use crate::proxy::instead::Care;
use crate::proxy::posted::{AnswerStream, PostedCalls};
use crate::proxy::reason::Reason;
use crate::proxy::request::conn::{ConnTask, Connection};
use crate::proxy::request::facts::Facts;
use crate::proxy::request::fields::Fields;
use crate::proxy::sight::Sight;
use crate::proxy::way::Way;
use crate::route::{Caller, Route};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::feed::Feed;
use crate::telemetry::metrics::Counted;
use crate::telemetry::record::{Outcome, Record};
use crate::telemetry::streams::StreamNote;
use crate::telemetry::trace::{Hop, Traces};
use crate::workers::moment;
use crate::workers::near::Near;
use crate::workers::per_worker::Tally;

/// Where every record is entered.
#[derive(Debug)]
pub struct Books {
    /// Requests under way, all routes together.
    pub open: Tally,
    /// Takes a line of each.
    pub log: AccessLog,
    /// Whether calls are read.
    pub sees_calls: bool,
    /// Shows each call.
    pub feed: Feed,
    /// Calls that are answered on another stream than their own.
    pub posted: PostedCalls,
    /// Takes a span of each that is traced.
    pub traces: Traces,
}

/// Takes the notes.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    conn: Arc<Connection>,
    task: ConnTask,
    head: HeadCopy,
    kind: Kind,
    books: Near<Books>,
    upload: Arc<Upload>,
    sight: Sight,
    /// The stream that answers its calls, or the one that it is itself.
    answers: Option<Arc<AnswerStream>>,
    is_answers: bool,
    /// It is a post whose calls are answered on a stream.
    is_pinned: bool,
    caller: Option<Near<Caller>>,
    /// Of an open stream or tunnel.
    note: Option<Arc<StreamNote>>,
    /// Counted as an open stream or tunnel.
    is_stream: bool,
    reopened: bool,
    session: Option<u32>,
    care: Care,
    events: u64,
    route: Option<Near<Route>>,
    status: u16,
    /// How a call of gRPC ended.
    grpc: Option<Code>,
    outcome: Outcome,
    bytes: u64,
    connect: Option<Duration>,
    response_headers: Option<Duration>,
    first: Option<Duration>,
    version: Version,
    /// Its span, if it is traced here.
    hop: Option<Box<Hop>>,
}

// === impl Recorder ===

impl Recorder {
    /// Opens the record. Boxed, for it goes from hand to hand.
    #[must_use]
    pub fn begin(
        conn: &Arc<Connection>,
        task: ConnTask,
        books: Near<Books>,
        (request, fields): (&Request<RequestBody>, &Fields),
    ) -> Box<Self> {
        books.open.add(1);
        conn.open.fetch_add(1, Ordering::Relaxed);
        conn.unanswered.fetch_add(1, Ordering::Relaxed);
        let hop = books.traces.begin(request.headers(), conn.scheme(), request.version());
        let record = Self {
            started: moment::renewed(),
            conn: Arc::clone(conn),
            task,
            head: HeadCopy::of(request, fields, hop.as_deref()),
            kind: Kind::Unary,
            books,
            upload: Arc::clone(request.body().upload()),
            sight: Sight::default(),
            answers: None,
            is_answers: false,
            is_pinned: false,
            caller: None,
            note: None,
            is_stream: false,
            reopened: false,
            session: None,
            care: Care::None,
            events: 0,
            route: None,
            status: 0,
            grpc: None,
            outcome: Outcome::ClientGone,
            bytes: 0,
            connect: None,
            response_headers: None,
            first: None,
            version: request.version(),
            hop,
        };
        // Made of it, a box would have it copied twice.
        Box::write(Box::new_uninit(), record)
    }

    /// The request goes this way from now on: it counts as open there, and for the share of requests that may be
    /// retried. The one place where a request comes to a route and leaves another one. Returns whether it went by
    /// another one before, or by none.
    pub fn enter(&mut self, way: &Way, kind: Kind) -> bool {
        let route = &way.route;
        if self.route.as_ref().is_some_and(|before| before.is_same(route)) {
            return false;
        }
        self.kind = kind;
        route.metrics.enter();
        route.cluster.budget.sent();
        if let Some(left) = self.route.replace(route.clone()) {
            left.metrics.leave();
        }
        self.caller.clone_from(&way.caller);
        true
    }

    /// Bytes of a backend's response pass, as they came.
    pub fn on_response(&mut self, bytes: &[u8]) {
        if self.sight.listens() {
            self.with_calls(|sight, exchange, _| exchange.pass(sight, bytes));
        }
    }

    /// Bytes of the proxy's own pass as if they were a backend's.
    pub fn on_own(&mut self, bytes: &[u8]) {
        self.on_response(bytes);
        self.on_data(bytes.len());
    }

    /// Reads calls, where a route is known that they are counted for.
    fn with_calls(&mut self, read: impl FnOnce(&mut Sight, Exchange<'_>, &Tap)) {
        let Some(route) = self.route.as_deref().filter(|_| self.books.sees_calls) else { return };
        let exchange = Exchange {
            route,
            caller: caller_label(self.caller.as_deref()),
            head: &self.head,
            peer: &self.conn.peer_text,
            status: self.status,
            session: self.session,
            started: self.started,
            feed: &self.books.feed,
            answers: self.answers.as_deref().filter(|_| self.is_answers),
        };
        read(&mut self.sight, exchange, &self.upload.tap);
    }

    /// What the next hop is told of the request's trace; `None` leaves what the client has sent.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let hop = self.hop.as_ref()?;
        Some(Trace { traceparent: hop.traceparent()?, begins: hop.begins() })
    }

    /// What has passed of the request's body.
    #[must_use]
    pub fn upload(&self) -> &Upload {
        &self.upload
    }

    /// The head has been read.
    pub fn read(&mut self, facts: &Facts) {
        self.reopened = facts.reopened;
        self.is_pinned = facts.pin.is_some();
        if let Some(token) = facts.pin.as_ref().filter(|_| self.books.sees_calls) {
            self.answers = self.books.posted.find(token.as_bytes());
        }
    }

    /// Its response is the stream on which posts with this token are answered.
    pub fn on_answer_stream(&mut self, token: &HeaderValue) {
        if self.books.sees_calls {
            self.answers = Some(self.books.posted.open(token.as_bytes()));
            self.is_answers = true;
            self.sight.answers_others();
        }
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

    /// A backend's response is here, of whose fields this was noted.
    pub fn on_answer(&mut self, status: StatusCode, kind: Kind, (noted, encoded): (Noted, bool)) {
        self.on_head(status, kind);
        self.with_calls(|sight, exchange, tap| {
            exchange.take_calls(sight, tap);
            sight.answered(noted, encoded);
        });
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
            let note = Arc::new(StreamNote {
                started: self.started,
                caller: Arc::clone(caller_label(self.caller.as_deref())),
                path: self.head.path().into(),
                session: self.session,
            });
            route.metrics.note_stream(&note);
            self.note = Some(note);
        }
    }

    /// The client gets this status in place of the backend's.
    pub fn instead(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    /// The proxy answers itself, with the status that is returned.
    pub fn refused(&mut self, reason: Reason) -> StatusCode {
        let status = if self.head.is_modern { reason.modern_status() } else { reason.status() };
        self.status = status.as_u16();
        self.outcome = Outcome::Refused(reason.word());
        status
    }

    /// The fingerprint of a client that asks which revision of MCP its server speaks.
    #[must_use]
    pub fn probes(&self) -> Option<u64> {
        self.head.probes()
    }

    /// A fault of the proxy ends it; a status that the client has seen stays.
    pub fn failed(&mut self) {
        if self.response_headers.is_none() {
            self.status = Reason::Internal.status().as_u16();
            if self.is_grpc() {
                return self.refused_grpc(Reason::Internal);
            }
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
        if self.first.is_none() && (self.kind != Kind::Stream || self.is_grpc()) {
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
        let calls = LoggedCalls::of(&self.sight, self.head.speaks());
        Record {
            caller: self.route.as_ref().map_or("", |_| caller_label(self.caller.as_deref())),
            caller_by: self.caller.as_ref().map_or("", |caller| caller.proof.word()),
            protocol: calls.protocol,
            rpc_method: calls.method,
            tool: calls.tool,
            rpc_error: calls.error,
            calls: calls.count,
            conversation: self.head.conversation(),
            peer: &self.conn.peer_text,
            method: self.head.method(),
            path: self.head.path(),
            target: self.head.target(),
            route: self.route.as_ref().map_or("", |route| &route.config.host),
            class: self.kind.as_str(),
            status: self.status,
            grpc_status: self.grpc.map(Code::number),
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
        moment::now().saturating_duration_since(self.started)
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
        self.end_calls();
        let record = self.record();
        if let Some(route) = &self.route {
            route.metrics.finish(&record);
        }
        self.books.log.finish(&record);
        if self.books.traces.is_on() {
            let told = self.sight.first().and_then(|seen| seen.call.trace.as_deref()).copied();
            let via = (self.conn.scheme(), self.version);
            self.books.traces.finish(&record, self.hop.as_deref(), told, via);
        }
    }
}
