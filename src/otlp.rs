//! Sends spans to a receiver of OpenTelemetry, in batches, beside the traffic.
//!
//! What cannot be sent is tried again for a while, then dropped and counted; meanwhile the queue in front fills, and
//! drops too. Knows no request.

mod client;
mod encode;

use std::time::Duration;

use http::Uri;
use metrics::Counter;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::client::{Client, Failure};
use crate::backoff::Pauses;
use crate::config::TracesConfig;
use crate::telemetry::trace::{FinishedSpan, SpanCounters, WaitingSpans};

/// Spans of one batch (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`'s default).
const MAX_BATCH: usize = 512;
/// How long the first span of a batch waits for others (`OTEL_BSP_SCHEDULE_DELAY`'s default).
const DELAY: Duration = Duration::from_secs(5);
/// Tries of one batch, and the pauses between them.
const TRIES: u32 = 4;
const PAUSES: Pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(5));

/// Sends what waits.
#[derive(Debug)]
pub struct Exporter {
    work: Mutex<Work>,
    resource: Resource,
    endpoint: Uri,
    counted: SpanCounters,
    ending: CancellationToken,
}

/// Of whoever sends.
#[derive(Debug)]
struct Work {
    waiting: WaitingSpans,
    client: Client,
    fails: bool,
}

// === impl Exporter ===

impl Exporter {
    /// Sends to `endpoint`; `instance` tells this program from its replicas.
    #[must_use]
    pub fn new(
        config: &TracesConfig,
        endpoint: &Uri,
        instance: &str,
        waiting: WaitingSpans,
        counted: SpanCounters,
    ) -> Self {
        let client = Client::new(config, endpoint);
        Self {
            work: Mutex::new(Work { waiting, client, fails: false }),
            resource: encode::resource(config, instance),
            endpoint: endpoint.clone(),
            counted,
            ending: CancellationToken::new(),
        }
    }

    /// Whether the files that the configuration names can be used.
    ///
    /// # Errors
    /// Says which cannot, and why.
    pub fn check(config: &TracesConfig) -> Result<(), String> {
        Client::headers(config).map(drop)?;
        crate::tls::client_config(&config.tls).map(drop).map_err(|error| format!("tls.{error}"))
    }

    /// Sends until [`Exporter::end`] is called and nothing waits any more.
    pub async fn run(&self) {
        let mut work = self.work.lock().await;
        loop {
            let batch = self.batch(&mut work.waiting).await;
            if batch.is_empty() {
                return;
            }
            self.send(&mut work, batch).await;
        }
    }

    /// No span comes any more: what waits is sent at once, each batch once. Returns when all are sent or dropped.
    pub async fn end(&self) {
        self.ending.cancel();
        drop(self.work.lock().await);
    }

    /// The next spans; none at the end.
    async fn batch(&self, waiting: &mut WaitingSpans) -> Vec<FinishedSpan> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _any = waiting.recv_many(&mut batch, MAX_BATCH) => {}
            () = self.ending.cancelled() => {}
        }
        if batch.is_empty() {
            return batch;
        }
        let full = Instant::now() + DELAY;
        while batch.len() < MAX_BATCH {
            let room = MAX_BATCH - batch.len();
            tokio::select! {
                biased;
                taken = waiting.recv_many(&mut batch, room) => if taken == 0 { break },
                () = sleep_until(full) => break,
                () = self.ending.cancelled() => break,
            }
        }
        batch
    }

    async fn send(&self, work: &mut Work, batch: Vec<FinishedSpan>) {
        let spans = batch.len() as u64;
        let bytes = encode::request(&self.resource, batch);
        let mut pauses = PAUSES;
        let mut tries = 0;
        let failure = loop {
            tries += 1;
            match work.client.send(bytes.clone()).await {
                Ok((rejected, why)) => return self.taken(work, spans, (rejected, why)),
                Err(Failure::ForNow(_)) if tries < TRIES && !self.ending.is_cancelled() => {
                    tokio::select! {
                        () = sleep(pauses.take()) => {}
                        () = self.ending.cancelled() => {}
                    }
                }
                Err(failure) => break failure,
            }
        };
        self.counted.failed.increment(spans);
        // Once, until it works again.
        if !std::mem::replace(&mut work.fails, true) {
            let endpoint = &self.endpoint;
            tracing::warn!(%endpoint, spans, tries, %failure, "spans cannot be sent and are dropped");
        }
    }

    fn taken(&self, work: &mut Work, spans: u64, (rejected, why): (u64, String)) {
        let rejected = rejected.min(spans);
        count(&self.counted.rejected, rejected);
        count(&self.counted.exported, spans - rejected);
        let endpoint = &self.endpoint;
        if rejected > 0 {
            tracing::warn!(%endpoint, rejected, why, "the receiver has not taken all spans");
        }
        if std::mem::take(&mut work.fails) {
            tracing::info!(%endpoint, "spans can be sent again");
        }
    }
}

fn count(counter: &Counter, more: u64) {
    if more > 0 {
        counter.increment(more);
    }
}
