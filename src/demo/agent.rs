//! The demo's A2A agent (protocol 0.3, JSON-RPC): says back what it hears, at once or word by word.
//!
//! Written by hand on hyper, because all it takes is a card and two methods. Keeps no tasks, so
//! `tasks/get` and its like find none.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::Answer;

/// Between two words, so that a reader sees that they come one by one.
const PACE: Duration = Duration::from_millis(250);
/// Bytes of one request.
const MAX_BODY: usize = 1024 * 1024;

/// The agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    address: SocketAddr,
    tasks: Arc<AtomicU64>,
}

/// What an event of a stream belongs to.
struct Task {
    id: String,
    context: String,
}

/// A JSON-RPC error: code and message.
type Fault = (i64, String);

// === impl Agent ===

impl Agent {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, tasks: Arc::default() }
    }

    /// Answers one request.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/.well-known/agent-card.json" | "/.well-known/agent.json") => {
                whole(StatusCode::OK, &self.card())
            }
            (&Method::POST, "/") => match Limited::new(request, MAX_BODY).collect().await {
                Ok(body) => self.rpc(&body.to_bytes()),
                Err(error) => whole(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
            },
            _ => {
                let help = "GET /.well-known/agent-card.json or POST /";
                whole(StatusCode::NOT_FOUND, &json!({"error": help}))
            }
        }
    }

    fn card(&self) -> Value {
        json!({
            "protocolVersion": "0.3.0",
            "name": "echo",
            "description": "Says back what it hears.",
            "version": env!("CARGO_PKG_VERSION"),
            "url": format!("http://{}/", self.address),
            "preferredTransport": "JSONRPC",
            "capabilities": {"streaming": true, "pushNotifications": false},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [{
                "id": "echo", "name": "Echo", "description": "Says back what it hears.",
                "tags": ["demo"],
            }],
        })
    }

    fn rpc(&self, body: &[u8]) -> Answer {
        let call: Value = match serde_json::from_slice(body) {
            Ok(call) => call,
            Err(error) => return fault(&Value::Null, (-32700, format!("not JSON: {error}"))),
        };
        let id = call.get("id").cloned().unwrap_or_default();
        let method = call.get("method").and_then(Value::as_str).unwrap_or_default();
        let heard = || self.heard(call.get("params").unwrap_or(&Value::Null));
        match method {
            "message/send" => match heard() {
                Ok((task, text)) => result(&id, &spoken(&task, &text)),
                Err(wrong) => fault(&id, wrong),
            },
            "message/stream" => match heard() {
                Ok((task, text)) => stream(id, task, text),
                Err(wrong) => fault(&id, wrong),
            },
            "tasks/get" | "tasks/cancel" | "tasks/resubscribe" => {
                fault(&id, (-32001, "this agent keeps no tasks".to_owned()))
            }
            _ => fault(&id, (-32601, format!("there is no method {method:?}"))),
        }
    }

    /// The words of a message, and a task for them.
    fn heard(&self, params: &Value) -> Result<(Task, String), Fault> {
        let message = params.get("message").unwrap_or(&Value::Null);
        let parts = message.get("parts").and_then(Value::as_array);
        let texts: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect();
        if texts.is_empty() {
            return Err((-32602, "params.message.parts needs a text part".to_owned()));
        }
        let number = self.tasks.fetch_add(1, Ordering::Relaxed) + 1;
        let context = message.get("contextId").and_then(Value::as_str);
        let context = context.map_or_else(|| format!("context-{number}"), ToOwned::to_owned);
        Ok((Task { id: format!("task-{number}"), context }, texts.join(" ")))
    }
}

/// A whole answer as a message.
fn spoken(task: &Task, text: &str) -> Value {
    json!({
        "kind": "message", "messageId": format!("{}-answer", task.id), "role": "agent",
        "contextId": task.context, "parts": [{"kind": "text", "text": text}],
    })
}

/// The events of a streamed answer, in order: the task, its work, its end.
fn events(task: &Task, text: &str) -> Vec<Value> {
    let status = |state: &str, last: bool| {
        json!({
            "kind": "status-update", "taskId": task.id, "contextId": task.context,
            "status": {"state": state}, "final": last,
        })
    };
    let mut events = vec![
        json!({
            "kind": "task", "id": task.id, "contextId": task.context,
            "status": {"state": "submitted"},
        }),
        status("working", false),
    ];
    let mut words = text.split_inclusive(' ').enumerate().peekable();
    while let Some((at, word)) = words.next() {
        events.push(json!({
            "kind": "artifact-update", "taskId": task.id, "contextId": task.context,
            "artifact": {"artifactId": "answer", "parts": [{"kind": "text", "text": word}]},
            "append": at > 0, "lastChunk": words.peek().is_none(),
        }));
    }
    events.push(status("completed", true));
    events
}

/// Sends the events at a readable pace; stops when nobody listens any more.
fn stream(id: Value, task: Task, text: String) -> Answer {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        for event in events(&task, &text) {
            let message = json!({"jsonrpc": "2.0", "id": id, "result": event});
            if sender.send_data(Bytes::from(format!("data: {message}\n\n"))).await.is_err() {
                return;
            }
            // The pace is what the demo shows; nothing is waited for.
            tokio::time::sleep(PACE).await;
        }
    });
    let mut answer = Response::new(body.boxed());
    let events = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, events);
    answer
}

fn result(id: &Value, result: &Value) -> Answer {
    whole(StatusCode::OK, &json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn fault(id: &Value, (code, message): Fault) -> Answer {
    let error = json!({"code": code, "message": message});
    whole(StatusCode::OK, &json!({"jsonrpc": "2.0", "id": id, "error": error}))
}

fn whole(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())).boxed());
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_opens_with_its_task_and_ends_with_a_final_status() {
        let task = Task { id: "t".to_owned(), context: "c".to_owned() };
        let all = events(&task, "one two");
        assert_eq!(all[0]["kind"], "task");
        assert_eq!(all[2]["artifact"]["parts"][0]["text"], "one ");
        assert_eq!((&all[2]["append"], &all[2]["lastChunk"]), (&json!(false), &json!(false)));
        assert_eq!((&all[3]["append"], &all[3]["lastChunk"]), (&json!(true), &json!(true)));
        assert_eq!(all[4]["final"], true);
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn a_message_without_text_is_a_fault_and_contexts_are_kept() {
        let agent = Agent::new(([127, 0, 0, 1], 1).into());
        assert_eq!(agent.heard(&Value::Null).err().map(|fault| fault.0), Some(-32602));
        let params = json!({"message": {"contextId": "mine", "parts": [{"text": "hi"}]}});
        let (task, text) = agent.heard(&params).unwrap();
        assert_eq!((task.context.as_str(), text.as_str()), ("mine", "hi"));
    }
}
