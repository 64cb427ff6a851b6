//! Extended cards lead back to the proxy too: by a path of their own, and as the result of a JSON-RPC call.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use kagent_proxy::config::{Cards, Scheme};

use crate::support::{Backend, TestProxy, config, route};

/// Both shapes at once: `url` and `additionalInterfaces` of A2A 0.3, `supportedInterfaces` of 1.0, and a signature.
const CARD: &str = r#"{"name":"h","url":"http://helper.team-a:8080/","additionalInterfaces":[{"url":"http://helper.team-a:8080/rest"}],"supportedInterfaces":[{"url":"http://helper.team-a.svc.cluster.local:8080","protocolBinding":"JSONRPC"},{"url":"https://public.example/"}],"signatures":[{"protected":"e30","signature":"x"}],"skills":[]}"#;
const OURS: &str = r#"{"name":"h","url":"http://proxy.kagent:8080/","additionalInterfaces":[{"url":"http://proxy.kagent:8080/rest"}],"supportedInterfaces":[{"url":"http://proxy.kagent:8080","protocolBinding":"JSONRPC"},{"url":"https://public.example/"}],"skills":[]}"#;

/// What this agent may do with calls and cards.
#[derive(Clone, Copy)]
struct Uses {
    cards: Cards,
    sees_calls: bool,
}

const PLAIN: Uses = Uses { cards: Cards::Rewrite, sees_calls: true };

async fn start(uses: Uses) -> (TestProxy, Backend) {
    let backend = Backend::start().await;
    let mut route = route("helper.team-a", "/", Scheme::Http, &[backend.port()]);
    route.to.cards = uses.cards;
    let mut config = config(vec![route]);
    config.sight.calls = uses.sees_calls;
    (TestProxy::start(config).await, backend)
}

fn get(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: proxy.kagent:8080\r\nx-kagent-host: helper.team-a\r\n\
         {fields}connection: close\r\n\r\n"
    )
}

/// The head of a call, and its body.
fn call(method: &str) -> (String, String) {
    let body = format!(r#"{{"jsonrpc":"2.0","id":"x-7","method":"{method}","params":{{}}}}"#);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: proxy.kagent:8080\r\nx-kagent-host: helper.team-a\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    (head, body)
}

fn answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"1\"\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn result(card: &str) -> String {
    format!("{{ \"jsonrpc\":\"2.0\", \"result\" : {card},\"id\":\"x-7\",\"n\":1.0 }}")
}

async fn ask(
    proxy: &TestProxy,
    backend: &Backend,
    request: &str,
    answer: &str,
) -> (String, String) {
    let play = async {
        let mut call = backend.accept().await;
        let head = call.until("\r\n\r\n").await;
        if head.starts_with("POST") && !head.contains("\"method\"") {
            call.until("}}").await;
        }
        call.send(answer).await;
        head
    };
    tokio::join!(proxy.ask(request), play)
}

fn parts(response: &str) -> (&str, &str) {
    response.split_once("\r\n\r\n").unwrap()
}

async fn counted(proxy: &TestProxy) -> [u64; 3] {
    let metrics = proxy.admin("/metrics").await;
    ["rewritten", "passed", "signature_removed"].map(|result| {
        let name = format!("cards_total{{route=\"helper.team-a\",result=\"{result}\"}} ");
        let (_, rest) = metrics.split_once(&name).unwrap_or_else(|| panic!("{name}: {metrics}"));
        rest.lines().next().unwrap().parse().unwrap()
    })
}

