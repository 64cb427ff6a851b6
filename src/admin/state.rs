//! How the program is: alive, ready, and in numbers. For everyone.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Admin;
use super::answer::text;
use crate::drain::Phase;
use crate::telemetry::metrics::EdgeSample;

pub(super) async fn livez() -> Response {
    text(StatusCode::OK, "ok\n")
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    if admin.watch.phase() != Phase::Serving {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match admin.readiness.waiting() {
        Some(what) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
        None => text(StatusCode::OK, "ready\n"),
    }
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let edges = admin.edges();
    // Of two protocols on one edge the calls are one sum.
    let mut sums = BTreeMap::<(&str, &str), (bool, u64)>::new();
    for edge in &edges {
        // Of a caller that nobody can tell apart nothing is used or unused.
        let Some(declared) = edge.declared.filter(|_| !edge.anonymous) else { continue };
        let sum = sums.entry((&edge.from, &edge.to)).or_insert((declared, 0));
        sum.1 += edge.total.calls;
    }
    let sample =
        |((caller, route), (declared, calls))| EdgeSample { caller, route, declared, calls };
    let mut samples: Vec<_> = sums.into_iter().map(sample).collect();
    // Of a route that is declared, the calls of tools that are not.
    let tools =
        edges.iter().filter(|edge| !edge.undeclared_tools.is_empty()).map(|edge| EdgeSample {
            caller: &edge.from,
            route: &edge.to,
            declared: false,
            calls: edge.undeclared_tools.iter().map(|(_, calls)| calls).sum(),
        });
    samples.extend(tools);
    text(StatusCode::OK, admin.metrics.render_with(&samples))
}
