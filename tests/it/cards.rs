//! Agent cards lead back to the proxy (D20).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kagent_proxy::config::{Cards, Scheme};

use crate::program::Program;
use crate::support::{Backend, Client, TestProxy, config, route};

const CARD: &str = r#"{"name":"h","url":"http://helper.team-a:8080/","supportedInterfaces":[{"url":"http://helper.team-a.svc.cluster.local:8080"}]}"#;
const GET: &str = "GET /.well-known/agent-card.json HTTP/1.1\r\nhost: proxy.kagent:8080\r\n\
    x-kagent-host: helper.team-a\r\naccept-encoding: gzip\r\nif-none-match: \"1\"\r\n\
    connection: close\r\n\r\n";

fn card() -> String {
    let length = CARD.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"1\"\r\n\
         content-length: {length}\r\n\r\n{CARD}"
    )
}

#[tokio::test]
async fn the_urls_of_a_card_become_the_origin_it_was_fetched_from() {
    let backend = Backend::start().await;
    let routes = vec![route("helper.team-a", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let card = card();
    let (answer, head) = tokio::join!(proxy.ask(GET), backend.answer(&card));
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(!head.contains("if-none-match"), "{head}");
    let (top, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!top.contains("etag: \"1\""), "the backend's: {top}");
    assert!(top.contains(&format!("content-length: {}", body.len())), "{top}");
    let ours = "http://proxy.kagent:8080";
    let expected = CARD
        .replace("http://helper.team-a:8080", ours)
        .replace("http://helper.team-a.svc.cluster.local:8080", ours);
    assert_eq!(body, expected);
    proxy.stop().await;
}

#[tokio::test]
async fn cards_pass_where_the_route_says_so() {
    let backend = Backend::start().await;
    let mut pass = route("helper.team-a", "/", Scheme::Http, &[backend.port()]);
    pass.to.cards = Cards::Pass;
    let proxy = TestProxy::start(config(vec![pass])).await;
    let card = card();
    let (answer, head) = tokio::join!(proxy.ask(GET), backend.answer(&card));
    assert!(answer.ends_with(CARD), "{answer}");
    assert!(answer.contains("\r\netag: \"1\"\r\n"), "{answer}");
    assert!(head.contains("\r\nif-none-match: \"1\"\r\n"), "{head}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_compressed_card_without_a_length_is_read_too() {
    let backend = Backend::start().await;
    let routes = vec![route("helper.team-a", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(CARD.as_bytes()).unwrap();
    let zipped = zipped.finish().unwrap();
    let answers = async {
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await;
        for piece in zipped.chunks(7) {
            call.send(&format!("{:x}\r\n", piece.len())).await;
            call.send_bytes(piece).await;
            call.send("\r\n").await;
        }
        call.send("0\r\n\r\n").await;
        // Until the proxy has read all of it.
        call.rest().await
    };
    let ask = async {
        let answer = proxy.ask(GET).await;
        let metrics = proxy.admin("/metrics").await;
        proxy.stop().await;
        (answer, metrics)
    };
    let ((answer, metrics), _) = tokio::join!(ask, answers);
    let (top, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!top.contains("encoding"), "{top}");
    assert!(top.contains(&format!("content-length: {}", body.len())), "{top}");
    assert!(body.contains(r#""url":"http://proxy.kagent:8080/""#), "{body}");
    let rewritten = "kagent_proxy_cards_total{route=\"helper.team-a\",result=\"rewritten\"} 1";
    assert!(metrics.contains(rewritten), "{metrics}");
}

#[tokio::test]
async fn what_is_no_card_or_too_large_for_one_passes_whole() {
    let backend = Backend::start().await;
    let routes = vec![route("helper.team-a", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(3 * 1024 * 1024));
    for body in ["<html>", large.as_str()] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        let whole = head + body;
        let (answer, _) = tokio::join!(proxy.ask(GET), backend.answer(&whole));
        assert!(answer.ends_with(body), "{} bytes", answer.len());
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_redirect_to_the_backend_stays_on_the_proxy_and_another_does_not_change() {
    let backend = Backend::start().await;
    let routes = vec![route("tools.kagent", "/", Scheme::Http, &[backend.port()])];
    let proxy = TestProxy::start(config(routes)).await;
    let own = format!("http://127.0.0.1:{}/mcp?x=1", backend.port());
    for (location, expected) in [
        ("http://tools.kagent:8084/mcp?x=1", "/mcp?x=1"),
        ("http://Tools.Kagent.svc.cluster.local/mcp?x=1", "/mcp?x=1"),
        (own.as_str(), "/mcp?x=1"),
        ("/mcp?x=1", "/mcp?x=1"),
        ("https://login.example/mcp?x=1", "https://login.example/mcp?x=1"),
    ] {
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        );
        let ask = "POST /mcp/ HTTP/1.1\r\nhost: tools.kagent:8084\r\ncontent-length: 0\r\n\
            x-kagent-host: tools.kagent\r\nconnection: close\r\n\r\n";
        let (seen, _) = tokio::join!(proxy.ask(ask), backend.answer(&answer));
        assert!(seen.starts_with("HTTP/1.1 307 "), "{seen}");
        assert!(seen.contains(&format!("location: {expected}\r\n")), "{location}: {seen}");
    }
    proxy.stop().await;
}

async fn start() -> (TestProxy, Backend) {
    let backend = Backend::start().await;
    let routes = vec![route("helper.team-a", "/", Scheme::Http, &[backend.port()])];
    (TestProxy::start(config(routes)).await, backend)
}

/// What the client gets of a response with these header lines and this body.
async fn fetch(proxy: &TestProxy, backend: &Backend, head: &str, body: &[u8]) -> String {
    let top = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    let play = async {
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&top).await;
        call.send_bytes(body).await;
    };
    tokio::join!(proxy.ask(GET), play).0
}

async fn counted(proxy: &TestProxy, result: &str) -> u64 {
    let metrics = proxy.admin("/metrics").await;
    let name = format!("cards_total{{route=\"helper.team-a\",result=\"{result}\"}} ");
    let count = metrics.split_once(&name).and_then(|(_, rest)| rest.lines().next());
    count.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[tokio::test]
async fn urls_are_rewritten_in_their_place_and_every_other_byte_stays() {
    let (proxy, backend) = start().await;
    let deep = ["[".repeat(20_000), "]".repeat(20_000)].concat();
    let deep = format!(r#"{{"x":{deep},"url":"http://helper.team-a:8080"}}"#);
    let cards = [
        r#"{"name":"\ud83d","url":"http://helper.team-a:8080/"}"#,
        "\u{feff}{\"url\":\"http://helper.team-a:8080/\"}",
        r#"{"x":123456789012345678901234567890, "y":1.0,"z":-0.0e+5 , "url":"http://helper.team-a:8080"}"#,
        "\r\n{ \"url\"\t: \"http://helper.team-a:8080/a\" ,\n \"skills\" : [ ] }\n",
        r#"{"url":"http://helper.team-a:8080/a","url":"http://helper.team-a:8080/b","x":1,"x":2}"#,
        r#"{"\u0075rl":"http://helper.team-a:8080/caf\u00e9\/"}"#,
        r#"{"URL":"http://helper.team-a:8080"}"#,
        r#"{"additional_interfaces":[{"url":"http://helper.team-a:8080"}]}"#,
        r#"{"supported_interfaces":[{"x":[{}],"url":"http://helper.team-a:8080"}]}"#,
        r#"{"url":"http://helper.team-a:8080/\udc00"}"#,
        r#"{"x":NaN,"url":"http://helper.team-a:8080/"} and more"#,
        deep.as_str(),
    ];
    for card in cards {
        let seen = fetch(&proxy, &backend, "200 OK", card.as_bytes()).await;
        let (top, body) = seen.split_once("\r\n\r\n").unwrap();
        let expected = card.replace("http://helper.team-a:8080", "http://proxy.kagent:8080");
        assert_eq!(body, expected);
        assert!(top.contains(&format!("content-length: {}", body.len())), "{top}");
    }
    let escaped = r#"{"url":"ht\u0074p:\/\/helper.team-a:8080\/a\/"}"#;
    let seen = fetch(&proxy, &backend, "200 OK", escaped.as_bytes()).await;
    assert!(seen.ends_with(r#"{"url":"http://proxy.kagent:8080\/a\/"}"#), "{seen}");
    assert_eq!(counted(&proxy, "passed").await, 0);
    assert_eq!(counted(&proxy, "rewritten").await, cards.len() as u64 + 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_card_that_cannot_be_read_surely_passes_with_its_headers_and_is_counted() {
    let (proxy, backend) = start().await;
    let broken = [
        "",
        r#"{"url":"http://helper.team-a:8080""#,
        r#"{"url":"http://helper.team-a:8080"]"#,
        r#"{"url":"http://helper.team-a:8080\x"}"#,
        r#"{/* */"url":"http://helper.team-a:8080"}"#,
        r#"["http://helper.team-a:8080"]"#,
        "{\0\"\0u\0r\0l\0",
    ];
    for body in broken {
        let head = "200 OK\r\nContent-Type: application/json\r\nETag: \"1\"";
        let seen = fetch(&proxy, &backend, head, body.as_bytes()).await;
        let (top, seen) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!(seen, body);
        assert!(top.contains("\r\netag: \"1\""), "{top}");
    }
    assert_eq!(counted(&proxy, "passed").await, broken.len() as u64);
    assert_eq!(counted(&proxy, "rewritten").await, 0);
    proxy.stop().await;
}

/// Starts the program before an agent with this card: what its client gets, what the log says, and the counts. Once for
/// a while, whatever comes: the first one of this program is told.
async fn told(card: &str, start: &str) -> (String, serde_json::Value, String) {
    let backend = Backend::start().await;
    let route = format!("helper.team-a=127.0.0.1:{}", backend.port());
    let mut program = Program::start(&["--route", &route], &[]).await;
    let mut client = program.connect().await;
    client.send(GET).await;
    let length = card.len();
    backend
        .answer(&format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{card}"
        ))
        .await;
    let seen = client.rest().await;
    let line = program.logs(start).await;
    let mut admin = Client(tokio::net::TcpStream::connect(program.admin).await.unwrap());
    admin.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    (seen, serde_json::from_str(&line).unwrap(), admin.rest().await)
}

#[tokio::test]
async fn a_card_that_passes_is_told_of_in_the_log_with_its_host_and_the_reason() {
    let (seen, line, metrics) = told("{", "an agent card is passed as it is").await;
    assert!(seen.ends_with("\r\n\r\n{"), "{seen}");
    assert_eq!((&line["level"], &line["host"]), (&"WARN".into(), &"helper.team-a".into()));
    assert!(line["why"].as_str().is_some_and(|why| !why.is_empty()), "{line}");
    assert!(metrics.contains("result=\"passed\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn interfaces_of_grpc_that_are_left_out_are_told_of_in_the_log_and_counted() {
    let json = r#"{"url":"http://helper.team-a:8080/","transport":"JSONRPC"}"#;
    let grpc = r#"{"url":"helper.team-a:9090","transport":"GRPC"}"#;
    let card = format!(
        r#"{{"url":"http://helper.team-a:8080/","additionalInterfaces":[{grpc},{json},{grpc}]}}"#
    );
    let (seen, line, metrics) =
        told(&card, "interfaces of gRPC were left out of an agent card").await;
    let kept = format!("[{json}]").replace("helper.team-a", "proxy.kagent");
    assert!(seen.ends_with(&format!("\"additionalInterfaces\":{kept}}}")), "{seen}");
    assert_eq!((&line["level"], &line["host"]), (&"WARN".into(), &"helper.team-a".into()));
    assert!(line["why"].as_str().is_some_and(|why| why.contains("another port")), "{line}");
    let counts = "kagent_proxy_cards_total{route=\"helper.team-a\",result=";
    for (result, count) in [("interface_left_out", 2), ("rewritten", 1), ("passed", 0)] {
        assert!(metrics.contains(&format!("{counts}\"{result}\"}} {count}\n")), "{metrics}");
    }
}

#[tokio::test]
async fn a_card_passes_in_an_encoding_that_is_not_read_or_with_another_status() {
    let (proxy, backend) = start().await;
    for head in [
        "200 OK\r\ncontent-encoding: br",
        "200 OK\r\ncontent-encoding: zstd",
        "200 OK\r\ncontent-encoding: identity\r\ncontent-encoding: br",
        "200 OK\r\ncontent-encoding: gzip",
        "203 Non-Authoritative Information",
        "206 Partial Content",
    ] {
        let seen = fetch(&proxy, &backend, head, CARD.as_bytes()).await;
        assert!(seen.ends_with(CARD), "{head}: {seen}");
    }
    assert_eq!(counted(&proxy, "passed").await, 6);
    // No cards at all.
    for head in ["404 Not Found", "500 Internal Server Error"] {
        let seen = fetch(&proxy, &backend, head, CARD.as_bytes()).await;
        assert!(seen.ends_with(CARD), "{head}: {seen}");
    }
    let unchanged = "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n";
    let (seen, _) = tokio::join!(proxy.ask(GET), backend.answer(unchanged));
    assert!(seen.starts_with("HTTP/1.1 304 ") && seen.contains("etag"), "{seen}");
    assert_eq!(counted(&proxy, "passed").await, 6);
    proxy.stop().await;
}

#[tokio::test]
async fn every_content_type_of_a_card_is_read_and_kept() {
    let (proxy, backend) = start().await;
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=\"ISO-8859-1\"",
        "application/a2a+json",
        "text/plain; charset=utf-8",
    ] {
        let head = format!("200 OK\r\ncontent-type: {kind}");
        let seen = fetch(&proxy, &backend, &head, CARD.as_bytes()).await;
        assert!(seen.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{seen}");
        assert!(seen.contains(r#""url":"http://proxy.kagent:8080/""#), "{seen}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_headers_of_a_card_say_nothing_of_the_backend_s_bytes() {
    let (proxy, backend) = start().await;
    let head = GET.replacen("GET", "HEAD", 1);
    let told = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"1\"\r\n\
        last-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\naccept-ranges: bytes\r\n\
        content-length: 100\r\n\r\n";
    let (seen, asked) = tokio::join!(proxy.ask(&head), backend.answer(told));
    assert!(!asked.contains("if-none-match"), "{asked}");
    assert!(asked.contains("accept-encoding: identity\r\n"), "{asked}");
    assert!(seen.starts_with("HTTP/1.1 200 ") && seen.ends_with("\r\n\r\n"), "{seen}");
    assert!(seen.contains("content-type: application/json\r\n"), "{seen}");
    for gone in ["content-length", "etag", "last-modified", "accept-ranges"] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
    // What is no card keeps its length.
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n";
    let (seen, _) = tokio::join!(proxy.ask(&head), backend.answer(missing));
    assert!(seen.contains("content-length: 7\r\n"), "{seen}");
    proxy.stop().await;
}

/// GET of the card with these fields, for the host that `GET` names or another one.
fn get_with(host: &str, fields: &str) -> String {
    format!(
        "GET /.well-known/agent-card.json HTTP/1.1\r\nhost: {host}\r\n\
         x-kagent-host: helper.team-a\r\n{fields}connection: close\r\n\r\n"
    )
}

/// The response to this request, and what the backend got of it.
async fn asked(
    proxy: &TestProxy,
    backend: &Backend,
    request: &str,
    card: &str,
) -> (String, String) {
    tokio::join!(proxy.ask(request), backend.answer(card))
}

/// What a response says in this field.
fn field<'a>(response: &'a str, name: &str) -> &'a str {
    let (top, _) = response.split_once("\r\n\r\n").unwrap();
    let start = format!("{name}: ");
    let mut found = top.lines().filter_map(|line| line.strip_prefix(&start));
    let value = found.next().unwrap_or_else(|| panic!("no {name} in {top}"));
    assert_eq!(found.next(), None, "{name} twice in {top}");
    value
}

fn with_validators(body: &str) -> String {
    format!(
        "HTTP/1.1 200 Fine\r\ncontent-type: application/json\r\ncontent-language: en\r\n\
         cache-control: max-age=5\r\netag: \"1\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// D38: the tag is of the bytes that the client gets, and nothing else of this replica or of this start.
#[tokio::test]
async fn a_rewritten_card_has_the_same_tag_of_ours_everywhere_until_its_bytes_change() {
    let card = with_validators(CARD);
    let mut tags = Vec::new();
    for _ in 0..2 {
        let (proxy, backend) = start().await;
        for host in ["proxy.kagent:8080", "other.kagent:8080", "proxy.kagent:8080"] {
            let (seen, _) = asked(&proxy, &backend, &get_with(host, ""), &card).await;
            assert!(!seen.contains("last-modified"), "{seen}");
            tags.push(field(&seen, "etag").to_owned());
        }
        let other = with_validators(&CARD.replace("\"h\"", "\"i\""));
        let (seen, _) = asked(&proxy, &backend, GET, &other).await;
        tags.push(field(&seen, "etag").to_owned());
        proxy.stop().await;
    }
    let (first, second) = tags.split_at(4);
    assert_eq!(first, second, "another replica");
    assert!(
        first[0].len() > 20 && first[0].starts_with('"') && first[0].ends_with('"'),
        "{first:?}"
    );
    assert_eq!(first[0], first[2]);
    assert!(first[0] != first[1] && first[0] != first[3], "other bytes: {first:?}");
}

/// RFC 9110 sections 13.1.2 and 15.4.5; what the backend is asked never depends on it.
#[tokio::test]
async fn a_card_that_the_client_has_is_answered_with_304_and_another_one_whole() {
    let (proxy, backend) = start().await;
    let card = with_validators(CARD);
    let host = "proxy.kagent:8080";
    let (first, _) = asked(&proxy, &backend, &get_with(host, ""), &card).await;
    let tag = field(&first, "etag").to_owned();
    for (value, known) in [
        (tag.clone(), true),
        (format!("W/{tag}"), true),
        (format!("\"a\", W/\"b,c\" ,{tag}"), true),
        (format!("\"a\"\r\nif-none-match: {tag}"), true),
        ("*".to_owned(), true),
        ("\"1\"".to_owned(), false),
        ("W/\"1\", \"a\"".to_owned(), false),
        (tag.replace('"', ""), false),
        (tag[..tag.len() - 1].to_owned(), false),
    ] {
        let fields = format!(
            "if-none-match: {value}\r\nif-modified-since: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
             if-match: \"1\"\r\nrange: bytes=0-1\r\nif-range: \"1\"\r\n\
             if-unmodified-since: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        );
        let (seen, head) = asked(&proxy, &backend, &get_with(host, &fields), &card).await;
        for gone in ["if-none-match", "if-match", "if-modified", "if-unmod", "range"] {
            assert!(!head.contains(gone), "{gone}: {head}");
        }
        assert_eq!(field(&seen, "etag"), tag, "{value}");
        assert_eq!(field(&seen, "cache-control"), "max-age=5");
        assert!(!seen.contains("last-modified"), "{seen}");
        if known {
            assert!(seen.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{value}: {seen}");
            assert!(seen.ends_with("\r\n\r\n"), "{value}: {seen}");
            for gone in ["content-length", "content-type", "content-language", "transfer-encoding"]
            {
                assert!(!seen.contains(gone), "{gone}: {seen}");
            }
        } else {
            assert!(seen.starts_with("HTTP/1.1 200 "), "{value}: {seen}");
            assert_eq!(
                seen.split_once("\r\n\r\n").unwrap().1,
                first.split_once("\r\n\r\n").unwrap().1
            );
        }
    }
    let metrics = proxy.admin("/metrics").await;
    let counted = |code: u16| {
        let of = |line: &&str| {
            line.starts_with("kagent_proxy_requests_total{")
                && line.contains(&format!("\"{code}\""))
                && line.contains("\"complete\"")
        };
        metrics.lines().find(of).map(|line| line.rsplit(' ').next().unwrap().to_owned())
    };
    assert_eq!(counted(304).as_deref(), Some("5"), "{metrics}");
    assert_eq!(counted(200).as_deref(), Some("5"), "{metrics}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_card_that_passes_as_it_came_is_not_compared() {
    let (proxy, backend) = start().await;
    let unread = "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 1\r\n\r\n{";
    for value in ["*", "\"1\""] {
        let fields = format!("if-none-match: {value}\r\n");
        let request = get_with("proxy.kagent:8080", &fields);
        let (seen, _) = asked(&proxy, &backend, &request, unread).await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n{"), "{seen}");
        assert_eq!(field(&seen, "etag"), "\"1\"");
    }
    proxy.stop().await;
}
