//! Every metric, and the handles that requests touch.
//!
//! Labels come from closed sets (route, class, outcome, status, reason), so that no client can make
//! series. What every request counts, each worker counts for itself (`telemetry/of_route.rs`); what is rare
//! goes to a recorder. What a route counts is shown as long as somebody holds its handles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, CounterFn, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::time::Instant;

use super::family::SessionEvent;
use super::feed::Feed;
use super::names::*;
use super::of_route::OfRoute;
use super::operations::{Durations, Operation, SeriesCap, SeriesKey};
use super::peers::PeerMetrics;
use super::record::Record;
use super::series::Series;
use super::streams::StreamNote;
use super::text::{Families, Labels};
use super::tools::ToolNames;
use super::trace::SpanCounters;
use super::{log, panics};

pub use super::of_route::Counted;

/// All that is counted: cheap to clone, one for each running proxy.
#[derive(Clone)]
pub struct Metrics(Arc<All>);

struct All {
    /// Of the program.
    own: PrometheusRecorder,
    /// Of its routes.
    routes: Series,
    queue_full: Counter,
    write_failed: Counter,
    panics: Counter,
    feed: Feed,
}

/// The handles of one kind of discovered object.
#[derive(Clone, Debug)]
pub struct KindMetrics {
    /// Whether its watch works.
    pub up: Gauge,
    /// Objects known.
    pub objects: Gauge,
    /// Changes seen.
    pub events: Counter,
    /// Failures.
    pub errors: Counter,
}

/// A counter of a route, shown from the first increment on: most discovered routes never need it.
struct Later {
    metrics: Metrics,
    route: String,
    series: OnceLock<Arc<OfRoute>>,
}

/// What is known of one route at the moment, for people.
#[derive(Debug)]
pub struct RouteSight {
    /// The route's label.
    pub route: String,
    /// Its calls.
    pub operations: BTreeMap<SeriesKey, Durations>,
    /// Its open streams and tunnels: copies, for a note that is held is a stream that is open.
    pub streams: Vec<StreamNote>,
    /// What has happened to sessions, by event and cause.
    pub sessions: BTreeMap<(&'static str, &'static str), u64>,
    /// Requests under way, and streams and tunnels.
    pub open: (i64, i64),
}

/// An edge of the graph, as metrics tell it.
#[derive(Clone, Copy, Debug)]
pub struct EdgeSample<'e> {
    /// Who calls.
    pub caller: &'e str,
    /// The route.
    pub route: &'e str,
    /// Whether the caller says that it uses the route.
    pub declared: bool,
    /// Calls that were seen.
    pub calls: u64,
}

/// The handles of one route. Several of one label share their series.
#[derive(Debug)]
pub struct RouteMetrics(Arc<OfRoute>);

static METADATA: Metadata<'static> = Metadata::new("kagent_proxy", Level::INFO, None);

