//! The scanners that see every byte or every card: event streams, JSON-RPC ids, agent cards.
//!
//! Throughput is the useful number. Knows nothing of sockets; `load.rs` measures the whole.

#![allow(missing_docs, reason = "the macros of criterion write functions without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kagent_proxy::protocol::{jsonrpc, sse};
use kagent_proxy::rewrite::card;

fn events(c: &mut Criterion) {
    let event = "event: message\nid: 7\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    let stream = event.repeat(200);
    let mut group = c.benchmark_group("sse");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    for piece in [64, 1400, 16 * 1024] {
        group.bench_function(format!("pieces of {piece}"), |b| {
            b.iter(|| {
                let mut scanner = sse::SseScanner::default();
                black_box(stream.as_bytes()).chunks(piece).for_each(|piece| scanner.feed(piece));
                assert_eq!(scanner.events(), 200);
            });
        });
    }
    group.finish();
}

fn ids(c: &mut Criterion) {
    let text = "a".repeat(600);
    let first = format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"params\":{{\"text\":\"{text}\"}}}}");
    let last = format!("{{\"jsonrpc\":\"2.0\",\"params\":{{\"text\":\"{text}\"}},\"id\":7}}");
    let mut group = c.benchmark_group("json-rpc id");
    for (name, body) in [("first", first), ("last", last)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(jsonrpc::request_id(black_box(body.as_bytes())), Some("7")));
        });
    }
    group.finish();
}

fn cards(c: &mut Criterion) {
    let skill = "{\"id\":\"logs\",\"name\":\"Logs\",\"description\":\"Reads the logs of a pod\",\"tags\":[\"k8s\"]}";
    let skills = [skill; 10].join(",");
    let body = format!(
        "{{\"name\":\"helper\",\"url\":\"http://helper.team-a:8080/\",\"skills\":[{skills}],\
         \"additionalInterfaces\":[{{\"url\":\"http://helper.team-a:8080/rpc\",\"transport\":\"JSONRPC\"}}]}}"
    );
    let mut group = c.benchmark_group("agent card");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("two urls", |b| {
        b.iter(|| {
            let backend = |host: &str| host == "helper.team-a";
            let card = card::rewrite_card(black_box(body.as_bytes()), "http://proxy", &backend);
            assert_eq!(card.map(|card| card.urls), Ok(2));
        });
    });
    group.finish();
}

criterion_group!(benches, events, ids, cards);
criterion_main!(benches);
