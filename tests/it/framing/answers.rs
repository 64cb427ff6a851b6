//! Messages whose end is not told by a body: each ends where it should, and the next one on the connection is seen as
//! itself (D18).

use crate::support::{LAST_OK, start};

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let (proxy, backend) = start().await;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nx-a: 1\r\netag: \"1\"\r\n\r\n"),
    ] {
        let mut client = proxy.connect().await;
        client
            .send(&format!("{method} /1 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n"))
            .await;
        let head = backend.answer(answer).await;
        assert!(head.starts_with(&format!("{method} /1 ")), "{head}");
        let seen = client.until("\r\n\r\n").await;
        assert!(seen.starts_with(answer.split("\r\n").next().unwrap()), "{seen}");
        assert!(seen.contains("x-a: 1\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\n"), "bytes behind the head: {seen:?}");
        assert_eq!(
            seen.contains("content-length: 5\r\n"),
            answer.contains("content-length: 5\r\n"),
            "{seen}"
        );
        let next = "GET /2 HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
        client.send(next).await;
        let marker = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nmarker";
        assert!(backend.answer(marker).await.starts_with("GET /2 "));
        let seen = client.rest().await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{method} {answer}: {seen:?}");
        assert!(seen.ends_with("\r\n\r\nmarker"), "{method} {answer}: {seen:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_trailer_of_an_answer_reaches_a_client_that_takes_trailers() {
    let (proxy, backend) = start().await;
    let request = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nte: trailers\r\n\
        connection: close, te\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
        3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
    let (seen, _) = tokio::join!(proxy.ask(request), backend.answer(answer));
    assert!(seen.ends_with("3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"), "{seen:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_answer_passes_before_the_request_s_body_has_ended() {
    let (proxy, backend) = start().await;
    let mut client = proxy.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\ncontent-length: 1000000\r\n\r\n\
             begin",
        )
        .await;
    let mut call = backend.accept().await;
    call.until("begin").await;
    call.send("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno").await;
    let seen = client.until("\r\n\r\nno").await;
    assert!(seen.starts_with("HTTP/1.1 413 "), "{seen}");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_wish_for_trailers_goes_on_and_no_other_coding_does() {
    let (proxy, backend) = start().await;
    for (te, goes_on) in [("te: gzip, Trailers\r\n", true), ("te: gzip\r\n", false), ("", false)] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n{te}connection: close, te\r\n\r\n"
        );
        let (_, head) = tokio::join!(proxy.ask(&request), backend.answer(LAST_OK));
        let head = head.to_ascii_lowercase();
        assert_eq!(head.contains("te: trailers\r\n"), goes_on, "{head}");
        assert_eq!(head.contains("connection: te\r\n"), goes_on, "{head}");
        assert!(!head.contains("gzip"), "{head}");
    }
    proxy.stop().await;
}
