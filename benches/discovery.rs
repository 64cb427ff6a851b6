//! Discovery's share: looking up a discovered host, and taking over one change, in clusters of 10, 1,000
//! and 10,000 Services, each of an Agent, with one tool server's object.
//!
//! Neither may grow with the cluster. What an unknown host costs, once it is refused, does: every name is
//! looked at for near misses, at most a hundred times a second. No API server: objects are handed to the index as the watches do.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that fails has to stop")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kagent_proxy::config::{DiscoveryConfig, UpstreamConfig};
use kagent_proxy::discovery::index::Index;
use kagent_proxy::discovery::object::{KagentApi, Object, ObjectKind};
use kagent_proxy::discovery::publish::Publisher;
use kagent_proxy::route::{HostKey, ObjectId, RouteQuery, RouteTable};
use kagent_proxy::telemetry::metrics::Metrics;
use serde_json::{Value, json};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

struct Cluster {
    index: Index,
    publisher: Publisher,
    table: RouteTable,
}

impl Cluster {
    fn new(size: usize) -> Self {
        let metrics = Metrics::new();
        let publisher =
            Publisher::new(DiscoveryConfig::default(), UpstreamConfig::default(), metrics);
        let index = Index::new("cluster.local", &[]);
        let table = RouteTable::new(Vec::new(), Vec::new(), "cluster.local");
        let mut cluster = Self { index, publisher, table };
        for number in 0..size {
            let name = format!("agent-{number}");
            cluster.set(ObjectKind::Service, &name, &service(&name, 8080));
            cluster.set(ObjectKind::EndpointSlice, &name, &slice(&name, 1));
            cluster.set(ObjectKind::Agent(KagentApi::V0), &name, &json!({ "spec": {} }));
            let url = format!("http://{name}.team:8080/mcp");
            cluster.set(
                ObjectKind::RemoteMcpServer(KagentApi::V0),
                &name,
                &json!({ "spec": { "url": url } }),
            );
        }
        cluster.take_over();
        cluster
    }

    fn set(&mut self, kind: ObjectKind, name: &str, json: &Value) {
        let object = Object::read(kind, "team", json);
        self.index.apply(kind, ObjectId::new("team", name), Some(object));
    }

    fn take_over(&mut self) {
        let touched = self.index.take_changes();
        let changes = self.publisher.apply(&self.index, touched);
        self.table = changes.applied(&self.table);
    }
}

fn service(name: &str, port: u16) -> Value {
    json!({
        "metadata": { "ownerReferences": [
            { "apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "name": name }] },
        "spec": { "clusterIP": "10.96.0.1", "ports": [
            { "name": "http", "port": port, "protocol": "TCP" }] },
    })
}

fn slice(service: &str, pod: u8) -> Value {
    json!({
        "metadata": { "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{
            "addresses": [format!("10.0.0.{pod}")],
            "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "uid": format!("pod-{pod}") },
        }],
    })
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("discovered lookup");
    for size in SIZES {
        let cluster = Cluster::new(size);
        let table = &cluster.table;
        let host = format!("Agent-{}.team.svc.cluster.local", size / 2);
        group.bench_function(format!("{size} Services"), |b| {
            b.iter(|| {
                let (key, _) = HostKey::parse(black_box(&host), table.cluster_domain()).unwrap();
                table.resolve(&ask(&key), None).unwrap()
            });
        });
    }
    group.finish();
}

fn ask(host: &HostKey) -> RouteQuery<'_> {
    let (path, cluster_domain) = (black_box("/mcp"), "cluster.local");
    RouteQuery { host, path, port: None, authority: None, caller: None, cluster_domain }
}

fn miss(c: &mut Criterion) {
    let mut group = c.benchmark_group("unknown host, refused");
    for size in SIZES {
        let cluster = Cluster::new(size);
        let host = HostKey::from("agnet-5.team");
        group.bench_function(format!("{size} Services"), |b| {
            b.iter(|| {
                cluster.table.resolve(&ask(black_box(&host)), None).unwrap_err();
                cluster.table.near(&host)
            });
        });
    }
    group.finish();
}

fn update(c: &mut Criterion) {
    let mut group = c.benchmark_group("one change");
    for size in SIZES {
        let mut cluster = Cluster::new(size);
        let name = format!("agent-{}", size / 2);
        let mut turn = 0_u8;
        group.bench_function(format!("a pod, {size} Services"), |b| {
            b.iter(|| {
                turn = turn % 200 + 1;
                cluster.set(ObjectKind::EndpointSlice, &name, &slice(&name, turn));
                cluster.take_over();
            });
        });
        group.bench_function(format!("a Service, {size} Services"), |b| {
            b.iter(|| {
                turn = turn % 200 + 1;
                cluster.set(ObjectKind::Service, &name, &service(&name, 8000 + u16::from(turn)));
                cluster.take_over();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup, miss, update);
criterion_main!(benches);
