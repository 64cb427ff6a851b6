//! The recorders of every metric, and the handles that requests touch.
//!
//! Labels come from closed sets (route, class, outcome, status, reason), so that no client can make
//! series. Handles are resolved when a route is built; a request only adds to them. What a route
//! counts is shown as long as somebody holds its handles.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{BuildError, PrometheusRecorder};

use super::family::{Family, SessionEvent};
use super::names::*;
use super::peers::PeerMetrics;
use super::record::{Outcome, Record};
use super::series::{Families, Series, builder};
use super::{log, panics};

/// The recorders: cheap to clone, one for each running proxy.
#[derive(Clone)]
pub struct Metrics(Arc<Recorders>);

struct Recorders {
    /// Of the program.
    own: PrometheusRecorder,
    /// Of its routes.
    routes: Series,
    queue_full: Counter,
    write_failed: Counter,
    panics: Counter,
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

/// A counter of a route, registered at the first increment: most discovered routes never need it.
struct Later {
    metrics: Metrics,
    route: String,
    counter: OnceLock<(Arc<PrometheusRecorder>, Counter)>,
}

/// The handles of one route. Several of one label share their series.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Held, for its series are shown as long.
    recorder: Arc<PrometheusRecorder>,
    /// One counter for each (class, status, outcome) seen.
    requests: Family<RequestLabels>,
    /// One for each event and cause seen.
    sessions: Family<SessionEvent>,
    /// To the response's headers.
    pub response_headers: Histogram,
    /// To the end.
    pub whole: Histogram,
    /// Under way.
    pub open: Gauge,
    /// To the first event's end.
    pub first_event: Histogram,
    /// Streams and tunnels under way.
    pub open_streams: Gauge,
    /// Events passed.
    pub events: Counter,
    /// Comments written.
    pub comments: Counter,
    /// The client left first.
    pub aborts_client: Counter,
    /// The backend broke off.
    pub aborts_upstream: Counter,
    /// Informational answers dropped.
    pub informational: Counter,
    /// Of requests.
    pub request_bytes: Counter,
    /// Cards whose URLs are ours now.
    pub cards_rewritten: Counter,
    /// Cards that could not be read.
    pub cards_passed: Counter,
    /// Cards that lost a signature.
    pub signatures_removed: Counter,
    /// Of answers.
    pub bytes: Counter,
    /// Connections opened.
    pub opened: Counter,
    /// Connections reused.
    pub reused: Counter,
    /// Endpoints left out.
    pub ejections: Counter,
    /// Requests sent again.
    pub retries: Counter,
}

/// What tells one request counter of a route from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RequestLabels {
    /// Kind of call.
    class: &'static str,
    /// Status of the response; 0 when there was none.
    status: u16,
    /// How it ended.
    outcome: &'static str,
}

static METADATA: Metadata<'static> = Metadata::new("kagent_proxy", Level::INFO, None);

