//! The Rust MCP SDK on both sides: `program server PORT`, `program client URL HOST`; a client of the suite of eras; and
//! a server and clients of the chaos runs.
//!
//! A client sends HOST as x-kagent-host and prints what it saw as one JSON object. Nothing here knows whether
//! a proxy stands between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ClientHandler, ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt};
use serde_json::{Value, json};

mod agents;
mod chaos;
mod eras;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Adds, counts with progress, gives back what it is given.
#[derive(Clone, Debug)]
struct Tools;

/// Counts progress notifications; rmcp handles each in a task of its own, so their order is lost.
#[derive(Clone, Debug, Default)]
struct Steps(Arc<AtomicU64>);

impl ServerHandler for Tools {
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
        let tools = ["add", "count", "size"].map(|name| Tool::new(name, name, schema.clone()));
        Ok(ListToolsResult::with_all_items(tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let number = |name: &str| arguments.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text = match request.name.as_ref() {
            "add" => (number("a") + number("b")).to_string(),
            "size" => arguments.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
            "count" => {
                let token = context.meta.get_progress_token();
                let token =
                    token.ok_or_else(|| ErrorData::invalid_params("no progress token", None))?;
                for step in 1..=number("to") {
                    let progress = ProgressNotificationParam::new(token.clone(), step as f64);
                    context
                        .peer
                        .notify_progress(progress)
                        .await
                        .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                }
                "counted".to_owned()
            }
            other => {
                return Err(ErrorData::invalid_params(format!("there is no tool {other}"), None));
            }
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

impl ClientHandler for Steps {
    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

async fn serve(port: &str) -> Result<(), Failure> {
    let config = StreamableHttpServerConfig::default();
    let service =
        StreamableHttpService::new(|| Ok(Tools), Arc::new(LocalSessionManager::default()), config);
    let app = axum::Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    Ok(axum::serve(listener, app).await?)
}

async fn call(url: &str, host: &str) -> Result<Value, Failure> {
    let headers = HashMap::from([("x-kagent-host".parse()?, host.parse()?)]);
    let config = StreamableHttpClientTransportConfig::with_uri(url).custom_headers(headers);
    let steps = Steps::default();
    let client = steps.clone().serve(StreamableHttpClientTransport::from_config(config)).await?;
    let mut tools: Vec<_> =
        client.list_all_tools().await?.into_iter().map(|tool| tool.name).collect();
    tools.sort();
    let ask = |name: &'static str, arguments: Value| {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        client.call_tool(CallToolRequestParams::new(name).with_arguments(arguments))
    };
    let text = |result: CallToolResult| match result.content.first().and_then(ContentBlock::as_text)
    {
        Some(text) => text.text.clone(),
        None => String::new(),
    };
    let add = text(ask("add", json!({"a": 2, "b": 3})).await?);
    let big = "x".repeat(256 * 1024);
    let back = text(ask("size", json!({"text": big})).await?);
    let count = text(ask("count", json!({"to": 50})).await?);
    // Handlers run beside the result; the bound of the whole client ends a wait for what never comes.
    while steps.0.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    let wrong = ask("nothing", json!({})).await.err().map(|error| error.to_string());
    let protocol = client.peer_info().map(|server| server.protocol_version.to_string());
    let seen = json!({
        "protocol": protocol, "tools": tools, "add": add, "big": back == big, "count": count, "progress": true, "error": wrong,
    });
    client.cancel().await?;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", port] => serve(port).await,
        ["chaos", port, pod, marks] => chaos::serve(port, pod, marks).await,
        ["eras", mode, host] => eras::follow(mode, host).await,
        ["clients", url, host] => agents::follow(url, host).await,
        ["client", url, host] => {
            let seen = tokio::time::timeout(Duration::from_secs(45), call(url, host)).await??;
            println!("{seen}");
            Ok(())
        }
        _ => Err("server PORT | client URL HOST | eras MODE HOST | chaos PORT POD MARKS | clients URL HOST".into()),
    }
}
