//! What the Model Context Protocol says of sessions, as far as somebody between client and server needs it:
//! which requests may be sent twice, how servers say that they know no session, how one begins.
//!
//! Pure: bytes and words in, words out. Knows no request's way and no connection.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jsonrpc::{self, Message};
use super::sse::MARK;

/// Requests that change nothing, so that sending one twice does no harm (MCP 2025-11-25, "Server Features"). An
/// `initialize` whose answer nobody has read makes a session that nobody uses.
const REPEATABLE: [&str; 11] = [
    INITIALIZE,
    "ping",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    DISCOVER,
];

/// How servers say that they do not know a session: the code of their JSON-RPC error, or none for plain text; all of
/// the message; where it was read. With 404 they need not say anything (MCP 2025-11-25, "Session Management"). With
/// 400, which older servers use, and routers that make one of a 404, it counts only if it is one of these.
const DENIALS: [(Option<i64>, &str, &str); 10] = [
    (
        Some(-32000),
        "Bad Request: Server not initialized",
        "TypeScript SDK 1.32, one transport for all, restarted: 400",
    ),
    (
        Some(-32000),
        "Bad Request: No valid session ID provided",
        "examples of the TypeScript SDK 1.x: 400",
    ),
    (Some(-32000), "Invalid or missing session ID", "servers after those examples: 400"),
    (Some(-32001), "Session not found", "TypeScript SDK 1.32: 404"),
    (Some(-32600), "Session not found", "Python mcp 1.28 and 2.3: 404"),
    (
        Some(-32600),
        "Not Found: Invalid or expired session ID",
        "Python mcp 1.28 and 2.3, one transport: 404",
    ),
    (None, "Bad Request: No valid session ID provided", "Python mcp up to 1.12: 400"),
    (
        None,
        "Invalid or missing session ID",
        "examples of the TypeScript SDK 1.x, GET and DELETE: 400",
    ),
    (None, "session not found", "Go SDK 1.6 and 1.8, agentgateway 0.9 (kmcp's adapter): 404"),
    (None, "Not Found: Session not found", "rmcp 3.11: 404"),
];

/// Words that make kagent's older Python wrapper tell its model not to try again
/// (`kagent-adk`, `_mcp_toolset.py`); no text of ours has one.
const STOP_WORDS: [&str; 9] = [
    "timeout",
    "timed out",
    "connection",
    "eof",
    "reset",
    "closed",
    "transport",
    "stream",
    "unreachable",
];

/// The method by which a session begins.
pub const INITIALIZE: &str = "initialize";

/// The method by which a client finds out which revisions a server speaks (MCP 2026-07-28, "Discovery").
pub const DISCOVER: &str = "server/discover";

/// The method whose effects nobody but its server knows.
pub const TOOLS_CALL: &str = "tools/call";

/// Whether it is such a call.
#[must_use]
pub fn is_call(message: &Message<'_>) -> bool {
    message.id.is_some() && message.method.as_deref() == Some(TOOLS_CALL)
}

/// Whether a request of this method may be sent again although it may have run.
#[must_use]
pub fn may_repeat(method: &str) -> bool {
    let mutant = cfg!(feature = "mutant-repeats") && method == TOOLS_CALL;
    mutant || REPEATABLE.contains(&method)
}

/// Whether a response with 400 and this whole body says that the server does not know the session. An error is one
/// by its code and its message, whatever its id; other text only if there is nothing else.
#[must_use]
pub fn is_session_unknown(body: &[u8]) -> bool {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let (code, text) = match &json {
        Some(json) => {
            let Some(code) = json.pointer("/error/code").and_then(Value::as_i64) else {
                return false;
            };
            (Some(code), json.pointer("/error/message").and_then(Value::as_str))
        }
        None => (None, std::str::from_utf8(body).ok()),
    };
    let text = text.unwrap_or_default().trim();
    DENIALS.iter().any(|known| known.0 == code && known.1.eq_ignore_ascii_case(text))
}

/// The `params` of an `initialize` request, compact; `None` for every other message.
#[must_use]
pub fn initialize_params(body: &[u8]) -> Option<String> {
    let message: Value = serde_json::from_slice(body).ok()?;
    if message.get("method")? != "initialize" {
        return None;
    }
    message.get("params").filter(|params| params.is_object()).map(Value::to_string)
}

