//! What operators ask.
//!
//! - `GET /livez`: the process runs.
//! - `GET /readyz`: 200 while serving; 503 until the cluster is known, and from the first moment of a
//!   drain.
//! - `GET /metrics`: Prometheus text.
//! - `GET /routes`: every route with its endpoints and their load, JSON.
//! - `GET /config`: the configuration in force and where each value came from, secrets redacted, JSON.
//! - `GET /explain?host=&path=&method=`: how such a request would be routed, JSON.
//! - `GET /sight`: who calls whom, which tools, open streams, sessions: JSON, or such an event each second.
//! - `GET /graph`: who calls whom, JSON or DOT.
//! - `GET /calls`: each call as it ends, an event stream.
//! - `POST /drain`: starts the drain, as SIGTERM does.
//! - `GET /`: the page that shows all this to people; its files are below `/assets/`.
//!
//! - `POST /sessions/peer`: another replica asks about a session; who has no key of sessions is not heard.
//!
//! The first three and the last are for everyone. The others are on the socket that is bound to loopback, which a
//! `kubectl port-forward` reaches and nothing outside the pod does: behind a mesh's sidecar every peer of the
//! other socket is a loopback address, so a peer proves nothing. `admin.expose: all` puts them on both.
//!
//! Knows the proxy's table and the drain; carries no traffic.

mod answer;
mod door;
mod events;
mod layers;
mod limit;
mod operate;
mod page;
mod peer;
mod routes;
mod serve;
mod state;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use answer::{not_allowed, text};
use limit::Limit;

pub use events::Streams;
pub use watch::Seen;

use crate::config::Expose;
use crate::drain::{Trigger, Watch};
use crate::proxy::Proxy;
use crate::readiness::Readiness;
use crate::session::{Sessions, peers};
use crate::telemetry::metrics::Metrics;

/// Requests that one socket answers at once. The probes, the other replicas and the drain are not among them.
const AT_ONCE: usize = 16;
/// The methods of what changes nothing.
const READS: &str = "GET, HEAD";

/// What the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// For `/routes` and `/explain`.
    pub proxy: Arc<Proxy>,
    /// For `/sessions/peer`.
    pub sessions: Arc<Sessions>,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/readyz`.
    pub watch: Watch,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/drain`.
    pub trigger: Trigger,
    /// Those that are open, on all sockets.
    pub streams: Streams,
    /// For `/sight` and `/graph`.
    pub seen: Seen,
    /// For `/config` and `/explain`.
    pub config: Arc<ArcSwap<Value>>,
    /// What the socket for everyone shows.
    pub expose: Expose,
    /// Names that a Host may have besides `localhost`.
    pub hosts: Arc<[String]>,
    /// Where everything is shown.
    pub local: SocketAddr,
}

/// Which of the sockets is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The one for kubelets and scrapers, and whoever else reaches it.
    Everyone,
    /// The one bound to loopback.
    Local,
}

// === impl Admin ===

impl Admin {
    /// Answers on one socket until dropped; it outlives the drain, so that it can be watched.
    pub async fn run(self, listener: Arc<TcpListener>, door: Door) {
        serve::serve(&listener, serve::Bounds::default(), router(self, door)).await;
    }
}

/// What one of the sockets answers.
fn router(admin: Admin, door: Door) -> Router {
    let here = door == Door::Local || admin.expose == Expose::All;
    let (guard, limit) =
        (from_fn_with_state(Arc::clone(&admin.hosts), door::guard), Limit::new(AT_ONCE));
    // A kubelet must be heard whatever else is asked.
    let probes =
        Router::new().route("/livez", read(state::livez)).route("/readyz", read(state::readyz));
    let metrics = Router::new().route("/metrics", read(state::metrics));
    let mut everyones = probes.merge(layers::bounded(metrics, &limit));
    let mut operators = operators(here, admin.local, &limit);
    // Kubelets and scrapers call the other socket by names that nobody configures.
    if door == Door::Local {
        everyones = everyones.layer(guard.clone());
    }
    if here {
        operators = operators.layer(guard);
    }
    let all = everyones.merge(operators).route(peers::PATH, order(peer::peer));
    layers::outer(all.with_state(Arc::new(admin)))
}

/// What is for operators, or the word that it is `elsewhere`; and what becomes of every other path.
fn operators(here: bool, local: SocketAddr, limit: &Limit) -> Router<Arc<Admin>> {
    let shown = |handler: MethodRouter<Arc<Admin>>| {
        if here { handler } else { handler.route_layer(from_fn_with_state(local, elsewhere)) }
    };
    let mut known = "/livez /readyz /metrics".to_owned();
    let mut answers = Router::new();
    for (path, handler) in [
        ("/routes", read(routes::routes)),
        ("/config", read(operate::config)),
        ("/explain", read(operate::explain)),
        ("/sight", read(watch::sight)),
        ("/graph", read(watch::edges)),
        ("/calls", read(watch::calls)),
    ] {
        known = format!("{known} {path}");
        answers = answers.route(path, shown(handler));
    }
    if here {
        answers = answers.route("/", read(page::index)).route("/assets/{*file}", read(page::asset));
    }
    let known: Arc<str> = format!("{known} /drain").into();
    let unknown = async move |method: Method| unknown(&method, &known);
    // Whoever ends the program need not wait for readers.
    layers::bounded(answers.fallback(unknown), limit).route("/drain", shown(order(operate::drain)))
}

/// What is asked.
fn read<H, T>(handler: H) -> MethodRouter<Arc<Admin>>
where
    H: Handler<T, Arc<Admin>>,
    T: 'static,
{
    get(handler).fallback(async || not_allowed(READS))
}

/// What changes something.
fn order<H, T>(handler: H) -> MethodRouter<Arc<Admin>>
where
    H: Handler<T, Arc<Admin>>,
    T: 'static,
{
    post(handler).fallback(async || not_allowed("POST"))
}

async fn elsewhere(State(local): State<SocketAddr>, request: Request, _: Next) -> Response {
    let (path, port) = (request.uri().path(), local.port());
    let where_to_ask = format!(
        "{path} is answered on {local} only: use kubectl port-forward to port {port} of the pod, or set admin.expose: all\n"
    );
    text(StatusCode::FORBIDDEN, where_to_ask)
}

fn unknown(method: &Method, known: &str) -> Response {
    if [Method::GET, Method::HEAD].contains(method) {
        text(StatusCode::NOT_FOUND, format!("not found; endpoints: {known}\n"))
    } else {
        not_allowed(READS)
    }
}
