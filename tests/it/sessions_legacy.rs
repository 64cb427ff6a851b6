//! Sessions of the older transport, an event stream and posts beside it, through any replica of the proxy.

use kagent_proxy::config::Scheme;

use crate::sessions::HOST;
use crate::support::{Backend, TestProxy, config, route};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

/// The posts of a legacy client reach the server that has its stream (MCP 2024-11-05, "HTTP with SSE"), by whichever
/// replica they come.
#[tokio::test]
async fn a_legacy_clients_posts_reach_the_server_of_its_stream_by_any_replica() {
    let backends = [Backend::start().await, Backend::start().await];
    let ports: Vec<u16> = backends.iter().map(Backend::port).collect();
    let folder = std::env::temp_dir().join(format!("kagent-proxy-legacy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("key"), KEY).unwrap();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let mut config = config(vec![route(HOST, "/", Scheme::Http, &ports)]);
        config.sessions.key_files = vec![folder.join("key")];
        replicas.push(TestProxy::start(config).await);
    }
    let head = format!("host: p\r\nx-kagent-host: {HOST}\r\naccept: text/event-stream\r\n");
    let mut stream = replicas[0].connect().await;
    stream.send(&format!("GET /sse HTTP/1.1\r\n{head}\r\n")).await;
    let (home, mut call) = tokio::select! {
        call = backends[0].accept() => (&backends[0], call),
        call = backends[1].accept() => (&backends[1], call),
    };
    call.until("\r\n\r\n").await;
    call.send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    let said = "event: endpoint\ndata: /m/?session_id=7\n\n";
    call.send(&format!("{:x}\r\n{said}\r\n", said.len())).await;
    let event = stream.until("\n\n").await;
    let url = event.split("data: ").nth(1).unwrap().trim_end();
    let url = url.split_whitespace().next().unwrap();
    let post =
        format!("POST {url} HTTP/1.1\r\n{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}");
    for turn in 0..12 {
        let answered = home.answer("HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n");
        let (answer, seen) = tokio::join!(replicas[turn % 2].ask(&post), answered);
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert!(seen.starts_with("POST /m/?session_id=7 HTTP/1.1\r\n"), "{seen}");
    }
    drop((stream, call));
    for replica in replicas {
        replica.stop().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
