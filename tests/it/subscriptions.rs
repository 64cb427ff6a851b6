//! `subscriptions/listen` (MCP 2026-07-28, "Subscriptions"): a response that goes on until somebody ends it in order.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use kagent_proxy::config::Config;

use crate::h2c::{Script, before_h1, before_h2c, data, events, script, text};
use crate::session_streams::{Asked, END, STREAM, chunk};
use crate::support::{BOUND, Backend, Client, TestProxy, before, shows, start_with};

const ACKNOWLEDGED: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\
    \"params\":{\"notifications\":{\"toolsListChanged\":true},\
    \"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"listen-1\"}}}\n\n";
const CHANGED: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\
    \"params\":{\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"listen-1\"}}}\n\n";
const RESULT: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"listen-1\",\"result\":\
    {\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"listen-1\"},\"resultType\":\"complete\"}}\n\n";

const LISTEN: &str = "{\"jsonrpc\":\"2.0\",\"id\":\"listen-1\",\"method\":\"subscriptions/listen\",\"params\":\
    {\"notifications\":{\"toolsListChanged\":true},\
    \"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}";

fn listen_over_http2() -> Request<Script> {
    let (feed, body) = script();
    data(&feed, LISTEN);
    let request = Request::post("http://p/mcp")
        .header("x-kagent-host", "s.ns")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "subscriptions/listen");
    request.body(body).unwrap()
}

fn listen(fields: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n{fields}\
         content-length: {}\r\n\r\n{LISTEN}",
        LISTEN.len()
    )
}

/// A subscription whose stream has begun with these events.
async fn open(proxy: &TestProxy, backend: &Backend, events: &str) -> (Client, Asked) {
    let mut client = proxy.connect().await;
    client.send(&listen("mcp-method: subscriptions/listen\r\n")).await;
    let mut server = Asked::next(backend).await;
    server.say(STREAM).await;
    server.say(&chunk(events)).await;
    client.until(events).await;
    (client, server)
}

/// These pieces and the end, as the proxy writes them.
fn sent(pieces: &[&str]) -> String {
    let pieces: String =
        pieces.iter().map(|text| format!("{:X}\r\n{text}\r\n", text.len())).collect();
    pieces + END
}

/// Drains; by its end everything has ended that ends by itself.
async fn drained(proxy: &TestProxy, other: &mut Client) {
    proxy.close();
    assert!(other.rest().await.ends_with(&sent(&[RESULT])));
}

async fn open_streams(proxy: &TestProxy, count: usize) {
    let line = format!("kagent_proxy_open_streams{{route=\"s.ns\"}} {count}\n");
    shows(proxy, "/metrics", &line).await;
}

