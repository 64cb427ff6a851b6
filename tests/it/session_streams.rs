//! Event streams and answers of sessions, played byte by byte: where a stream goes on, what its client may ask for
//! again, and what a call is answered with whose answer did not come whole.

use serde_json::{Value, json};

use crate::support::{BOUND, Backend, Client, TestProxy, config, route};
use kagent_proxy::config::{Config, Scheme};

pub(crate) const HOST: &str = "tools.team-a";
pub(crate) const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\nconnection: close\r\n\
                      transfer-encoding: chunked\r\n\r\n";
pub(crate) const TAKEN: &str =
    "HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
pub(crate) const PROGRESS: &str =
    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
pub(crate) const RESULT: &str =
    "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[]}}\n\n";
pub(crate) const END: &str = "0\r\n\r\n";

/// A request as the server has read it, head and body.
pub(crate) struct Asked {
    pub(crate) call: Client,
    pub(crate) text: String,
}

impl Asked {
    /// The next one; a connection without a word is none.
    pub(crate) async fn next(backend: &Backend) -> Self {
        let next = async {
            loop {
                let mut call = backend.accept().await;
                if let Some(text) = read(&mut call).await {
                    return Self { call, text };
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.expect("no request")
    }

    pub(crate) fn is(&self, what: &str) -> bool {
        self.text.contains(what)
    }

    pub(crate) fn last_event_id(&self) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix("last-event-id: "))
    }

    /// The answer to an `initialize` of the proxy, which begins the session anew.
    fn begun(&self) -> String {
        assert!(self.is("\"initialize\""), "{}", self.text);
        let id = self.text.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
        let answer = initialized();
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let body = body.replace("\"id\":0", &format!("\"id\":\"{id}\""));
        json_answer(&body).replace("s1", "s2")
    }

    pub(crate) async fn say(&mut self, bytes: &str) {
        self.call.send(bytes).await;
    }

    /// Answers by these bytes and closes.
    pub(crate) async fn answer(mut self, bytes: &str) {
        self.say(bytes).await;
    }
}

async fn read(call: &mut Client) -> Option<String> {
    use tokio::io::AsyncReadExt;
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        let mut some = [0; 1024];
        match call.0.read(&mut some).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => all.extend_from_slice(&some[..length]),
        }
    }
}

pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The event that has this id.
pub(crate) fn event(id: &str, data: &str) -> String {
    chunk(&format!("id: {id}\n{data}"))
}

pub(crate) fn json_answer(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\nmcp-session-id: s1\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn initialized() -> String {
    json_answer(
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#,
    )
}

pub(crate) fn request(method: &str, (token, event): (&str, Option<&str>), body: &str) -> String {
    let session = if token.is_empty() {
        String::new()
    } else {
        format!("mcp-session-id: {token}\r\nmcp-protocol-version: 2025-06-18\r\n")
    };
    let event = event.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let accept =
        if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" };
    let length = body.len();
    format!(
        "{method} /mcp HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: {HOST}\r\naccept: {accept}\r\n\
         content-type: application/json\r\n{session}{event}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

pub(crate) fn call() -> String {
    message("tools/call")
}

pub(crate) fn message(method: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": {"name": "t", "arguments": {}}})
        .to_string()
}

/// What a client begins a session by.
pub(crate) fn initialize() -> String {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}})
    .to_string()
}

