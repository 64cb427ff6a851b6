//! Who calls what: every call is counted once, with its caller, method, tool and end, as the metrics say it.

use std::time::Duration;

use kagent_proxy::config::{CallerConfig, Use};

use crate::support::{BOUND, Backend, Client, TestProxy, start_with};

const MCP: &str = "kagent_proxy_mcp_operation_duration_seconds_count";
const A2A: &str = "kagent_proxy_a2a_operation_duration_seconds_count";

/// A proxy that knows loopback as an Agent that lists one tool of the route.
async fn start() -> (TestProxy, Backend) {
    start_where(Use { host: "s.ns".to_owned(), tools: vec!["add".to_owned()] }).await
}

/// A proxy that knows loopback as an Agent that says it uses this.
async fn start_where(uses: Use) -> (TestProxy, Backend) {
    start_with(|config| {
        config.callers.push(CallerConfig {
            agent: ("team-a".to_owned(), "parent".to_owned()),
            addresses: vec!["127.0.0.0/8".parse().unwrap()],
            uses: vec![uses],
        });
    })
    .await
}

fn post(body: &str) -> String {
    with_head("POST / HTTP/1.1", body)
}

fn with_head(line: &str, body: &str) -> String {
    format!(
        "{line}\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// As a2a-go answers JSON-RPC: it sets no type, and Go makes text of that.
fn untyped(body: &str) -> String {
    json("200 OK", body).replace("application/json", "text/plain; charset=utf-8")
}

fn events(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
}

/// One exchange; the request's head ends with an empty line, and its body with `}` or `]`.
async fn exchange(proxy: &TestProxy, backend: &Backend, request: &str, answer: &str) -> String {
    let mut client = proxy.connect().await;
    client.send(request).await;
    let mut call = backend.accept().await;
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    call.until(if body.is_empty() { "\r\n\r\n" } else { body }).await;
    call.send(answer).await;
    drop(call);
    client.rest().await
}

/// The series of calls, each with its count; waits until so many calls are counted.
async fn counted(proxy: &TestProxy, calls: u64) -> Vec<String> {
    let look = async {
        loop {
            let text = proxy.admin("/metrics").await;
            let ours = text.lines().filter(|line| line.starts_with(MCP) || line.starts_with(A2A));
            let lines: Vec<String> = ours.map(short).collect();
            let count = |line: &String| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
            if lines.iter().map(count).sum::<u64>() >= calls {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, look).await.expect("calls are missing")
}

/// `caller method tool error count`.
fn short(line: &str) -> String {
    let value = |name: &str| {
        let from = line.split(&format!("{name}=\"")).nth(1)?;
        from.split('"').next()
    };
    let method = value("mcp_method_name").or_else(|| value("a2a_method_name")).unwrap();
    let protocol = if line.starts_with(MCP) { "mcp" } else { "a2a" };
    let [caller, tool, error] = ["caller", "gen_ai_tool_name", "error_type"]
        .map(|name| value(name).filter(|value| !value.is_empty()).unwrap_or("-"));
    let count = line.rsplit(' ').next().unwrap();
    format!("{protocol} {caller} {method} {tool} {error} {count}")
}

fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"method":"tools/call","params":{{"name":"{tool}","arguments":{{"method":"ping","name":"x"}}}},"jsonrpc":"2.0","id":{id}}}"#
    )
}

