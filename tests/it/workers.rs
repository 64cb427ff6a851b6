//! Workers that have a scheduler each: clients are spread among them, and notice nothing else.

use std::num::NonZeroUsize;
use std::time::Duration;

use kagent_proxy::app::App;
use kagent_proxy::config::{ClientTls, Config, Scheme, Sources};
use kagent_proxy::workers::{Scheduler, Workers};
use tokio::runtime::Builder;

use crate::support::{Backend, TestProxy, config, route};
use crate::tls::{Authority, connector, http2, https, inline, listener, server_tls, tls_backend};

const GET: &str = "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\n\r\n";
const CLOSING: &str =
    "GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";

/// Runs a program with so many workers.
fn with(
    workers: usize,
    config: impl AsyncFnOnce(&Backend) -> Config,
    run: impl AsyncFnOnce(TestProxy, Backend),
) {
    let workers = Workers::start(NonZeroUsize::new(workers), Scheduler::PerCore).unwrap();
    let beside = Builder::new_current_thread().enable_all().build().unwrap();
    beside.block_on(async {
        let backend = Backend::start().await;
        let config = config(&backend).await;
        let sources = Sources::default();
        let built = Box::pin(App::build_beside(config, &sources, workers.handles())).await;
        run(TestProxy::run(built.unwrap()), backend).await;
    });
    workers.end(Duration::from_secs(5));
}

async fn one_route(backend: &Backend) -> Config {
    config(vec![route("s.ns", "/", Scheme::Http, &[backend.port()])])
}

/// Connections of each worker.
async fn spread(proxy: &TestProxy) -> Vec<usize> {
    let metrics = proxy.admin("/metrics").await;
    let of = |line: &str| {
        let rest = line.strip_prefix("kagent_proxy_worker_connections{")?;
        rest.split_once("} ")?.1.parse().ok()
    };
    metrics.lines().filter_map(of).collect()
}

#[test]
fn long_streams_are_spread_among_the_workers() {
    for workers in [2, 4] {
        with(workers, one_route, async |proxy, backend| {
            let mut streams = Vec::new();
            for _ in 0..64 {
                let mut client = proxy.connect().await;
                client.send(GET).await;
                let mut call = backend.accept().await;
                call.until("\r\n\r\n").await;
                call.send(STREAM).await;
                client.until("data: 1\n\n").await;
                streams.push((client, call));
            }
            let all = spread(&proxy).await;
            assert_eq!(all.len(), workers, "{all:?}");
            assert_eq!(all.iter().sum::<usize>(), 64, "{all:?}");
            // Whoever has two more than the least, and an eighth, gives the next one away; workers that accept at
            // the same moment may each be one off.
            let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
            assert!(*most < least + 2 + least / 8 + workers, "{all:?}");
            // What was given away works as well: each stream goes on.
            for (client, call) in &mut streams {
                call.send("data: 2\n\n").await;
                client.until("data: 2\n\n").await;
            }
            drop(streams);
            proxy.stop().await;
        });
    }
}

#[test]
fn the_room_for_connections_is_one_for_all_workers() {
    let narrow = async |backend: &Backend| {
        let mut config = one_route(backend).await;
        config.listener.max_connections = 1;
        config
    };
    with(4, narrow, async |proxy, backend| {
        // More than there are workers: the kernel leads them to several.
        for _ in 0..16 {
            let ok = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            let (answer, _) = tokio::join!(proxy.ask(CLOSING), backend.answer(ok));
            assert!(answer.ends_with("ok"), "{answer}");
        }
        proxy.stop().await;
    });
}

#[test]
fn idle_connections_to_a_backend_are_used_again_by_the_worker_that_opened_them() {
    with(2, one_route, async |proxy, backend| {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(proxy.connect().await);
        }
        let mut calls = Vec::new();
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for client in &mut clients {
            client.send(GET).await;
            let mut call = backend.accept().await;
            call.until("\r\n\r\n").await;
            calls.push(call);
        }
        for call in &mut calls {
            call.send(ok).await;
        }
        for client in &mut clients {
            client.until("ok").await;
        }
        // As many again at the same time: each worker has kept as many as it needs.
        for client in &mut clients {
            client.send(GET).await;
        }
        for call in &mut calls {
            call.until("\r\n\r\n").await;
            call.send(ok).await;
        }
        for client in &mut clients {
            client.until("ok").await;
        }
        let metrics = proxy.admin("/metrics").await;
        let reused = "kagent_proxy_upstream_connections_total{route=\"s.ns\",event=\"reused\"} 8\n";
        assert!(metrics.contains(reused), "{metrics}");
        drop((clients, calls));
        proxy.stop().await;
    });
}

#[test]
fn tls_and_http_2_on_both_sides_are_served_by_every_worker() {
    const CLIENTS: usize = 16;
    let authority = Authority::new();
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let secure = async |_: &Backend| {
            let port = tls_backend(&authority.issue("tools.kagent"), alpn).await;
            let trust = ClientTls {
                ca: Some(inline(&authority.pem())),
                server_name: Some("tools.kagent".to_owned()),
                ..ClientTls::default()
            };
            let mut config = config(vec![https("s.ns", port, trust)]);
            let server = authority.issue("proxy.kagent");
            config.listeners = vec![listener("tls", Some(server_tls(&server, None, false)))];
            config
        };
        with(4, secure, async |proxy, _| {
            let known = connector(&authority.pem(), None, b"h2");
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(http2(proxy.address, &known).await);
            }
            for turn in 0..2 {
                for (sender, _) in &mut clients {
                    let request = http::Request::get("https://proxy.kagent/")
                        .header("x-kagent-host", "s.ns")
                        .body(String::new())
                        .unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    assert_eq!(response.status().as_u16(), 200, "{turn}");
                }
            }
            let all = spread(&proxy).await;
            assert_eq!((all.len(), all.iter().sum::<usize>()), (4, CLIENTS), "{all:?}");
            assert!(all.iter().all(|each| *each > 0), "{all:?}");
            for (sender, connection) in clients {
                drop(sender);
                connection.await.unwrap().unwrap();
            }
            proxy.stop().await;
        });
    }
}
