//! Heads that the parser refuses before the proxy sees them: these responses are the proxy's too, with a
//! reason, a body, a count and an access line.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::program::Program;
use crate::support::{Client, TestProxy, config, start};

const HEAD: &str = "host: p\r\nx-kagent-host: s.ns\r\n";

/// Status, reason, and what has them.
fn unreadable() -> Vec<(&'static str, &'static str, String)> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{HEAD}{fields}\r\n");
    vec![
        ("400", "bad_request", format!("GET /?q=\"x\" HTTP/1.1\r\n{HEAD}\r\n")),
        ("400", "bad_request", format!("G(T / HTTP/1.1\r\n{HEAD}\r\n")),
        ("400", "bad_request", format!("GET /a b HTTP/1.1\r\n{HEAD}\r\n")),
        ("400", "bad_request", format!("GET / HTTP/3.7\r\n{HEAD}\r\n")),
        ("400", "bad_request", get("x-a: 1\r\n folded\r\n")),
        ("400", "bad_request", get("x-a: a\0b\r\n")),
        ("400", "bad_request", get("content-length: 3, 4\r\n")),
        ("431", "header_too_large", get(&format!("x-far: {}\r\n", "y".repeat(300 * 1024)))),
        ("431", "header_too_large", get(&"x-a: 1\r\n".repeat(1000))),
        ("431", "header_too_large", format!("GET /{} HTTP/1.1\r\n{HEAD}\r\n", "y".repeat(70_000))),
    ]
}

fn check(answer: &str, status: &str, reason: &str, sent: &str) {
    let sent = &sent[..sent.len().min(60)];
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} {reason}\r\n")), "{sent:?}: {answer:?}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{sent:?}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for field in [
        &format!("x-kagent-proxy-error: {reason}"),
        "content-type: application/problem+json",
        "connection: close",
        &format!("content-length: {}", body.len()),
        "date: ",
    ] {
        assert!(head.contains(field), "{sent:?}: no {field:?} in {head:?}");
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["reason"], reason, "{sent:?}: {body}");
    assert_eq!(body["status"].to_string(), status, "{sent:?}: {body}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason_and_counted() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    let (mut bad, mut large) = (0, 0);
    for (status, reason, request) in unreadable() {
        let answer = proxy.ask(&request).await;
        check(&answer, status, reason, &request);
        *(if status == "400" { &mut bad } else { &mut large }) += 1;
        let metrics = proxy.admin("/metrics").await;
        for (reason, count) in [("bad_request", bad), ("header_too_large", large)] {
            let line = format!("kagent_proxy_rejected_total{{reason=\"{reason}\"}} {count}\n");
            assert!(count == 0 || metrics.contains(&line), "no {line} in {metrics}");
        }
    }
    proxy.stop().await;
}

/// These are read, and so refused like any other: by the rules of its era, and behind its body, without which the
/// client might not get the response.
#[tokio::test]
async fn somewhat_too_many_fields_are_refused_behind_the_body() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    let body = "y".repeat(64 * 1024);
    for (more, status) in [("", 431), ("mcp-method: tools/call\r\n", 500)] {
        let head = format!("{HEAD}{more}content-length: {}\r\n", body.len());
        let fields = "x-a: 1\r\n".repeat(129 - head.lines().count());
        client.send(&format!("POST /mcp HTTP/1.1\r\n{head}{fields}\r\n{body}")).await;
        let answer = client.until("}").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("x-kagent-proxy-error: header_too_large\r\n"), "{answer}");
    }
    let fields = "x-a: 1\r\n".repeat(126);
    client.send(&format!("GET / HTTP/1.1\r\n{HEAD}{fields}\r\n")).await;
    let mut call = backend.accept().await;
    assert_eq!(call.until("\r\n\r\n").await.matches("x-a: 1").count(), 126, "128 in all");
    call.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
    proxy.stop().await;
}

