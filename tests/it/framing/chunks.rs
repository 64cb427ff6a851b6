//! Bodies that break: the head has gone on, and the body's end must reach nobody.

use super::{HIDDEN, MARKER, post};
use crate::support::start;

/// The backend's connection is closed before the body's end, and nothing behind it is read.
#[tokio::test]
async fn a_broken_chunk_ends_the_exchange_and_the_connection() {
    let (proxy, backend) = start().await;
    for body in [
        "g\r\nabc\r\n0\r\n\r\n",
        "zz\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\rabc\r0\r\r",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = proxy.connect().await;
        let request = post("transfer-encoding: chunked\r\n", body);
        client.send(&format!("{request}{HIDDEN}{MARKER}")).await;
        let mut call = backend.accept().await;
        // To their ends: the proxy has to close, since it cannot end the message.
        let (seen, answers) = tokio::join!(call.rest(), client.rest());
        assert!(seen.is_empty() || seen.starts_with("POST /first "), "{body:?}: {seen:?}");
        assert!(!seen.contains("/hidden") && !seen.contains("/marker"), "{body:?}: {seen:?}");
        let after = seen.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!after.ends_with("0\r\n\r\n"), "{body:?} was ended: {seen:?}");
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {answers:?}");
        assert!(!answers.contains("200 OK"), "{body:?}: {answers:?}");
    }
    proxy.stop().await;
}

/// A client must not be able to have a healthy endpoint ejected, for others too.
#[tokio::test]
async fn broken_bodies_are_the_client_s_fault() {
    let (proxy, backend) = start().await;
    for _ in 0..5 {
        let mut client = proxy.connect().await;
        client.send(&post("transfer-encoding: chunked\r\n", "g\r\n")).await;
        backend.accept().await.rest().await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 bad_request\r\n"), "{answer}");
    }
    let metrics = proxy.admin("/metrics").await;
    let ejected = metrics.lines().find(|line| line.starts_with("kagent_proxy_ejections_total"));
    assert!(ejected.is_some_and(|line| line.ends_with(" 0")), "{ejected:?}");
    drop(backend);
    proxy.stop().await;
}
