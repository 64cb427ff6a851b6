//! A server that keeps state in its sessions and drops them when they are idle: `program chaos PORT POD MARKS`.
//!
//! What every server of the chaos runs does is in `tests/chaos/README.md`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ListToolsResult, NumberOrString, PaginatedRequestParams, ProgressNotificationParam,
    ProgressToken, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// Five minutes by default; short here, so that sessions expire within a run. `judge.py` knows it too.
const IDLE: Duration = Duration::from_secs(4);

struct Marks {
    pod: String,
    file: Mutex<File>,
}

impl Marks {
    fn write(&self, mut what: Value) -> std::io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        what["pod"] = json!(self.pod);
        what["at"] = json!(now.as_secs_f64());
        let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.write_all(format!("{what}\n").as_bytes())?;
        file.sync_all()
    }
}

/// One for each session.
struct Counting {
    marks: Arc<Marks>,
    /// Held while its mark is written, so that the marks are in order.
    counter: Mutex<u64>,
}

impl ServerHandler for Counting {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut schema = JsonObject::new();
        schema.insert("type".to_owned(), json!("object"));
        Ok(ListToolsResult::with_all_items(vec![Tool::new("count", "Counts.", schema)]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let fault = |error: String| ErrorData::internal_error(error, None);
        let order = request.arguments.unwrap_or_default();
        let parts = context.extensions.get::<Parts>();
        let session = parts.and_then(|parts| parts.headers.get("mcp-session-id"));
        let session = session.and_then(|id| id.to_str().ok()).unwrap_or_default();
        let text = {
            let mut counter = self.counter.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *counter += 1;
            let mut what = json!({
                "pod": self.marks.pod, "client": order.get("client"), "number": order.get("number"),
                "session": session, "counter": *counter,
            });
            let text = what.to_string();
            what["step"] = json!("began");
            self.marks.write(what).map_err(|error| fault(error.to_string()))?;
            text
        };
        let word = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
        if order.get("announce") == Some(&json!(true)) {
            let number = order.get("number").and_then(Value::as_u64).unwrap_or_default();
            // A token that is no call's goes to the standalone stream.
            let token = format!("stream {} {number}", word("client"));
            let token = ProgressToken(NumberOrString::String(token.into()));
            let progress = ProgressNotificationParam::new(token, 1.0);
            let sent = context.peer.notify_progress(progress).await;
            sent.map_err(|error| fault(error.to_string()))?;
        }
        while !word("gate").is_empty() && !Path::new(word("gate")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await; // between two looks at the gate
        }
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// Marks each session that begins, before its client knows of it.
async fn opened(marks: Arc<Marks>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || request.headers().contains_key("mcp-session-id") {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    let session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok());
    if let Some(session) = session {
        let client = &asked["params"]["clientInfo"]["title"];
        let _ = marks.write(json!({"step": "opened", "client": client, "session": session}));
    }
    response
}

pub async fn serve(port: &str, pod: &str, path: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let marks = Arc::new(Marks { pod: pod.to_owned(), file: Mutex::new(file) });
    let mut sessions = LocalSessionManager::default();
    sessions.session_config = SessionConfig::default();
    sessions.session_config.keep_alive = Some(IDLE);
    let sessions = Arc::new(sessions);
    let each = {
        let marks = marks.clone();
        move || Ok(Counting { marks: marks.clone(), counter: Mutex::new(0) })
    };
    // Pods of a cluster are not on loopback.
    let address = std::env::var("CHAOS_ADDRESS");
    let mut config = StreamableHttpServerConfig::default();
    if address.is_ok() {
        config = config.disable_allowed_hosts();
    }
    let address = address.unwrap_or_else(|_| "127.0.0.1".to_owned());
    let service = StreamableHttpService::new(each, sessions.clone(), config);
    let opening = marks.clone();
    let app = axum::Router::new().nest_service("/mcp", service).layer(axum::middleware::from_fn(
        move |request, next| opened(opening.clone(), request, next),
    ));
    let mut forget = signal(SignalKind::user_defined1())?;
    tokio::spawn(async move {
        while forget.recv().await.is_some() {
            let old: Vec<_> = sessions.sessions.write().await.drain().collect();
            for (_, session) in old {
                let _ = session.close().await;
            }
            let _ = marks.write(json!({"step": "forgot"}));
        }
    });
    let listener = tokio::net::TcpListener::bind(format!("{address}:{port}")).await?;
    Ok(axum::serve(listener, app).await?)
}
