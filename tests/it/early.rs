//! Backends that respond before they have the whole request, and what becomes of the rest of it.
//!
//! Every backend writes raw bytes; what a client that speaks to it directly would get is what it must get.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{BOUND, TestProxy, start};

const LARGE: usize = 3 * 1024 * 1024;

/// What a client reads that sends all of a large body, however it is answered.
async fn upload(proxy: &TestProxy, framing: &str, body: &[u8]) -> String {
    let client = proxy.connect().await;
    let (mut reader, mut writer) = client.0.into_split();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n{framing}\r\n\r\n"
    );
    let write = async {
        // Who is refused early may not be able to send it all.
        let _sent = writer.write_all(head.as_bytes()).await;
        let _sent = writer.write_all(body).await;
    };
    let mut answer = Vec::new();
    let read = tokio::time::timeout(BOUND, reader.read_to_end(&mut answer));
    let ((), read) = tokio::join!(write, read);
    read.expect("an end").expect("no reset");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_backend_that_refuses_an_upload_and_closes_is_heard_every_time() {
    let (proxy, backend) = start().await;
    let body = vec![b'x'; LARGE];
    let sized = format!("content-length: {LARGE}");
    for (status, framing) in [
        ("413 Payload Too Large", sized.as_str()),
        ("401 Unauthorized", &sized),
        ("302 Found", &sized),
    ]
    .repeat(5)
    {
        let answer = async {
            let mut call = backend.accept().await;
            call.until("\r\n\r\n").await;
            call.send(&format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
            // It closes with unread bytes, which resets the connection.
            drop(call);
        };
        let (seen, ()) = tokio::join!(upload(&proxy, framing, &body), answer);
        assert!(seen.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{seen}");
        assert!(seen.ends_with("\r\n\r\nno"), "{seen}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_upload_behind_an_early_response_goes_on_to_its_end_and_the_connection_is_used_again() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST /1 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 10\r\n\r\n12345",
        )
        .await;
    let mut call = backend.accept().await;
    call.until("12345").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
    client.until("early").await;
    client.send("67890").await;
    call.until("67890").await;
    client.send("GET /2 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
    tokio::select! {
        head = call.until("\r\n\r\n") => assert!(head.starts_with("GET /2 "), "{head}"),
        // The upload may not have been noticed to be whole when the next request came.
        mut fresh = backend.accept() => {
            assert!(fresh.until("\r\n\r\n").await.starts_with("GET /2 "));
            fresh.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfresh").await;
            client.until("fresh").await;
            drop(client);
            return proxy.stop().await;
        }
    }
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nagain").await;
    client.until("again").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn bytes_behind_a_response_never_become_the_next_one() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for behind in ["", "\r\n", "x"] {
        client.send("GET /1 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
        let mut call = backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{behind}{forged}")).await;
        assert!(client.until("ok").await.ends_with("ok"));
        client.send("GET /2 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n").await;
        let mut other = backend.accept().await;
        assert!(other.until("\r\n\r\n").await.starts_with("GET /2 "));
        let close = "connection: close\r\n";
        other.send(&format!("HTTP/1.1 200 OK\r\n{close}content-length: 6\r\n\r\nhonest")).await;
        assert!(client.until("honest").await.ends_with("honest"));
        assert_eq!(call.rest().await, "", "the first connection is closed");
    }
    drop(client);
    proxy.stop().await;
}
