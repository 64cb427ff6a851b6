//! A2A's binding to HTTP and JSON: tasks are found by path, a subscription is a stream, and nothing said is changed.

use std::time::Duration;

use kagent_proxy::config::Scheme;

use crate::support::{Backend, Client, TestProxy, config, route, start_with};

const HOST: &str = "helper.team-a";
/// With this many, no luck sends all that follows to the right one of two.
const TASKS: usize = 6;
/// So many must begin at the same one of two for a chance in 2^63 to count as a fault.
const UNLIKELY: usize = 64;

/// A request; a body is JSON of this kind.
fn request(line: &str, kind: &str, body: &str) -> String {
    let fields = match body {
        "" => String::new(),
        _ => format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len()),
    };
    format!(
        "{line} HTTP/1.1\r\nhost: p\r\nx-kagent-host: {HOST}\r\na2a-version: 1.0\r\n{fields}\
         connection: close\r\n\r\n{body}"
    )
}

fn response(kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Which of the two a request reaches, and its connection.
async fn reached([one, two]: &[Backend; 2]) -> (usize, Client) {
    tokio::select! {
        call = one.accept() => (0, call),
        call = two.accept() => (1, call),
    }
}

/// Sends a request, and answers it; who got it.
async fn exchange(
    (proxy, agents): (&TestProxy, &[Backend; 2]),
    request: &str,
    end: &str,
    response: &str,
) -> usize {
    let answered = async {
        let (at, mut call) = reached(agents).await;
        call.until(end).await;
        call.send(response).await;
        at
    };
    let (seen, at) = tokio::join!(proxy.ask(request), answered);
    assert!(seen.starts_with("HTTP/1.1 200 "), "{seen}");
    at
}

#[tokio::test]
async fn what_follows_for_a_task_reaches_the_agent_that_has_begun_it() {
    let agents = [Backend::start().await, Backend::start().await];
    let ports = agents.each_ref().map(Backend::port);
    let proxy = TestProxy::start(config(vec![route(HOST, "/", Scheme::Http, &ports)])).await;
    let place = (&proxy, &agents);
    let mut asked = 0;
    for (prefix, kind) in [("", "application/json"), ("/agents/ns/a/v1", "application/a2a+json")] {
        let mut homes = [0; 2];
        let both = |homes: &[usize; 2]| !homes.contains(&0);
        for n in 0..UNLIKELY {
            if n >= TASKS && both(&homes) {
                break;
            }
            let task = format!("{kind}-{n}");
            let sends = |extra: &str| format!(r#"{{"message":{{"messageId":"m"{extra}}}}}"#);
            let streams = n % 2 == 1;
            let verb = if streams { "stream" } else { "send" };
            let begin = request(&format!("POST {prefix}/message:{verb}"), kind, &sends(""));
            let body = format!(r#"{{"task":{{"contextId":"c","id":"{task}"}}}}"#);
            let answer = match streams {
                true => response("text/event-stream", &format!("data: {body}\n\n")),
                false => response(kind, &body),
            };
            let home = exchange(place, &begin, "}}", &answer).await;
            homes[home] += 1;
            let path = format!("{prefix}/tasks/{}", task.replace('/', "%2F"));
            let goes_on = sends(&format!(r#","taskId":"{task}""#));
            for (line, body, end) in [
                (format!("GET {path}?historyLength=1"), "", "\r\n\r\n"),
                (format!("POST {path}:cancel"), "{}", "\r\n\r\n{}"),
                (format!("POST {path}:cancel"), "", "\r\n\r\n"),
                (format!("GET {path}:subscribe"), "", "\r\n\r\n"),
                (format!("POST {path}:subscribe"), "", "\r\n\r\n"),
                (format!("DELETE {path}/pushNotificationConfigs/1"), "", "\r\n\r\n"),
                (format!("POST {path}/pushNotificationConfigs"), "{}", "\r\n\r\n{}"),
                (format!("POST {prefix}/message:send"), &*goes_on, "}}"),
            ] {
                let request = request(&line, kind, body);
                let at = exchange(place, &request, end, &response(kind, "{}")).await;
                assert_eq!(at, home, "{line} of {task}");
                asked += 1;
            }
        }
        assert!(both(&homes), "one had none: {homes:?}");
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains(&format!("event=\"task\",cause=\"\"}} {asked}\n")), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_version_in_the_head_or_in_the_query_passes_as_it_is() {
    let (proxy, backend) = start_with(|_| {}).await;
    for line in ["GET /tasks/t?A2A-Version=1.0&historyLength=2", "POST /?A2A-Version=1.0"] {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\na2a-version: 1.0, 0.3\r\n\
             a2a-extensions: https://x/a, https://x/b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let ok = response("application/json", "{}");
        let (_, head) = tokio::join!(proxy.ask(&request), backend.answer(&ok));
        assert!(head.starts_with(&format!("{line} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("\r\na2a-version: 1.0, 0.3\r\n"), "{head}");
        assert!(head.contains("\r\na2a-extensions: https://x/a, https://x/b\r\n"), "{head}");
    }
    proxy.stop().await;
}

/// A task may be silent for longer than any answer may take: what limits answers does not limit its stream.
#[tokio::test]
async fn a_subscription_is_a_stream_that_no_idle_limit_of_answers_cuts() {
    let (proxy, backend) = start_with(|config| {
        let to = &mut config.routes[0].to;
        to.timeouts.unary.idle = Some(Duration::from_millis(50));
        to.keep_alive = Duration::from_millis(100);
    })
    .await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"SubscribeToTask","params":{"id":"t"}}"#;
    for (line, body) in
        [("GET /tasks/t:subscribe", ""), ("POST /tasks/t:subscribe", ""), ("POST /", call)]
    {
        let mut client = proxy.connect().await;
        client.send(&request(line, "application/json", body).replace(HOST, "s.ns")).await;
        let mut agent = backend.accept().await;
        agent.until("\r\n\r\n").await;
        agent.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        agent.send("data: {\"task\":{\"id\":\"t\"}}\n\n").await;
        client.until("}}\n\n").await;
        // Two comments: silence for longer than those limits.
        client.until(": keep-alive\n\n").await;
        client.until(": keep-alive\n\n").await;
        let metrics = proxy.admin("/metrics").await;
        assert!(metrics.contains("kagent_proxy_open_streams{route=\"s.ns\"} 1\n"), "{metrics}");
        agent.send("data: {\"statusUpdate\":{\"taskId\":\"t\"}}\n\n").await;
        client.until("statusUpdate").await;
        drop(agent);
    }
    let metrics = proxy.admin("/metrics").await;
    let name = "a2a_method_name=\"SubscribeToTask\"";
    assert!(metrics.contains(name), "{metrics}");
    proxy.stop().await;
}
