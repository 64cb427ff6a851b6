//! What the admin listeners answer, and to whom; `tests/dead_peers.py` asks from another host too.

use kagent_proxy::config::Expose;

use crate::support::{Backend, Client, TestProxy, before, config};

#[tokio::test]
async fn a_question_that_is_not_understood_is_said_so() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    for (query, part) in [
        ("hots=a.ns", "\"hots\" is not known; write host, path"),
        ("host=a.ns&port=1", "\"port\" is not known"),
    ] {
        let answer = proxy.admin(&format!("/explain?{query}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(part), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_explanation_holds_to_the_same_limits_as_requests() {
    let backend = Backend::start().await;
    let mut config = before(&backend);
    config.listener.max_head_bytes = 400;
    let proxy = TestProxy::start(config).await;
    for (length, refused) in [(100, false), (500, true)] {
        let path = format!("/{}", "x".repeat(length));
        let explained = proxy.admin(&format!("/explain?host=s.ns&path={path}")).await;
        assert_eq!(explained.contains("header_too_large"), refused, "{explained}");
        assert!(!refused || explained.contains("400 bytes"), "{explained}");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n"
        );
        if refused {
            let answer = proxy.ask(&request).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        } else {
            let ok = "HTTP/1.1 204 No Content\r\n\r\n";
            let (answer, _) = tokio::join!(proxy.ask(&request), backend.answer(ok));
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        }
    }
    proxy.stop().await;
}

/// What the admin listener at `address` says to a peer with this source address.
async fn ask_from(source: &str, address: std::net::SocketAddr, request: &str) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let to = std::net::SocketAddr::new([127, 0, 0, 1].into(), address.port());
    let mut client = Client(socket.connect(to).await.unwrap());
    client.send(request).await;
    client.rest().await
}

/// Behind a mesh's sidecar every peer is 127.0.0.6, whoever it is.
#[tokio::test]
async fn a_peer_from_a_sidecar_is_told_the_state_and_nothing_else() {
    for all in ["0.0.0.0:0", "[::]:0"] {
        let mut config = config(Vec::new());
        config.admin.address = all.parse().unwrap();
        let proxy = TestProxy::start(config).await;
        for (method, path, status) in [
            ("GET", "/livez", "200"),
            ("GET", "/readyz", "200"),
            ("GET", "/metrics", "200"),
            ("GET", "/routes", "403"),
            ("GET", "/config", "403"),
            ("GET", "/explain?host=a.b", "403"),
            ("POST", "/drain", "403"),
        ] {
            // What a port-forward reaches.
            if method == "GET" {
                assert!(proxy.admin(path).await.starts_with("HTTP/1.1 200 "), "{path}");
            }
            for source in ["127.0.0.6", "127.0.0.1"] {
                let host = "kagent-proxy-metrics.kagent:9090";
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
                );
                let answer = ask_from(source, proxy.admin, &request).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
                let local = format!("{path} is answered on {} only", proxy.local);
                let local = local.replace("?host=a.b", "");
                assert_eq!(status == "403", answer.contains(&local), "{answer}");
                assert_eq!(status == "403", answer.contains("kubectl port-forward"), "{answer}");
            }
        }
        proxy.stop().await;
    }
}

/// With `expose: all` the socket for everyone shows everything, and to no page all the same; a name must be
/// configured. The state stays for everyone.
#[tokio::test]
async fn what_is_exposed_is_exposed_to_people() {
    let mut config = config(Vec::new());
    config.admin.address = "0.0.0.0:0".parse().unwrap();
    config.admin.expose = Expose::All;
    config.admin.hosts = vec!["proxy.example".to_owned()];
    let proxy = TestProxy::start(config).await;
    for (host, status) in
        [("proxy.example", "200"), ("10.0.0.1:9090", "200"), ("page.example", "403")]
    {
        for path in ["/config", "/routes", "/explain?host=a.b", "/livez"] {
            let status = if path == "/livez" { "200" } else { status };
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = ask_from("127.0.0.6", proxy.admin, &request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host} {path}: {answer}");
        }
    }
    assert!(proxy.admin("/config").await.starts_with("HTTP/1.1 200 "));
    proxy.stop().await;
}

/// A page that the user has open beside a port-forward: by its own name for loopback (DNS rebinding),
/// or by a request across origins.
#[tokio::test]
async fn a_page_in_a_browser_is_refused() {
    let proxy = TestProxy::start(config(Vec::new())).await;
    let port = proxy.admin.port();
    let own = format!("host: localhost:{port}\r\n");
    for (fields, refused) in [
        (format!("host: rebound.example:{port}\r\n"), true),
        (format!("host: localhost.example:{port}\r\n"), true),
        (format!("host: localhost:{port}\r\nhost: 127.0.0.1\r\n"), true),
        (format!("{own}origin: https://page.example\r\n"), true),
        (format!("{own}origin: null\r\n"), true),
        (format!("{own}origin: http://localhost:3000\r\n"), true),
        (format!("{own}sec-fetch-site: cross-site\r\n"), true),
        (format!("{own}sec-fetch-site: same-site\r\n"), true),
        (format!("{own}sec-fetch-site: same-origin\r\n"), false),
        (format!("{own}sec-fetch-site: none\r\n"), false),
        (format!("{own}origin: http://localhost:{port}\r\n"), false),
        (format!("host: 127.0.0.1:{port}\r\n"), false),
        (format!("host: [::1]:{port}\r\n"), false),
        ("host: LocalHost\r\n".to_owned(), false),
    ] {
        for path in ["/config", "/routes", "/metrics"] {
            let request = format!("GET {path} HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
            let answer = ask_from("127.0.0.1", proxy.admin, &request).await;
            let status = if refused { "403" } else { "200" };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {answer}");
        }
        if refused {
            let request = format!("POST /drain HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
            let answer = ask_from("127.0.0.1", proxy.admin, &request).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{fields}: {answer}");
        }
    }
    let ready = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = ask_from("127.0.0.1", proxy.admin, ready).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "nothing has started a drain: {answer}");
    proxy.stop().await;
}