/// Whether the client that began a session with these params is the Python SDK 1.x by its own name, which loses
/// all its calls by any status but 400 and 404.
#[must_use]
pub fn is_python_1(params: &str) -> bool {
    let params: Value = serde_json::from_str(params).unwrap_or_default();
    let said = |key: &str| params.pointer(key).and_then(Value::as_str);
    said("/clientInfo/name") == Some("mcp") && said("/clientInfo/version") == Some("0.1.0")
}

/// The `protocolVersion` that a client asks for in its `initialize`.
#[must_use]
pub fn asked_version(params: &str) -> Option<String> {
    let params: Value = serde_json::from_str(params).ok()?;
    params.get("protocolVersion")?.as_str().map(str::to_owned)
}

/// The `initialize` that begins a session with a client's params; `id` is a JSON string's content.
#[must_use]
pub fn initialize(id: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"initialize","params":{params}}}"#)
}

/// What a client says when it has read the answer.
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Whether the first bytes of a body may be those of an `initialize`: a quick look, which may be wrong about other
/// messages that have the word.
#[must_use]
pub fn may_be_initialize(start: &[u8]) -> bool {
    static WORD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"initialize\""));
    WORD.find(start.get(..256).unwrap_or(start)).is_some()
}

/// What became of an `initialize`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initialized {
    /// The server takes it, with this `protocolVersion`.
    Version(String),
    /// The server answers with an error, or with something else.
    Refused,
}

/// The answer to the request `id` in a body, JSON or events; `None` if it has not come.
#[must_use]
pub fn initialize_answer(body: &[u8], events: bool, id: &str) -> Option<Initialized> {
    initialized(body, events, |message| message.get("id").and_then(Value::as_str) == Some(id))
}

/// The same for a response to nothing else than an `initialize`, whatever its id.
#[must_use]
pub fn chosen_version(body: &[u8], events: bool) -> Option<Initialized> {
    initialized(body, events, |message| {
        message.get("result").or_else(|| message.get("error")).is_some()
    })
}

fn initialized(body: &[u8], events: bool, ours: impl Fn(&Value) -> bool) -> Option<Initialized> {
    let message = if events {
        event_data(body).filter_map(|data| serde_json::from_str(&data).ok()).find(ours)
    } else {
        serde_json::from_slice(body).ok().filter(ours)
    }?;
    let version = message.pointer("/result/protocolVersion").and_then(Value::as_str);
    Some(version.map_or(Initialized::Refused, |version| Initialized::Version(version.to_owned())))
}

/// The data of every event that is whole (WHATWG HTML, section 9.2.6).
fn event_data(body: &[u8]) -> impl Iterator<Item = String> {
    let body = body.strip_prefix(MARK).unwrap_or(body);
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n").replace('\r', "\n");
    let whole = text.rsplit_once("\n\n").map(|(whole, _)| whole.to_owned()).unwrap_or_default();
    let data = |event: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(str::trim_start).collect::<Vec<_>>().join("\n")
    };
    whole.split("\n\n").map(data).collect::<Vec<_>>().into_iter()
}

/// The result of a `tools/call` that was sent and never answered, for the request `id` (JSON as the client wrote
/// it). Its text is for a model. A JSON-RPC error would make some clients call again, silently.
#[must_use]
pub fn lost_call(id: &str, server: &str) -> String {
    let name = named(server);
    tool_error(
        id,
        &format!(
            "{name} went away before it answered this call. The call may or may not have taken effect, \
             and it was not repeated. Check whether it took effect before you call the tool again."
        ),
    )
}

/// The result of a `tools/call` that was surely not run.
#[must_use]
pub fn call_not_run(id: &str, server: &str) -> String {
    let name = named(server);
    tool_error(
        id,
        &format!(
            "{name} is not available at the moment. This call was not run; try it again later."
        ),
    )
}

/// The error for a request of another method that was not answered.
#[must_use]
pub fn unanswered(id: &str, server: &str) -> String {
    let message = format!("{} went away before it answered", named(server));
    let error = json!({ "code": -32603, "message": message });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// What stands in for the answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Of the request, as its client wrote it.
    pub id: String,
    /// The JSON-RPC response.
    pub answer: String,
}

