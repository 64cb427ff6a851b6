//! What is counted of one route: each worker counts for itself, and a scrape adds it up.
//!
//! Gives text in the format of Prometheus. Knows the names and labels of its series; nothing of requests but
//! their records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tokio::time::Instant;

use super::family::{Family, SessionEvent};
use super::histogram::{Histogram, Samples};
use super::names::*;
use super::operations::{Operations, SeriesCap};
use super::record::{Outcome, Record};
use super::streams::Streams;
use super::text::{Families, Labels};
use super::tools::ToolNames;
use crate::workers::per_worker::PerWorker;

/// What is counted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Events passed.
    Events,
    /// Comments written.
    Comments,
    /// The client left first.
    AbortsClient,
    /// The backend broke off.
    AbortsUpstream,
    /// Informational answers dropped.
    Informational,
    /// Bytes of requests.
    RequestBytes,
    /// Cards whose URLs are ours now.
    CardsRewritten,
    /// Cards that could not be read.
    CardsPassed,
    /// Cards that lost a signature.
    SignaturesRemoved,
    /// Interfaces of gRPC that cards lost.
    InterfacesLeftOut,
    /// Calls that their headers call otherwise.
    HeaderMismatch,
    /// Bytes of answers.
    Bytes,
    /// Connections opened.
    Opened,
    /// Connections reused.
    Reused,
    /// Endpoints left out.
    Ejections,
    /// Requests sent again.
    Retries,
    /// Connections closed unused, or found closed.
    Discarded,
}

type Label = (&'static str, &'static str);

/// The name of each, and the label that tells it from others of its name.
const COUNTED: [(Counted, &str, Option<Label>); 17] = [
    (Counted::Events, EVENTS, None),
    (Counted::Comments, COMMENTS, None),
    (Counted::AbortsClient, ABORTS, Some(("side", "client"))),
    (Counted::AbortsUpstream, ABORTS, Some(("side", "upstream"))),
    (Counted::Informational, INFORMATIONAL, None),
    (Counted::RequestBytes, REQUEST_BYTES, None),
    (Counted::CardsRewritten, CARDS, Some(("result", "rewritten"))),
    (Counted::CardsPassed, CARDS, Some(("result", "passed"))),
    (Counted::SignaturesRemoved, CARDS, Some(("result", "signature_removed"))),
    (Counted::InterfacesLeftOut, CARDS, Some(("result", "interface_left_out"))),
    (Counted::HeaderMismatch, HEADER_MISMATCH, None),
    (Counted::Bytes, BYTES, None),
    (Counted::Opened, POOL, Some(("event", "opened"))),
    (Counted::Reused, POOL, Some(("event", "reused"))),
    (Counted::Ejections, EJECTIONS, None),
    (Counted::Retries, RETRIES, None),
    (Counted::Discarded, POOL, Some(("event", "discarded"))),
];

/// The series of one route.
#[derive(Debug)]
pub(super) struct OfRoute {
    label: String,
    each: PerWorker<Counts>,
    /// Whether it is shown what discards are counted, and whether all the rest is: a route that only a table knows
    /// shows nothing.
    has_discards: AtomicBool,
    is_used: AtomicBool,
    /// Its calls.
    pub(super) operations: Operations,
    /// The tools that its server lists.
    pub(super) tools: Arc<ToolNames>,
    /// Its open streams and tunnels.
    pub(super) streams: Streams,
}

/// What one worker has counted. Gauges may be below zero: what one has opened another may close.
#[derive(Debug, Default)]
pub(super) struct Counts {
    counted: [AtomicU64; COUNTED.len()],
    open: AtomicI64,
    open_streams: AtomicI64,
    response_headers: Histogram,
    whole: Histogram,
    first_event: Histogram,
    requests: Family<RequestLabels>,
    sessions: Family<SessionEvent>,
}

/// What tells one request counter of a route from another.
#[derive(Clone, Copy, Debug)]
struct RequestLabels {
    /// Kind of call.
    class: &'static str,
    /// Status of the response; 0 when there was none.
    status: u16,
    /// How it ended.
    outcome: &'static str,
}

// === impl OfRoute ===

impl OfRoute {
    /// Nothing counted, nothing shown.
    pub(super) fn new(label: &str, tools: Arc<ToolNames>, cap: SeriesCap) -> Self {
        let (has_discards, is_used, streams) = Default::default();
        let (label, each, operations) =
            (label.to_owned(), PerWorker::default(), Operations::new(cap));
        Self { label, each, has_discards, is_used, operations, tools, streams }
    }

    /// The route's label.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// What has happened to sessions, by event and cause.
    pub(super) fn sessions(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut sessions = BTreeMap::new();
        for (event, count) in self.each.iter().flat_map(|counts| counts.sessions.iter()) {
            *sessions.entry(event.words()).or_default() += count;
        }
        sessions
    }

