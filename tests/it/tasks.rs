//! Tasks of A2A and of MCP: what comes later for a task reaches the endpoint that has begun it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kagent_proxy::config::{Config, Scheme, SessionMode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::replicas::replicas;
use crate::support::{BOUND, Backend, Client, TestProxy, config, route};

const HOST: &str = "helper.team-a";
/// With this many, no luck sends all that follows to the right one of two.
const TASKS: usize = 12;

/// An agent, and a tool server, with tasks in its own memory.
struct Agent {
    address: SocketAddr,
    state: Arc<State>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct State {
    port: u16,
    tasks: Mutex<HashSet<String>>,
    /// Bytes of every request's body.
    lengths: Mutex<Vec<usize>>,
}

/// How one kind of client begins a task, and what it asks later.
struct Dialect {
    begin: Value,
    /// Method, and the pointer to the task's id in `params`.
    later: &'static [(&'static str, &'static str)],
    /// The head names the task.
    named: bool,
}

impl Agent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { port: address.port(), ..State::default() });
        let mut agent = Self { address, state, running: JoinSet::new() };
        agent.listen(listener);
        agent
    }

    fn listen(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    let _client_may_leave =
                        http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    }

    fn has(&self, task: &str) -> bool {
        self.state.tasks.lock().unwrap().contains(task)
    }
}

impl State {
    fn begin(&self) -> String {
        let mut tasks = self.tasks.lock().unwrap();
        let task = format!("task-{}-{}", self.port, tasks.len());
        tasks.insert(task.clone());
        task
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    state.lengths.lock().unwrap().push(body.len());
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let params = &message["params"];
    let named = ["/taskId", "/id", "/message/taskId"].iter().find_map(|at| params.pointer(at));
    if let Some(task) = named {
        let known = state.tasks.lock().unwrap().contains(task.as_str().unwrap());
        return Ok(whole(&match known {
            true => json!({"id": message["id"], "result": {"by": state.port}}),
            false => {
                json!({"id": message["id"], "error": {"code": -32001, "message": "no such task"}})
            }
        }));
    }
    let task = state.begin();
    let result = |result: Value| json!({"id": message["id"], "jsonrpc": "2.0", "result": result});
    // As a2a-python 0.3 writes it: in the order of the alphabet.
    let task_0_3 = json!({"artifacts": [{"artifactId": "a", "parts": [{"kind": "text", "text": "\"id\":"}]}],
        "contextId": "c", "id": task, "kind": "task", "status": {"state": "working"}});
    Ok(match message["method"].as_str() {
        Some("message/send") => whole(&result(task_0_3)),
        Some("message/stream") => stream(&result(task_0_3)),
        Some("SendMessage") => whole(&result(json!({"task": {"id": task}}))),
        Some("SendStreamingMessage") => {
            stream(&result(json!({"statusUpdate": {"taskId": task, "contextId": "c"}})))
        }
        Some("tools/call") if params["task"].is_object() => {
            whole(&result(json!({"task": {"taskId": task, "status": "working"}})))
        }
        _ => whole(&result(json!({"resultType": "task", "taskId": task, "status": "working"}))),
    })
}

/// Some A2A servers do not say that it is JSON.
fn whole(message: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    Response::new(Full::from(message.to_string()).boxed_unsync())
}

/// A stream of events that stays open behind this one, which comes in pieces.
fn stream(message: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let event = format!("event: message\ndata: {message}\n\n");
    let pieces: Vec<_> = event.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
    let first = futures_util::stream::iter(pieces.into_iter().map(|some| Ok(Frame::data(some))));
    let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    response
}

fn dialects() -> [Dialect; 6] {
    const A2A_0_3: &[(&str, &str)] = &[
        ("tasks/get", "id"),
        ("tasks/cancel", "id"),
        ("tasks/resubscribe", "id"),
        ("tasks/pushNotificationConfig/set", "taskId"),
        ("message/send", "message"),
    ];
    const A2A_1_0: &[(&str, &str)] = &[
        ("GetTask", "id"),
        ("CancelTask", "id"),
        ("SubscribeToTask", "id"),
        ("SendStreamingMessage", "message"),
    ];
    const MCP: &[(&str, &str)] =
        &[("tasks/get", "taskId"), ("tasks/result", "taskId"), ("tasks/cancel", "taskId")];
    let message = json!({"message": {"messageId": "m", "role": "user", "parts": []}});
    let sends = |method: &str, later| Dialect {
        begin: json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": message}),
        later,
        named: false,
    };
    let calls = |extra: Value, named| {
        let mut params = json!({"name": "slow", "arguments": {}});
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        Dialect { begin, later: MCP, named }
    };
    let declared = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    [
        sends("message/send", A2A_0_3),
        sends("message/stream", A2A_0_3),
        sends("SendMessage", A2A_1_0),
        sends("SendStreamingMessage", A2A_1_0),
        calls(json!({"task": {"ttl": 60000}}), false),
        calls(json!({"_meta": {"io.modelcontextprotocol/clientCapabilities": declared}}), true),
    ]
}

fn head(extra: &str, length: usize) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: {HOST}\r\n\
         content-type: application/json\r\n{extra}content-length: {length}\r\nconnection: close\r\n\r\n"
    )
}

