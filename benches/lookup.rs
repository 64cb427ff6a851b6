//! The route table: reading `x-kagent-host` and finding the route, at 10, 1,000 and 10,000 routes.
//!
//! The time must not grow with the table. Dials nothing.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that fails has to stop")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kagent_proxy::config::{Config, RouteConfig, RouteTarget, Scheme, Target};
use kagent_proxy::route::{HostKey, RouteQuery, RouteTable};
use kagent_proxy::static_routes;
use kagent_proxy::telemetry::metrics::Metrics;

fn table(routes: usize) -> RouteTable {
    let route = |number| {
        let target = Target { scheme: Scheme::Http, host: "127.0.0.1".to_owned(), port: 9 };
        let to = RouteTarget::new(vec![target]);
        RouteConfig { host: format!("agent-{number}.team-a"), prefix: "/".to_owned(), to }
    };
    let config = Config { routes: (0..routes).map(route).collect(), ..Config::sidecar() };
    let metrics = Metrics::new();
    static_routes::build(&config, &metrics, None).unwrap().table
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for routes in [10, 1_000, 10_000] {
        let table = table(routes);
        let host = format!("Agent-{}.team-a.svc.cluster.local:8080", routes / 2);
        group.bench_function(format!("{routes} routes"), |b| {
            b.iter(|| {
                let (key, _) = HostKey::parse(black_box(&host), table.cluster_domain()).unwrap();
                let ask = RouteQuery {
                    host: &key,
                    path: black_box("/mcp"),
                    port: None,
                    authority: None,
                    caller: None,
                    cluster_domain: table.cluster_domain(),
                };
                table.resolve(&ask, None).unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