// === impl Metrics ===

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Recorders with nothing counted.
    ///
    /// # Errors
    /// When the list of buckets is empty, which a test excludes.
    pub fn new() -> Result<Self, BuildError> {
        let own = builder()?.build_recorder();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        own.register_gauge(&key(BUILD, version), &METADATA).set(1.0);
        let dropped = |cause: &str| counter(&own, LOG_DROPPED, vec![("cause", cause.to_owned())]);
        let (queue_full, write_failed) = (dropped("queue_full"), dropped("write_failed"));
        let panics = counter(&own, PANICS, Vec::new());
        let routes = Series::default();
        Ok(Self(Arc::new(Recorders { own, routes, queue_full, write_failed, panics })))
    }

    /// Everything, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        let Recorders { own, routes, queue_full, write_failed, panics } = &*self.0;
        let dropped = log::dropped();
        queue_full.absolute(dropped.queue_full);
        write_failed.absolute(dropped.write_failed);
        panics.absolute(panics::count());
        let mut families = Families::default();
        families.add(&own.handle().render());
        routes.live().iter().for_each(|route| families.add(&route.handle().render()));
        families.text(HELP)
    }

    /// Folds samples into histograms: recorders keep every raw sample until then.
    pub fn upkeep(&self) {
        self.0.own.handle().run_upkeep();
        self.0.routes.live().iter().for_each(|route| route.handle().run_upkeep());
    }

    /// Counts an answer of our own.
    pub fn rejected(&self, reason: &'static str) {
        self.counter(REJECTED, vec![("reason", reason.to_owned())]).increment(1);
    }

    /// Counts upstream connections of a route that were closed unused, or found closed.
    pub fn discarded(&self, route: &str) -> Counter {
        let later = self.later(route);
        later.counter();
        Counter::from_arc(Arc::new(later))
    }

    /// The same, with a series only once there is something to count.
    pub fn discarded_later(&self, route: &str) -> Counter {
        Counter::from_arc(Arc::new(self.later(route)))
    }

    fn later(&self, route: &str) -> Later {
        Later { metrics: self.clone(), route: route.to_owned(), counter: OnceLock::new() }
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

    /// Whether all objects have been listed once.
    pub fn synced(&self) -> Gauge {
        self.0.own.register_gauge(&key(DISCOVERY_SYNCED, Vec::new()), &METADATA)
    }

    /// Endpoints that are left out for this reason.
    pub fn left_out(&self, reason: &'static str) -> Gauge {
        let labels = vec![("reason", reason.to_owned())];
        self.0.own.register_gauge(&key(DISCOVERY_LEFT_OUT, labels), &METADATA)
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
        let recorder = self.0.routes.of(route);
        let by = |name: &'static str, label: &'static str, value: &str| {
            counter(&recorder, name, vec![(label, value.to_owned())])
        };
        let plain = |name| counter(&recorder, name, Vec::new());
        let gauge = |name| recorder.register_gauge(&key(name, Vec::new()), &METADATA);
        let histogram = |name| recorder.register_histogram(&key(name, Vec::new()), &METADATA);
        RouteMetrics {
            requests: Family::default(),
            sessions: Family::default(),
            response_headers: histogram(RESPONSE_HEADERS_SECONDS),
            whole: histogram(WHOLE_SECONDS),
            open: gauge(OPEN),
            first_event: histogram(FIRST_EVENT_SECONDS),
            open_streams: gauge(OPEN_STREAMS),
            events: plain(EVENTS),
            comments: plain(COMMENTS),
            aborts_client: by(ABORTS, "side", "client"),
            aborts_upstream: by(ABORTS, "side", "upstream"),
            informational: plain(INFORMATIONAL),
            request_bytes: plain(REQUEST_BYTES),
            cards_rewritten: by(CARDS, "result", "rewritten"),
            cards_passed: by(CARDS, "result", "passed"),
            signatures_removed: by(CARDS, "result", "signature_removed"),
            bytes: plain(BYTES),
            opened: by(POOL, "event", "opened"),
            reused: by(POOL, "event", "reused"),
            ejections: plain(EJECTIONS),
            retries: plain(RETRIES),
            recorder,
        }
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
    fn counter(&self) -> &Counter {
        let registered = self.counter.get_or_init(|| {
            let recorder = self.metrics.0.routes.of(&self.route);
            let counter = counter(&recorder, POOL, vec![("event", "discarded".to_owned())]);
            (recorder, counter)
        });
        &registered.1
    }
}

impl CounterFn for Later {
    fn increment(&self, value: u64) {
        self.counter().increment(value);
    }

    fn absolute(&self, value: u64) {
        self.counter().absolute(value);
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// Counts a finished request.
    pub fn finish(&self, record: &Record<'_>) {
        self.bytes.increment(record.bytes);
        self.request_bytes.increment(record.request_bytes);
        if record.is_stream {
            self.events.increment(record.events);
        }
        match record.outcome {
            Outcome::ClientGone => self.aborts_client.increment(1),
            Outcome::UpstreamBroke => self.aborts_upstream.increment(1),
            _ => {}
        }
        if let Some(first) = record.first.filter(|_| record.events > 0) {
            self.first_event.record(first.as_secs_f64());
        }
        self.whole.record(record.whole.as_secs_f64());
        if let Some(headers) = record.response_headers {
            self.response_headers.record(headers.as_secs_f64());
        }
        self.count(RequestLabels {
            class: record.class,
            status: record.status,
            outcome: record.outcome.word(),
        });
    }

    /// Counts what happens to a session.
    pub fn session(&self, event: SessionEvent) {
        self.sessions.count(event, || {
            let (event, cause) = event.words();
            let labels = vec![("event", event.to_owned()), ("cause", cause.to_owned())];
            counter(&self.recorder, SESSIONS, labels)
        });
    }

    fn count(&self, labels: RequestLabels) {
        self.requests.count(labels, || {
            let labels = vec![
                ("class", labels.class.to_owned()),
                ("status", labels.status.to_string()),
                ("outcome", labels.outcome.to_owned()),
            ];
            counter(&self.recorder, REQUESTS, labels)
        });
    }
}