#[tokio::test]
async fn an_extended_card_at_a_path_of_its_own_is_a_card() {
    let (proxy, backend) = start(PLAIN).await;
    let places = [
        "/extendedAgentCard",
        "/agents/team-a/helper/extendedAgentCard",
        "/v1/card",
        "/agents/team-a/helper/v1/card?x=1",
        "/agent/authenticatedExtendedCard",
        "/.well-known/agent-card.json",
    ];
    let card = answer(CARD);
    for place in places {
        let fields = "accept-encoding: gzip\r\nif-none-match: \"1\"\r\nauthorization: Bearer x\r\n";
        let (seen, head) = ask(&proxy, &backend, &get(place, fields), &card).await;
        assert!(head.starts_with(&format!("GET {place} ")), "{head}");
        assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
        assert!(!head.contains("if-none-match") && head.contains("Bearer x"), "{head}");
        let (top, body) = parts(&seen);
        assert_eq!(body, OURS, "{place}");
        let tag = top.split("\r\netag: ").nth(1).unwrap().lines().next().unwrap();
        assert_ne!(tag, "\"1\"");
        let fields = format!("if-none-match: {tag}\r\n");
        let (seen, _) = ask(&proxy, &backend, &get(place, &fields), &card).await;
        assert!(seen.starts_with("HTTP/1.1 304 "), "{place}: {seen}");
    }
    let all = 2 * places.len() as u64;
    assert_eq!(counted(&proxy).await, [all, 0, all]);
    proxy.stop().await;
}

#[tokio::test]
async fn the_card_in_an_answer_without_a_type_is_rewritten_too() {
    for sees_calls in [true, false] {
        // As a2a-go answers: without a type, of which Go makes text.
        for kind in ["content-type: text/plain; charset=utf-8\r\n", ""] {
            let (proxy, backend) = start(Uses { sees_calls, ..PLAIN }).await;
            let of = |body: &str| {
                let length = body.len();
                format!("HTTP/1.1 200 OK\r\n{kind}content-length: {length}\r\n\r\n{body}")
            };
            let (head, body) = call("agent/getAuthenticatedExtendedCard");
            let request = head + &body;
            let (seen, _) = ask(&proxy, &backend, &request, &of(&result(CARD))).await;
            let (top, body) = parts(&seen);
            assert_eq!(body, result(OURS), "{kind:?} {sees_calls}");
            assert_eq!(top.contains("content-type"), !kind.is_empty(), "{top}");
            // What begins otherwise is not waited for.
            let mut client = proxy.connect().await;
            client.send(&request).await;
            let mut agent = backend.accept().await;
            agent.until("}}").await;
            agent.send(&of("some {text}").replace("{text}", "")).await;
            client.until("some ").await;
            agent.send("{text}").await;
            assert_eq!(client.rest().await, "{text}");
            assert_eq!(counted(&proxy).await, [1, 0, 1]);
            proxy.stop().await;
        }
    }
}

