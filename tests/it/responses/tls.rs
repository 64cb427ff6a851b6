//! The same over TLS, where an end that nobody has announced is no end (RFC 9112 section 9.8).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::get;
use crate::support::{BOUND, Backend};
use crate::tls::before_https;

/// A call whose head has been read, and which has been answered with these bytes.
async fn answered(
    backend: &Backend,
    acceptor: &TlsAcceptor,
    response: &str,
) -> TlsStream<TcpStream> {
    let mut call = acceptor.accept(backend.accept().await.0).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(call.read_u8().await.unwrap());
    }
    call.write_all(response.as_bytes()).await.unwrap();
    call.flush().await.unwrap();
    call
}

/// Whether the proxy has closed it; nothing more may come.
async fn is_closed(mut call: TlsStream<TcpStream>) -> bool {
    let mut rest = Vec::new();
    // It may not say goodbye.
    let _ended = tokio::time::timeout(BOUND, call.read_to_end(&mut rest)).await.expect("an end");
    rest.is_empty()
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let (proxy, backend, acceptor) = before_https().await;
    for response in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\ncontent-length: 5\r\n\r\nhello",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        let mut client = proxy.connect().await;
        client.send(&get("GET", "/")).await;
        let call = answered(&backend, &acceptor, response).await;
        let seen = client.until("\"action\"").await;
        assert!(seen.starts_with("HTTP/1.1 502 upstream_protocol\r\n"), "{response:?}: {seen}");
        assert!(!seen.contains("hel") && is_closed(call).await, "{response:?}: {seen}");
    }
    proxy.stop().await;
}

/// Whoever can cut the connection could shorten a body otherwise.
#[tokio::test]
async fn a_body_ends_only_where_the_backend_says_so() {
    let (proxy, backend, acceptor) = before_https().await;
    for (fields, body, announced, whole) in [
        ("", "hello", true, true),
        ("", "hello", false, false),
        ("content-length: 9\r\n", "hello", true, false),
        ("content-length: 9\r\n", "hello", false, false),
        ("content-length: 5\r\n", "hello", false, true),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n", true, false),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n", false, false),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", false, true),
    ] {
        let mut client = proxy.connect().await;
        client.send(&get("GET", "/").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
        let mut call = answered(&backend, &acceptor, &response).await;
        let mut seen = client.until("hello").await;
        if announced {
            call.shutdown().await.unwrap();
        }
        drop(call);
        seen += &client.rest().await;
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body.contains("hello"), "{seen:?}");
        let ended = body.ends_with("0\r\n\r\n") || head.contains("content-length: 5\r\n");
        assert_eq!(ended, whole, "{fields:?} announced {announced}: {seen:?}");
    }
    proxy.stop().await;
}
