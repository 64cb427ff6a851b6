//! Agent cards lead back to the proxy (R9, R10).

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