/// The response before it, whatever it looks like, passes byte for byte; also where both come at once.
#[tokio::test]
async fn a_response_of_the_backend_is_never_taken_for_a_refusal() {
    let (proxy, backend) = start().await;
    let good = format!("GET / HTTP/1.1\r\n{HEAD}\r\n");
    let bad = format!("GET /a b HTTP/1.1\r\n{HEAD}\r\n");
    let bare = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    for at_once in [false, true] {
        let mut client = proxy.connect().await;
        client.send(&if at_once { format!("{good}{bad}") } else { good.clone() }).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(bare).await;
        drop(call);
        let mut answers = String::new();
        if !at_once {
            answers = client.until("\r\n\r\n").await;
            client.send(&bad).await;
        }
        answers += &client.rest().await;
        let (first, second) = answers.split_once("\r\n\r\n").unwrap();
        assert!(first.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answers:?}");
        assert!(!first.contains("x-kagent-proxy-error"), "{answers:?}");
        check(second, "400", "bad_request", &bad);
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(
        metrics.contains("kagent_proxy_rejected_total{reason=\"bad_request\"} 2\n"),
        "{metrics}"
    );
    proxy.stop().await;
}

/// One of the exceptions that `docs/errors.md` names: the library refuses by itself.
#[tokio::test]
async fn over_http_2_far_too_large_a_head_is_refused_bare_and_not_counted() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://p/").header("x-far", "y".repeat(200 * 1024));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let seen = sender.send_request(request).await.unwrap();
    assert_eq!(seen.status(), 431);
    assert!(!seen.headers().contains_key("x-kagent-proxy-error"), "{seen:?}");
    assert!(seen.into_body().collect().await.unwrap().to_bytes().is_empty());
    let metrics = proxy.admin("/metrics").await;
    let counted = "kagent_proxy_rejected_total{reason=\"header_too_large\"} ";
    let counted = metrics.lines().find(|line| line.starts_with(counted));
    assert!(counted.is_none_or(|line| line.ends_with(" 0")), "{counted:?}");
    drop(sender);
    proxy.stop().await;
}

/// A request that ends behind its response has its own end, and the next one its own beginning.
#[tokio::test]
async fn behind_a_request_that_was_answered_early_a_refusal_has_its_reason() {
    let (proxy, backend) = start().await;
    for (count, (status, reason, bad)) in (1..).zip(unreadable()) {
        let mut client = proxy.connect().await;
        client.send(&format!("POST / HTTP/1.1\r\n{HEAD}content-length: 10\r\n\r\n12345")).await;
        let mut call = backend.accept().await;
        call.until("12345").await;
        call.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nearly").await;
        client.until("early").await;
        client.send(&format!("67890{bad}")).await;
        check(&client.rest().await, status, reason, &bad);
        let metrics = proxy.admin("/metrics").await;
        let rejected = metrics.lines().filter(|l| l.starts_with("kagent_proxy_rejected_total{"));
        let counts = rejected.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
        assert_eq!(counts.sum::<u32>(), count, "{metrics}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_has_an_access_line() {
    let mut program = Program::start(&["--route", "s.ns=127.0.0.1:9"], &[]).await;
    let mut client = program.connect().await;
    let peer = client.0.local_addr().unwrap().to_string();
    client.send(&format!("G(T / HTTP/1.1\r\n{HEAD}\r\n")).await;
    client.rest().await;
    let line = program.logs(&peer).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["status"], &line["outcome"]), (&400.into(), &"bad_request".into()), "{line}");
}

/// On a socket for both families an IPv4 client is an IPv4 client.
#[tokio::test]
async fn an_ipv4_client_has_one_spelling() {
    let flags = ["--listen", "[::]:0", "--route", "s.ns=127.0.0.1:9"];
    let mut program = Program::start(&flags, &[]).await;
    let mut client =
        Client(TcpStream::connect(("127.0.0.1", program.address.port())).await.unwrap());
    let peer = client.0.local_addr().unwrap().to_string();
    client.send("GET / HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n").await;
    client.rest().await;
    let line = program.logs("missing_target").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["peer"], peer, "{line}");
}
