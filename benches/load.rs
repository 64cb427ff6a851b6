//! The whole proxy over loopback: requests at 1, 64 and 512 connections, events on 1 and 256 streams.
//!
//! Backend, clients and proxy share one process, so the time is that of all three: it shows a change,
//! not the proxy's own cost, which `compare/` measures. An iteration is a request, or an event.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that fails has to stop")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kagent_proxy::app::App;
use kagent_proxy::config::{Config, RouteConfig, RouteTarget, Scheme, Sources, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 38\r\n\r\n\
    {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"ok\"}";
const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    transfer-encoding: chunked\r\n\r\n";
const EVENT: &[u8] = b"d\r\ndata: event!\n\r\n1\r\n\n\r\n";

/// Answers a POST; a GET of `/N` gets N events, as fast as they are taken.
async fn backend(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let Some(head) = buffer.get(..read).filter(|head| !head.is_empty()) else { return };
                if !head.starts_with(b"GET") {
                    stream.write_all(ANSWER).await.unwrap();
                    continue;
                }
                stream.write_all(STREAM).await.unwrap();
                let mut words = head.split(|byte| matches!(byte, b'/' | b' '));
                let count = words.nth(2).and_then(|word| std::str::from_utf8(word).ok());
                for _ in 0..count.unwrap().parse::<u64>().unwrap() {
                    stream.write_all(EVENT).await.unwrap();
                }
                let _until_the_proxy_closes = stream.read(&mut [0]).await;
                return;
            }
        });
    }
}

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(backend(listener));
    let target = Target { scheme: Scheme::Http, host: "127.0.0.1".to_owned(), port };
    let to = RouteTarget::new(vec![target]);
    let route = RouteConfig { host: "tools.team-a".to_owned(), prefix: "/".to_owned(), to };
    let mut config = Config { routes: vec![route], ..Config::sidecar() };
    config.listeners.iter_mut().for_each(|listener| listener.address.set_port(0));
    config.admin.address.set_port(0);
    config.log.access = false;
    let bound = App::build(config, &Sources::default()).await.unwrap();
    let address = *bound.addresses.first().unwrap();
    tokio::spawn(bound.run());
    address
}

async fn connect(proxy: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until as many bytes `mark` have passed, and returns how many more came with them.
async fn pass(stream: &mut TcpStream, mark: u8, count: u64) -> u64 {
    let mut buffer = vec![0; 16 * 1024];
    let mut seen = 0;
    while seen < count {
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the proxy closed");
        seen += buffer.iter().take(read).filter(|&&byte| byte == mark).count() as u64;
    }
    seen - count
}

/// Time for `count` iterations on some connections, which are open and warm before it starts.
async fn timed(
    proxy: SocketAddr,
    connections: u64,
    count: u64,
    head: &str,
    stream: bool,
) -> Duration {
    // Of an answer the last brace, of an event the mark in its data.
    let mark = if stream { b'!' } else { b'}' };
    let each = count.div_ceil(connections);
    // The first event comes while the stream is opened.
    let head = head.replace("/COUNT", &format!("/{}", each + 1));
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut connection = connect(proxy, &head).await;
        let ahead = pass(&mut connection, mark, 1).await;
        open.push((connection, ahead));
    }
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (mut connection, ahead) in open {
        let head = head.clone();
        running.spawn(async move {
            if stream {
                pass(&mut connection, mark, each - ahead).await;
                return;
            }
            for _ in 0..each {
                connection.write_all(head.as_bytes()).await.unwrap();
                pass(&mut connection, mark, 1).await;
            }
        });
    }
    running.join_all().await;
    started.elapsed()
}

fn load(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let proxy = runtime.block_on(start());
    let fields = "HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: tools.team-a\r\n";
    let post = format!("POST /mcp {fields}content-length: 2\r\n\r\n{{}}");
    let get = format!("GET /COUNT {fields}accept: text/event-stream\r\n\r\n");
    let cases = [("requests", false, vec![1, 64, 512]), ("events", true, vec![1, 256])];
    for (name, stream, counts) in cases {
        let mut group = c.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(3));
        group.throughput(Throughput::Elements(1));
        let head = if stream { &get } else { &post };
        for connections in counts {
            group.bench_function(format!("on {connections}"), |b| {
                b.iter_custom(|count| {
                    // At least one for each connection, scaled to what was asked for.
                    let real = count.div_ceil(connections) * connections;
                    let took = runtime.block_on(timed(proxy, connections, real, head, stream));
                    took.mul_f64(count as f64 / real as f64)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, load);
criterion_main!(benches);
