//! Sessions when much happens at once: many of them, several replicas, and homes that were told by somebody else.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use kagent_proxy::config::{Scheme, SessionMode};
use serde_json::{Value, json};

use crate::mcp_server::{Manner, McpServer};
use crate::sessions::{Answer, HOST, begin, call, params, post, request, send, to};
use crate::support::replicas::{key_file, replicas};
use crate::support::{BOUND, TestProxy, config, route};

fn list() -> Value {
    json!({"jsonrpc": "2.0", "id": "l", "method": "tools/list"})
}

fn python_1() -> Value {
    let mut python = params();
    python["clientInfo"] = json!({"name": "mcp", "version": "0.1.0"});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": python})
}

/// Whatever the number of sessions: each has one new session at the server, not one for each replica.
#[tokio::test]
async fn a_mass_of_sessions_begins_anew_once_each() {
    const SESSIONS: usize = 200;
    let mut server = McpServer::start().await;
    let replicas: [TestProxy; 2] = replicas("mass", &to(&[&server])).await;
    let [one, two] = &replicas;
    let tokens = join_all((0..SESSIONS).map(|_| begin(one))).await;
    let mut streams = Vec::new();
    for token in &tokens {
        let mut stream = one.connect().await;
        stream.send(&request("GET", Some(token), "")).await;
        stream.until(": open\n\n").await;
        streams.push(stream);
    }
    server.kill().await;
    server.restart().await;
    let message = call("count", "x");
    let answers = join_all(tokens.iter().map(|token| post(two, Some(token), &message))).await;
    assert!(answers.iter().all(|answer| answer.count() == 1));
    join_all(streams.iter_mut().map(|stream| stream.until(": open\n\n"))).await;
    server.seen(|seen| assert_eq!(seen.initialized.len(), 2 * SESSIONS, "one more each"));
    drop(streams);
    for replica in replicas {
        replica.stop().await;
    }
}

