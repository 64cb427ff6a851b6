//! Bodies that break behind their head, and bytes that come behind a body: neither becomes a clean end or a response.

use super::{SECOND, get};
use crate::support::{BOUND, OK, start};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const FORGED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";

#[tokio::test]
async fn a_malformed_chunk_ends_the_client_s_connection_and_never_its_body() {
    let (proxy, backend) = start().await;
    for broken in [
        "x\r\n",
        "\r\n",
        "-1\r\na\r\n",
        "0x1\r\na\r\n",
        "1\na\r\n",
        "1\ra\r\n",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "1 1\r\na\r\n",
        "1;a\nb\r\na\r\n",
        "fffffffffffffffff\r\na\r\n",
        "0\r\nno field\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\n\n",
        "0\r\n\rx",
    ] {
        let mut client = proxy.connect().await;
        client.send(&get("GET", "/")).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&format!("{CHUNKED}5\r\nhello\r\n")).await;
        let mut seen = client.until("hello\r\n").await;
        // What would end the body stands behind it.
        call.send(&format!("{broken}0\r\n\r\n{FORGED}")).await;
        seen += &client.rest().await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{broken:?}: {seen:?}");
        let body = seen.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body, "5\r\nhello\r\n", "{broken:?}");
        assert_eq!(call.rest().await, "", "{broken:?}: its connection is closed");
    }
    let metrics = proxy.admin("/metrics").await;
    assert!(metrics.contains("outcome=\"upstream_broke\"} 15"), "{metrics}");
    proxy.stop().await;
}

/// Nothing has gone to the client yet, so it is told.
#[tokio::test]
async fn a_malformed_chunk_that_comes_with_the_head_is_a_502() {
    let (proxy, backend) = start().await;
    for broken in ["x\r\n", "5\r\nhello!\r\n0\r\n\r\n"] {
        let mut client = proxy.connect().await;
        client.send(&get("GET", "/")).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&format!("{CHUNKED}{broken}")).await;
        let seen = client.until("\"action\"").await;
        assert!(seen.starts_with("HTTP/1.1 502 upstream_protocol\r\n"), "{broken:?}: {seen}");
        assert_eq!(call.rest().await, "", "{broken:?}: its connection is closed");
    }
    proxy.stop().await;
}

/// In a packet of their own, when the connection waits for its next request: RFC 9112 section 6.3 has them discarded.
#[tokio::test]
async fn bytes_that_come_later_never_become_the_next_response() {
    let (proxy, backend) = start().await;
    for (late, waits) in [(FORGED, false), (FORGED, true), ("\r\n", false), ("x", false)] {
        let mut client = proxy.connect().await;
        client.send(&get("GET", "/first")).await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(OK).await;
        client.until("ok").await;
        call.send(late).await;
        if waits {
            assert_eq!(call.rest().await, "", "{late:?}: the proxy closes it by itself");
        }
        client.send(&get("GET", "/second")).await;
        let mut fresh = backend.accept().await;
        assert!(fresh.until("\r\n\r\n").await.starts_with("GET /second "), "{late:?}");
        fresh.send(&SECOND.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        let second = client.until("second").await;
        assert!(second.starts_with("HTTP/1.1 200 OK\r\n"), "{late:?}: {second}");
        let rest = tokio::time::timeout(BOUND, call.rest()).await;
        assert_eq!(rest.expect("the connection is closed"), "", "{late:?}: it had no request");
    }
    proxy.stop().await;
}