// === impl Metrics ===

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let own = PrometheusBuilder::new().build_recorder();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        own.register_gauge(&key(BUILD, version), &METADATA).set(1.0);
        let dropped = |cause: &str| counter(&own, LOG_DROPPED, vec![("cause", cause.to_owned())]);
        let (queue_full, write_failed) = (dropped("queue_full"), dropped("write_failed"));
        let panics = counter(&own, PANICS, Vec::new());
        let routes = Series::new(SeriesCap::new(usize::MAX));
        let feed = Feed::default();
        Self(Arc::new(All { own, routes, queue_full, write_failed, panics, feed }))
    }

    /// Everything, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.render_with(&[])
    }

    /// The same with these edges of the graph.
    #[must_use]
    pub fn render_with(&self, edges: &[EdgeSample<'_>]) -> String {
        let All { own, routes, queue_full, write_failed, panics, .. } = &*self.0;
        let dropped = log::dropped();
        queue_full.absolute(dropped.queue_full);
        write_failed.absolute(dropped.write_failed);
        panics.absolute(panics::count());
        let mut families = Families::default();
        families.add(&own.handle().render());
        routes.live().iter().for_each(|route| route.add_to(&mut families));
        let (used, most) = routes.cap.state();
        edges.iter().for_each(|edge| edge.add_to(&mut families));
        families.gauge(OPERATION_SERIES, &Labels::default(), used);
        families.gauge(OPERATION_SERIES_LIMIT, &Labels::default(), most);
        families.text(HELP)
    }

    /// Shows each call that ends.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// How many series of calls there may be.
    #[must_use]
    pub fn series_cap(&self) -> &SeriesCap {
        &self.0.routes.cap
    }

    /// What is known of each route at the moment, in the order of their labels.
    #[must_use]
    pub fn sight(&self) -> Vec<RouteSight> {
        let live = self.0.routes.live();
        let each = live.iter().map(|route| RouteSight {
            route: route.label().to_owned(),
            operations: route.operations.all(),
            streams: route.streams.all().iter().map(|note| StreamNote::clone(note)).collect(),
            sessions: route.sessions(),
            open: route.open(),
        });
        each.collect()
    }

    /// Forgets the series of callers that are not `known` any more, once they have been silent for a while. A caller
    /// that calls later begins anew.
    pub fn forget_callers(&self, known: &BTreeSet<String>, now: Instant) {
        for route in self.0.routes.live() {
            for (caller, calls) in route.forget_callers(known, now) {
                let route = route.label();
                tracing::debug!(%caller, route, calls, "the caller is gone, and so are its series");
            }
        }
    }

    /// Counts an answer of our own.
    pub fn rejected(&self, reason: &'static str) {
        self.counter(REJECTED, vec![("reason", reason.to_owned())]).increment(1);
    }

    /// Counts upstream connections of a route that were closed unused, or found closed.
    pub fn discarded(&self, route: &str) -> Counter {
        let later = self.later(route);
        later.series();
        Counter::from_arc(Arc::new(later))
    }

    /// The same, with a series only once there is something to count.
    pub fn discarded_later(&self, route: &str) -> Counter {
        Counter::from_arc(Arc::new(self.later(route)))
    }

    fn later(&self, route: &str) -> Later {
        Later { metrics: self.clone(), route: route.to_owned(), series: OnceLock::new() }
    }

    /// The handles of a kind of discovered object.
    #[must_use]
    pub fn kind(&self, kind: &str) -> KindMetrics {
        let labels = || vec![("kind", kind.to_owned())];
        KindMetrics {
            up: self.0.own.register_gauge(&key(DISCOVERY_UP, labels()), &METADATA),
            objects: self.0.own.register_gauge(&key(DISCOVERY_OBJECTS, labels()), &METADATA),
            events: self.counter(DISCOVERY_EVENTS, labels()),
            errors: self.counter(DISCOVERY_ERRORS, labels()),
        }
    }

    /// Requests that wait.
    pub fn held(&self) -> Gauge {
        self.0.own.register_gauge(&key(HELD, Vec::new()), &METADATA)
    }

    /// What is counted of the talk between replicas.
    #[must_use]
    pub fn session_peers(&self) -> PeerMetrics {
        let asked =
            |result: &str| self.counter(SESSION_PEERS_ASKED, vec![("result", result.to_owned())]);
        let gauge = |name| self.0.own.register_gauge(&key(name, Vec::new()), &METADATA);
        let (alive, split) = (gauge(SESSION_PEERS), gauge(SESSION_KEYS_SPLIT));
        PeerMetrics { answered: asked("answered"), silent: asked("silent"), alive, split }
    }

    /// What becomes of spans; shown from now on.
    #[must_use]
    pub fn spans(&self) -> SpanCounters {
        let dropped = |cause: &str| self.counter(SPANS_DROPPED, vec![("cause", cause.to_owned())]);
        SpanCounters {
            exported: self.counter(SPANS_EXPORTED, Vec::new()),
            full: dropped("queue_full"),
            failed: dropped("send_failed"),
            rejected: dropped("rejected"),
        }
    }

    /// Whether all objects have been listed once.
    pub fn synced(&self) -> Gauge {
        self.0.own.register_gauge(&key(DISCOVERY_SYNCED, Vec::new()), &METADATA)
    }

    /// Endpoints that are left out for this reason.
    pub fn left_out(&self, reason: &'static str) -> Gauge {
        let labels = vec![("reason", reason.to_owned())];
        self.0.own.register_gauge(&key(DISCOVERY_LEFT_OUT, labels), &METADATA)
    }

    /// Open connections of a worker.
    pub fn worker_connections(&self, worker: usize) -> Gauge {
        let labels = vec![("worker", worker.to_string())];
        self.0.own.register_gauge(&key(WORKER_CONNECTIONS, labels), &METADATA)
    }

    /// Counts changed configurations.
    pub fn reloads(&self, result: &str) -> Counter {
        self.counter(RELOADS, vec![("result", result.to_owned())])
    }

    /// Counts panics of a background task.
    pub fn background_failed(&self, task: &str) -> Counter {
        self.counter(BACKGROUND_FAILED, vec![("task", task.to_owned())])
    }

    /// The handles of a route; `route` is its host and prefix as written.
    #[must_use]
    pub fn route(&self, route: &str) -> RouteMetrics {
        let series = self.0.routes.of(route);
        series.show();
        RouteMetrics(series)
    }

    /// Whoever this is declares these tools of the routes of these labels, which may be labels from now on, and nothing
    /// else any more.
    pub fn declare_tools<'n, N>(&self, by: &str, said: impl IntoIterator<Item = (&'n str, N)>)
    where
        N: IntoIterator<Item = &'n str>,
    {
        self.0.routes.declare(by, said);
    }

    /// The server behind the route of this label has these tools.
    pub fn list_tools<'n>(&self, route: &str, names: impl IntoIterator<Item = &'n str>) {
        self.0.routes.tools(route).add(names);
    }

    fn counter(&self, name: &'static str, labels: Vec<(&'static str, String)>) -> Counter {
        counter(&self.0.own, name, labels)
    }
}