/// A server with one process a session may need long to begin one.
#[tokio::test]
async fn a_server_that_is_alone_may_be_slow_to_begin_a_session_anew() {
    let (server, proxy, token) = before_a_late_beginning().await;
    let mut client = proxy.connect().await;
    client.send(&request("POST", Some(&token), &call("count", "x").to_string())).await;
    server.until("it begins", |seen| seen.late == 2).await;
    // Longer than a try has where there are others.
    tokio::time::sleep(Duration::from_secs(11)).await;
    server.behave(Manner::default());
    let answer = Answer::of(&client.rest().await);
    assert_eq!(answer.count(), 1);
    server.seen(|seen| assert_eq!(seen.late, 2, "one try"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_session_that_is_ended_while_it_begins_anew_is_ended_at_its_server() {
    let (server, proxy, token) = before_a_late_beginning().await;
    let message = call("count", "x");
    let (answer, ()) = tokio::join!(post(&proxy, Some(&token), &message), async {
        server.until("it begins", |seen| seen.late == 2).await;
        let deleted = send(&proxy, "DELETE", Some(&token), "").await;
        assert!((200..300).contains(&deleted.status), "{}", deleted.body);
        server.behave(Manner::default());
    });
    assert_eq!(answer.status, 404, "{}", answer.body);
    server.seen(|seen| {
        assert_eq!(seen.deleted, ["server-session-2"]);
        assert_eq!(seen.calls, [""; 0]);
    });
    proxy.stop().await;
}

/// A session that its server has forgotten, and which will begin anew as late as the test wants.
async fn before_a_late_beginning() -> (McpServer, TestProxy, String) {
    let server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let mut late = params();
    late["name"] = json!("late");
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": late});
    let token = post(&proxy, None, &initialize).await.session().unwrap();
    server.behave(Manner { late: true, ..Manner::default() });
    server.forget();
    (server, proxy, token)
}

/// How many requests wait is no matter of a session's life.
#[tokio::test]
async fn sessions_that_wait_for_their_server_are_not_ended_for_being_many() {
    let mut server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.hold.max = 1;
    let proxy = TestProxy::start(config).await;
    let tokens = [begin(&proxy).await, begin(&proxy).await];
    server.kill().await;
    let mut streams = Vec::new();
    for token in &tokens {
        let mut stream = proxy.connect().await;
        stream.send(&request("GET", Some(token), "")).await;
        let held = stream.until(": keep-alive\n\n").await;
        assert!(held.starts_with("HTTP/1.1 200"), "{held}");
        streams.push(stream);
    }
    let (asks, message) = (list(), call("count", "x"));
    let waiting = async {
        tokio::join!(
            post(&proxy, Some(&tokens[0]), &asks),
            post(&proxy, Some(&tokens[0]), &message),
            post(&proxy, Some(&tokens[0]), &asks)
        )
    };
    let waits = "kagent_proxy_held_requests 3\n";
    let restarted = async {
        while !proxy.admin("/metrics").await.contains(waits) {
            tokio::task::yield_now().await;
        }
        server.restart().await;
    };
    let ((first, called, second), ()) = tokio::join!(waiting, restarted);
    for answer in [first, second] {
        assert!(answer.json()["result"]["tools"].is_array(), "{}", answer.body);
    }
    assert_eq!(called.count(), 1);
    for stream in &mut streams {
        stream.until(": open\n\n").await;
    }
    drop(streams);
    proxy.stop().await;
}

/// A home that somebody else has found may be forgotten as well.
#[tokio::test]
async fn a_session_begins_anew_where_what_was_learned_of_it_is_forgotten_too() {
    let server = McpServer::start_as(Manner { late: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let late = call("late", "x");
    let late = post(&proxy, Some(&token), &late);
    let moved = async {
        server.until("the first call has come", |seen| seen.late == 1).await;
        server.forget();
        assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
        server.forget();
        server.behave(Manner::default());
    };
    let (answer, ()) = tokio::join!(late, moved);
    assert_eq!((answer.status, answer.count()), (200, 1), "{}", answer.body);
    server.seen(|seen| assert_eq!(seen.initialized.len(), 3));
    proxy.stop().await;
}

#[tokio::test]
async fn what_nobody_waits_for_reaches_a_session_that_has_moved_meanwhile() {
    let server = McpServer::start_as(Manner { late: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    let note =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"name": "late"}});
    let moved = async {
        server.until("the note has come", |seen| seen.late == 1).await;
        server.forget();
        assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
        server.behave(Manner::default());
    };
    let (answer, ()) = tokio::join!(post(&proxy, Some(&token), &note), moved);
    assert_eq!(answer.status, 202);
    server.seen(|seen| {
        assert_eq!(seen.noted, ["server-session-2"]);
        assert_eq!(seen.initialized.len(), 2, "nothing was begun for it");
    });
    proxy.stop().await;
}

/// The end of a session is one everywhere (MCP 2025-11-25, "Session Management").
#[tokio::test]
async fn a_session_that_its_client_has_ended_does_not_begin_anew() {
    let mut server = McpServer::start().await;
    let replicas: [TestProxy; 2] = replicas("ended", &to(&[&server])).await;
    let [one, two] = &replicas;
    let (gone, dead) = (begin(one).await, begin(one).await);
    assert_eq!(send(one, "DELETE", Some(&gone), "").await.status, 200);
    server.kill().await;
    assert_eq!(send(one, "DELETE", Some(&dead), "").await.status, 204);
    server.restart().await;
    for (replica, token) in [(two, &gone), (one, &gone), (two, &dead), (one, &dead)] {
        let answer = post(replica, Some(token), &call("count", "x")).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, ""));
        assert_eq!(send(replica, "GET", Some(token), "").await.status, 404);
    }
    server.seen(|seen| assert_eq!(seen.initialized.len(), 2, "nothing was begun anew"));
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_token_is_good_for_one_route_of_its_host() {
    let (a, b) = (McpServer::start().await, McpServer::start().await);
    let routes = [("/a", &a), ("/b", &b)]
        .map(|(prefix, server)| route(HOST, prefix, Scheme::Http, &[server.address.port()]));
    let proxy = TestProxy::start(config(routes.to_vec())).await;
    let ask = |path: &str, token: Option<&str>, body: &Value| {
        let text = request("POST", token, &body.to_string()).replace("/mcp", path);
        let proxy = &proxy;
        async move { Answer::of(&proxy.ask(&text).await) }
    };
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()});
    let token = ask("/a/mcp", None, &hello).await.session().unwrap();
    let elsewhere = ask("/b/mcp", Some(&token), &call("count", "x")).await;
    assert_eq!((elsewhere.status, elsewhere.body.as_str()), (404, ""));
    b.seen(|seen| assert!(seen.ids.is_empty(), "nothing is dialled: {seen:?}"));
    assert_eq!(ask("/a/mcp", Some(&token), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

/// Where sessions pass, another proxy's token may be the server's own affair; ours never is.
#[tokio::test]
async fn a_token_of_ours_never_reaches_a_server() {
    let server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.sessions.key_files = vec![key_file("ours")];
    let proxy = TestProxy::start(config.clone()).await;
    config.routes[0].to.sessions = SessionMode::Pass;
    let passing = TestProxy::start(config).await;
    let stranger = TestProxy::start(to(&[&server])).await;
    let (token, foreign) = (begin(&proxy).await, begin(&stranger).await);
    let (cut, changed) = (&token[..token.len() - 3], token.replace(&token[30..34], "AAAA"));
    for ours in [cut, &changed, &token[..14]] {
        assert_eq!(post(&passing, Some(ours), &call("count", "x")).await.status, 404);
        server.seen(|seen| assert!(!seen.ids.iter().any(|id| id == ours), "{seen:?}"));
    }
    assert_eq!(post(&passing, Some(&foreign), &call("count", "x")).await.status, 404);
    server.seen(|seen| assert!(seen.ids.contains(&foreign), "another key's"));
    for proxy in [proxy, passing, stranger] {
        proxy.stop().await;
    }
}

/// Also where the client does not say what it speaks, as before 2025-06-18.
#[tokio::test]
async fn another_protocol_version_ends_the_revival() {
    for events in [false, true] {
        let speaking = |version| Manner { version: Some(version), events, ..Manner::default() };
        let server = McpServer::start_as(speaking("2025-03-26")).await;
        let proxy = TestProxy::start(to(&[&server])).await;
        let token = begin(&proxy).await;
        let silent = request("POST", Some(&token), &call("count", "x").to_string())
            .replace("mcp-protocol-version: 2025-06-18\r\n", "");
        server.forget();
        assert_eq!(Answer::of(&proxy.ask(&silent).await).count(), 1, "the same one");
        server.behave(speaking("2024-11-05"));
        server.forget();
        assert_eq!(Answer::of(&proxy.ask(&silent).await).status, 404, "{events}");
        proxy.stop().await;
    }
}

/// As Starlette does for what is mounted at `/mcp/`.
#[tokio::test]
async fn a_server_that_redirects_keeps_its_sessions() {
    let manner = Manner { redirects: true, ..Manner::default() };
    let (mut one, mut two) =
        (McpServer::start_as(manner.clone()).await, McpServer::start_as(manner).await);
    let proxy = TestProxy::start(to(&[&one, &two])).await;
    let ask = |path: &str, token: Option<&str>, body: &Value| {
        let text = request("POST", token, &body.to_string()).replace("/mcp", path);
        let proxy = &proxy;
        async move { Answer::of(&proxy.ask(&text).await) }
    };
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()});
    let token = ask("/mcp/", None, &hello).await.session().unwrap();
    let home = if one.seen(|seen| seen.initialized.is_empty()) { &mut two } else { &mut one };
    home.kill().await;
    let sent_on = ask("/mcp", Some(&token), &call("count", "x")).await;
    assert_eq!(sent_on.status, 307, "{}", sent_on.head);
    assert!(sent_on.head.to_lowercase().contains("location: /mcp/"), "{}", sent_on.head);
    assert_eq!(ask("/mcp/", Some(&token), &call("count", "x")).await.count(), 1);
    proxy.stop().await;
}

/// It loses all its calls by a 404 of one.
#[tokio::test]
async fn python_1_is_told_by_400_also_where_its_token_does_not_count() {
    let server = McpServer::start().await;
    let mut config = to(&[&server]);
    config.sessions.max_age = Duration::ZERO;
    let proxy = TestProxy::start(config).await;
    for (hello, status) in [
        (python_1(), 400),
        (json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()}), 404),
    ] {
        let token = post(&proxy, None, &hello).await.session().unwrap();
        let old = async {
            loop {
                let answer = post(&proxy, Some(&token), &call("count", "x")).await;
                if answer.status != 200 {
                    return answer;
                }
            }
        };
        // A token's time is counted in seconds.
        let answer = tokio::time::timeout(BOUND, old).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (status, ""));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_call_that_cannot_be_repeated_is_answered_as_not_run() {
    let server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let token = begin(&proxy).await;
    server.forget();
    let large = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"count","arguments":{{"a":"{}"}}}}}}"#,
        "x".repeat(1200 * 1024)
    );
    let answer = send(&proxy, "POST", Some(&token), &large).await;
    assert_eq!(answer.status, 200);
    let text = answer.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("not run"), "{text}");
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1, "it goes on");
    proxy.stop().await;
}

