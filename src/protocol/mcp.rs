//! What the Model Context Protocol says of sessions, as far as somebody between client and server needs it:
//! which requests may be sent twice, how servers say that they know no session, how one begins.
//!
//! Pure: bytes and words in, words out. Knows no request's way and no connection.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Value, json};

/// Requests that change nothing, so that sending one twice does no harm (MCP 2025-11-25, "Server Features"). An
/// `initialize` whose answer nobody has read makes a session that nobody uses.
const REPEATABLE: [&str; 11] = [
    "initialize",
    "ping",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "server/discover",
];

/// What servers say with 400 to the id of a session that they do not know, in lower case, and which do.
/// With 404 they need not say anything (MCP 2025-11-25, "Session Management").
const UNKNOWN_SESSION: [(&str, &str); 5] = [
    ("no valid session id", "Python mcp up to 1.12, and the examples of the TypeScript SDK"),
    ("server not initialized", "TypeScript SDK, one transport for all, restarted"),
    ("session not found", "TypeScript SDK, Go SDK, rmcp and agentgateway behind older routers"),
    ("invalid or expired session", "Python mcp from 1.13"),
    ("unknown session", "FastMCP behind kmcp's adapter"),
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

/// The method whose effects nobody but its server knows.
pub const TOOLS_CALL: &str = "tools/call";

/// Whether a request of this method may be sent again although it may have run.
#[must_use]
pub fn may_repeat(method: &str) -> bool {
    let mutant = cfg!(feature = "mutant-repeats") && method == TOOLS_CALL;
    mutant || REPEATABLE.contains(&method)
}

/// Whether a response with 400 says that the server does not know the session.
#[must_use]
pub fn is_session_unknown(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_lowercase();
    UNKNOWN_SESSION.iter().any(|(said, _)| text.contains(said))
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
    let ours = |message: &Value| message.get("id").and_then(Value::as_str) == Some(id);
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

fn tool_error(id: &str, text: &str) -> String {
    let result = json!({ "isError": true, "content": [{ "type": "text", "text": text }] });
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
        for said in [
            r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
            r#"{"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#,
            "session not found\n",
            "Not Found: Invalid or expired session ID",
        ] {
            assert!(is_session_unknown(said.as_bytes()), "{said}");
        }
        for said in [
            "",
            r#"{"error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#,
            r#"{"error":{"code":-32700,"message":"Parse error"}}"#,
            "Bad Request: Unsupported protocol version",
        ] {
            assert!(!is_session_unknown(said.as_bytes()), "{said}");
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
        let refused = r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"no"}}"#;
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
                let said = value["result"]["content"][0]["text"].as_str().unwrap().to_lowercase();
                assert!(STOP_WORDS.iter().all(|word| !said.contains(word)), "{said}");
                assert_eq!(said.contains("tools.team-a"), server == "tools.team-a", "{said}");
            }
        }
        let error: Value = serde_json::from_str(&unanswered("1", "a.b")).unwrap();
        assert_eq!(error["error"]["code"], -32603);
    }
}
