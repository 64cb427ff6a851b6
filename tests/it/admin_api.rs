//! How the admin listeners answer, whatever they are asked: methods, headers for browsers, compression, and how much at
//! once; and the page.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};

use kagent_proxy::config::{Config, Expose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{BOUND, Client, TestProxy, config};

/// One with a socket for everyone too.
fn two_doors() -> Config {
    let mut config = config(Vec::new());
    config.admin.address = "0.0.0.0:0".parse().unwrap();
    config
}

/// The head and the body that come for these first lines of a request; without chunks, as in HTTP/1.0.
async fn ask(to: SocketAddr, request: &str, fields: &str) -> (String, Vec<u8>) {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, to.port())).await.unwrap();
    let request = format!("{request} HTTP/1.0\r\nhost: localhost\r\n{fields}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(BOUND, client.read_to_end(&mut all)).await.expect("no end").unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("no head") + 4;
    let body = all.split_off(end);
    (String::from_utf8(all).unwrap(), body)
}

fn has(head: &str, field: &str) -> bool {
    head.lines().any(|line| line.eq_ignore_ascii_case(field))
}

#[tokio::test]
async fn every_answer_tells_a_browser_to_do_nothing_else_with_it() {
    let proxy = TestProxy::start(two_doors()).await;
    let foreign = "origin: https://page.example\r\n";
    for (request, fields, status) in [
        ("GET /livez", "", 200),
        ("GET /readyz", "", 200),
        ("GET /metrics", "", 200),
        ("GET /config", "", 200),
        ("HEAD /config", "", 200),
        ("GET /assets/nothing", "", 404),
        ("GET /explain?wrong=1", "", 400),
        ("GET /config", foreign, 403),
        ("GET /nothing", "", 404),
        ("POST /config", "", 405),
        ("POST /sessions/peer", "", 403),
    ] {
        let (head, _) = ask(proxy.local, request, fields).await;
        assert!(head.starts_with(&format!("HTTP/1.0 {status} ")), "{request}: {head}");
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(has(&head, field), "{request} has no {field}: {head}");
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn methods_that_a_path_does_not_have_are_refused_with_those_that_it_has() {
    let proxy = TestProxy::start(two_doors()).await;
    for (request, allow) in [
        ("POST /livez", "GET, HEAD"),
        ("DELETE /metrics", "GET, HEAD"),
        ("PUT /routes", "GET, HEAD"),
        ("OPTIONS /explain", "GET, HEAD"),
        ("POST /nothing", "GET, HEAD"),
        ("POST /", "GET, HEAD"),
        ("POST /assets/index.html", "GET, HEAD"),
        ("GET /drain", "POST"),
        ("HEAD /drain", "POST"),
        ("GET /sessions/peer", "POST"),
    ] {
        for door in [proxy.local, proxy.admin] {
            let (head, body) = ask(door, request, "").await;
            assert!(head.starts_with("HTTP/1.0 405 "), "{request}: {head}");
            assert!(has(&head, &format!("allow: {allow}")), "{request}: {head}");
            let said = if request.starts_with("HEAD") { "" } else { &format!("use {allow}\n") };
            assert_eq!(String::from_utf8(body).unwrap(), *said, "{request}");
        }
    }
    for door in [proxy.local, proxy.admin] {
        let (head, body) = ask(door, "GET /nothing", "").await;
        assert!(head.starts_with("HTTP/1.0 404 "), "{head}");
        let endpoints =
            "/livez /readyz /metrics /routes /config /explain /sight /graph /calls /drain";
        let said = format!("not found; endpoints: {endpoints}\n");
        assert_eq!(String::from_utf8(body).unwrap(), said);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_says_what_a_get_would() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    for path in ["/livez", "/config", "/routes", "/nothing", "/", "/assets/index.html"] {
        let (head, body) = ask(proxy.local, &format!("GET {path}"), "").await;
        assert!(has(&head, &format!("content-length: {}", body.len())), "{path}: {head}");
        let (alone, nothing) = ask(proxy.local, &format!("HEAD {path}"), "").await;
        let length = format!("content-length: {}", body.len());
        assert!(has(&alone, &length) && nothing.is_empty(), "{path}: {alone}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_is_long_is_compressed_for_those_who_like_that() {
    let proxy = TestProxy::start(two_doors()).await;
    for (door, path, starts) in [
        (proxy.admin, "/metrics", "# HELP kagent_proxy_"),
        (proxy.local, "/metrics", "# HELP kagent_proxy_"),
        (proxy.local, "/config", "{"),
    ] {
        let request = format!("GET {path}");
        let (head, plain) = ask(door, &request, "").await;
        assert!(plain.starts_with(starts.as_bytes()), "{path}: {head}");
        assert!(!head.contains("content-encoding"), "{path}: {head}");
        let (head, packed) = ask(door, &request, "accept-encoding: br, gzip\r\n").await;
        assert!(has(&head, "content-encoding: gzip"), "{path}: {head}");
        assert!(has(&head, "vary: accept-encoding"), "{path}: {head}");
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&*packed).read_to_string(&mut unpacked).unwrap();
        assert!(unpacked.starts_with(starts), "{path}: {unpacked}");
        assert!(packed.len() < plain.len(), "{path}: {} of {}", packed.len(), plain.len());
        let (head, _) = ask(door, &request, "accept-encoding: gzip;q=0, br\r\n").await;
        assert!(!head.contains("content-encoding"), "{path}: {head}");
    }
    let (head, body) = ask(proxy.local, "GET /livez", "accept-encoding: gzip\r\n").await;
    assert!(body == b"ok\n" && !head.contains("content-encoding"), "{head}");
    proxy.stop().await;
}

/// More than a socket takes over before anybody reads.
const LONG: usize = 5 * 1024 * 1024;

/// A client who asks for that much and reads no more than the first line of the answer.
async fn slow_reader(proxy: &TestProxy) -> (Client, String) {
    let mut client = Client(TcpStream::connect(proxy.local).await.unwrap());
    client.send("GET /config HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let first = client.until("\r\n").await;
    (client, first)
}

#[tokio::test]
async fn who_does_not_read_takes_a_place_which_neither_probes_nor_the_drain_need() {
    let mut config = two_doors();
    config.admin.hosts = vec!["x".repeat(LONG)];
    let proxy = TestProxy::start(config).await;
    let mut slow = Vec::new();
    loop {
        let (client, first) = slow_reader(&proxy).await;
        if first.starts_with("HTTP/1.1 503 ") {
            break;
        }
        assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
        slow.push(client);
        assert!(slow.len() <= 16, "nobody is refused");
    }
    assert_eq!(slow.len(), 16);
    for path in ["/", "/routes", "/metrics", "/config"] {
        let (head, body) = ask(proxy.local, &format!("GET {path}"), "").await;
        assert!(head.starts_with("HTTP/1.0 503 ") && has(&head, "retry-after: 1"), "{head}");
        assert_eq!(body, b"16 other requests are being answered; ask again\n");
    }
    for path in ["/livez", "/readyz"] {
        let (head, _) = ask(proxy.local, &format!("GET {path}"), "").await;
        assert!(head.starts_with("HTTP/1.0 200 "), "{path}: {head}");
    }
    // The other socket has places of its own.
    let (head, _) = ask(proxy.admin, "GET /metrics", "").await;
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    slow.pop();
    let free = async { while ask(proxy.local, "GET /routes", "").await.0.contains(" 503 ") {} };
    tokio::time::timeout(BOUND, free).await.expect("no place is given back");
    let (_last, first) = slow_reader(&proxy).await;
    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    let (head, _) = ask(proxy.local, "GET /routes", "").await;
    assert!(head.starts_with("HTTP/1.0 503 "), "{head}");
    let (head, _) = ask(proxy.local, "POST /drain", "").await;
    assert!(head.starts_with("HTTP/1.0 202 "), "{head}");
    proxy.stop().await;
}

/// What a browser has of the page; the file may change.
const PAGE: [&str; 2] = ["/", "/assets/index.html"];

#[tokio::test]
async fn the_page_is_sent_once_and_asked_for_each_time() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    for path in PAGE {
        let request = format!("GET {path}");
        let (head, body) = ask(proxy.local, &request, "").await;
        assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
        assert!(has(&head, "content-type: text/html; charset=utf-8"), "{head}");
        assert!(body.starts_with(b"<!doctype html>"), "{path}");
        for field in ["cache-control: no-cache", "x-content-type-options: nosniff"] {
            assert!(has(&head, field), "{head}");
        }
        assert!(head.contains("\r\ncontent-security-policy: default-src 'none'; "), "{head}");
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        assert!(tag.starts_with("W/\""), "{tag}");
        let known = format!("if-none-match: \"other\", {tag}\r\n");
        let (head, body) = ask(proxy.local, &request, &known).await;
        assert!(head.starts_with("HTTP/1.0 304 ") && body.is_empty(), "{head}");
        assert!(has(&head, &format!("etag: {tag}")), "{head}");
        assert!(has(&head, "cache-control: no-cache"), "{head}");
        assert!(!head.contains("\ncontent-length:") && !head.contains("\ncontent-type:"), "{head}");
        let (head, _) = ask(proxy.local, &request, "if-none-match: \"other\"\r\n").await;
        assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    }
    for path in ["/assets/", "/assets/nothing.js", "/assets/../config", "/index.html"] {
        let (head, _) = ask(proxy.local, &format!("GET {path}"), "").await;
        assert!(head.starts_with("HTTP/1.0 404 "), "{path}: {head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_page_is_for_operators_and_for_no_other_page() {
    let mut exposed = two_doors();
    exposed.admin.expose = Expose::All;
    for (config, everyones) in [(two_doors(), "404"), (exposed, "200")] {
        let proxy = TestProxy::start(config).await;
        for path in PAGE {
            for (fields, status) in [
                ("host: localhost\r\n", "200"),
                ("host: localhost\r\nsec-fetch-site: same-origin\r\n", "200"),
                ("host: localhost\r\nsec-fetch-site: cross-site\r\n", "403"),
                ("host: localhost\r\norigin: https://page.example\r\n", "403"),
                ("host: rebound.example\r\n", "403"),
            ] {
                let ask_at = async |address: SocketAddr| {
                    let to = (Ipv4Addr::LOCALHOST, address.port());
                    let mut client = Client(TcpStream::connect(to).await.unwrap());
                    client.send(&format!("GET {path} HTTP/1.0\r\n{fields}\r\n")).await;
                    client.rest().await
                };
                let answer = ask_at(proxy.local).await;
                assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{fields}: {answer}");
                assert_eq!(status == "403", !answer.contains("<!doctype html>"), "{answer}");
                let answer = ask_at(proxy.admin).await;
                let status = if everyones == "404" { everyones } else { status };
                assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{fields}: {answer}");
            }
        }
        proxy.stop().await;
    }
}

/// What streams: the pictures for those who like that, and the calls.
const STREAMS: [&str; 2] = ["/sight", "/calls"];
const EVENTS: &str = "accept: text/event-stream\r\naccept-encoding: gzip\r\n";

#[tokio::test]
async fn an_event_stream_ends_cleanly_with_the_program_and_does_not_hold_it_up() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    let mut readers = Vec::new();
    for path in STREAMS {
        let mut client = Client(TcpStream::connect(proxy.local).await.unwrap());
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{EVENTS}\r\n")).await;
        let head = client.until("\r\n\r\n").await;
        assert!(has(&head, "content-type: text/event-stream"), "{head}");
        assert!(has(&head, "cache-control: no-store"), "{head}");
        assert!(!head.contains("content-encoding"), "{head}");
        readers.push(client);
    }
    let ended = async {
        for client in &mut readers {
            let rest = client.rest().await;
            assert!(rest.ends_with("0\r\n\r\n"), "cut off: {rest:?}");
        }
    };
    tokio::join!(proxy.stop(), ended);
}

#[tokio::test]
async fn an_event_stream_is_for_operators_and_for_no_page_of_others() {
    let proxy = TestProxy::start(two_doors()).await;
    for path in STREAMS {
        let request = format!("GET {path}");
        for (door, fields, why) in [
            (proxy.local, "sec-fetch-site: cross-site\r\n", "refused: Sec-Fetch-Site"),
            (proxy.local, "origin: https://page.example\r\n", "refused: its Origin"),
            (proxy.admin, "", "is answered on 127.0.0.1:"),
        ] {
            let (head, body) = ask(door, &request, &format!("{EVENTS}{fields}")).await;
            let body = String::from_utf8(body).unwrap();
            assert!(head.starts_with("HTTP/1.0 403 ") && body.contains(why), "{head}{body}");
        }
    }
    proxy.stop().await;
}