    /// Requests, and streams and tunnels, that are under way.
    pub(super) fn open(&self) -> (i64, i64) {
        let sum = |of: fn(&Counts) -> &AtomicI64| {
            self.each.iter().map(|counts| of(counts).load(Ordering::Relaxed)).sum()
        };
        (sum(|counts| &counts.open), sum(|counts| &counts.open_streams))
    }

    /// Forgets the series of callers that are not known, are silent and have no stream open, as
    /// [`Operations::forget_callers`].
    pub(super) fn forget_callers(
        &self,
        known: &BTreeSet<String>,
        now: Instant,
    ) -> Vec<(Box<str>, u64)> {
        let open = self.streams.all();
        let is_open = |caller: &str| open.iter().any(|note| *note.caller == *caller);
        let is_known = |caller: &str| known.contains(caller) || is_open(caller);
        self.operations.forget_callers(&is_known, now)
    }

    /// From now on discarded connections are shown.
    pub(super) fn show_discards(&self) {
        self.has_discards.store(true, Ordering::Relaxed);
    }

    /// From now on everything else is shown.
    pub(super) fn show(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// Where this worker counts.
    pub(super) fn own(&self) -> &Counts {
        self.each.own()
    }

    /// Adds its series to those of others.
    pub(super) fn add_to(&self, families: &mut Families) {
        let (is_used, has_discards) = (&self.is_used, &self.has_discards);
        let (is_used, has_discards) =
            (is_used.load(Ordering::Relaxed), has_discards.load(Ordering::Relaxed));
        let route = Labels::of("route", &self.label);
        for (what, name, label) in COUNTED {
            let is_shown = if what == Counted::Discarded { has_discards } else { is_used };
            if is_shown {
                let labels = route.and(label);
                let of = |counts: &Counts| counts.of(what).map_or(0, of_cell);
                families.counter(name, &labels, self.each.iter().map(of).sum());
            }
        }
        if is_used {
            self.add_rest(&route, families);
        }
    }

    fn add_rest(&self, route: &Labels, families: &mut Families) {
        let (open, open_streams) = self.open();
        families.gauge(OPEN, route, open);
        families.gauge(OPEN_STREAMS, route, open_streams);
        if let Some(oldest) = self.streams.oldest() {
            families.gauge(OLDEST_STREAM, route, oldest.as_secs_f64());
        }
        self.operations.add_to(route, families);
        let mut histogram = |name, of: fn(&Counts) -> &Histogram| {
            let mut samples = Samples::default();
            self.each.iter().for_each(|counts| samples.add(of(counts)));
            families.histogram(name, route, &samples);
        };
        histogram(RESPONSE_HEADERS_SECONDS, |counts| &counts.response_headers);
        histogram(WHOLE_SECONDS, |counts| &counts.whole);
        histogram(FIRST_EVENT_SECONDS, |counts| &counts.first_event);
        let mut requests = BTreeMap::<_, u64>::new();
        for counts in self.each.iter() {
            for (labels, count) in counts.requests.iter() {
                *requests.entry((labels.class, labels.status, labels.outcome)).or_default() +=
                    count;
            }
        }
        for ((class, status, outcome), count) in requests {
            let status = status.to_string();
            let labels = [("class", class), ("status", &status), ("outcome", outcome)];
            families.counter(REQUESTS, &route.and(labels), count);
        }
        for ((event, cause), count) in self.sessions() {
            families.counter(SESSIONS, &route.and([("event", event), ("cause", cause)]), count);
        }
    }
}

// === impl Counts ===

impl Counts {
    fn of(&self, what: Counted) -> Option<&AtomicU64> {
        self.counted.get(what as usize)
    }