#[tokio::test]
async fn calls_are_counted_by_caller_method_tool_and_end() {
    let (proxy, backend) = start().await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let listed = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"sub","inputSchema":{}}]}}"#;
    let good = r#"{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"\"isError\":true"}]}}"#;
    let failed = r#"{"jsonrpc":"2.0","id":2,"result":{"content":[],"isError":true}}"#;
    let error = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"x"}}"#;
    let sent = r#"{"jsonrpc":"2.0","id":"a","method":"message/send","params":{}}"#;
    let spoken = r#"{"jsonrpc":"2.0","id":"a","result":{"kind":"message"}}"#;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for (request, answer) in [
        (post(&call(2, "sub")), json("200 OK", good)),
        (post(list), json("200 OK", listed)),
        (post(&call(2, "sub")), json("200 OK", good)),
        (post(&call(2, "add")), json("200 OK", failed)),
        (post(&call(2, "add")), json("400 Bad Request", error)),
        (post(&call(2, "add")), json("500 Internal Server Error", "{}")),
        (post(&call(2, "secret")), json("200 OK", good)),
        (post(&call(2, "sub")), untyped(error)),
        (post(&call(2, "sub")), untyped("no {json}")),
        (post(r#"{"id":1,"method":"my/own","params":{"name":"add"}}"#), json("200 OK", "null")),
        (post(sent), json("200 OK", spoken)),
        (post(note), "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned()),
        (post("[1,2]"), json("200 OK", "{}")),
        (with_head("POST /v1/message:send HTTP/1.1", r#"{"message":{}}"#), json("200 OK", "{}")),
    ] {
        exchange(&proxy, &backend, &request, &answer).await;
    }
    assert_eq!(
        counted(&proxy, 13).await,
        [
            "a2a team-a/parent message/send - - 2",
            "mcp team-a/parent notifications/initialized - - 1",
            "mcp team-a/parent other - unanswered 1",
            "mcp team-a/parent tools/call add tool_error 1",
            "mcp team-a/parent tools/call add -32602 1",
            "mcp team-a/parent tools/call add 500 1",
            "mcp team-a/parent tools/call other - 2",
            "mcp team-a/parent tools/call sub - 2",
            "mcp team-a/parent tools/call sub -32602 1",
            "mcp team-a/parent tools/list - - 1",
        ]
    );
    proxy.stop().await;
}

#[tokio::test]
async fn calls_that_share_a_stream_are_counted_when_each_is_answered() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    let batch = format!("[{},{},{}]", call(1, "add"), call(2, "add"), call(3, "add"));
    client.send(&post(&batch)).await;
    let mut server = backend.accept().await;
    server.until(&batch).await;
    server.send(&events("data: {\"id\":2,\"result\":{}}\n\n")).await;
    client.until("\"id\":2").await;
    assert_eq!(counted(&proxy, 1).await, ["mcp team-a/parent tools/call add - 1"]);
    server.send("data: {\"id\":1,\"result\":{\"isError\":true}}\n\n").await;
    client.until("\"id\":1").await;
    counted(&proxy, 2).await;
    drop(server);
    client.rest().await;
    assert_eq!(
        counted(&proxy, 3).await,
        [
            "mcp team-a/parent tools/call add - 1",
            "mcp team-a/parent tools/call add tool_error 1",
            "mcp team-a/parent tools/call add unanswered 1",
        ]
    );
    proxy.stop().await;
}

/// A legacy client's calls are answered on the stream that it opened before, some before their post is over.
#[tokio::test]
async fn calls_that_are_posted_are_counted_when_their_stream_answers_them() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client
        .send("GET /sse HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\naccept: text/event-stream\r\n\r\n")
        .await;
    let mut stream = backend.accept().await;
    stream.until("\r\n\r\n").await;
    stream.send(&events("event: endpoint\ndata: /messages?session_id=1\n\n")).await;
    let first = client.until("\n\n").await;
    let url = first.split("data: ").nth(1).unwrap().lines().next().unwrap();
    let taken = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    for (id, early) in [(1, true), (2, false), (3, false)] {
        let request = with_head(&format!("POST {url} HTTP/1.1"), &call(id, "add"));
        let mut poster = proxy.connect().await;
        poster.send(&request).await;
        let mut server = backend.accept().await;
        server.until(&call(id, "add")).await;
        let answer = format!("data: {{\"id\":{id},\"result\":{{\"isError\":{early}}}}}\n\n");
        if early {
            stream.send(&answer).await;
            client.until("isError").await;
        }
        server.send(taken).await;
        let said = poster.rest().await;
        assert!(said.starts_with("HTTP/1.1 202 "), "{said}");
        if id == 2 {
            stream.send(&answer).await;
            client.until("isError").await;
        }
    }
    counted(&proxy, 2).await;
    drop(stream);
    client.rest().await;
    counted(&proxy, 3).await;
    // As for a post that comes to another replica than the stream: nobody here sees its answer.
    let request = with_head(&format!("POST {url} HTTP/1.1"), &call(4, "add"));
    let said = exchange(&proxy, &backend, &request, taken).await;
    assert!(said.starts_with("HTTP/1.1 202 "), "{said}");
    assert_eq!(
        counted(&proxy, 4).await,
        [
            "mcp team-a/parent tools/call add - 1",
            "mcp team-a/parent tools/call add tool_error 1",
            "mcp team-a/parent tools/call add unanswered 1",
            "mcp team-a/parent tools/call add unknown 1",
        ]
    );
    let look = async {
        loop {
            // A look is kept for a moment.
            let sight: serde_json::Value =
                serde_json::from_str(&body(&proxy, "/sight").await).unwrap();
            if sight["totals"]["calls"] == 4 {
                return sight["totals"]["errors"].clone();
            }
        }
    };
    let errors = tokio::time::timeout(BOUND, look).await.expect("the last call is missing");
    assert_eq!(errors, 2, "what is unknown is no error");
    proxy.stop().await;
}

#[tokio::test]
async fn calls_of_a_long_batch_are_counted_all() {
    let (proxy, backend) = start().await;
    let batch: Vec<String> = (0..100).map(|id| call(id, "add")).collect();
    let answers: Vec<String> =
        (0..100).map(|id| format!("{{\"id\":{id},\"result\":{{}}}}")).collect();
    let (batch, answers) = (batch.join(","), answers.join(","));
    let answer = json("200 OK", &format!("[{answers}]"));
    exchange(&proxy, &backend, &post(&format!("[{batch}]")), &answer).await;
    assert_eq!(
        counted(&proxy, 100).await,
        ["mcp team-a/parent other - - 36", "mcp team-a/parent tools/call add - 64"]
    );
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_is_unused_where_calls_are_not_read() {
    let (proxy, _backend) = start_with(|config| {
        config.sight.calls = false;
        config.callers.push(CallerConfig {
            agent: ("team-a".to_owned(), "parent".to_owned()),
            addresses: Vec::new(),
            uses: vec![Use { host: "s.ns".to_owned(), tools: Vec::new() }],
        });
    })
    .await;
    let graph: serde_json::Value = serde_json::from_str(&body(&proxy, "/graph").await).unwrap();
    assert_eq!(graph["edges"][0]["state"], "declared", "{graph}");
    let metrics = body(&proxy, "/metrics").await;
    assert!(!metrics.contains("declared_edges{"), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn calls_that_get_no_answer_say_why() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client.send(&post(&call(1, "add"))).await;
    let mut server = backend.accept().await;
    server.until("}").await;
    drop(client);
    assert_eq!(counted(&proxy, 1).await, ["mcp team-a/parent tools/call add client_gone 1"]);
    drop(backend);
    drop(server);
    let answer = proxy.ask(&post(r#"{"id":1,"method":"ping"}"#)).await;
    assert!(answer.contains("no_ready_endpoint"), "{answer}");
    assert_eq!(
        counted(&proxy, 2).await,
        [
            "mcp team-a/parent ping - no_ready_endpoint 1",
            "mcp team-a/parent tools/call add client_gone 1"
        ]
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_of_results_is_counted_by_how_it_ends() {
    let (proxy, backend) = start().await;
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let result = chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"task\":{}}}\n\n");
    let error = chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32603}}\n\n");
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = post(r#"{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage"}"#);
    for rest in [format!("{result}0\r\n\r\n"), format!("{error}0\r\n\r\n"), String::new()] {
        exchange(&proxy, &backend, &request, &format!("{head}{result}{rest}")).await;
    }
    // One that leaves has seen what it wanted, unless it has seen nothing.
    for seen in [result, chunk(": nothing\n\n")] {
        let mut client = proxy.connect().await;
        client.send(&request).await;
        let mut call = backend.accept().await;
        call.until("}").await;
        call.send(&format!("{head}{seen}")).await;
        client.until("\n\n").await;
        drop(client);
        call.rest().await;
    }
    let mut seen = counted(&proxy, 5).await;
    seen.sort();
    let expected = ["- 2", "-32603 1", "client_gone 1", "upstream_broke 1"];
    assert_eq!(seen, expected.map(|end| format!("a2a team-a/parent SendStreamingMessage - {end}")));
    proxy.stop().await;
}

#[tokio::test]
async fn headers_that_say_something_else_than_the_body_are_counted() {
    let (proxy, backend) = start().await;
    for (head, tool) in [
        ("mcp-method: tools/call\r\nmcp-name: =?base64?YWRk?=", "add"),
        ("mcp-method: tools/call\r\nmcp-name: sub", "add"),
        ("mcp-method: tools/list", "add"),
    ] {
        let request = post(&call(1, tool)).replacen("host: p", &format!("{head}\r\nhost: p"), 1);
        exchange(&proxy, &backend, &request, &json("200 OK", "{\"id\":1,\"result\":{}}")).await;
    }
    counted(&proxy, 3).await;
    let metrics = proxy.admin("/metrics").await;
    let line = "kagent_proxy_mcp_header_mismatch_total{route=\"s.ns\"} 2\n";
    assert!(metrics.contains(line), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_call_whose_body_says_nothing_is_the_one_of_its_head() {
    let (proxy, backend) = start().await;
    let fields = "mcp-method: tools/call\r\nmcp-name: add\r\n";
    let answer = json("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let modern = |body: &str, more: &str| {
        post(body).replace("connection: close", &format!("{fields}{more}connection: close"))
    };
    // Encoded, and nothing to be read.
    let encoded = modern("\u{1f}packed}", "content-encoding: x-own\r\n");
    exchange(&proxy, &backend, &encoded, &answer).await;
    // It is not sent to the end.
    let begun = modern(&call(1, "add"), "");
    let mut client = proxy.connect().await;
    client.send(&begun[..begun.len() - 9]).await;
    let mut exchanged = backend.accept().await;
    exchanged.until("tools/call").await;
    drop(client);
    counted(&proxy, 2).await;
    drop(exchanged);
    // Whole, and no call: the body counts. Then one that has both.
    exchange(&proxy, &backend, &modern("{}", ""), &answer).await;
    exchange(&proxy, &backend, &modern(&call(1, "add"), ""), &answer).await;
    let lines = counted(&proxy, 3).await;
    let [whole, broken] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(whole, "mcp team-a/parent tools/call add - 2");
    // That the client is gone is seen as such, or as a body that breaks off.
    let words = ["client_gone", "bad_request"];
    let broken_by = |word: &&str| *broken == format!("mcp team-a/parent tools/call add {word} 1");
    assert!(words.iter().any(broken_by), "{broken}");
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("kagent_proxy_mcp_header_mismatch_total{route=\"s.ns\"} 0\n"));
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_not_read_costs_nothing_and_is_not_counted() {
    let (proxy, backend) = start_with(|config| config.sight.calls = false).await;
    let answer = json("200 OK", "{\"id\":1,\"result\":{}}");
    let got = exchange(&proxy, &backend, &post(&call(1, "add")), &answer).await;
    assert!(got.ends_with("{\"id\":1,\"result\":{}}"), "{got}");
    assert_eq!(counted(&proxy, 0).await, [""; 0]);
    proxy.stop().await;
}

#[tokio::test]
async fn hostile_bodies_change_nothing_but_other() {
    let (proxy, backend) = start_with(|config| config.sight.max_series = 100).await;
    let mut client = proxy.connect().await;
    let serve = async {
        let mut server = backend.accept().await;
        for _ in 0..HOSTILE {
            server.until("end\"}").await;
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    };
    let ask = async {
        for n in 0..HOSTILE {
            let body = hostile(n);
            let request = post(&body).replacen("connection: close\r\n", "", 1);
            client.send(&request).await;
            client.until("\r\n\r\n").await;
        }
    };
    tokio::join!(serve, ask);
    for line in counted(&proxy, 1).await {
        let labels: Vec<&str> = line.split(' ').collect();
        assert!(
            matches!(
                labels[..],
                ["mcp", "unknown", "other", "-", ..]
                    | ["mcp", "unknown", "tools/call", "other", ..]
            ),
            "{line}"
        );
    }
    proxy.stop().await;
}

const HOSTILE: usize = 2000;

/// A body that ends in `end"}`, and may be no JSON.
fn hostile(n: usize) -> String {
    match n % 5 {
        0 => format!(r#"{{"method":"m{n}","id":{n},"x":"end"}}"#),
        1 => {
            format!(r#"{{"method":"tools/call","params":{{"name":"t{n}"}},"id":"{n}","x":"end"}}"#)
        }
        2 => format!(r#"[[{{"method":"m{n}"}}],{{"method":"m{n}","x":"end"}}"#),
        3 => format!(r#"{{{{"method":"m{n}\u0000","x":"end"}}"#),
        _ => format!(r#"{{"method":"{}{n}","x":"end"}}"#, "m".repeat(600)),
    }
}

#[tokio::test]
async fn open_streams_say_how_old_they_are() {
    let (proxy, backend) = start().await;
    let mut client = Client(tokio::net::TcpStream::connect(proxy.address).await.unwrap());
    client.send("GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
    let mut server = backend.accept().await;
    server.until("\r\n\r\n").await;
    server.send(&events(": hello\n\n")).await;
    client.until(": hello").await;
    let oldest = async || {
        let metrics = proxy.admin("/metrics").await;
        let line =
            metrics.lines().find(|line| line.starts_with("kagent_proxy_oldest_stream_seconds{"));
        line.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    let first = oldest().await.expect("a stream is open");
    assert!(first < BOUND.as_secs_f64(), "{first}");
    drop((client, server));
    let gone = async { while oldest().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it is still shown");
    proxy.stop().await;
}

#[tokio::test]
async fn calls_that_an_agent_does_not_declare_are_a_metric() {
    let idle = Use { host: "idle.ns".to_owned(), tools: Vec::new() };
    let (proxy, backend) = start_where(idle).await;
    let good = json("200 OK", r#"{"id":1,"result":{}}"#);
    exchange(&proxy, &backend, &post(&call(1, "add")), &good).await;
    counted(&proxy, 1).await;
    let labels = "caller=\"team-a/parent\",route=";
    let lines = [
        format!("kagent_proxy_undeclared_calls_total{{{labels}\"s.ns\"}} 1\n"),
        format!("kagent_proxy_declared_edges{{{labels}\"idle.ns\",state=\"unused\"}} 1\n"),
    ];
    let look = async {
        loop {
            // A look is kept for a moment.
            let metrics = body(&proxy, "/metrics").await;
            if lines.iter().all(|line| metrics.contains(line)) {
                return;
            }
        }
    };
    tokio::time::timeout(BOUND, look).await.expect("the edges are missing");
    proxy.stop().await;
}

/// The body of an answer of the admin listener.
async fn body(proxy: &TestProxy, path: &str) -> String {
    let answer = proxy.admin(path).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn who_calls_whom_is_told_as_json_and_as_a_graph() {
    let (proxy, backend) = start().await;
    let good = json("200 OK", r#"{"id":1,"result":{}}"#);
    exchange(&proxy, &backend, &post(&call(1, "add")), &good).await;
    exchange(&proxy, &backend, &post(&call(1, "add")), &json("500 Oops", "{}")).await;
    counted(&proxy, 2).await;
    let told = async {
        loop {
            // A picture is kept for a moment.
            let told: serde_json::Value =
                serde_json::from_str(&body(&proxy, "/sight").await).unwrap();
            if told["totals"]["calls"] == 2 {
                return told;
            }
        }
    };
    let told = tokio::time::timeout(BOUND, told).await.expect("calls are missing");
    let edge = &told["edges"][0];
    assert_eq!((&edge["from"], &edge["to"]), (&"team-a/parent".into(), &"s.ns".into()));
    assert_eq!((&edge["calls"], &edge["errors"]), (&2.into(), &1.into()));
    assert_eq!((&edge["declared"], &edge["state"]), (&true.into(), &"failing".into()));
    assert_eq!(told["tools"][0]["tool"], "add");
    assert_eq!(told["totals"]["routes"], 1);
    let graph: serde_json::Value = serde_json::from_str(&body(&proxy, "/graph").await).unwrap();
    assert_eq!(graph["nodes"][1], serde_json::json!({"id": "team-a/parent", "kind": "agent"}));
    let dot = body(&proxy, "/graph?format=dot").await;
    assert!(dot.contains("  \"team-a/parent\" -> \"s.ns\" [color=red"), "{dot}");
    let metrics = body(&proxy, "/metrics").await;
    let edge =
        "kagent_proxy_declared_edges{caller=\"team-a/parent\",route=\"s.ns\",state=\"used\"} 1\n";
    assert!(metrics.contains(edge), "{metrics}");
    let wrong = proxy.admin("/graph?format=png").await;
    assert!(wrong.starts_with("HTTP/1.1 400 ") && wrong.contains("write json or dot"), "{wrong}");
    proxy.stop().await;
}

#[tokio::test]
async fn calls_are_shown_as_they_end_to_whoever_asks_for_them() {
    let (proxy, backend) = start().await;
    let mut viewer = Client(tokio::net::TcpStream::connect(proxy.local).await.unwrap());
    let host = proxy.local;
    viewer.send(&format!("GET /calls?error=any HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
    let head = viewer.until("\r\n\r\n").await;
    assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    let good = json("200 OK", r#"{"id":1,"result":{}}"#);
    let failed = json("200 OK", r#"{"id":1,"result":{"isError":true}}"#);
    let request = post(&call(1, "not declared"));
    exchange(&proxy, &backend, &request, &good).await;
    let traced = request.replacen(
        "host: p",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         x-kagent-root-context-id: c-1\r\nhost: p",
        1,
    );
    exchange(&proxy, &backend, &traced, &failed).await;
    let event = viewer.until("\n\n").await;
    let data = event.split("data: ").nth(1).unwrap().split('\n').next().unwrap();
    let told: serde_json::Value = serde_json::from_str(data).unwrap();
    assert!(event.contains("event: call\n"), "{event}");
    for (name, value) in [
        ("caller", "team-a/parent"),
        ("route", "s.ns"),
        ("protocol", "mcp"),
        ("method", "tools/call"),
        ("tool", "not declared"),
        ("error", "tool_error"),
        ("conversation", "c-1"),
        ("trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("path", "/"),
    ] {
        assert_eq!(told[name], value, "{told}");
    }
    assert_eq!(told["status"], 200);
    let wrong = proxy.admin("/calls?tools=x").await;
    assert!(wrong.starts_with("HTTP/1.1 400 ") && wrong.contains("filters are caller"), "{wrong}");
    drop(viewer);
    proxy.stop().await;
}
