//! Traces: which requests get a span, and the spans that wait to be sent.
//!
//! One span for each exchange, made of its [`Record`] when it has ended, by the semantic conventions of OpenTelemetry
//! (`telemetry/trace/span.rs`). Whoever ends an exchange waits for nothing: what finds no room in the queue is dropped and
//! counted. Knows no receiver and no message.

mod sampler;
mod span;

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Version};
use metrics::Counter;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc;

pub use self::sampler::Sampler;
pub use self::span::{Attribute, FinishedSpan};
use super::record::Record;
use crate::config::TracesConfig;
use crate::headers::{TRACEPARENT, TRACESTATE};
use crate::protocol::trace_context::{RANDOM, SAMPLED, TraceContext};

/// Spans that wait, as OpenTelemetry's SDKs have it (`OTEL_BSP_MAX_QUEUE_SIZE`).
pub const MAX_WAITING: usize = 2048;
/// Bytes of `tracestate` that are kept of a trace: more than the 512 that every system has to pass on (W3C Trace Context
/// section 3.3.1.5) are not.
const MAX_STATE: usize = 512;

/// Begins and ends spans; cheap to clone. Without a receiver it begins none.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Tracing>>);

#[derive(Debug)]
struct Tracing {
    sampler: Sampler,
    random: SystemRandom,
    queue: mpsc::Sender<FinishedSpan>,
    full: Counter,
}

/// What becomes of spans.
#[derive(Clone, Debug)]
pub struct SpanCounters {
    /// The receiver has taken them.
    pub exported: Counter,
    /// They found no room in the queue.
    pub full: Counter,
    /// They could not be sent.
    pub failed: Counter,
    /// The receiver has not taken them.
    pub rejected: Counter,
}

/// The spans that wait to be sent.
pub type WaitingSpans = mpsc::Receiver<FinishedSpan>;

/// The span of a request that has begun, and what its next hop is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its trace, and itself.
    pub context: TraceContext,
    /// The span that sent the request; 0 if the trace begins here.
    pub parent: u64,
    /// `tracestate` as sent with the parent.
    pub state: Box<str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What the client speaks.
    pub version: Version,
}

// === impl Traces ===

impl Traces {
    /// No traces.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// As configured, and what has to be sent; `full` counts spans that find no room.
    #[must_use]
    pub fn new(config: &TracesConfig, full: Counter) -> (Self, WaitingSpans) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let sampler = Sampler::new(config.ratio, config.follow_callers);
        let tracing = Tracing { sampler, random: SystemRandom::new(), queue, full };
        (Self(Some(Arc::new(tracing))), waiting)
    }

    /// Begins the span of a request with this head, in the trace of its caller or in a new one. `None` is that the
    /// request goes on as it came: nobody traces it here.
    #[must_use]
    pub fn begin(
        &self,
        headers: &HeaderMap,
        scheme: &'static str,
        version: Version,
    ) -> Option<Box<Hop>> {
        let tracing = self.0.as_ref()?;
        let hop =
            |context, parent, state| Box::new(Hop { context, parent, state, scheme, version });
        let span = fastrand::u64(1..);
        match sent(headers) {
            Some(parent) => tracing.sampler.takes(&parent).then(|| {
                let context = TraceContext { span, flags: parent.flags | SAMPLED, ..parent };
                hop(context, parent.span, state(headers))
            }),
            None => {
                let trace = tracing.new_trace();
                let sampled = tracing.sampler.begins(trace)?;
                let flags = if sampled { RANDOM | SAMPLED } else { RANDOM };
                Some(hop(TraceContext { trace, span, flags }, 0, Box::default()))
            }
        }
    }

    /// The request has ended: its span waits to be sent. `begun` is what [`Traces::begin`] has made of it, and `told`
    /// the context that its message names, which counts where its headers name none.
    pub fn finish(
        &self,
        record: &Record<'_>,
        begun: Option<&Hop>,
        told: Option<TraceContext>,
        (scheme, version): (&'static str, Version),
    ) {
        let Some(tracing) = self.0.as_ref() else { return };
        let by_header = match begun {
            Some(hop) => !hop.begins(),
            None => TraceContext::parse(record.traceparent.as_bytes()).is_some(),
        };
        let joined = told.filter(|_| !by_header).map(|parent| {
            let sampled = if tracing.sampler.takes(&parent) { SAMPLED } else { 0 };
            let span = begun.map_or_else(|| fastrand::u64(1..), |hop| hop.context.span);
            let context = TraceContext { span, flags: parent.flags & !SAMPLED | sampled, ..parent };
            Hop { context, parent: parent.span, state: Box::default(), scheme, version }
        });
        // The backend was told of the trace that began here, and may be in it: it has the span too.
        for hop in joined.iter().chain(begun).filter(|hop| hop.context.is_sampled()) {
            match tracing.queue.try_reserve() {
                Ok(place) => place.send(FinishedSpan::of(record, hop, SystemTime::now())),
                Err(_) => tracing.full.increment(1),
            }
        }
    }

    /// Whether there is a receiver of spans.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

// === impl Tracing ===

impl Tracing {
    /// An id that no other replica draws.
    fn new_trace(&self) -> u128 {
        let mut id = [0; 16];
        match self.random.fill(&mut id) {
            Ok(()) => u128::from_be_bytes(id).max(1),
            Err(_) => fastrand::u128(1..),
        }
    }
}

// === impl Hop ===

impl Hop {
    /// `traceparent` for the next hop.
    #[must_use]
    pub fn traceparent(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.context.to_string()).ok()
    }

    /// Whether the trace begins here.
    #[must_use]
    pub const fn begins(&self) -> bool {
        self.parent == 0
    }
}

/// The context of the caller. Of several fields none counts (W3C Trace Context section 3.2: it is one field).
fn sent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let first = all.next()?;
    TraceContext::parse(first.as_bytes()).filter(|_| all.next().is_none())
}

/// `tracestate`, whose fields are one list (section 3.3).
fn state(headers: &HeaderMap) -> Box<str> {
    let all = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok());
    let whole = all.collect::<Vec<_>>().join(",");
    if whole.len() > MAX_STATE { Box::default() } else { whole.into() }
}

#[cfg(test)]
mod tests;
