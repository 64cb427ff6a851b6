//! What the admin listener answers; who may ask from outside is tested in `tests/dead_peers.py`, which has
//! an outside.

use kagent_proxy::config::Scheme;

use crate::support::{Backend, TestProxy, config, route};

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
    let mut config = config(vec![route("s.ns", "/", Scheme::Http, &[backend.port()])]);
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