fn request(extra: &str, message: &Value) -> String {
    let body = message.to_string();
    head(extra, body.len()) + &body
}

/// Begins a task; its id, as the client reads it.
async fn begin(proxy: &TestProxy, message: &Value) -> String {
    let mut client = proxy.connect().await;
    client.send(&request("", message)).await;
    let read = client.until("}}").await;
    let from = read.find("task-").unwrap_or_else(|| panic!("{read}"));
    read[from..].split('"').next().unwrap().to_owned()
}

/// What follows for a task.
fn later((method, at): (&str, &str), dialect: &Dialect, task: &str) -> String {
    let params = match at {
        "message" => json!({"message": {"parts": [{"text": "x"}], "taskId": task}}),
        at => json!({"x": {"id": "x"}, at: task}),
    };
    let message = json!({"jsonrpc": "2.0", "id": 2, "method": method, "params": params});
    let extra = format!("mcp-method: {method}\r\nmcp-name: {task}\r\n");
    request(if dialect.named { &extra } else { "" }, &message)
}

fn to(agents: &[&Agent]) -> Config {
    let ports: Vec<u16> = agents.iter().map(|agent| agent.address.port()).collect();
    config(vec![route(HOST, "/", Scheme::Http, &ports)])
}

/// Whether an answer comes from this agent, for a task that it has.
fn is_by(agent: &Agent, answer: &str) -> bool {
    answer.contains(&format!("\"by\":{}", agent.address.port()))
}

/// Begins tasks at each proxy in turn, and asks all of them for each task.
async fn every_task_is_found(proxies: &[&TestProxy], agents: [&Agent; 2]) {
    for dialect in dialects() {
        for n in 0..TASKS {
            let task = begin(proxies[n % proxies.len()], &dialect.begin).await;
            let agent = agents.into_iter().find(|agent| agent.has(&task)).unwrap();
            for ask in dialect.later {
                for proxy in proxies {
                    let answer = proxy.ask(&later(*ask, &dialect, &task)).await;
                    assert!(is_by(agent, &answer), "{ask:?} for {task}: {answer}");
                }
            }
        }
    }
    for agent in agents {
        assert!(!agent.state.tasks.lock().unwrap().is_empty(), "it had none");
    }
}