/// What stands in for the answers to these requests of which nobody knows whether they ran; none for other messages.
#[must_use]
pub fn stand_ins(messages: &[Message<'_>], server: &str) -> Vec<StandIn> {
    let waits = messages.iter().filter_map(|message| {
        let (id, _) = (message.id?, message.method.as_ref()?);
        let answer = if is_call(message) { lost_call(id, server) } else { unanswered(id, server) };
        Some(StandIn { id: id.to_owned(), answer })
    });
    waits.collect()
}

/// What the request of this body is answered with in its server's place: a call by `call`, any other by an error. A
/// batch gets an array with an answer for each request in it. `None` if nobody waits for an answer.
#[must_use]
pub fn in_servers_place(
    body: &[u8],
    server: &str,
    call: fn(&str, &str) -> String,
) -> Option<String> {
    let answer = |message: &Message<'_>| {
        let (id, _) = (message.id?, message.method.as_ref()?);
        Some(if is_call(message) { call(id, server) } else { unanswered(id, server) })
    };
    match jsonrpc::batch(body) {
        None => answer(&Message::read(body)),
        Some(batch) => {
            let answers: Vec<String> = batch.iter().filter_map(answer).collect();
            (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
        }
    }
}

fn tool_error(id: &str, text: &str) -> String {
    let content = json!([{ "type": "text", "text": text }]);
    // Clients of 2026-07-28 take no result without its type; older ones pass over it.
    let result = json!({ "resultType": "complete", "isError": true, "content": content });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// Without its name where that would be read for something else.
fn named(server: &str) -> String {
    if STOP_WORDS.iter().any(|word| server.to_lowercase().contains(word)) || server.is_empty() {
        return "The tool server".to_owned();
    }
    format!("The tool server {server}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_effects_is_never_repeated() {
        for method in ["tools/list", "ping", "resources/read", "initialize", "logging/setLevel"] {
            assert!(may_repeat(method), "{method}");
        }
        for method in [
            "",
            "tools/call",
            "Tools/list",
            "tools/list ",
            "sampling/createMessage",
            "message/send",
            "tasks/cancel",
            "resources/subscribe",
            "notifications/initialized",
            "tasks/get",
            "elicitation/create",
        ] {
            assert!(!may_repeat(method), "{method}");
        }
    }

    #[test]
    fn servers_that_forgot_a_session_are_understood_and_others_are_not() {
        for (code, text, seen_at) in DENIALS {
            assert!(seen_at.ends_with("400") || seen_at.ends_with("404"), "{seen_at}");
            let said = match code {
                Some(code) => json!({"jsonrpc": "2.0", "id": "server-error", "error": {"code": code, "message": text}}).to_string(),
                None => format!("{text}\n"),
            };
            assert!(is_session_unknown(said.as_bytes()), "{said}");
            for more in [format!("{said} more"), format!("more {said}"), said.replace(text, "")] {
                assert!(!is_session_unknown(more.as_bytes()), "{more}");
            }
        }
        for said in [
            "",
            "{}",
            "the tool ran, and its session not found",
            "Error: session not found",
            r#"{"error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#,
            r#"{"error":{"code":-32700,"message":"Parse error"}}"#,
            r#"{"error":{"code":-32603,"message":"Session not found"}}"#,
            r#"{"error":{"code":-32001,"message":"Session not found: tmux-3"}}"#,
            r#"{"error":{"message":"Session not found"}}"#,
            r#"{"error":"Session not found"}"#,
            r#""session not found""#,
            "Bad Request: Unsupported protocol version",
        ] {
            assert!(!is_session_unknown(said.as_bytes()), "{said}");
        }
    }

    #[test]
    fn each_request_of_a_batch_gets_an_answer() {
        let batch = r#"[{"id":1,"method":"tools/call"},{"method":"a"},{"id":"b","method":"ping"},{"id":3,"result":{}}]"#;
        let answers = in_servers_place(batch.as_bytes(), "a.b", call_not_run).unwrap();
        let answers: Value = serde_json::from_str(&answers).unwrap();
        assert_eq!(answers[0]["result"]["isError"], true);
        assert_eq!(
            (&answers[1]["id"], &answers[1]["error"]["code"]),
            (&json!("b"), &json!(-32603))
        );
        assert_eq!(answers.as_array().map(Vec::len), Some(2));
        let one = in_servers_place(br#"{"id":1,"method":"tools/call"}"#, "a.b", lost_call).unwrap();
        assert_eq!(one, lost_call("1", "a.b"));
        for silent in
            [r#"[{"method":"a"}]"#, r#"{"method":"a"}"#, r#"{"id":1,"result":{}}"#, "[]", ""]
        {
            assert_eq!(in_servers_place(silent.as_bytes(), "a.b", lost_call), None, "{silent}");
        }
    }

    #[test]
    fn each_request_that_is_waited_for_has_a_stand_in() {
        let batch = r#"[{"id":1,"method":"tools/call"},{"method":"a"},{"id":"b","method":"ping"},{"id":3,"result":{}}]"#;
        let found = stand_ins(&jsonrpc::messages(batch.as_bytes()), "a.b");
        let expected = [("1", lost_call("1", "a.b")), ("\"b\"", unanswered("\"b\"", "a.b"))];
        let expected = expected.map(|(id, answer)| StandIn { id: id.to_owned(), answer });
        assert_eq!(found, expected);
        for silent in [r#"[{"method":"a"}]"#, r#"{"id":1,"result":{}}"#, "", &batch[..60]] {
            assert_eq!(stand_ins(&jsonrpc::messages(silent.as_bytes()), "a.b"), [], "{silent}");
        }
    }

    #[test]
    fn an_initialize_is_known_and_told_again() {
        let asked = br#"{"jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {"protocolVersion": "2025-06-18", "clientInfo": {"name": "mcp", "version": "0.1.0"}}}"#;
        let params = initialize_params(asked).unwrap();
        assert_eq!(
            params,
            r#"{"protocolVersion":"2025-06-18","clientInfo":{"name":"mcp","version":"0.1.0"}}"#
        );
        assert!(is_python_1(&params) && !is_python_1("{}") && !is_python_1("no"));
        assert_eq!(asked_version(&params).as_deref(), Some("2025-06-18"));
        assert_eq!(initialize_params(initialize("a", &params).as_bytes()), Some(params));
        for other in ["", "[]", r#"{"method":"ping","params":{}}"#, r#"{"method":"initialize"}"#] {
            assert_eq!(initialize_params(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_initialize_is_seen_at_once() {
        let start = initialize("a", "{}");
        assert!(may_be_initialize(start.as_bytes()));
        for other in ["", "initialize", r#"{"method":"tools/call"}"#, r#"{"method":"initialized"}"#]
        {
            assert!(!may_be_initialize(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_answer_is_found_in_json_and_among_events() {
        let answer = r#"{"jsonrpc":"2.0","id":"a","result":{"protocolVersion":"2025-06-18"}}"#;
        let version = Some(Initialized::Version("2025-06-18".to_owned()));
        assert_eq!(initialize_answer(answer.as_bytes(), false, "a"), version);
        assert_eq!(initialize_answer(answer.as_bytes(), false, "b"), None);
        let log = r#"{"jsonrpc":"2.0","method":"notifications/message"}"#;
        for end in ["\n", "\r\n", "\r"] {
            let events = format!(
                ": ping{end}{end}data: {log}{end}{end}event: message{end}data: {answer}{end}{end}"
            );
            assert_eq!(initialize_answer(events.as_bytes(), true, "a"), version, "{end:?}");
            let cut = &events.as_bytes()[..events.len() - end.len()];
            assert_eq!(initialize_answer(cut, true, "a"), None, "its end has not come");
        }
        assert_eq!(chosen_version(answer.as_bytes(), false), version);
        let marked = format!("\u{feff}data: {answer}\n\n");
        assert_eq!(chosen_version(marked.as_bytes(), true), version, "behind a byte order mark");
        assert_eq!(chosen_version(log.as_bytes(), false), None, "the answer comes later");
        let refused = r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"no"}}"#;
        assert_eq!(chosen_version(refused.as_bytes(), false), Some(Initialized::Refused));
        assert_eq!(initialize_answer(refused.as_bytes(), false, "a"), Some(Initialized::Refused));
    }

    #[test]
    fn texts_for_models_name_the_server_and_have_no_stop_word() {
        for server in ["tools.team-a", "stream-tools.team-a", ""] {
            for (text, id) in
                [(lost_call("7", server), json!(7)), (call_not_run("\"x\"", server), json!("x"))]
            {
                let value: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value["id"], id);
                assert_eq!(value["result"]["isError"], true);
                assert_eq!(value["result"]["resultType"], "complete");
                let said = value["result"]["content"][0]["text"].as_str().unwrap().to_lowercase();
                assert!(STOP_WORDS.iter().all(|word| !said.contains(word)), "{said}");
                assert_eq!(said.contains("tools.team-a"), server == "tools.team-a", "{said}");
            }
        }
        let error: Value = serde_json::from_str(&unanswered("1", "a.b")).unwrap();
        assert_eq!(error["error"]["code"], -32603);
    }
}
