//! MCP sessions: the token, the way to the session's server, and what becomes of a session whose server is gone.

use std::time::Duration;

use kagent_proxy::config::{Config, Scheme, SessionMode, StandaloneGet};
use serde_json::{Value, json};

use crate::mcp_server::{Manner, McpServer, NEVER};
use crate::support::replicas::{key_file, replicas};
use crate::support::{Backend, TestProxy, config, route};

pub(crate) const HOST: &str = "tools.team-a";

pub(crate) fn to(servers: &[&McpServer]) -> Config {
    let ports: Vec<u16> = servers.iter().map(|server| server.address.port()).collect();
    config(vec![route(HOST, "/", Scheme::Http, &ports)])
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
            dechunked(body)
        } else {
            body.to_owned()
        };
        Self { status, head: head.to_owned(), body }
    }

    pub(crate) fn session(&self) -> Option<String> {
        let line =
            self.head.lines().find(|line| line.to_lowercase().starts_with("mcp-session-id:"));
        line.map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    }

    pub(crate) fn json(&self) -> Value {
        let data = self.body.lines().find_map(|line| line.strip_prefix("data: "));
        let text = data.unwrap_or(&self.body);
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{} {:?}", self.status, self.body))
    }

    pub(crate) fn count(&self) -> u64 {
        self.json()["result"]["count"].as_u64().unwrap_or_else(|| panic!("{:?}", self.body))
    }
}

fn dechunked(body: &str) -> String {
    let (mut rest, mut all) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        let (data, after) = after.split_at(size.min(after.len()));
        all.push_str(data);
        rest = after.strip_prefix("\r\n").unwrap_or(after);
    }
    all
}

pub(crate) fn request(method: &str, session: Option<&str>, body: &str) -> String {
    let session =
        session.map(|id| format!("mcp-session-id: {id}\r\nmcp-protocol-version: 2025-06-18\r\n"));
    let session = session.unwrap_or_default();
    let length = body.len();
    let accept =
        if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" };
    format!(
        "{method} /mcp HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: {HOST}\r\naccept: {accept}\r\n\
         accept-encoding: gzip\r\nauthorization: Bearer client\r\ncontent-type: application/json\r\n{session}content-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

pub(crate) async fn send(
    proxy: &TestProxy,
    method: &str,
    session: Option<&str>,
    body: &str,
) -> Answer {
    Answer::of(&proxy.ask(&request(method, session, body)).await)
}

pub(crate) async fn post(proxy: &TestProxy, session: Option<&str>, body: &Value) -> Answer {
    send(proxy, "POST", session, &body.to_string()).await
}

pub(crate) fn call(tool: &str, argument: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {"a": argument}}})
}

pub(crate) fn params() -> Value {
    json!({"protocolVersion": "2025-06-18", "capabilities": {"roots": {}}, "clientInfo": {"name": "test", "version": "1"}})
}

/// A session as a client begins it.
pub(crate) async fn begin(proxy: &TestProxy) -> String {
    let answer = post(
        proxy,
        None,
        &json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()}),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = answer.session().expect("a session");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(proxy, Some(&token), &ready).await.status, 202);
    token
}

#[tokio::test]
async fn a_client_never_sees_its_servers_id_nor_the_server_a_token() {
    let server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    assert!(token.starts_with("kp1."), "{token}");
    for n in 1..=3 {
        let answer = post(&proxy, Some(&token), &call("count", "x")).await;
        assert_eq!((answer.count(), answer.session().as_deref()), (n, Some(&*token)));
    }
    server.forget();
    server.behave(Manner { refuses: Some(400), ..Manner::default() });
    let lost = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((lost.status, lost.session()), (404, None));
    server.seen(|seen| {
        assert!(seen.ids.iter().all(|id| id.is_empty() || id == "server-session-1"), "{seen:?}");
    });
    proxy.stop().await;
}