fn counter(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: Vec<(&'static str, String)>,
) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

fn key(name: &'static str, labels: Vec<(&'static str, String)>) -> Key {
    Key::from_parts(
        name,
        labels.into_iter().map(|(name, value)| Label::new(name, value)).collect::<Vec<_>>(),
    )
}

// === impl Later ===

impl Later {
    fn series(&self) -> &OfRoute {
        self.series.get_or_init(|| {
            let series = self.metrics.0.routes.of(&self.route);
            series.show_discards();
            series
        })
    }
}

impl CounterFn for Later {
    fn increment(&self, value: u64) {
        self.series().own().add(Counted::Discarded, value);
    }

    /// Nobody else counts what this counts: it is never read back.
    fn absolute(&self, _value: u64) {}
}

// === impl EdgeSample ===

impl EdgeSample<'_> {
    fn add_to(&self, families: &mut Families) {
        let labels = Labels::of("caller", self.caller).and([("route", self.route)]);
        if self.declared {
            let state = if self.calls > 0 { "used" } else { "unused" };
            families.gauge(DECLARED_EDGES, &labels.and([("state", state)]), 1);
        } else {
            families.counter(UNDECLARED_CALLS, &labels, self.calls);
        }
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// So many more.
    pub fn add(&self, what: Counted, more: u64) {
        self.0.own().add(what, more);
    }

    /// A request is under way by this route, until it is finished or has left.
    pub fn enter(&self) {
        self.0.own().open(1);
    }

    /// A request goes on by another route.
    pub fn leave(&self) {
        self.0.own().open(-1);
    }

    /// A request that is under way has become a stream or a tunnel.
    pub fn begin_stream(&self) {
        self.0.own().open_streams(1);
    }

    /// Counts a finished request, which is under way no more.
    pub fn finish(&self, record: &Record<'_>) {
        self.0.own().finish(record);
    }

    /// Counts what happens to a session.
    pub fn session(&self, event: SessionEvent) {
        self.0.own().session(event);
    }

    /// Counts a call that has ended.
    pub fn operation(&self, operation: &Operation<'_>, took: Duration) {
        self.operations(operation, took, 1);
    }

    /// Counts so many calls that have ended alike.
    pub fn operations(&self, operation: &Operation<'_>, took: Duration, calls: u64) {
        self.0.operations.count(operation, took, calls);
    }

    /// The tools of the route.
    #[must_use]
    pub fn tools(&self) -> &ToolNames {
        &self.0.tools
    }

    /// A stream is open as long as somebody holds its note.
    pub fn note_stream(&self, note: &Arc<StreamNote>) {
        self.0.streams.open(note);
    }
}
