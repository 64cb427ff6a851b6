//! Agent cards lead back to the proxy (R9, R10).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kagent_proxy::config::{Cards, Scheme};

use crate::support::{Backend, TestProxy, config, route};

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
    assert!(!top.contains("etag"), "{top}");
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
    let (answer, _) = tokio::join!(proxy.ask(GET), backend.answer(&card));
    assert!(answer.ends_with(CARD), "{answer}");
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
