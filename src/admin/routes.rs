//! Every route with its endpoints, and every host that cannot be reached, with the reason.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Admin;
use super::answer;
use crate::route::discovered::HostState;
use crate::route::{Considered, Discovered, Route, RouteTable};
use crate::upstream::Endpoint;

pub(super) async fn routes(State(admin): State<Arc<Admin>>) -> Response {
    answer::json(&all(&admin.proxy.routes()))
}

fn all(table: &RouteTable) -> Value {
    let mut routes: Vec<Value> =
        table.statics().iter().map(|r| shown(r, "static", &r.config.host)).collect();
    let mut refused = Vec::new();
    let mut unmarked = 0;
    for (discovered, overridden) in table.all_discovered() {
        let source = if overridden { "discovered, and a static route wins" } else { "discovered" };
        let notes: Vec<_> = discovered.notes.iter().map(Considered::to_json).collect();
        routes.extend(discovered.routes().map(|route| {
            let mut route = shown(route, source, &discovered.host);
            if let Some(map) = route.as_object_mut() {
                map.insert("because".to_owned(), json!(notes));
            }
            route
        }));
        refused.extend(why_not(&discovered));
        unmarked += usize::from(matches!(discovered.state, HostState::Unmarked(_)));
    }
    json!({ "routes": routes, "refused": refused, "unmarkedServices": unmarked })
}

/// A route with its endpoints.
fn shown(route: &Route, source: &str, host: &str) -> Value {
    let endpoints = route.cluster.endpoints();
    let endpoints = endpoints.iter().map(|e| endpoint(e)).collect::<Vec<_>>();
    let targets: Vec<String> = route.cluster.targets().iter().map(ToString::to_string).collect();
    json!({
        "host": host,
        "prefix": route.config.prefix,
        "source": source,
        "targets": targets,
        "endpoints": endpoints,
        "leftOut": left_out(route),
    })
}

/// What is not dialled although somebody says that it is behind the route.
fn left_out(route: &Route) -> Vec<Value> {
    let notes = route.left_out.load();
    let shown = |note: &Considered| json!({ "address": note.candidate, "why": note.verdict });
    notes.iter().flat_map(|notes| notes.iter()).map(shown).collect()
}

/// A host that the cluster has and that cannot be reached. Services without any mark are most of a
/// cluster: they are counted, and `/explain` tells of each.
fn why_not(discovered: &Discovered) -> Option<Value> {
    let (state, why) = match &discovered.state {
        HostState::Open(_) | HostState::Unmarked(_) => return None,
        HostState::Refused(why) => ("refused", why),
        HostState::Pending(why) => ("pending", why),
        HostState::Missing(why) => ("missing", why),
    };
    Some(json!({ "host": discovered.host, "state": state, "why": why }))
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "state": if endpoint.is_leaving() { "serving" } else { "ready" },
        "inFlight": endpoint.load(),
        "ejected": endpoint.health.is_ejected(Instant::now()),
        "reuseIdleSeconds": endpoint.pool.reuse_limit().as_secs_f64(),
    })
}
