//! The demo's MCP server without sessions: rmcp's streamable HTTP server with a quick tool, a slow one and one that
//! fails.
//!
//! With plain JSON answers, so that a single `curl` is a whole tool call.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

/// Adds, searches and deploys.
#[derive(Clone, Debug)]
pub(super) struct Adder;

/// What a search takes.
const SLOW: Duration = Duration::from_millis(5_500);

/// A tool with these arguments, all of them text or numbers.
pub(super) fn tool(name: &'static str, description: &'static str, arguments: &[&str]) -> Tool {
    let properties: JsonObject =
        arguments.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(arguments));
    Tool::new(name, description, schema)
}

/// The server, ready to answer requests.
pub(super) fn service() -> StreamableHttpService<Adder, NeverSessionManager> {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true);
    StreamableHttpService::new(|| Ok(Adder), Arc::new(NeverSessionManager::default()), config)
}

// === impl Adder ===

impl ServerHandler for Adder {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let add = tool("add", "Adds the numbers a and b.", &["a", "b"]);
        let search = tool("search", "Looks for a text, and takes its time.", &["text"]);
        let deploy = tool("deploy", "Would deploy, and never may.", &["text"]);
        Ok(ListToolsResult::with_all_items(vec![add, search, deploy]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let said = |text: &str| vec![ContentBlock::text(text)];
        match &*request.name {
            "add" => {}
            "search" => {
                // What the demo shows is a tool that takes so long.
                tokio::time::sleep(SLOW).await;
                return Ok(CallToolResult::success(said("three pages")).into());
            }
            "deploy" => return Ok(CallToolResult::error(said("the cluster is frozen")).into()),
            other => {
                let text = format!("there is no tool {other:?}; call add, search or deploy");
                return Err(ErrorData::invalid_params(text, None));
            }
        }
        let arguments = request.arguments.unwrap_or_default();
        let number = |name: &str| arguments.get(name).and_then(Value::as_f64);
        let result = match (number("a"), number("b")) {
            (Some(a), Some(b)) => {
                CallToolResult::success(vec![ContentBlock::text((a + b).to_string())])
            }
            _ => CallToolResult::error(vec![ContentBlock::text("add needs the numbers a and b")]),
        };
        Ok(result.into())
    }
}
