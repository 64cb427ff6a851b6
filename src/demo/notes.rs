//! The demo's MCP server with sessions: remembers notes for each, and forgets all of them now and then, as a server does
//! whose pod is replaced.
//!
//! rmcp's streamable HTTP server. Knows nothing of the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::Incoming;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::Answer;
use super::tools::tool;

/// How long a server lives before another one takes its place, without its sessions.
const LIFE: Duration = Duration::from_secs(45);

/// Counts the notes of one session.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<AtomicU64>);

type Service = StreamableHttpService<Notes, LocalSessionManager>;

/// The server, which is replaced now and then.
#[derive(Clone)]
pub(super) struct NotesServer(Arc<ArcSwap<(Service, Instant)>>);

// === impl NotesServer ===

impl NotesServer {
    pub(super) fn new() -> Self {
        Self(Arc::new(ArcSwap::from_pointee((service(), Instant::now()))))
    }

    /// Answers one request.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Answer {
        if self.0.load().1.elapsed() > LIFE {
            self.0.store(Arc::new((service(), Instant::now())));
        }
        let now = self.0.load_full();
        Box::pin(now.0.handle(request)).await
    }
}

fn service() -> Service {
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(true);
    let sessions = Arc::new(LocalSessionManager::default());
    StreamableHttpService::new(|| Ok(Notes::default()), sessions, config)
}

// === impl Notes ===

impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let remember = tool("remember", "Keeps a note for the rest of the session.", &["text"]);
        let recall = tool("recall", "Says how many notes there are.", &[]);
        Ok(ListToolsResult::with_all_items(vec![remember, recall]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let count = match &*request.name {
            "remember" => self.0.fetch_add(1, Ordering::Relaxed) + 1,
            "recall" => self.0.load(Ordering::Relaxed),
            other => {
                let text = format!("there is no tool {other:?}; call remember or recall");
                return Err(ErrorData::invalid_params(text, None));
            }
        };
        let text = ContentBlock::text(format!("{count} notes in this session"));
        Ok(CallToolResult::success(vec![text]).into())
    }
}
