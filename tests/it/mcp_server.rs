//! An MCP server with sessions that scenarios can kill, restart and make forget: it says what it has done.
//!
//! Knows nothing of the proxy.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::support::BOUND;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the server has seen; it survives a restart.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests whose head has come.
    pub(crate) heads: usize,
    /// Every call of a tool that has begun: `argument`.
    pub(crate) calls: Vec<String>,
    /// `initialize` requests, with their `params`.
    pub(crate) initialized: Vec<Value>,
    /// `notifications/initialized` by session.
    pub(crate) ready: Vec<String>,
    /// `Mcp-Session-Id` of every request, as sent.
    pub(crate) ids: Vec<String>,
    /// Values of `Accept-Encoding` of `initialize` requests.
    pub(crate) codings: Vec<String>,
    /// Values of `Authorization` of `initialize` requests.
    pub(crate) credentials: Vec<String>,
    /// GET requests of sessions that it knows.
    pub(crate) gets: usize,
    /// Messages that waited.
    pub(crate) late: usize,
    /// Notifications that it took, by session.
    pub(crate) noted: Vec<String>,
    /// Sessions that were deleted.
    pub(crate) deleted: Vec<String>,
}

/// How the server behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// What an unknown session is answered with; 404 without a body if not given.
    pub(crate) unknown: Option<(u16, &'static str)>,
    /// The version that it speaks.
    pub(crate) version: Option<&'static str>,
    /// What `initialize` is refused with.
    pub(crate) refuses: Option<u16>,
    /// It answers by events.
    pub(crate) events: bool,
    /// It begins an event stream for `initialize` and says nothing in it.
    pub(crate) silent: bool,
    /// It answers lists of which it is told to be silent.
    pub(crate) speaks: bool,
    /// What it answers a GET with, instead of an event stream.
    pub(crate) get: Option<u16>,
    /// Its event streams for GET end at once.
    pub(crate) brief: bool,
    /// Calls of tools get this status and text.
    pub(crate) call: Option<(u16, &'static str)>,
    /// Lists make it close the connection.
    pub(crate) breaks: bool,
    /// It speaks HTTP/2 by prior knowledge.
    pub(crate) http2: bool,
    /// Its sessions have no id.
    pub(crate) stateless: bool,
    /// Messages named `late` wait until it is so no more.
    pub(crate) late: bool,
    /// It denies sessions that it does not know before it has read what they ask.
    pub(crate) hasty: bool,
    /// It sends what comes to `/mcp` on to `/mcp/`.
    pub(crate) redirects: bool,
}

/// A running server.
pub(crate) struct McpServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    manner: Mutex<Manner>,
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
    /// Calls by session.
    sessions: Mutex<HashMap<String, u64>>,
    minted: Mutex<u64>,
}

impl McpServer {
    pub(crate) async fn start() -> Self {
        Self::start_as(Manner::default()).await
    }

    pub(crate) async fn start_as(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            manner: Mutex::new(manner),
            seen: Mutex::default(),
            changed: watch::Sender::new(()),
            sessions: Mutex::default(),
            minted: Mutex::new(0),
        };
        let mut server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(state),
            tasks: JoinSet::new(),
        };
        server.listen(listener);
        server
    }

    fn listen(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        let http2 = state.manner.lock().unwrap().http2;
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let (stream, http2) = (TokioIo::new(stream), http2);
                    let _client_may_leave = if http2 {
                        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        http.serve_connection(stream, service).await
                    } else {
                        let http = hyper::server::conn::http1::Builder::new();
                        http.serve_connection(stream, service).await
                    };
                });
            }
        });
    }

    /// Ends it, with every connection and every session.
    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
        self.forget();
    }

    /// Starts it again at the same address, after [`McpServer::kill`].
    pub(crate) async fn restart(&mut self) {
        self.listen(TcpListener::bind(self.address).await.unwrap());
    }

    /// Its sessions are gone.
    pub(crate) fn forget(&self) {
        self.state.sessions.lock().unwrap().clear();
    }

    /// It is silent no more.
    pub(crate) fn speak(&self) {
        self.state.manner.lock().unwrap().speaks = true;
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
        self.state.changed.send_replace(());
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.state.seen.lock().unwrap())
    }

    /// Waits until it has seen this.
    pub(crate) async fn until(&self, what: &str, seen: impl Fn(&Seen) -> bool) {
        let mut changed = self.state.changed.subscribe();
        let wait = async {
            while !self.seen(&seen) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

impl State {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap());
        self.changed.send_replace(());
    }

    fn mint(&self) -> String {
        let mut minted = self.minted.lock().unwrap();
        *minted += 1;
        let id = format!("server-session-{minted}");
        self.sessions.lock().unwrap().insert(id.clone(), 0);
        id
    }

    async fn until_not_late(&self) {
        let mut changed = self.changed.subscribe();
        self.note(|seen| seen.late += 1);
        while self.manner.lock().unwrap().late {
            changed.changed().await.unwrap();
        }
    }

    /// Counts a call in a session.
    fn count(&self, id: &str) -> Option<u64> {
        let mut sessions = self.sessions.lock().unwrap();
        let count = sessions.get_mut(id)?;
        *count += 1;
        Some(*count)
    }
}