/// D11 says what is sent again; a list is so in sessions only.
#[tokio::test]
async fn a_list_without_a_session_is_sent_once() {
    let mut server = McpServer::start_as(Manner { stateless: true, ..Manner::default() }).await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let hang =
        json!({"jsonrpc": "2.0", "id": "l", "method": "tools/list", "params": {"hang": true}});
    let asked = post(&proxy, None, &hang);
    let restarted = async {
        server.until("the list is asked for", |seen| seen.calls == ["list"]).await;
        server.kill().await;
        server.restart().await;
    };
    let (answer, ()) = tokio::join!(asked, restarted);
    assert_eq!(answer.status, 502, "{}", answer.body);
    server.seen(|seen| assert_eq!(seen.calls, ["list"]));
    proxy.stop().await;
}

/// Whatever is left of it then goes to where the session lives next.
#[tokio::test]
async fn a_request_that_is_denied_before_it_has_come_is_sent_again_whole() {
    for (http2, scheme) in [(true, Scheme::H2c), (false, Scheme::Http)] {
        let server = McpServer::start_as(Manner { http2, hasty: true, ..Manner::default() }).await;
        let routes = vec![route(HOST, "/", scheme, &[server.address.port()])];
        let proxy = TestProxy::start(config(routes)).await;
        let token = begin(&proxy).await;
        server.forget();
        let argument = "x".repeat(200 * 1024);
        let text = request("POST", Some(&token), &call("count", &argument).to_string());
        let (start, rest) = text.split_at(100 * 1024);
        let mut client = proxy.connect().await;
        client.send(start).await;
        server.until("it has denied it", |seen| seen.ids.len() == 3).await;
        client.send(rest).await;
        assert_eq!(Answer::of(&client.rest().await).count(), 1, "over HTTP/2: {http2}");
        server.seen(|seen| assert_eq!(seen.calls, [argument]));
        proxy.stop().await;
    }
}