#[tokio::test]
async fn a_drain_ends_an_acknowledged_subscription_with_its_result() {
    for sees_calls in [true, false] {
        let backend = Backend::start().await;
        let proxy = TestProxy::to_with(&backend, |config: &mut Config| {
            config.sight.calls = sees_calls;
        })
        .await;
        let (mut client, mut server) = open(&proxy, &backend, ACKNOWLEDGED).await;
        open_streams(&proxy, 1).await;
        let (first, second) = CHANGED.split_at(40);
        server.say(&chunk(first)).await;
        client.until(first).await;
        // The admin listener is there as long as somebody is not done.
        let (mut kept, kept_server) = open(&proxy, &backend, ": ping\n\n").await;
        let (mut whole, _whole_server) = open(&proxy, &backend, ACKNOWLEDGED).await;
        drained(&proxy, &mut whole).await;
        // No half of an event is followed by another one.
        server.say(&chunk(second)).await;
        assert_eq!(client.rest().await, sent(&[second, RESULT]));
        assert_eq!(server.call.rest().await, "", "the server's connection is closed");
        let metrics = proxy.admin("/metrics").await;
        assert!(metrics.contains("outcome=\"drained\"} 2\n"), "{metrics}");
        let counted =
            "mcp_method_name=\"subscriptions/listen\",gen_ai_tool_name=\"\",error_type=\"\"} 2\n";
        assert_eq!(metrics.contains(counted), sees_calls, "{metrics}");
        drop(kept_server);
        assert_eq!(kept.rest().await, "", "never acknowledged: a loss");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_drain_ends_a_subscription_over_http2_on_either_side_with_its_result() {
    // The client's side.
    let (proxy, backend, mut sender) = before_h1().await;
    let asked = tokio::spawn(sender.send_request(listen_over_http2()));
    let mut server = backend.accept().await;
    server.until("0\r\n\r\n").await;
    server.send(STREAM).await;
    server.send(&chunk(ACKNOWLEDGED)).await;
    let mut body = asked.await.unwrap().unwrap().into_body();
    assert_eq!(text(&mut body).await, ACKNOWLEDGED);
    proxy.close();
    let whole = tokio::time::timeout(BOUND, body.collect()).await.unwrap().expect("a clean end");
    assert_eq!(whole.to_bytes(), RESULT);
    assert_eq!(server.rest().await, "", "the server's connection is closed");
    drop(sender);
    proxy.stop().await;
    // The server's side.
    let (proxy, mut backend) = before_h2c().await;
    let mut client = proxy.connect().await;
    client.send(&listen("mcp-method: subscriptions/listen\r\n")).await;
    let (_request, answer) = backend.accept().await;
    let (feed, response) = events();
    data(&feed, ACKNOWLEDGED);
    answer.send(response).ok().unwrap();
    client.until(ACKNOWLEDGED).await;
    proxy.close();
    assert!(client.rest().await.ends_with(&sent(&[RESULT])));
    tokio::time::timeout(BOUND, feed.closed()).await.expect("the server's stream is reset");
    proxy.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_not_acknowledged_ends_when_it_is() {
    let backend = Backend::start().await;
    let proxy = TestProxy::start(before(&backend)).await;
    let (mut client, mut server) = open(&proxy, &backend, ": ping\n\n").await;
    let (mut other, _other_server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    drained(&proxy, &mut other).await;
    server.say(&chunk(ACKNOWLEDGED)).await;
    assert_eq!(client.rest().await, sent(&[ACKNOWLEDGED, RESULT]));
    proxy.stop().await;
}

#[tokio::test]
async fn a_subscription_that_its_server_ends_has_one_result() {
    let backend = Backend::start().await;
    let proxy = TestProxy::start(before(&backend)).await;
    let (mut client, mut server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    server.say(&chunk(RESULT)).await;
    client.until(RESULT).await;
    let (mut other, _other_server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    drained(&proxy, &mut other).await;
    server.say(END).await;
    assert_eq!(client.rest().await, END);
    proxy.stop().await;
}

#[tokio::test]
async fn a_loss_stays_a_loss() {
    let backend = Backend::start().await;
    let proxy = TestProxy::start(before(&backend)).await;
    let (mut broken, server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    drop(server);
    assert_eq!(broken.rest().await, "", "no result and no end");
    let (mut ended, mut server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    server.say(END).await;
    assert_eq!(ended.until(END).await, END);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_a_subscription_cancels_it_at_once() {
    let backend = Backend::start().await;
    let proxy = TestProxy::start(before(&backend)).await;
    let (client, mut server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    drop(client);
    assert_eq!(server.call.rest().await, "", "the server hears of it");
    open_streams(&proxy, 0).await;
    proxy.stop().await;
}

#[tokio::test]
async fn no_idle_limit_ends_a_subscription() {
    let (proxy, backend) = start_with(|config| {
        let to = &mut config.routes[0].to;
        to.keep_alive = Duration::from_millis(50);
        to.timeouts.stream.idle = Some(Duration::from_millis(100));
        to.timeouts.unary.idle = Some(Duration::from_millis(100));
    })
    .await;
    let (mut client, mut server) = open(&proxy, &backend, ACKNOWLEDGED).await;
    let mut comments = 0;
    while comments < 6 {
        comments += client.until("keep-alive\n\n").await.matches("keep-alive").count();
    }
    server.say(&chunk(CHANGED)).await;
    client.until(CHANGED).await;
    drained(&proxy, &mut client).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_subscription_is_known_by_its_body() {
    let backend = Backend::start().await;
    let proxy = TestProxy::start(before(&backend)).await;
    let mut client = proxy.connect().await;
    client.send(&listen("")).await;
    let mut server = Asked::next(&backend).await;
    server.say(STREAM).await;
    server.say(&chunk(ACKNOWLEDGED)).await;
    client.until(ACKNOWLEDGED).await;
    drained(&proxy, &mut client).await;
    proxy.stop().await;
}