/// The session that a response names.
pub(crate) fn token(answer: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
    line.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A route to this server.
pub(crate) fn to(server: &Backend) -> Config {
    config(vec![route(HOST, "/", Scheme::Http, &[server.port()])])
}

/// A proxy before one server, and a client's session there.
pub(crate) struct Scene {
    pub(crate) server: Backend,
    pub(crate) proxy: TestProxy,
    pub(crate) token: String,
}

impl Scene {
    pub(crate) async fn begin() -> Self {
        let server = Backend::start().await;
        let proxy = TestProxy::start(to(&server)).await;
        Self::at(server, proxy).await
    }

    /// The same at this proxy.
    pub(crate) async fn at(server: Backend, proxy: TestProxy) -> Self {
        let ask = request("POST", ("", None), &initialize());
        let (answer, ()) = tokio::join!(proxy.ask(&ask), async {
            Asked::next(&server).await.answer(&initialized()).await;
        });
        let token = token(&answer);
        Self { server, proxy, token }
    }

    pub(crate) async fn asked(&self) -> Asked {
        Asked::next(&self.server).await
    }

    /// Sends a request that goes on while the scenario does.
    pub(crate) async fn open(&self, method: &str, event: Option<&str>, body: &str) -> Client {
        let mut client = self.proxy.connect().await;
        client.send(&request(method, (&self.token, event), body)).await;
        client
    }

    /// Begins the session anew, which the server forgets by this.
    pub(crate) async fn forget(&self) {
        let mut client = self.open("POST", None, &message("ping")).await;
        self.asked()
            .await
            .answer("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
        self.revived().await;
        let again = self.asked().await;
        assert!(again.is("\"ping\""), "{}", again.text);
        again.answer(&json_answer(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#)).await;
        assert!(client.rest().await.contains("\"result\""));
    }

    /// Plays the server while a session begins anew.
    pub(crate) async fn revived(&self) {
        let anew = self.asked().await;
        let begun = anew.begun();
        anew.answer(&begun).await;
        let ready = self.asked().await;
        assert!(ready.is("notifications/initialized"), "{}", ready.text);
        ready.answer(TAKEN).await;
    }

    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
    }
}

/// What the last event of a stream says.
pub(crate) fn last_event(stream: &str) -> Value {
    let data = stream.lines().rfind(|line| line.starts_with("data: "));
    let data = data.unwrap_or_else(|| panic!("no event: {stream}"));
    serde_json::from_str(&data[6..]).unwrap()
}

pub(crate) fn body(response: &str) -> Value {
    let body = response.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {response}"))
}

pub(crate) fn assert_lost(answer: &Value) {
    assert_eq!(
        (&answer["id"], &answer["result"]["isError"]),
        (&json!(7), &json!(true)),
        "{answer}"
    );
}

#[tokio::test]
async fn a_sessions_own_stream_goes_on_behind_its_last_event() {
    let scene = Scene::begin().await;
    let mut stream = scene.open("GET", None, "").await;
    let first = scene.asked().await;
    assert_eq!(first.last_event_id(), None);
    first.answer(&format!("{STREAM}{}{END}", event("6", PROGRESS) + &event("7", PROGRESS))).await;
    let again = scene.asked().await;
    assert_eq!(again.last_event_id(), Some("7"));
    // One that has no id is not the last.
    again.answer(&format!("{STREAM}{}{END}", chunk(PROGRESS))).await;
    let mut third = scene.asked().await;
    assert_eq!(third.last_event_id(), Some("7"));
    third.say(&format!("{STREAM}{}", event("8", PROGRESS))).await;
    stream.until("id: 8").await;
    scene.forget().await;
    // Ids of events were those of the session that is gone.
    let moved = scene.asked().await;
    assert!(moved.is("GET /mcp") && moved.is("mcp-session-id: s2"), "{}", moved.text);
    assert_eq!(moved.last_event_id(), None);
    moved.answer(&format!("{STREAM}{}{END}", chunk(PROGRESS))).await;
    let again = scene.asked().await;
    assert_eq!(again.last_event_id(), None, "they still are");
    drop((stream, third, again));
    scene.stop().await;
}

#[tokio::test]
async fn a_resumed_stream_ends_behind_the_answer_that_it_brings() {
    let scene = Scene::begin().await;
    let mut stream = scene.open("GET", Some("3"), "").await;
    let resumed = scene.asked().await;
    assert_eq!(resumed.last_event_id(), Some("3"));
    // Before the answer it may be the session's own.
    resumed.answer(&format!("{STREAM}{}{END}", event("4", PROGRESS))).await;
    let again = scene.asked().await;
    assert_eq!(again.last_event_id(), Some("4"));
    again.answer(&format!("{STREAM}{}{END}", event("5", RESULT))).await;
    let all = stream.rest().await;
    assert!(all.ends_with(END) && all.matches("\"result\"").count() == 1, "{all}");
    scene.stop().await;
}

#[tokio::test]
async fn a_call_whose_stream_ended_is_answered_when_its_client_asks_and_its_server_is_gone() {
    for moved in [false, true] {
        let scene = Scene::begin().await;
        let mut client = scene.open("POST", None, &call()).await;
        scene.asked().await.answer(&format!("{STREAM}{}{END}", event("1", PROGRESS))).await;
        let begun = client.rest().await;
        assert!(begun.ends_with(END) && !begun.contains("isError"), "{begun}");
        // A server that lives is asked, and its stream is the client's.
        let mut client = scene.open("GET", Some("1"), "").await;
        let resumed = scene.asked().await;
        assert_eq!(resumed.last_event_id(), Some("1"));
        resumed.answer(&format!("{STREAM}{}{END}", event("2", PROGRESS))).await;
        let more = client.rest().await;
        assert!(more.ends_with(END) && !more.contains("isError"), "{more}");
        let Scene { server, proxy, token } = if moved {
            scene.forget().await;
            scene
        } else {
            scene
        };
        let server = Some(server).filter(|_| moved);
        let answer = proxy.ask(&request("GET", (&token, Some("2")), "")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("text/event-stream"),
            "{answer}"
        );
        assert_lost(&last_event(&answer));
        drop(server);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_stream_with_event_ids_that_breaks_off_ends_with_an_answer() {
    let scene = Scene::begin().await;
    let mut client = scene.open("POST", None, &call()).await;
    let mut broken = scene.asked().await;
    broken.say(&format!("{STREAM}{}", event("1", PROGRESS))).await;
    client.until("id: 1").await;
    // Its server may be another process by now, at the same address.
    drop(broken);
    let all = client.rest().await;
    assert!(all.ends_with(END), "{all}");
    assert_lost(&last_event(&all));
    scene.proxy.stop().await;
}

const CUT: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\nconnection: close\r\n";

#[tokio::test]
async fn a_json_answer_that_is_cut_off_is_no_abort() {
    let scene = Scene::begin().await;
    for cut in [
        "content-length: 90\r\n\r\n{\"jsonrpc\"",
        "transfer-encoding: chunked\r\n\r\na\r\n{\"jsonrpc\"\r\n",
    ] {
        let mut client = scene.open("POST", None, &call()).await;
        scene.asked().await.answer(&format!("{CUT}{cut}")).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_lost(&body(&answer));
        let mut client = scene.open("POST", None, &message("resources/subscribe")).await;
        scene.asked().await.answer(&format!("{CUT}{cut}")).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(body(&answer)["error"]["code"], -32603, "{answer}");
        let mut client = scene.open("POST", None, &message("tools/list")).await;
        scene.asked().await.answer(&format!("{CUT}{cut}")).await;
        let whole = r#"{"jsonrpc":"2.0","id":7,"result":{"tools":[]}}"#;
        scene.asked().await.answer(&json_answer(whole)).await;
        assert!(client.rest().await.ends_with(whole));
    }
    scene.stop().await;
}

/// Whatever is longer than what is held passes as it comes.
#[tokio::test]
async fn a_long_json_answer_is_not_held() {
    let scene = Scene::begin().await;
    let mut client = scene.open("POST", None, &call()).await;
    let mut slow = scene.asked().await;
    slow.say(&format!("{CUT}content-length: 70000\r\n\r\n{{\"a\":\"begun")).await;
    client.until("begun").await;
    drop((client, slow));
    let mut client = scene.open("POST", None, &call()).await;
    let mut slow = scene.asked().await;
    slow.say(&format!("{CUT}transfer-encoding: chunked\r\n\r\n")).await;
    slow.say(&chunk(&"x".repeat(65 * 1024))).await;
    slow.say(&chunk("more")).await;
    client.until("more").await;
    drop((client, slow));
    scene.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_there_and_is_no_more_brings_its_session_back() {
    let scene = Scene::begin().await;
    let mut stream = scene.open("GET", None, "").await;
    scene.asked().await.answer(&format!("{STREAM}{}{END}", chunk(PROGRESS))).await;
    let again = scene.asked().await;
    assert!(again.is("GET /mcp"), "{}", again.text);
    again.answer("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    scene.revived().await;
    let mut there = scene.asked().await;
    assert!(there.is("GET /mcp") && there.is("mcp-session-id: s2"), "{}", there.text);
    there.say(&format!("{STREAM}{}", chunk(": again\n\n"))).await;
    stream.until(": again").await;
    drop((stream, there));
    scene.stop().await;
}

/// An address may be that of several pods, and a connection to one that is gone says nothing.
#[tokio::test]
async fn a_session_begins_anew_on_a_connection_of_its_own_where_pods_are_not_known() {
    let kept = |answer: &str| answer.replace("connection: close\r\n", "");
    let server = Backend::start().await;
    let proxy = TestProxy::start(to(&server)).await;
    let scene = Scene::at(server, proxy).await;
    let mut client = scene.open("POST", None, &call()).await;
    let asked = scene.asked().await;
    // Another client leaves an idle connection behind.
    let mut other = scene.proxy.connect().await;
    other.send(&request("POST", ("", None), &initialize())).await;
    let mut idle = scene.asked().await;
    idle.say(&kept(&initialized())).await;
    assert!(other.rest().await.starts_with("HTTP/1.1 200"));
    asked.answer("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let mut anew = scene.asked().await;
    anew.say(&kept(&anew.begun())).await;
    let ready = read(&mut anew.call).await.unwrap();
    assert!(ready.contains("notifications/initialized"), "{ready}");
    anew.say(&kept(TAKEN)).await;
    let again = read(&mut anew.call).await.unwrap();
    assert!(again.contains("tools/call") && again.contains("mcp-session-id: s2"), "{again}");
    anew.answer(&json_answer(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#)).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 200"));
    scene.stop().await;
}

/// Its client has opened it anew, and the server does not know yet that the old one is gone.
#[tokio::test]
async fn a_stream_that_is_still_open_at_its_server_is_waited_for() {
    const OPEN: &str = "HTTP/1.1 409 Conflict\r\ncontent-length: 8\r\n\r\nConflict";
    let scene = Scene::begin().await;
    let mut stream = scene.open("GET", None, "").await;
    let mut asked = scene.asked().await;
    for _ in 0..2 {
        assert!(asked.is("GET /mcp") && asked.is("mcp-session-id: s1"), "{}", asked.text);
        asked.say(OPEN).await;
        // Its connection is used again.
        asked.text = read(&mut asked.call).await.unwrap();
    }
    asked.say(&format!("{STREAM}{}", chunk(": there\n\n"))).await;
    stream.until(": there").await;
    drop((stream, asked));
    // Nothing else waits.
    let mut client = scene.open("POST", None, &call()).await;
    scene.asked().await.answer(OPEN).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 409"));
    scene.stop().await;
}

#[tokio::test]
async fn each_request_of_a_lost_batch_is_answered() {
    let scene = Scene::begin().await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "t"}},
        {"jsonrpc": "2.0", "method": "notifications/progress"},
        {"jsonrpc": "2.0", "id": "b", "method": "resources/subscribe"},
    ]);
    let mut client = scene.open("POST", None, &batch.to_string()).await;
    drop(scene.asked().await);
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answers = body(&answer);
    assert_lost(&answers[0]);
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!("b"), &json!(-32603)));
    assert_eq!(answers.as_array().map(Vec::len), Some(2));
    // Nobody waits for an answer to these.
    let silent = json!([{"jsonrpc": "2.0", "method": "notifications/progress"}, {"jsonrpc": "2.0", "id": 1, "result": {}}]);
    let mut client = scene.open("POST", None, &silent.to_string()).await;
    drop(scene.asked().await);
    assert!(client.rest().await.starts_with("HTTP/1.1 202"));
    scene.stop().await;
}

/// Words of a tool are not those of a server.
#[tokio::test]
async fn what_a_tool_says_of_a_session_of_its_own_is_no_lost_session() {
    let scene = Scene::begin().await;
    for said in ["the tool has run: tmux: session not found", "session not found: tmux"] {
        let length = said.len();
        let mut client = scene.open("POST", None, &call()).await;
        scene.asked().await.answer(&format!("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{said}")).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with(said), "{answer}");
    }
    let mut client = scene.open("POST", None, &call()).await;
    scene.asked().await.answer("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 18\r\n\r\nSession not found\n").await;
    scene.revived().await;
    scene.asked().await.answer(&json_answer(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#)).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 200"));
    scene.stop().await;
}