#[tokio::test]
async fn a_sessions_requests_reach_the_server_that_has_it_through_any_proxy() {
    let (one, two) = (McpServer::start().await, McpServer::start().await);
    let key = key_file("it");
    let with_key = || {
        let mut config = to(&[&one, &two]);
        config.sessions.key_files = vec![key.clone()];
        config
    };
    let first = TestProxy::start(with_key()).await;
    let second = TestProxy::start(with_key()).await;
    let mut tokens = Vec::new();
    // Each begins at either server: with eight, one run of 128 had all of them at one.
    for _ in 0..24 {
        tokens.push(begin(&first).await);
    }
    for n in 1..=4 {
        for token in &tokens {
            let proxy = if n % 2 == 0 { &first } else { &second };
            assert_eq!(post(proxy, Some(token), &call("count", "x")).await.count(), n);
        }
    }
    let stranger = TestProxy::start(to(&[&one, &two])).await;
    let answer = post(&stranger, Some(&tokens[0]), &call("count", "x")).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, ""), "its key is another");
    for proxy in [first, second, stranger] {
        proxy.stop().await;
    }
    assert!([&one, &two].iter().all(|server| server.seen(|seen| !seen.initialized.is_empty())));
}

#[tokio::test]
async fn a_session_outlives_its_server() {
    for events in [false, true] {
        let manner = Manner { events, ..Manner::default() };
        let mut one = McpServer::start_as(manner.clone()).await;
        let mut two = McpServer::start_as(manner).await;
        let proxy = TestProxy::start(to(&[&one, &two])).await;
        let token = begin(&proxy).await;
        assert_eq!(post(&proxy, Some(&token), &call("count", "a")).await.count(), 1);
        let first_had_it = one.seen(|seen| !seen.initialized.is_empty());
        let (home, other) = if first_had_it { (&mut one, &mut two) } else { (&mut two, &mut one) };
        home.kill().await;
        for n in 1..=2 {
            let answer = post(&proxy, Some(&token), &call("count", "b")).await;
            assert_eq!((answer.count(), answer.session().as_deref()), (n, Some(&*token)));
        }
        other.seen(|seen| {
            assert_eq!(seen.initialized, [params()], "once, as the client began");
            assert_eq!(seen.ready, ["server-session-1"]);
            assert_eq!(seen.credentials, ["Bearer client"]);
            assert_eq!(seen.codings, ["identity"], "its answer has to be read");
            assert_eq!(seen.calls, ["b", "b"]);
        });
        let metrics = proxy.admin("/metrics").await;
        let counted = |event: &str| metrics.lines().any(|line| line.contains(event));
        assert!(counted("event=\"revived\",cause=\"unreachable\"} 1"), "{metrics}");
        assert!(counted("event=\"opened\",cause=\"\"} 1"), "{metrics}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_session_that_its_server_forgot_begins_anew() {
    for unknown in [
        None,
        Some((
            404,
            r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#,
        )),
        Some((
            400,
            r#"{"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#,
        )),
    ] {
        let server = McpServer::start_as(Manner { unknown, ..Manner::default() }).await;
        let proxy = TestProxy::start(to(&[&server])).await;
        let token = begin(&proxy).await;
        for _ in 0..2 {
            server.forget();
            let message = call("count", "x");
            let calls = (0..5).map(|_| post(&proxy, Some(&token), &message));
            let answers = futures_util::future::join_all(calls).await;
            let mut counts: Vec<u64> = answers.iter().map(Answer::count).collect();
            counts.sort_unstable();
            assert_eq!(counts, [1, 2, 3, 4, 5], "all in one new session");
        }
        server.seen(|seen| assert_eq!(seen.initialized.len(), 3, "one revival at a time"));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn other_refusals_of_a_server_are_the_clients() {
    let said = r#"{"error":{"message":"Bad Request: Unsupported protocol version"}}"#;
    let unknown = Some((400, said));
    let server = McpServer::start_as(Manner { unknown, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    server.forget();
    let answer = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((answer.status, answer.body.as_str()), (400, said));
    server.behave(Manner { refuses: Some(401), ..Manner::default() });
    let answer = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((answer.status, answer.body.as_str()), (401, "not today"), "credentials are theirs");
    server.behave(Manner { version: Some("2024-11-05"), ..Manner::default() });
    let answer = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, ""), "another protocol version");
    proxy.stop().await;
}

#[tokio::test]
async fn a_server_that_restarts_is_waited_for() {
    let mut server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    server.kill().await;
    let message = call("count", "x");
    let asked = post(&proxy, Some(&token), &message);
    let restarted = async {
        tokio::time::sleep(NEVER).await;
        server.restart().await;
    };
    let (answer, ()) = tokio::join!(asked, restarted);
    assert_eq!(answer.count(), 1);
    server.seen(|seen| assert_eq!(seen.calls, ["x"]));
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_that_may_have_run_is_answered_and_never_repeated() {
    let mut server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    for (session, tool) in
        [(Some(&*token), "hang"), (Some(&*token), "stream"), (None, "hang"), (None, "stream")]
    {
        let stateless = session.is_none();
        server.behave(Manner { stateless, ..Manner::default() });
        let before = server.seen(|seen| seen.calls.len());
        let kill = async {
            server.until("the call runs", |seen| seen.calls.len() > before).await;
        };
        let message = call(tool, "lost");
        let asked = async {
            let mut client = proxy.connect().await;
            client.send(&request("POST", session, &message.to_string())).await;
            // Of a stream the beginning is passed on first.
            let begun =
                if tool == "stream" { client.until("progress").await } else { String::new() };
            (client, begun)
        };
        let ((mut client, begun), ()) = tokio::join!(asked, kill);
        server.kill().await;
        server.restart().await;
        let answer = Answer::of(&(begun + &client.rest().await));
        assert_eq!(answer.status, 200);
        let last = answer.body.lines().rfind(|line| line.starts_with("data: "));
        let json: Value = match last {
            Some(data) => serde_json::from_str(&data[6..]).unwrap(),
            None => answer.json(),
        };
        assert_eq!((&json["id"], &json["result"]["isError"]), (&json!(7), &json!(true)), "{json}");
        let text = json["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(HOST) && text.contains("not repeated"), "{text}");
        server.seen(|seen| assert_eq!(seen.calls.len(), before + 1, "{tool}: never twice"));
    }
    // The session goes on.
    server.behave(Manner::default());
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_its_client_could_resume_ends_with_an_answer_where_its_server_is_gone() {
    for (in_session, answered) in [(true, true), (false, false)] {
        let mut server =
            McpServer::start_as(Manner { stateless: !in_session, ..Manner::default() }).await;
        let proxy = TestProxy::start(to(&[&server])).await;
        let token = if in_session { Some(begin(&proxy).await) } else { None };
        let mut client = proxy.connect().await;
        let message = call("resumable", "x").to_string();
        client.send(&request("POST", token.as_deref(), &message)).await;
        let begun = client.until("progress").await;
        server.kill().await;
        let all = begun + &client.rest().await;
        assert_eq!(
            (all.contains("isError"), all.ends_with("0\r\n\r\n")),
            (answered, answered),
            "{all}"
        );
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_changes_nothing_is_sent_again() {
    let mut server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let list =
        json!({"jsonrpc": "2.0", "id": "l", "method": "tools/list", "params": {"hang": true}});
    let mut client = proxy.connect().await;
    client.send(&request("POST", Some(&token), &list.to_string())).await;
    server.until("the list is asked for", |seen| seen.calls == ["list"]).await;
    server.kill().await;
    server.restart().await;
    server.until("it is asked for again", |seen| seen.calls == ["list", "list"]).await;
    server.seen(|seen| assert_eq!(seen.initialized.len(), 2));
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_sessions_own_stream_goes_on_while_its_servers_come_and_go() {
    let mut server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let mut first = proxy.connect().await;
    first.send(&request("GET", Some(&token), "")).await;
    first.until(": open\n\n").await;
    for _ in 0..2 {
        server.kill().await;
        server.restart().await;
        first.until(": open\n\n").await;
    }
    server.kill().await;
    // One that is opened while nobody is there gets a comment at once, and the rest when somebody is.
    let mut again = proxy.connect().await;
    again.send(&request("GET", Some(&token), "")).await;
    let held = again.until(": keep-alive\n\n").await;
    assert!(held.starts_with("HTTP/1.1 200") && held.contains("text/event-stream"), "{held}");
    server.restart().await;
    again.until(": open\n\n").await;
    first.until(": open\n\n").await;
    server.seen(|seen| assert_eq!(seen.initialized.len(), 4, "once for each server that died"));
    drop((first, again));
    proxy.stop().await;
}

#[tokio::test]
async fn a_session_begins_elsewhere_if_its_server_dies_before_it_answers() {
    let mut silent = McpServer::start_as(Manner { silent: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&silent])).await;
    let mut client = proxy.connect().await;
    let ask = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()});
    let ask = request("POST", None, &ask.to_string());
    // As httpx sends it: the body in a packet of its own, when the head has been passed on.
    let (head, body) = ask.split_at(ask.find("\r\n\r\n").unwrap() + 4);
    client.send(head).await;
    silent.until("its head is here", |seen| seen.heads > 0).await;
    client.send(body).await;
    silent.until("it is asked", |seen| seen.initialized.len() == 1).await;
    silent.kill().await;
    silent.behave(Manner { events: true, ..Manner::default() });
    silent.restart().await;
    let answer = Answer::of(&client.rest().await);
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(0)));
    let token = answer.session().unwrap();
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_sessions_own_stream_moves_with_the_session() {
    let server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let mut stream = proxy.connect().await;
    stream.send(&request("GET", Some(&token), "")).await;
    stream.until(": open\n\n").await;
    for n in 2..4 {
        // The server leaves the old stream open.
        server.forget();
        assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
        stream.until(": open\n\n").await;
        server.seen(|seen| assert_eq!(seen.ids.last(), Some(&format!("server-session-{n}"))));
    }
    drop(stream);
    proxy.stop().await;
}

#[tokio::test]
async fn replicas_come_to_one_new_session() {
    let (one, two) = (McpServer::start().await, McpServer::start().await);
    let replicas = replicas::<2>("peers", &to(&[&one, &two])).await;
    let token = begin(&replicas[0]).await;
    for round in 1..=3 {
        one.forget();
        two.forget();
        let message = call("count", "x");
        let calls = (0..8).map(|n| post(&replicas[n % 2], Some(&token), &message));
        let answers = futures_util::future::join_all(calls).await;
        let mut counts: Vec<u64> = answers.iter().map(Answer::count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8], "one session for both");
        let begun = |server: &McpServer| server.seen(|seen| seen.initialized.len());
        assert_eq!(begun(&one) + begun(&two), 1 + round, "begun once");
    }
    for replica in replicas {
        replica.stop().await;
    }
}

/// Frameworks answer what has no handler with 404, and clients ask for the stream all the same.
#[tokio::test]
async fn a_server_without_a_stream_for_sessions_keeps_its_sessions() {
    let server = McpServer::start_as(Manner { get: Some(404), ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    let mut stream = proxy.connect().await;
    stream.send(&request("GET", Some(&token), "")).await;
    let held = stream.until(": keep-alive\n\n").await;
    assert!(held.starts_with("HTTP/1.1 200"), "{held}");
    assert_eq!(
        post(&proxy, Some(&token), &call("count", "x")).await.count(),
        2,
        "the same session"
    );
    server.seen(|seen| assert_eq!(seen.initialized.len(), 1, "nothing was begun anew"));
    drop(stream);
    server.behave(Manner { get: Some(405), ..Manner::default() });
    assert_eq!(send(&proxy, "GET", Some(&token), "").await.status, 405);
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_session_that_has_just_begun_is_answered_is_the_clients() {
    let server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    server.behave(Manner { call: Some((404, "no such tool")), ..Manner::default() });
    let answer = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "no such tool"));
    server.seen(|seen| assert_eq!((seen.initialized.len(), seen.calls.len()), (2, 2)));
    // An error about the request is none about the session.
    let about =
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Unknown session: tmux-3"}}"#;
    server.behave(Manner { call: Some((400, about)), ..Manner::default() });
    let answer = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((answer.status, answer.body.as_str()), (400, about));
    server.seen(|seen| assert_eq!((seen.initialized.len(), seen.calls.len()), (2, 3)));
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_ends_at_once_is_not_opened_again_and_again() {
    let server = McpServer::start_as(Manner { brief: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let mut stream = proxy.connect().await;
    stream.send(&request("GET", Some(&token), "")).await;
    stream.until("\n\n").await;
    tokio::time::sleep(NEVER * 4).await;
    server.seen(|seen| assert!((1..=2).contains(&seen.gets), "{} times", seen.gets));
    drop(stream);
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_from_before_sessions_passed_still_leads_to_its_server() {
    let (one, two) = (McpServer::start().await, McpServer::start().await);
    let mut config = to(&[&one, &two]);
    let key = key_file("pass");
    config.sessions.key_files = vec![key];
    let proxy = TestProxy::start(config.clone()).await;
    let token = begin(&proxy).await;
    config.routes[0].to.sessions = SessionMode::Pass;
    let passing = TestProxy::start(config).await;
    for n in 1..=4 {
        let answer = post(&passing, Some(&token), &call("count", "x")).await;
        assert_eq!((answer.count(), answer.session().as_deref()), (n, Some(&*token)));
    }
    proxy.stop().await;
    passing.stop().await;
}

#[tokio::test]
async fn sessions_of_a_server_that_speaks_http_2_live_as_long() {
    let manner = Manner { http2: true, ..Manner::default() };
    let mut server = McpServer::start_as(manner.clone()).await;
    let routes = vec![route(HOST, "/", Scheme::H2c, &[server.address.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let token = begin(&proxy).await;
    for _ in 0..2 {
        server.forget();
        let answer = post(&proxy, Some(&token), &call("count", "x")).await;
        assert_eq!((answer.count(), answer.session().as_deref()), (1, Some(&*token)));
        assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 2);
    }
    let mut stream = proxy.connect().await;
    stream.send(&request("GET", Some(&token), "")).await;
    stream.until(": open\n\n").await;
    let before = server.seen(|seen| seen.calls.len());
    let mut client = proxy.connect().await;
    client.send(&request("POST", Some(&token), &call("hang", "lost").to_string())).await;
    server.until("the call runs", |seen| seen.calls.len() > before).await;
    server.kill().await;
    server.restart().await;
    let lost = Answer::of(&client.rest().await);
    assert_eq!((lost.status, &lost.json()["result"]["isError"]), (200, &json!(true)));
    stream.until(": open\n\n").await;
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    server.seen(|seen| assert_eq!(seen.calls.len(), before + 2, "never twice"));
    drop(stream);
    proxy.stop().await;
}

#[tokio::test]
async fn a_server_that_breaks_one_kind_of_request_keeps_the_session() {
    let server = McpServer::start_as(Manner { breaks: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = post(&proxy, Some(&token), &list).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (200, &json!(-32603)));
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    server.seen(|seen| {
        assert_eq!(seen.initialized.len(), 1, "nothing was begun anew");
        assert!(seen.calls.len() <= 5, "{} lists", seen.calls.len() - 1);
    });
    proxy.stop().await;
}

#[tokio::test]
async fn a_list_whose_stream_breaks_off_before_it_says_anything_is_asked_for_again() {
    let mut server = McpServer::start_as(Manner { events: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let list = |silent: bool| json!({"jsonrpc": "2.0", "id": "l", "method": "tools/list", "params": {"silent": silent}});
    let mut client = proxy.connect().await;
    client.send(&request("POST", Some(&token), &list(true).to_string())).await;
    client.until("text/event-stream").await;
    server.kill().await;
    server.speak();
    server.restart().await;
    let answer = client.rest().await;
    assert!(answer.contains("\"id\":\"l\"") && answer.contains("\"tools\""), "{answer}");
    server.seen(|seen| assert_eq!(seen.initialized.len(), 2));
    proxy.stop().await;
}

#[tokio::test]
async fn the_end_of_a_dead_session_and_what_nobody_waits_for_are_taken() {
    let mut server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let (token, other) = (begin(&proxy).await, begin(&proxy).await);
    assert_eq!(send(&proxy, "DELETE", Some(&other), "").await.status, 200);
    server.seen(|seen| assert_eq!(seen.deleted, ["server-session-2"]));
    server.kill().await;
    let note =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(post(&proxy, Some(&token), &note).await.status, 202);
    let response = json!({"jsonrpc": "2.0", "id": 3, "result": {}});
    assert_eq!(post(&proxy, Some(&token), &response).await.status, 202);
    assert_eq!(send(&proxy, "DELETE", Some(&token), "").await.status, 204);
    server.restart().await;
    server.seen(|seen| assert_eq!(seen.initialized.len(), 2, "nothing was revived for it"));
    proxy.stop().await;
}

#[tokio::test]
async fn without_a_server_in_time_a_call_is_answered_as_not_run() {
    let mut server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.routes[0].to.hold.session = Duration::from_millis(100);
    let proxy = TestProxy::start(config).await;
    let token = begin(&proxy).await;
    server.kill().await;
    let answer = post(&proxy, Some(&token), &call("count", "x")).await;
    let text = answer.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(answer.status == 200 && text.contains("not run"), "{text}");
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = post(&proxy, Some(&token), &list).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (200, &json!(-32603)));
    server.restart().await;
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_route_may_only_pin_or_pass() {
    let mut server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.routes[0].to.sessions = SessionMode::Pin;
    let pinning = TestProxy::start(config.clone()).await;
    config.routes[0].to.sessions = SessionMode::Pass;
    let passing = TestProxy::start(config).await;
    let token = begin(&pinning).await;
    let id = begin(&passing).await;
    assert!(token.starts_with("kp1.") && id == "server-session-2", "{token} {id}");
    server.kill().await;
    server.restart().await;
    let pinned = post(&pinning, Some(&token), &call("count", "x")).await;
    assert_eq!((pinned.status, pinned.body.as_str()), (404, ""));
    assert_eq!(post(&passing, Some(&id), &call("count", "x")).await.status, 404);
    server.seen(|seen| assert_eq!(seen.initialized.len(), 2, "nothing was revived"));
    pinning.stop().await;
    passing.stop().await;
}

#[tokio::test]
async fn ids_that_are_no_tokens_and_servers_without_ids_are_left_alone() {
    let server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let own = post(&proxy, Some("server-session-1"), &call("count", "x")).await;
    assert_eq!((own.count(), own.session().as_deref()), (1, Some("server-session-1")));
    for bad in [&token[..token.len() - 2], "kp1.", "kp1.AAAA"] {
        let answer = post(&proxy, Some(bad), &call("count", "x")).await;
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.session()),
            (404, "", None),
            "{bad}"
        );
    }
    server.behave(Manner { stateless: true, ..Manner::default() });
    let answer = post(&proxy, None, &call("count", "x")).await;
    assert_eq!((answer.status, answer.session()), (200, None));
    server.seen(|seen| assert_eq!(seen.calls.len(), 2));
    proxy.stop().await;
}

#[tokio::test]
async fn a_failed_initialize_gives_no_id_and_one_of_python_1_is_told_by_400() {
    let server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.routes[0].to.sessions = SessionMode::Pin;
    let proxy = TestProxy::start(config).await;
    let mut python = params();
    python["clientInfo"] = json!({"name": "mcp", "version": "0.1.0"});
    let ask = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": python});
    let token = post(&proxy, None, &ask).await.session().unwrap();
    server.forget();
    let lost = post(&proxy, Some(&token), &call("count", "x")).await;
    assert_eq!((lost.status, lost.body.as_str()), (400, ""));
    server.behave(Manner { refuses: Some(403), ..Manner::default() });
    let refused = post(&proxy, None, &ask).await;
    assert_eq!((refused.status, refused.session()), (403, None));
    proxy.stop().await;
}

#[tokio::test]
async fn a_route_may_refuse_a_sessions_own_stream() {
    let server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.routes[0].to.standalone_get = StandaloneGet::Refuse;
    let proxy = TestProxy::start(config).await;
    let token = begin(&proxy).await;
    let answer = send(&proxy, "GET", Some(&token), "").await;
    assert_eq!((answer.status, answer.body.as_str()), (405, ""));
    assert!(answer.head.to_lowercase().contains("allow: post, delete"), "{}", answer.head);
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

/// The posts of a legacy client reach the server that has its stream (MCP 2024-11-05, "HTTP with SSE").
#[tokio::test]
async fn a_legacy_clients_posts_reach_the_server_of_its_stream() {
    let backends = [Backend::start().await, Backend::start().await];
    let ports: Vec<u16> = backends.iter().map(Backend::port).collect();
    let proxy = TestProxy::start(config(vec![route(HOST, "/", Scheme::Http, &ports)])).await;
    let head = format!("host: p\r\nx-kagent-host: {HOST}\r\naccept: text/event-stream\r\n");
    let mut stream = proxy.connect().await;
    stream.send(&format!("GET /sse HTTP/1.1\r\n{head}\r\n")).await;
    let (home, mut call) = tokio::select! {
        call = backends[0].accept() => (&backends[0], call),
        call = backends[1].accept() => (&backends[1], call),
    };
    let said =
        format!("event: endpoint\ndata: http://127.0.0.1:{}/m/?session_id=7\n\n", home.port());
    call.until("\r\n\r\n").await;
    call.send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    call.send(&format!("{:x}\r\n{said}\r\n", said.len())).await;
    let event = stream.until("\n\n").await;
    let url = event.split("data: ").nth(1).unwrap().trim_end();
    let url = url.split_whitespace().next().unwrap();
    assert!(url.starts_with("/m/?session_id=7&kagent-proxy-session=kp1."), "{event}");
    let post =
        format!("POST {url} HTTP/1.1\r\n{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}");
    for _ in 0..6 {
        let answered = home.answer("HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n");
        let (answer, seen) = tokio::join!(proxy.ask(&post), answered);
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert!(seen.starts_with("POST /m/?session_id=7 HTTP/1.1\r\n"), "{seen}");
    }
    let stranger = post.replace("kp1.", "kp1.A");
    assert!(proxy.ask(&stranger).await.starts_with("HTTP/1.1 404"));
    drop((stream, call));
    proxy.stop().await;
}