fn whole(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    let body = http_body_util::Full::new(text.into()).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn message(manner: &Manner, value: &Value) -> Response<Body> {
    let (kind, text) = match manner.events {
        true => ("text/event-stream", format!("event: message\ndata: {value}\n\n")),
        false => ("application/json", value.to_string()),
    };
    let mut response = whole(200, text);
    response.headers_mut().insert("content-type", kind.parse().unwrap());
    response
}

/// An event stream that begins with these bytes and then stays open.
fn open_stream(first: &'static str) -> Response<Body> {
    let (sender, mut receiver) = mpsc::channel::<Infallible>(1);
    let rest = futures_util::stream::poll_fn(move |cx| {
        let _held = &sender;
        receiver.poll_recv(cx).map(|never| never.map(|never| match never {}))
    });
    let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from(first)))]);
    events(futures_util::StreamExt::chain(first, rest))
}

fn events(
    frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    response
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    state.note(|seen| seen.heads += 1);
    let manner = state.manner.lock().unwrap().clone();
    let header = |name: &str| {
        let value = request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    };
    let (id, credentials) = (header("mcp-session-id"), header("authorization"));
    let coding = header("accept-encoding");
    if manner.hasty && !id.is_empty() && !state.sessions.lock().unwrap().contains_key(&id) {
        state.note(|seen| seen.ids.push(id));
        return Ok(whole(404, ""));
    }
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    state.note(|seen| seen.ids.push(id.clone()));
    if manner.redirects && path == "/mcp" {
        let mut response = whole(307, "");
        response.headers_mut().insert("location", "/mcp/".parse().unwrap());
        return Ok(response);
    }
    if body["params"]["name"] == "late" {
        state.until_not_late().await;
    }
    if body["method"] == "initialize" {
        return Ok(initialize(&state, &manner, &body, (credentials, coding)));
    }
    if !manner.stateless && !state.sessions.lock().unwrap().contains_key(&id) {
        let (status, text) = manner.unknown.unwrap_or((404, ""));
        return Ok(whole(status, text));
    }
    let mut response = match (method, body["method"].as_str()) {
        (Method::DELETE, _) => {
            state.sessions.lock().unwrap().remove(&id);
            state.note(|seen| seen.deleted.push(id.clone()));
            whole(200, "")
        }
        (Method::GET, _) => own_stream(&state, &manner),
        (_, Some("notifications/initialized")) => {
            state.note(|seen| seen.ready.push(id.clone()));
            whole(202, "")
        }
        (_, Some("tools/call")) => tool(&state, &manner, &id, &body).await,
        (_, Some("tools/list")) => list(&state, &manner, &body).await?,
        _ => {
            state.note(|seen| seen.noted.push(id.clone()));
            whole(202, "")
        }
    };
    // As the SDKs do, on every response.
    if !manner.stateless {
        response.headers_mut().insert("mcp-session-id", id.parse().unwrap());
    }
    Ok(response)
}

async fn list(state: &State, manner: &Manner, body: &Value) -> std::io::Result<Response<Body>> {
    if manner.breaks {
        state.note(|seen| seen.calls.push("list".to_owned()));
        return Err(std::io::ErrorKind::Other.into());
    }
    if body["params"]["silent"] == true && !manner.speaks {
        return Ok(open_stream(": wait\n\n"));
    }
    if body["params"]["hang"] == true {
        state.note(|seen| seen.calls.push("list".to_owned()));
        std::future::pending::<()>().await;
    }
    Ok(message(manner, &json!({"jsonrpc": "2.0", "id": body["id"], "result": {"tools": []}})))
}

/// What a GET is answered with.
fn own_stream(state: &State, manner: &Manner) -> Response<Body> {
    state.note(|seen| seen.gets += 1);
    match manner.get {
        Some(status) => whole(status, ""),
        None if manner.brief => {
            let all = Frame::data(Bytes::from_static(b"event: message\ndata: \"\"\n\n"));
            events(futures_util::stream::iter([Ok(all)]))
        }
        None => open_stream(": open\n\n"),
    }
}

async fn tool(state: &State, manner: &Manner, id: &str, body: &Value) -> Response<Body> {
    const PROGRESS: &str =
        "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    const RESUMABLE: &str =
        "id: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    let argument = body["params"]["arguments"]["a"].as_str().unwrap_or_default().to_owned();
    state.note(|seen| seen.calls.push(argument));
    if let Some((status, text)) = manner.call {
        return whole(status, text);
    }
    match body["params"]["name"].as_str() {
        Some("hang") => std::future::pending().await,
        Some("stream") => open_stream(PROGRESS),
        Some("resumable") => open_stream(RESUMABLE),
        _ => {
            let result = json!({"count": state.count(id)});
            message(manner, &json!({"jsonrpc": "2.0", "id": body["id"], "result": result}))
        }
    }
}

/// Begins a session.
fn initialize(
    state: &State,
    manner: &Manner,
    body: &Value,
    (credentials, coding): (String, String),
) -> Response<Body> {
    state.note(|seen| {
        seen.codings.push(coding);
        seen.initialized.push(body["params"].clone());
        seen.credentials.push(credentials);
    });
    if let Some(status) = manner.refuses {
        return whole(status, "not today");
    }
    let version = manner.version.unwrap_or("2025-06-18");
    let result =
        json!({"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "s"}});
    let answer = json!({"jsonrpc": "2.0", "id": body["id"], "result": result});
    let mut response = if manner.silent { open_stream("") } else { message(manner, &answer) };
    if !manner.stateless {
        response.headers_mut().insert("mcp-session-id", state.mint().parse().unwrap());
    }
    response
}

/// Long enough for what must not happen.
pub(crate) const NEVER: Duration = Duration::from_millis(300);
