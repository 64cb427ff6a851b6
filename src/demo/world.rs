//! The demo's small world: Agents that call tools and each other through the proxy, at a gentle pace, for as long as
//! the demo runs. One tool is slow, one fails, one call is made that its Agent does not declare, one declared server is
//! never called, and one session loses its server now and then.
//!
//! Each Agent calls from a loopback address of its own, where the system has them, so that the proxy knows who calls.
//! Knows the proxy by its address only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::{AGENT, NOTES, TOOLS};

/// Between two turns of an Agent; the slowest call is longer.
const PACE: Duration = Duration::from_millis(1500);
/// A call that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;
/// Turns of a session before its Agent begins another one.
const TURNS: u64 = 40;

/// An Agent of the demo: its name, its address, what it says that it uses, and what it does at each turn.
#[derive(Clone, Copy, Debug)]
pub struct DemoAgent {
    /// In the namespace `demo`.
    pub name: &'static str,
    /// Where it calls from.
    pub address: Ipv4Addr,
    /// Hosts that it uses, as `callers` in the configuration has them.
    pub uses: &'static [&'static str],
    turn: &'static [Step],
}

/// One call.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A tool of the server without sessions.
    Tool(&'static str),
    /// A tool of the server with sessions.
    Note(&'static str),
    /// A message to the other Agent, answered at once or as a stream.
    Say(&'static str),
}

/// Who lives there.
pub const AGENTS: [DemoAgent; 4] = [
    DemoAgent {
        name: "planner",
        address: Ipv4Addr::new(127, 0, 7, 1),
        uses: &["tools.demo=add,search", "agent.demo", "notes.demo"],
        turn: &[
            Step::Tool("add"),
            Step::Tool("search"),
            Step::Note("remember"),
            Step::Say("message/send"),
        ],
    },
    DemoAgent {
        name: "writer",
        address: Ipv4Addr::new(127, 0, 7, 2),
        uses: &["tools.demo=add", "notes.demo", "agent.demo", "archive.demo"],
        turn: &[Step::Note("remember"), Step::Tool("add"), Step::Say("message/stream")],
    },
    DemoAgent {
        name: "reviewer",
        address: Ipv4Addr::new(127, 0, 7, 3),
        uses: &["tools.demo=deploy", "agent.demo"],
        // It says nothing of notes.demo.
        turn: &[Step::Tool("deploy"), Step::Say("message/send"), Step::Note("recall")],
    },
    DemoAgent {
        name: "agent",
        address: Ipv4Addr::new(127, 0, 7, 4),
        uses: &["tools.demo=add"],
        turn: &[Step::Tool("add")],
    },
];

/// Lets all of them live until the set is dropped.
pub(super) fn live(proxy: SocketAddr, lives: &mut JoinSet<()>) {
    for agent in AGENTS {
        lives.spawn(async move {
            let mut number = 0;
            let mut session = None;
            loop {
                if let Err(error) = agent.turn(proxy, &mut session, &mut number).await {
                    tracing::debug!(agent = agent.name, %error, "a call of the demo failed");
                    session = None;
                }
                if number % TURNS == 0 {
                    session = None;
                }
                // The pace is what the demo shows; nothing is waited for.
                tokio::time::sleep(PACE).await;
            }
        });
    }
}

// === impl DemoAgent ===

impl DemoAgent {
    /// One turn; `session` is that with the server of notes.
    async fn turn(
        &self,
        proxy: SocketAddr,
        session: &mut Option<HeaderValue>,
        number: &mut u64,
    ) -> Result<(), String> {
        let conversation = format!("{}-{}", self.name, *number / 10);
        for step in self.turn {
            *number += 1;
            let client = Caller { proxy, from: self.address, conversation: &conversation };
            match step {
                Step::Tool(tool) => {
                    client.call(TOOLS, None, &tool_call(*number, tool)).await?;
                }
                Step::Note(tool) => {
                    if session.is_none() {
                        *session = client.begin(*number).await?;
                    }
                    client.call(NOTES, session.as_ref(), &tool_call(*number, tool)).await?;
                }
                Step::Say(method) => {
                    client.call(AGENT, None, &message(*number, method)).await?;
                }
            }
        }
        Ok(())
    }
}

/// One who calls.
struct Caller<'a> {
    proxy: SocketAddr,
    from: Ipv4Addr,
    conversation: &'a str,
}

// === impl Caller ===

impl Caller<'_> {
    /// A session with the server of notes, as a client of MCP begins it.
    async fn begin(&self, id: u64) -> Result<Option<HeaderValue>, String> {
        let hello = json!({
            "jsonrpc": "2.0", "id": id, "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "demo", "version": env!("CARGO_PKG_VERSION")},
            },
        });
        let headers = self.call(NOTES, None, &hello).await?;
        let session = headers.get("mcp-session-id").cloned();
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.call(NOTES, session.as_ref(), &ready).await?;
        let list = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"});
        self.call(NOTES, session.as_ref(), &list).await?;
        Ok(session)
    }

    /// One request on a connection of its own; the response's headers once it has been read.
    async fn call(
        &self,
        host: &str,
        session: Option<&HeaderValue>,
        body: &Value,
    ) -> Result<HeaderMap, String> {
        let exchange = async {
            let stream = self.connect().await.map_err(|error| error.to_string())?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            let _ends_with_the_call =
                tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
            let mut request = Request::post(if host == AGENT { "/" } else { "/mcp" })
                .header(header::HOST, self.proxy.to_string())
                .header("x-kagent-host", host)
                .header("x-kagent-root-context-id", self.conversation)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json, text/event-stream");
            if let Some(session) = session {
                request = request
                    .header("mcp-session-id", session)
                    .header("mcp-protocol-version", "2025-06-18");
            }
            let request = request
                .body(Full::new(Bytes::from(body.to_string())))
                .map_err(|error| error.to_string())?;
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(head)
        };
        let head = tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))?;
        match head.status.is_success() {
            true => Ok(head.headers),
            false => Err(format!("{host} answered with {}", head.status)),
        }
    }

    /// From the Agent's own address, where the system has it.
    async fn connect(&self) -> io::Result<tokio::net::TcpStream> {
        let SocketAddr::V4(_) = self.proxy else {
            return tokio::net::TcpStream::connect(self.proxy).await;
        };
        let socket = TcpSocket::new_v4()?;
        let _others_call_as_nobody = socket.bind((IpAddr::V4(self.from), 0).into());
        socket.connect(self.proxy).await
    }
}

fn tool_call(id: u64, tool: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": {"a": id, "b": 1, "text": "as the plan says"}},
    })
}

fn message(id: u64, method: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": format!("m-{id}"), "method": method,
        "params": {"message": {
            "kind": "message", "messageId": format!("m-{id}"), "role": "user",
            "parts": [{"kind": "text", "text": "what is next"}],
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_calls_from_an_address_of_its_own_and_one_says_less_than_it_does() {
        let mut addresses: Vec<_> = AGENTS.iter().map(|agent| agent.address).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), AGENTS.len());
        assert!(addresses.iter().all(Ipv4Addr::is_loopback));
        let mut undeclared = Vec::new();
        for agent in AGENTS {
            let uses: Vec<_> =
                agent.uses.iter().map(|uses| uses.split('=').next().unwrap()).collect();
            for step in agent.turn {
                let host = match step {
                    Step::Tool(_) => TOOLS,
                    Step::Note(_) => NOTES,
                    Step::Say(_) => AGENT,
                };
                if !uses.contains(&host) {
                    undeclared.push((agent.name, host));
                }
            }
        }
        assert_eq!(undeclared, [("reviewer", NOTES)]);
    }
}
