//! Clients of the chaos runs in session mode: `program clients URL HOST`. `tests/chaos/README.md` has the orders.
//!
//! By itself this SDK begins a session anew when it is answered 404, and sends the call again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ContentBlock, Implementation,
    LoggingMessageNotificationParam, ProgressNotificationParam,
};
use rmcp::service::{NotificationContext, Peer, RunningServiceCancellationToken};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Failure;

/// A session, and what ends it.
type Open = (Peer<RoleClient>, Option<RunningServiceCancellationToken>);

#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<String, Open>>>);

/// What a client hears outside of its calls.
struct Hears {
    name: String,
}

fn say(client: &str, event: &str, mut what: Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    what["client"] = json!(client);
    what["event"] = json!(event);
    what["at"] = json!(now.as_secs_f64());
    println!("{what}");
}

impl ClientHandler for Hears {
    fn get_info(&self) -> ClientConfig {
        // The title is for the servers' marks.
        let name = Implementation::new("rmcp", "1").with_title(&self.name);
        ClientConfig::new(ClientCapabilities::default(), name)
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        say(&self.name, "heard", json!({"text": progress.progress_token.0.to_string()}));
    }

    #[allow(deprecated, reason = "the versions of MCP that have sessions log so")]
    async fn on_logging_message(
        &self,
        message: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let text = message.data.as_str().map_or_else(|| message.data.to_string(), str::to_owned);
        say(&self.name, "heard", json!({"text": text}));
    }
}

impl Clients {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The life of one session, from `opened` to `ended`.
    async fn live(self, name: String, url: String, host: String) -> Result<(), Failure> {
        let headers = HashMap::from([("x-kagent-host".parse()?, host.parse()?)]);
        let config = StreamableHttpClientTransportConfig::with_uri(url).custom_headers(headers);
        let transport = StreamableHttpClientTransport::from_config(config);
        let service = match (Hears { name: name.clone() }).serve(transport).await {
            Ok(service) => service,
            Err(error) => {
                say(&name, "refused", json!({"error": error.to_string()}));
                return Ok(());
            }
        };
        let open = (service.peer().clone(), Some(service.cancellation_token()));
        self.all().insert(name.clone(), open);
        say(&name, "opened", json!({}));
        let ended = service.waiting().await;
        self.all().remove(&name);
        say(&name, "ended", json!({"error": format!("{ended:?}")}));
        Ok(())
    }

    async fn answer(self, order: Value) {
        let name = order["client"].as_str().unwrap_or_default().to_owned();
        let peer = self.all().get(&name).map(|(peer, _)| peer.clone());
        let limit = Duration::from_secs_f64(order["limit"].as_f64().unwrap_or(10.0));
        let (outcome, text) = match peer {
            None => ("error", "no session".to_owned()),
            Some(peer) => match tokio::time::timeout(limit, ask(&peer, &order)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => ("error", error.to_string()),
                Err(_) => ("unanswered", format!("nothing for {limit:?}")),
            },
        };
        let what = json!({"number": order["number"], "outcome": outcome, "text": text});
        say(&name, "answer", what);
    }
}

async fn ask(peer: &Peer<RoleClient>, order: &Value) -> Result<(&'static str, String), Failure> {
    if order["do"] == "list" {
        let found = peer.list_tools(None).await?;
        let names: Vec<_> = found.tools.iter().map(|tool| tool.name.to_string()).collect();
        return Ok(("result", names.join(" ")));
    }
    let arguments = ["client", "number", "gate", "announce"];
    let arguments = arguments.map(|key| (key.to_owned(), order[key].clone())).into_iter().collect();
    let call = CallToolRequestParams::new("count").with_arguments(arguments);
    let result = peer.call_tool(call).await?;
    let text = result.content.first().and_then(ContentBlock::as_text);
    let text = text.map(|text| text.text.clone()).unwrap_or_default();
    Ok((if result.is_error == Some(true) { "told" } else { "result" }, text))
}

/// Does what standard input says until it ends.
pub async fn follow(url: &str, host: &str) -> Result<(), Failure> {
    let clients = Clients::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let order: Value = serde_json::from_str(&line)?;
        let name = order["client"].as_str().unwrap_or_default().to_owned();
        match order["do"].as_str() {
            Some("open") => {
                tokio::spawn(clients.clone().live(name, url.to_owned(), host.to_owned()));
            }
            Some("close") => {
                let ends = clients.all().get_mut(&name).and_then(|(_, ends)| ends.take());
                if let Some(ends) = ends {
                    ends.cancel();
                }
            }
            Some("ping") => say(&name, "pong", json!({})),
            _ => {
                tokio::spawn(clients.clone().answer(order));
            }
        }
    }
    Ok(())
}
