//! What takes long, through the real program with its defaults; run by hand:
//! `cargo test --release --test it long -- --ignored`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::program::Program;
use crate::support::{Backend, Client};

const SILENCE: Duration = Duration::from_secs(600);
const GIBIBYTE: usize = 1 << 30;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

fn request(line: &str, fields: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n{fields}\r\n"
    )
}

/// Sends, answers with `answer` after the silence, and returns what the client has seen at the end.
async fn silent(program: &Program, request: &str, backend: &Backend, answer: [&str; 2]) -> String {
    let mut client = program.connect().await;
    client.send(request).await;
    let mut call: Client = backend.accept().await;
    call.until("\r\n\r\n").await;
    call.send(answer[0]).await;
    let server = async move {
        // The pause is what is tested.
        tokio::time::sleep(SILENCE).await;
        call.send(answer[1]).await;
    };
    let mut seen = String::new();
    let (_, read) = tokio::join!(server, client.0.read_to_string(&mut seen));
    read.unwrap();
    seen
}

#[tokio::test]
#[ignore = "takes ten minutes"]
async fn ten_minutes_of_silence_break_nothing() {
    let backend = [Backend::start().await, Backend::start().await, Backend::start().await];
    let routes = backend.each_ref().map(|backend| format!("s.ns=127.0.0.1:{}", backend.port()));
    let mut programs = Vec::new();
    for route in &routes {
        programs.push(Program::start(&["--route", route], &[]).await);
    }
    let started = Instant::now();
    let get = request("GET /mcp", "mcp-session-id: 1\r\naccept: text/event-stream\r\n");
    let post = request("POST /mcp", "content-length: 0\r\n");
    let unary = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (session, call, unary) = tokio::join!(
        silent(&programs[0], &get, &backend[0], [EVENTS, "data: 1\n\n"]),
        silent(&programs[1], &post, &backend[1], [EVENTS, "data: 1\n\n"]),
        silent(&programs[2], &post, &backend[2], ["", unary]),
    );
    assert!(started.elapsed() >= SILENCE);
    for stream in [session, call] {
        // One each 30 s; the last one may meet the event.
        let comments = stream.matches(": keep-alive\n\n").count();
        assert!((19..=20).contains(&comments), "{comments} comments");
        assert!(stream.contains("data: 1\n\n") && stream.ends_with("0\r\n\r\n"), "{stream:?}");
    }
    assert!(unary.starts_with("HTTP/1.1 200 OK\r\n") && unary.ends_with("\r\n\r\nok"), "{unary:?}");
    for program in &mut programs {
        program.logs("\"outcome\":\"complete\"").await;
    }
}

#[tokio::test]
#[ignore = "moves two gibibytes"]
async fn a_gibibyte_each_way_leaves_memory_flat() {
    let backend = Backend::start().await;
    let route = format!("s.ns=127.0.0.1:{}", backend.port());
    let mut program = Program::start(&["--route", &route], &[]).await;
    let block = vec![b'x'; 1 << 20];
    let length = format!("content-length: {GIBIBYTE}\r\n");
    let mut before = 0;
    // The first megabytes make the buffers that the rest is measured against.
    for size in [16 << 20, GIBIBYTE] {
        let length = length.replace(&GIBIBYTE.to_string(), &size.to_string());
        let mut client = program.connect().await;
        client.send(&request("POST /", &length)).await;
        let mut call = backend.accept().await;
        let head = call.until("\r\n\r\n").await;
        let early = head.len() - head.find("\r\n\r\n").unwrap() - 4;
        let (mut client_in, mut client_out) = client.0.split();
        let (mut call_in, mut call_out) = call.0.split();
        let up = async {
            for _ in 0..size >> 20 {
                client_out.write_all(&block).await.unwrap();
            }
        };
        let taken = drain(&mut call_in, size - early);
        tokio::join!(up, taken);
        let down = async {
            let head = format!("HTTP/1.1 200 OK\r\n{length}\r\n");
            call_out.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..size >> 20 {
                call_out.write_all(&block).await.unwrap();
            }
        };
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client_in.read_u8().await.unwrap());
            }
            drain(&mut client_in, size).await;
        };
        tokio::join!(down, read);
        program.logs("\"outcome\":\"complete\"").await;
        let now = program.resident();
        if before > 0 {
            assert!(now < before + (16 << 20), "{before} bytes before, {now} after");
        }
        before = now;
    }
}

async fn drain(from: &mut (impl tokio::io::AsyncRead + Unpin), bytes: usize) {
    let mut rest = from.take(bytes as u64);
    let read = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.unwrap();
    assert_eq!(read, bytes as u64);
}
