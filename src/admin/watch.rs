//! Who calls whom: as a picture of this moment, as a graph, and call by call while they end.
//!
//! Knows what is seen and how it is told; counts nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Admin;
use super::answer::{json as json_answer, of_type, text};
use crate::proxy::Proxy;
use crate::sight::edges::Edge;
use crate::sight::look::Look;
use crate::sight::{APART, Looks, WINDOW, dot, graph};
use crate::telemetry::feed::{FinishedCall, Viewer};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::series::host_of;

/// Between two pictures of a stream.
const EVERY: Duration = Duration::from_secs(1);
/// A picture that is younger is told again: several streams share one.
const FRESH: Duration = Duration::from_millis(500);

/// What was seen within the last minute; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Looks>>);

/// What of the calls is shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Filter {
    caller: Option<String>,
    route: Option<String>,
    method: Option<String>,
    tool: Option<String>,
    protocol: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GraphQuery {
    format: Option<String>,
}

// === impl Seen ===

impl Seen {
    /// Looks once more, unless somebody just has.
    pub fn look(&self, metrics: &Metrics, proxy: &Proxy) {
        let now = Instant::now();
        let is_fresh = |taken| now.saturating_duration_since(taken) < FRESH;
        if self.with(|looks| looks.latest()).is_some_and(is_fresh) {
            return;
        }
        let look = Look::of(now, metrics, &proxy.routes(), proxy.sees_calls());
        self.with(|looks| looks.take(look));
    }

    /// Looks now and then, so that whoever asks finds a last minute. Never returns.
    pub async fn keep_looking(self, metrics: Metrics, proxy: Arc<Proxy>) {
        let mut ticks = interval(APART);
        loop {
            ticks.tick().await;
            self.look(&metrics, &proxy);
        }
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Looks) -> T) -> T {
        ask(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Admin {
    /// Every edge now; where calls are not read, those that are declared.
    pub(super) fn edges(&self) -> Vec<Edge> {
        self.seen.look(&self.metrics, &self.proxy);
        self.seen.with(|looks| looks.edges())
    }

    fn picture(&self) -> Value {
        self.seen.look(&self.metrics, &self.proxy);
        self.seen.with(|looks| looks.told(SystemTime::now()))
    }
}

/// `GET /sight`: once, or each second for those who take event streams.
pub(super) async fn sight(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let events = accepts.filter_map(|value| value.to_str().ok());
    if !events.into_iter().any(|value| value.contains("text/event-stream")) {
        return json_answer(&admin.picture());
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pictures = stream::unfold((Arc::clone(&admin), ticks), async |(admin, mut ticks)| {
        ticks.tick().await;
        let event = Event::default().event("sight").data(admin.picture().to_string());
        Some((event, (admin, ticks)))
    });
    admin.streams.open(pictures)
}

/// `GET /graph`: as JSON, or in the language of Graphviz.
pub(super) async fn edges(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<GraphQuery>,
) -> Response {
    let edges = admin.edges();
    match asked.format.as_deref() {
        None | Some("json") => json_answer(&graph(&edges, WINDOW)),
        Some("dot") => {
            of_type(StatusCode::OK, "text/vnd.graphviz; charset=utf-8", dot::dot(&edges))
        }
        Some(other) => text(
            StatusCode::BAD_REQUEST,
            format!("format {other:?} is not known; write json or dot\n"),
        ),
    }
}

/// `GET /calls`: each call that ends from now on.
pub(super) async fn calls(
    State(admin): State<Arc<Admin>>,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(filter) = match filter {
        Ok(filter) => filter,
        Err(wrong) => {
            let known = "caller, route, method, tool, protocol and error";
            let why = format!("{}; filters are {known}\n", wrong.body_text());
            return text(StatusCode::BAD_REQUEST, why);
        }
    };
    let viewer = admin.metrics.feed().watch();
    let calls = stream::unfold((viewer, filter), async |(mut viewer, filter)| {
        let event = next(&mut viewer, &filter).await?;
        Some((event, (viewer, filter)))
    });
    admin.streams.open(calls)
}

/// The next event of a stream of calls; none once there is nothing to come.
async fn next(viewer: &mut Viewer, filter: &Filter) -> Option<Event> {
    loop {
        match viewer.calls.recv().await {
            Ok(call) if filter.takes(&call) => {
                return Some(Event::default().event("call").data(told(&call).to_string()));
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                let missed = json!({ "missed": missed }).to_string();
                return Some(Event::default().event("missed").data(missed));
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

fn told(call: &FinishedCall) -> Value {
    let micros = u64::try_from(call.took.as_micros()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let millis = micros as f64 / 1e3;
    let mut json = json!({
        "at": humantime::format_rfc3339_millis(call.at).to_string(),
        "route": &*call.route,
        "caller": &*call.caller,
        "protocol": call.protocol.word(),
        "method": &*call.method,
        "tool": &*call.tool,
        "error": call.error.to_string(),
        "status": call.status,
        "durationMs": millis,
        "peer": &*call.peer,
        "path": &*call.path,
    });
    if let Some(map) = json.as_object_mut() {
        if let Some(session) = call.session {
            map.insert("session".to_owned(), json!(format!("{session:08x}")));
        }
        for (name, value) in [("conversation", &call.conversation), ("trace", &call.trace)] {
            if !value.is_empty() {
                map.insert(name.to_owned(), json!(&**value));
            }
        }
    }
    json
}

// === impl Filter ===

impl Filter {
    /// Whether the wanted route is one of the call's host: its label may have a port or a prefix behind that.
    fn is_host_of(&self, call: &FinishedCall) -> bool {
        self.route.as_deref().is_some_and(|wanted| host_of(wanted) == &*call.route)
    }

    fn takes(&self, call: &FinishedCall) -> bool {
        let error = call.error.to_string();
        let fits = |wanted: &Option<String>, is: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == is)
        };
        let failed = match self.error.as_deref() {
            Some("any") => call.error.is_error(),
            _ => fits(&self.error, &error),
        };
        failed
            && fits(&self.caller, &call.caller)
            && (fits(&self.route, &call.route) || self.is_host_of(call))
            && fits(&self.method, &call.method)
            && fits(&self.tool, &call.tool)
            && fits(&self.protocol, call.protocol.word())
    }
}
