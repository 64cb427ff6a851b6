//! URLs of the backend in all three places where they are rewritten, in every form that clients follow.

use kagent_proxy::config::{Scheme, SessionMode};

use crate::support::{Backend, TestProxy, config, route};

/// As the backend writes it; on the proxy, as `Location` and `endpoint` event have it; in a card.
const OURS: &[(&str, &str, &str)] = &[
    ("http://helper.team-a:8080/mcp/?x=1#f", "/mcp/?x=1#f", "http://p:1/mcp/?x=1#f"),
    ("//helper.team-a:8080/mcp/", "/mcp/", "http://p:1/mcp/"),
    ("//helper.team-a", "/", "http://p:1"),
    ("HTTPS://Helper.Team-A.svc.cluster.local.:443/mcp", "/mcp", "http://p:1/mcp"),
    ("http://helper.team-a.", "/", "http://p:1"),
    ("http://helper.team-a:/mcp", "/mcp", "http://p:1/mcp"),
    ("http://helper.team-a?x", "/?x", "http://p:1?x"),
    ("http://helper.team-a/caf\u{e9}?\u{fc}", "/caf\u{e9}?\u{fc}", "http://p:1/caf\u{e9}?\u{fc}"),
    ("http://u:p@helper.team-a/mcp", "/mcp", "http://u:p@p:1/mcp"),
    ("http://a@b@helper.team-a/mcp", "/mcp", "http://a@b@p:1/mcp"),
    ("//login.example@helper.team-a/mcp", "/mcp", "http://login.example@p:1/mcp"),
    ("http://helper.team-a//login.example/", "/.//login.example/", "http://p:1//login.example/"),
    ("http://helper.team-a/\\login.example/", "/./\\login.example/", "http://p:1/\\login.example/"),
    (
        "http://helper.team-a/\t/login.example/",
        "/.//login.example/",
        "http://p:1/\t/login.example/",
    ),
    ("http:\\\\helper.team-a\\mcp", "/mcp", "http://p:1\\mcp"),
    ("\\\\helper.team-a/mcp", "/mcp", "http://p:1/mcp"),
    ("/\\helper.team-a/mcp", "/mcp", "http://p:1/mcp"),
    ("/\t/helper.team-a/mcp", "/mcp", "http://p:1/mcp"),
    ("///helper.team-a/mcp", "/mcp", "http://p:1/mcp"),
    ("http:/helper.team-a/mcp", "/mcp", "http://p:1/mcp"),
    ("ht\ttp://helper\t.team-a/mcp", "/mcp", "http://p:1/mcp"),
    ("http://helper%2Eteam-a/mcp", "/mcp", "http://p:1/mcp"),
    ("http://127.0.0.1:8080/mcp", "/mcp", "http://p:1/mcp"),
    ("//127.0.0.1.:8080/mcp", "/mcp", "http://p:1/mcp"),
    ("http://[::1]:8080/mcp", "/mcp", "http://p:1/mcp"),
    ("http://[0:0:0:0:0:0:0:1]/mcp", "/mcp", "http://p:1/mcp"),
    ("http://[::ffff:127.0.0.1]/mcp", "/mcp", "http://p:1/mcp"),
    ("http://LOCALHOST.:8080/mcp", "/mcp", "http://p:1/mcp"),
    ("http://agent.localhost/mcp", "/mcp", "http://p:1/mcp"),
    // A target of gRPC, which only a card has: elsewhere it is a scheme and a path.
    ("helper.team-a:8080", "helper.team-a:8080", "p:1"),
];

/// What leads elsewhere, stays where it is, or leads nowhere.
const OTHERS: &[&str] = &[
    "/mcp",
    "/.//helper.team-a/mcp",
    "/http://helper.team-a/mcp",
    "?url=http://helper.team-a/",
    "#//helper.team-a/",
    "mcp//helper.team-a/",
    "./mcp",
    "//login.example/mcp",
    "https://login.example//helper.team-a/",
    "https://login.example?http://helper.team-a/",
    "http://helper.team-a@login.example/mcp",
    "http://login.example\\@helper.team-a/mcp",
    "http://helper.team-a.login.example/mcp",
    "http://helper.team-a../mcp",
    "http://helper.team-a:99999/mcp",
    "http://helper.team-a:80a/mcp",
    "http://[helper.team-a]/mcp",
    "http://[::1/mcp",
    "http://[fd00::8]/mcp",
    "http://",
    "//",
    "grpc://helper.team-a:8080",
    "mailto:agent@helper.team-a",
];

const TOP: &str = "host: p:1\r\nx-kagent-host: helper.team-a\r\nconnection: close\r\n\r\n";

async fn start() -> (TestProxy, Backend) {
    let backend = Backend::start().await;
    let mut route = route("helper.team-a", "/", Scheme::Http, &[backend.port()]);
    // Else a token stands behind the URL of an `endpoint` event.
    route.to.sessions = SessionMode::Pass;
    (TestProxy::start(config(vec![route])).await, backend)
}

fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    OURS.iter().copied().chain(OTHERS.iter().map(|url| (*url, *url, *url)))
}

/// One call, and what the client gets of it behind these words.
async fn ask(proxy: &TestProxy, backend: &Backend, line: &str, head: &str, body: &str) -> String {
    let answer = format!("HTTP/1.1 {head}connection: close\r\n\r\n{body}");
    let request = format!("{line} HTTP/1.1\r\n{TOP}");
    let play = async {
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&answer).await;
    };
    tokio::join!(proxy.ask(&request), play).0
}

#[tokio::test]
async fn a_location_that_leads_to_the_backend_stays_on_the_proxy() {
    let (proxy, backend) = start().await;
    for (url, expected, _) in all() {
        let head = format!("307 Temporary Redirect\r\nlocation: {url} \r\ncontent-length: 0\r\n");
        let seen = ask(&proxy, &backend, "GET /mcp/", &head, "").await;
        assert!(seen.contains(&format!("\r\nlocation: {expected}\r\n")), "{url:?}: {seen:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoint_event_that_leads_to_the_backend_stays_on_the_proxy() {
    let (proxy, backend) = start().await;
    for (url, expected, _) in all() {
        let head = "200 OK\r\ncontent-type: text/event-stream\r\n";
        let event = format!("event: endpoint\ndata: {url}\n\n");
        let seen = ask(&proxy, &backend, "GET /sse", head, &event).await;
        assert!(seen.contains(&format!("\ndata: {expected}\n\n")), "{url:?}: {seen:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_card_s_url_that_leads_to_the_backend_leads_to_the_proxy() {
    let (proxy, backend) = start().await;
    for (url, _, expected) in all() {
        let card = |url| serde_json::json!({"url": url}).to_string();
        let head = "200 OK\r\ncontent-type: application/json\r\n";
        let line = "GET /.well-known/agent-card.json";
        let seen = ask(&proxy, &backend, line, head, &card(url)).await;
        let body = seen.split_once("\r\n\r\n").map(|(_, body)| body);
        assert_eq!(body, Some(card(expected).as_str()), "{url:?}");
    }
    proxy.stop().await;
}