#[tokio::test]
async fn the_card_in_an_answer_is_rewritten_and_every_other_byte_stays() {
    for sees_calls in [true, false] {
        let (proxy, backend) = start(Uses { sees_calls, ..PLAIN }).await;
        for method in ["GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"] {
            let (head, body) = call(method);
            let (seen, asked) =
                ask(&proxy, &backend, &(head + &body), &answer(&result(CARD))).await;
            assert!(!asked.contains("accept-encoding"), "a call goes out as it came: {asked}");
            let (top, body) = parts(&seen);
            assert_eq!(body, result(OURS), "{method} {sees_calls}");
            assert!(top.contains(&format!("content-length: {}", body.len())), "{top}");
            assert!(!top.contains("etag"), "of other bytes: {top}");
        }
        assert_eq!(counted(&proxy).await, [2, 0, 2]);
        let metrics = proxy.admin("/metrics").await;
        let ended = "a2a_method_name=\"GetExtendedAgentCard\",error_type=\"\"} 1";
        assert_eq!(metrics.contains(ended), sees_calls, "{metrics}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_call_is_known_wherever_its_body_is_split() {
    for sees_calls in [true, false] {
        let (proxy, backend) = start(Uses { sees_calls, ..PLAIN }).await;
        // The last one as no SDK writes it.
        for method in
            ["GetExtendedAgentCard", "GetExtended\\u0041gentCard", "GetEx\\u0074endedAgentCard"]
        {
            let (head, body) = call(method);
            for at in [1, body.len() / 2, body.len() - 1] {
                let mut client = proxy.connect().await;
                client.send(&format!("{head}{}", &body[..at])).await;
                let mut upstream = backend.accept().await;
                upstream.until(&body[..at]).await;
                client.send(&body[at..]).await;
                upstream.until(&body[at..]).await;
                upstream.send(&answer(&result(CARD))).await;
                let seen = client.rest().await;
                assert_eq!(parts(&seen).1, result(OURS), "{method} {sees_calls} {at}");
            }
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_compressed_answer_is_read_and_one_in_an_unknown_coding_passes() {
    let (proxy, backend) = start(PLAIN).await;
    let (head, body) = call("GetExtendedAgentCard");
    let request = head + &body;
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(result(CARD).as_bytes()).unwrap();
    let zipped = zipped.finish().unwrap();
    let play = async {
        let mut call = backend.accept().await;
        call.until("}}").await;
        let top = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n\
             content-length: {}\r\n\r\n",
            zipped.len()
        );
        call.send(&top).await;
        call.send_bytes(&zipped).await;
    };
    let (seen, ()) = tokio::join!(proxy.ask(&request), play);
    assert_eq!(parts(&seen).1, result(OURS));
    assert!(!seen.contains("encoding"), "{seen}");
    let unknown = answer(&result(CARD)).replace("etag: \"1\"", "content-encoding: br");
    let (seen, _) = ask(&proxy, &backend, &request, &unknown).await;
    assert_eq!(parts(&seen).1, result(CARD));
    assert_eq!(counted(&proxy).await, [1, 1, 1]);
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_no_extended_card_passes_with_its_headers() {
    for sees_calls in [true, false] {
        let (proxy, backend) = start(Uses { sees_calls, ..PLAIN }).await;
        let failed = r#"{"jsonrpc":"2.0","id":"x-7","error":{"code":-32007,"message":"none","data":{"url":"http://helper.team-a:8080"}}}"#;
        let other = result(r#"{"url":"https://public.example/","signatures":[1]}"#);
        for (method, body) in [
            // Another call, of which the answer looks like one.
            ("GetTask", result(CARD)),
            ("message/send", result(CARD)),
            ("GetExtendedAgentCards", result(CARD)),
            ("GetExtendedAgentCard", failed.to_owned()),
            ("GetExtendedAgentCard", other),
        ] {
            let (head, request) = call(method);
            let (seen, _) = ask(&proxy, &backend, &(head + &request), &answer(&body)).await;
            let (top, seen) = parts(&seen);
            assert_eq!(seen, body, "{method}");
            assert!(top.contains("\r\netag: \"1\""), "{top}");
        }
        // A word in an argument is none.
        let (head, request) = call("message/send");
        let request = request.replace("\"params\":{}", "\"params\":{\"GetExtendedAgentCard\":1}");
        let head = head
            .replace("content-length: ", "x-y: ")
            .replace("connection", &format!("content-length: {}\r\nconnection", request.len()));
        let (seen, _) = ask(&proxy, &backend, &(head + &request), &answer(&result(CARD))).await;
        assert_eq!(parts(&seen).1, result(CARD));
        // With another status it is none either.
        let (head, request) = call("GetExtendedAgentCard");
        let refused = answer(&result(CARD)).replacen("200 OK", "401 Unauthorized", 1);
        let (seen, _) = ask(&proxy, &backend, &(head + &request), &refused).await;
        assert_eq!(parts(&seen).1, result(CARD));
        assert_eq!(counted(&proxy).await, [0, 0, 0]);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn where_cards_pass_extended_ones_do() {
    for sees_calls in [true, false] {
        let (proxy, backend) = start(Uses { cards: Cards::Pass, sees_calls }).await;
        let (head, body) = call("GetExtendedAgentCard");
        let whole = answer(&result(CARD));
        let (seen, _) = ask(&proxy, &backend, &(head + &body), &whole).await;
        assert_eq!(parts(&seen).1, result(CARD));
        let fields = "if-none-match: \"2\"\r\n";
        let (seen, head) =
            ask(&proxy, &backend, &get("/extendedAgentCard", fields), &answer(CARD)).await;
        assert!(head.contains("if-none-match: \"2\""), "{head}");
        assert!(seen.contains("\r\netag: \"1\"") && seen.ends_with(CARD), "{seen}");
        assert_eq!(counted(&proxy).await, [0, 0, 0]);
        proxy.stop().await;
    }
}