/// Each client hears it in the words that it outlives.
#[tokio::test]
async fn a_stream_that_cannot_be_opened_again_ends_as_its_session_does() {
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()});
    for (hello, refuses, status) in [
        (&hello, Some(400), 404),
        (&python_1(), Some(400), 400),
        (&hello, Some(401), 401),
        // It may be there later.
        (&hello, Some(503), 200),
        (&python_1(), None, 200),
    ] {
        let (mut one, mut two) = (McpServer::start().await, McpServer::start().await);
        let mut config = to(&[&one, &two]);
        config.routes[0].to.hold.session = Duration::from_millis(100);
        let proxy = TestProxy::start(config).await;
        let token = post(&proxy, None, hello).await.session().unwrap();
        if one.seen(|seen| seen.initialized.is_empty()) {
            std::mem::swap(&mut one, &mut two);
        }
        one.kill().await;
        match refuses {
            Some(_) => two.behave(Manner { refuses, ..Manner::default() }),
            None => two.kill().await,
        }
        let answer = send(&proxy, "GET", Some(&token), "").await;
        assert_eq!(answer.status, status, "{refuses:?}: {}", answer.head);
        let is_stream = answer.head.contains("text/event-stream");
        assert_eq!(
            is_stream && answer.body == ": keep-alive\n\n",
            status == 200,
            "{}",
            answer.body
        );
        let metrics = proxy.admin("/metrics").await;
        let cause = match status {
            200 => "no_server",
            401 => "refused",
            _ => "not_revived",
        };
        assert!(metrics.contains(&format!("event=\"lost\",cause=\"{cause}\"}} 1\n")), "{metrics}");
        proxy.stop().await;
    }
}

/// Gateways end the body of a request of HTTP/2 by a frame of its own, and a server answers when it has the announced
/// bytes: what the session began with must be known all the same. Envoy does so.
#[tokio::test]
async fn a_session_outlives_its_server_though_its_beginning_ended_late() {
    let mut server = McpServer::start().await;
    let proxy = TestProxy::start(to(&[&server])).await;
    let io = hyper_util::rt::TokioIo::new(proxy.connect().await.0);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let running = tokio::spawn(connection);
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params()});
    let hello = hello.to_string();
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    let length = hello.len();
    let first = futures_util::stream::once(async move {
        Ok::<_, std::convert::Infallible>(http_body::Frame::data(bytes::Bytes::from(hello)))
    });
    let rest = futures_util::stream::once(ends).filter_map(|_| std::future::ready(None));
    let body = http_body_util::StreamBody::new(Box::pin(first.chain(rest)));
    let request = http::Request::post("http://p/mcp")
        .header("x-kagent-host", HOST)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("content-length", length)
        .body(body)
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let token = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    drop(end);
    let answer = answer.into_body().collect().await.unwrap();
    assert!(!answer.to_bytes().is_empty());
    drop(sender);
    running.await.unwrap().unwrap();
    server.kill().await;
    server.restart().await;
    assert_eq!(post(&proxy, Some(&token), &call("count", "x")).await.count(), 1);
    assert_eq!(server.seen(|seen| seen.initialized.clone()), [params(), params()]);
    proxy.stop().await;
}