#[tokio::test]
async fn what_follows_for_a_task_reaches_the_endpoint_that_has_begun_it() {
    let (one, two) = (Agent::start().await, Agent::start().await);
    let proxy = TestProxy::start(to(&[&one, &two])).await;
    every_task_is_found(&[&proxy], [&one, &two]).await;
    let metrics = proxy.admin("/metrics").await;
    let all: usize = dialects().iter().map(|dialect| dialect.later.len() * TASKS).sum();
    assert!(metrics.contains(&format!("event=\"task\",cause=\"\"}} {all}")), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn replicas_tell_each_other_where_tasks_are() {
    let (one, two) = (Agent::start().await, Agent::start().await);
    let replicas = replicas::<2>("tasks", &to(&[&one, &two])).await;
    every_task_is_found(&[&replicas[0], &replicas[1]], [&one, &two]).await;
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_task_whose_endpoint_is_gone_is_asked_for_elsewhere() {
    let (mut one, two) = (Agent::start().await, Agent::start().await);
    let proxy = TestProxy::start(to(&[&one, &two])).await;
    let dialect = &dialects()[0];
    let mut lost = Vec::new();
    while lost.len() < 3 {
        let task = begin(&proxy, &dialect.begin).await;
        if one.has(&task) {
            lost.push(task);
        }
    }
    one.running.shutdown().await;
    for task in &lost {
        for ask in dialect.later {
            let answer = proxy.ask(&later(*ask, dialect, task)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("no such task"), "by the other agent: {answer}");
        }
    }
    // It is there again, with its tasks: whoever is at its place has them, as far as anybody can know.
    one.listen(TcpListener::bind(one.address).await.unwrap());
    for task in &lost {
        let answer = proxy.ask(&later(dialect.later[0], dialect, task)).await;
        assert!(is_by(&one, &answer), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn where_sessions_pass_or_one_endpoint_has_all_tasks_nothing_is_looked_for() {
    let (one, two) = (Agent::start().await, Agent::start().await);
    for (agents, mode) in [(vec![&one, &two], SessionMode::Pass), (vec![&one], SessionMode::Revive)]
    {
        let mut config = to(&agents);
        config.routes[0].to.sessions = mode;
        let proxy = TestProxy::start(config).await;
        let dialect = &dialects()[0];
        let task = begin(&proxy, &dialect.begin).await;
        let answer = proxy.ask(&later(dialect.later[0], dialect, &task)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let metrics = proxy.admin("/metrics").await;
        assert!(!metrics.contains("event=\"task\""), "{metrics}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_body_of_which_the_start_was_read_arrives_whole() {
    let (one, two) = (Agent::start().await, Agent::start().await);
    let proxy = TestProxy::start(to(&[&one, &two])).await;
    let begins = &dialects()[0].begin;
    let task = begin(&proxy, begins).await;
    let agent = [&one, &two].into_iter().find(|agent| agent.has(&task)).unwrap();
    // The id stands behind this much; beyond what is read of a body the task is not found, which is no error.
    for size in [10, 60_000, 70_000, 3_000_000] {
        let parts = json!([{"kind": "text", "text": "x".repeat(size)}]);
        let message = json!({"jsonrpc": "2.0", "id": 2, "method": "message/send",
            "params": {"message": {"kind": "message", "parts": parts, "taskId": task}}});
        let body = message.to_string();
        for pieces in [1, 2, 40] {
            let mut client = proxy.connect().await;
            client.send(&head("", body.len())).await;
            for piece in body.as_bytes().chunks(body.len().div_ceil(pieces)) {
                client.send_bytes(piece).await;
                tokio::task::yield_now().await;
            }
            let answer = client.rest().await;
            let known = size < 64 * 1024;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(!known || is_by(agent, &answer), "{size} bytes in {pieces}: {answer}");
            let seen = |agent: &Agent| agent.state.lengths.lock().unwrap().last().copied();
            assert!([&one, &two].iter().any(|agent| seen(agent) == Some(body.len())));
        }
    }
    proxy.stop().await;
}

/// A proxy before two agents of bytes, which may know of a task.
async fn before_two(knows: bool) -> (TestProxy, [Backend; 2]) {
    let agents = [Backend::start().await, Backend::start().await];
    let ports = agents.each_ref().map(Backend::port);
    let proxy = TestProxy::start(config(vec![route(HOST, "/", Scheme::Http, &ports)])).await;
    if knows {
        let mut client = proxy.connect().await;
        client.send(&request("", &dialects()[0].begin)).await;
        let mut call = accepted(&agents).await;
        call.until("}}").await;
        let task = r#"{"id":1,"result":{"id":"other","kind":"task"}}"#;
        let length = task.len();
        call.send(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{task}"
        ))
        .await;
        assert!(client.rest().await.ends_with(task));
    }
    (proxy, agents)
}

async fn accepted([one, two]: &[Backend; 2]) -> Client {
    tokio::select! {
        call = one.accept() => call,
        call = two.accept() => call,
    }
}

/// Nobody waits long for a client that is slow to say what it wants.
#[tokio::test]
async fn a_request_whose_body_is_late_is_sent_without_it() {
    let (proxy, agents) = before_two(true).await;
    let body = r#"{"id":1,"method":"tasks/get","params":{"id":"t"}}"#;
    let mut client = proxy.connect().await;
    client.send(&head("", body.len())).await;
    let mut call = accepted(&agents).await;
    call.until("\r\n\r\n").await;
    client.send(body).await;
    call.until(body).await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(client.rest().await.ends_with("\r\n\r\nok"));
    proxy.stop().await;
}

/// The clock stands still, so nothing that waits for it comes.
#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_of_a_request_that_can_name_no_known_task() {
    // As long as this runs.
    let (runs, ends) = std::sync::mpsc::channel::<()>();
    let clock = tokio::task::spawn_blocking(move || ends.recv_timeout(BOUND));
    for (knows, method, extra) in [
        (false, "POST", ""),
        (true, "PUT", ""),
        (true, "POST", "mcp-protocol-version: 2025-06-18\r\n"),
        (true, "POST", "mcp-method: tools/call\r\n"),
    ] {
        let started = Instant::now();
        let (proxy, agents) = before_two(knows).await;
        let mut client = proxy.connect().await;
        client.send(&head(extra, 9).replacen("POST", method, 1)).await;
        let mut call = accepted(&agents).await;
        call.until("\r\n\r\n").await;
        assert_eq!(Instant::now(), started, "{method} {extra}");
        client.send("{\"id\":1} ").await;
        call.until("{\"id\":1} ").await;
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
        assert!(client.rest().await.ends_with("\r\n\r\nok"));
        drop(proxy);
    }
    drop(runs);
    assert!(clock.await.unwrap().is_err());
}

/// The extension of MCP 2026-07-28: whatever the body says, `Mcp-Name` names the task, encoded where it has to be.
#[tokio::test]
async fn a_task_of_the_extension_is_found_by_its_head() {
    let (one, two) = (Agent::start().await, Agent::start().await);
    let proxy = TestProxy::start(to(&[&one, &two])).await;
    let [.., extension] = dialects();
    let modern = |method: &str, name: &str| {
        format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: {method}\r\nmcp-name: {name}\r\n")
    };
    for n in 0..TASKS {
        let mut client = proxy.connect().await;
        client.send(&request(&modern("tools/call", "slow"), &extension.begin)).await;
        let read = client.until("}}").await;
        let task = read[read.find("task-").unwrap()..].split('"').next().unwrap().to_owned();
        let agent = [&one, &two].into_iter().find(|agent| agent.has(&task)).unwrap();
        let encoded = format!("=?base64?{}?=", STANDARD.encode(&task));
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            for name in [&task, &encoded] {
                // The body is not read for it: its end comes when the request is at the agent.
                let body = json!({"jsonrpc": "2.0", "id": n, "method": method, "params": {}});
                let answer = proxy.ask(&request(&modern(method, name), &body)).await;
                let by = format!("\"taskId\":\"task-{}-", agent.address.port());
                assert!(answer.contains(&by), "{method} {name} for {task}: {answer}");
            }
        }
    }
    let metrics = proxy.admin("/metrics").await;
    let all = 6 * TASKS;
    assert!(metrics.contains(&format!("event=\"task\",cause=\"\"}} {all}")), "{metrics}");
    proxy.stop().await;
}
