//! What operators ask.
//!
//! - `GET /livez`: the process runs.
//! - `GET /readyz`: 200 while serving; 503 until the cluster is known, and from the first moment of a
//!   drain.
//! - `GET /metrics`: Prometheus text.
//! - `GET /routes`: every route with its endpoints and their load, JSON.
//! - `GET /config`: the configuration in force and where each value came from, secrets redacted, JSON.
//! - `GET /explain?host=&path=&method=`: how such a request would be routed, JSON.
//! - `POST /drain`: starts the drain, as SIGTERM does.
//!
//! - `POST /sessions/peer`: another replica asks about a session; who has no key of sessions is not heard.
//!
//! The first three and the last are for everyone. The others are on the socket that is bound to loopback, which a
//! `kubectl port-forward` reaches and nothing outside the pod does: behind a mesh's sidecar every peer of the
//! other socket is a loopback address, so a peer proves nothing. `admin.expose: all` puts them on both.
//!
//! Knows the proxy's table and the drain; carries no traffic.

mod door;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::config::Expose;
use crate::drain::{Phase, Trigger, Watch};
use crate::explain::{Question, explain};
use crate::proxy::Proxy;
use crate::readiness::Readiness;
use crate::route::discovered::HostState;
use crate::route::{Considered, Discovered, Route};
use crate::session::{Sessions, peers};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Endpoint;

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
        let answer = move |request: &Request<hyper::body::Incoming>| {
            self.answer(door, request.method(), request.uri(), request.headers())
        };
        serve::serve(&listener, serve::Bounds::default(), answer).await;
    }

    fn answer(
        &self,
        door: Door,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Response<Full<Bytes>> {
        let path = uri.path();
        if path == peers::PATH {
            return self.peer(method, headers);
        }
        let everyones = ["/livez", "/readyz", "/metrics"].contains(&path);
        let here = everyones || door == Door::Local || self.expose == Expose::All;
        // Kubelets and scrapers call the other socket by names that nobody configures.
        let guarded = door == Door::Local || !everyones;
        if here
            && guarded
            && let Some(why) = door::foreign(uri, headers, &self.hosts)
        {
            return text(StatusCode::FORBIDDEN, format!("refused: {why}\n"));
        }
        let asks =
            if path == "/drain" { &[Method::POST][..] } else { &[Method::GET, Method::HEAD] };
        if !asks.contains(method) {
            return not_allowed(asks);
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/metrics" => text(StatusCode::OK, self.metrics.render()),
            "/routes" if here => json_text(&self.routes()),
            "/config" if here => json_text(&self.config.load()),
            "/explain" if here => self.explain(uri.query().unwrap_or_default()),
            "/drain" if here => {
                self.trigger.advance(Phase::Draining);
                text(StatusCode::ACCEPTED, "draining\n")
            }
            "/routes" | "/config" | "/explain" | "/drain" => self.elsewhere(path),
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; endpoints: /livez /readyz /metrics /routes /config /explain /drain\n",
            ),
        }
    }

    fn peer(&self, method: &Method, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if method != Method::POST {
            return not_allowed(&[Method::POST]);
        }
        let letter = headers.get(peers::LETTER).map(HeaderValue::as_bytes).unwrap_or_default();
        let sealed = URL_SAFE_NO_PAD.decode(letter).ok();
        match sealed.and_then(|mut sealed| self.sessions.hear(&mut sealed)) {
            Some(answer) => text(StatusCode::OK, URL_SAFE_NO_PAD.encode(answer)),
            None => text(
                StatusCode::FORBIDDEN,
                "refused: only replicas with the same sessions.keyFiles and a clock within a minute are heard\n",
            ),
        }
    }

    fn elsewhere(&self, path: &str) -> Response<Full<Bytes>> {
        let (local, port) = (self.local, self.local.port());
        let where_to_ask = format!(
            "{path} is answered on {local} only: use kubectl port-forward to port {port} of the pod, or set admin.expose: all\n"
        );
        text(StatusCode::FORBIDDEN, where_to_ask)
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.watch.phase() != Phase::Serving {
            return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        match self.readiness.waiting() {
            Some(what) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")),
            None => text(StatusCode::OK, "ready\n"),
        }
    }

    fn explain(&self, query: &str) -> Response<Full<Bytes>> {
        match Question::from_query(query) {
            Ok(question) => {
                let view = self.config.load();
                json_text(&explain(&self.proxy.routes(), self.proxy.limits(), &view, &question))
            }
            Err(wrong) => text(StatusCode::BAD_REQUEST, format!("{wrong}\n")),
        }
    }

    fn routes(&self) -> Value {
        let table = self.proxy.routes();
        let mut routes: Vec<Value> =
            table.statics().iter().map(|r| shown(r, "static", &r.config.host)).collect();
        let mut refused = Vec::new();
        let mut unmarked = 0;
        for (discovered, overridden) in table.all_discovered() {
            let source =
                if overridden { "discovered, and a static route wins" } else { "discovered" };
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

fn not_allowed(asks: &[Method]) -> Response<Full<Bytes>> {
    let names = asks.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {names}\n"));
    if let Ok(names) = HeaderValue::try_from(names) {
        answer.headers_mut().insert(header::ALLOW, names);
    }
    answer
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

fn json_text(value: &Value) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::OK, value.to_string());
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}