    /// So many more.
    pub(super) fn add(&self, what: Counted, more: u64) {
        if let Some(cell) = self.of(what) {
            cell.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// So many more requests are under way.
    pub(super) fn open(&self, more: i64) {
        self.open.fetch_add(more, Ordering::Relaxed);
    }

    /// So many more streams and tunnels are under way.
    pub(super) fn open_streams(&self, more: i64) {
        self.open_streams.fetch_add(more, Ordering::Relaxed);
    }

    /// A session of the route has seen this.
    pub(super) fn session(&self, event: SessionEvent) {
        self.sessions.count(event);
    }

    /// A request is finished that was under way.
    pub(super) fn finish(&self, record: &Record<'_>) {
        self.open(-1);
        self.add(Counted::Bytes, record.bytes);
        self.add(Counted::RequestBytes, record.request_bytes);
        if record.is_stream {
            self.open_streams(-1);
            self.add(Counted::Events, record.events);
        }
        match record.outcome {
            Outcome::ClientGone => self.add(Counted::AbortsClient, 1),
            Outcome::UpstreamBroke => self.add(Counted::AbortsUpstream, 1),
            _ => {}
        }
        if let Some(first) = record.first.filter(|_| record.events > 0) {
            self.first_event.record(first);
        }
        self.whole.record(record.whole);
        if let Some(headers) = record.response_headers {
            self.response_headers.record(headers);
        }
        self.requests.count(RequestLabels {
            class: record.class,
            status: record.status,
            outcome: record.outcome.word(),
        });
    }
}

fn of_cell(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

// === impl RequestLabels ===

impl PartialEq for RequestLabels {
    /// The same words at different places count as different: a scrape adds them up.
    fn eq(&self, other: &Self) -> bool {
        self.status == other.status
            && std::ptr::eq(self.class, other.class)
            && std::ptr::eq(self.outcome, other.outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics::{Key, Label, Level, Metadata, Recorder};
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

    use super::*;

    static METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    /// A route whose label has every byte that is escaped.
    const LABEL: &str = "a.ns/x\\y\nz\"";

    fn record() -> Record<'static> {
        Record {
            method: "POST",
            path: "/",
            route: LABEL,
            bytes: 9,
            is_stream: true,
            events: 2,
            request_bytes: 3,
            response_headers: Some(Duration::from_micros(1_000)),
            first: Some(Duration::from_millis(2_500)),
            whole: Duration::from_secs(3_600),
            ..Record::bare("stream", 200, Outcome::ClientGone)
        }
    }

    fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let labels = labels.iter().map(|(name, value)| Label::new(*name, *value));
        Key::from_parts(name, labels.collect::<Vec<_>>())
    }

    /// The same counts in the recorder of the exporter.
    fn exporter() -> PrometheusRecorder {
        let seconds: Vec<f64> =
            BOUNDS.iter().map(|micros| Duration::from_micros(*micros).as_secs_f64()).collect();
        let buckets = Matcher::Suffix("_seconds".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &seconds).unwrap();
        let recorder = builder.add_global_label("route", LABEL).build_recorder();
        let count = |name, labels: &[_], count| {
            recorder.register_counter(&key(name, labels), &METADATA).increment(count);
        };
        for (what, name, label) in COUNTED {
            let counted = match what {
                Counted::Events => 2,
                Counted::AbortsClient => 1,
                Counted::Bytes => 9,
                Counted::RequestBytes => 3,
                Counted::Discarded => 7,
                _ => 0,
            };
            count(name, label.as_slice(), counted);
        }
        for (name, value) in [(OPEN, 0.0), (OPEN_STREAMS, -1.0)] {
            recorder.register_gauge(&key(name, &[]), &METADATA).set(value);
        }
        for (name, value) in
            [(RESPONSE_HEADERS_SECONDS, 0.001), (WHOLE_SECONDS, 3600.0), (FIRST_EVENT_SECONDS, 2.5)]
        {
            recorder.register_histogram(&key(name, &[]), &METADATA).record(value);
        }
        count(REQUESTS, &[("class", "stream"), ("status", "200"), ("outcome", "client_gone")], 1);
        count(SESSIONS, &[("event", "lost"), ("cause", "gone")], 1);
        recorder
    }

    fn sorted(text: &str) -> Vec<&str> {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn the_text_is_what_the_exporter_writes_of_the_same_counts() {
        let route = OfRoute::new(LABEL, Arc::default(), SeriesCap::new(9));
        route.show();
        route.show_discards();
        route.own().open(1);
        route.own().finish(&record());
        route.own().add(Counted::Discarded, 7);
        route.own().session(SessionEvent::Lost("gone"));
        let mut ours = Families::default();
        route.add_to(&mut ours);
        let ours = ours.text(&[]);
        let theirs = exporter().handle().render();
        assert_eq!(sorted(&ours), sorted(&theirs));
        let bucket = |text: &str| text.contains("\",le=\"0.0025\"} 1\n");
        assert!(bucket(&ours) && bucket(&theirs), "{ours}");
    }

    #[test]
    fn what_workers_have_counted_is_one_sum() {
        let route = OfRoute::new("r", Arc::default(), SeriesCap::new(9));
        route.show();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        route.own().open(1);
                        route.own().open_streams(1);
                        route.own().finish(&record());
                    }
                });
            }
        });
        let mut text = Families::default();
        route.add_to(&mut text);
        let text = text.text(&[]);
        for line in [
            "kagent_proxy_open_streams{route=\"r\"} 0\n",
            "kagent_proxy_events_total{route=\"r\"} 8000\n",
            "kagent_proxy_request_seconds_bucket{route=\"r\",le=\"1800\"} 0\n",
            "kagent_proxy_request_seconds_bucket{route=\"r\",le=\"+Inf\"} 4000\n",
            "kagent_proxy_request_seconds_sum{route=\"r\"} 14400000\n",
            "{route=\"r\",class=\"stream\",status=\"200\",outcome=\"client_gone\"} 4000\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("discarded"), "{text}");
    }

    #[test]
    fn a_route_that_only_a_table_knows_shows_nothing() {
        let mut text = Families::default();
        OfRoute::new("r", Arc::default(), SeriesCap::new(9)).add_to(&mut text);
        assert_eq!(text.text(&[]), "");
    }

    #[test]
    fn each_count_has_its_place() {
        for (at, (what, ..)) in COUNTED.iter().enumerate() {
            assert_eq!(*what as usize, at);
        }
    }
}
