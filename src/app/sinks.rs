//! Where records of requests go: the access log, and the exporter of spans beside the traffic.
//!
//! Opens both, and closes the second. Knows no request.

#[cfg(feature = "traces")]
use std::sync::Arc;
#[cfg(feature = "traces")]
use std::time::Duration;

use tokio::task::JoinSet;

use super::BuildError;
use crate::config::Config;
#[cfg(feature = "traces")]
use crate::otlp::Exporter;
use crate::proxy::Proxy;
#[cfg(feature = "traces")]
use crate::supervise::keep_running;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;

/// How long the program stays for spans that wait when it ends; their receiver may be away.
#[cfg(feature = "traces")]
const LAST_SPANS: Duration = Duration::from_secs(3);
/// Between two looks at whether all that was cut off has ended.
#[cfg(feature = "traces")]
const LOOK: Duration = Duration::from_millis(10);

/// What sends spans; `None` where nothing is traced.
#[derive(Debug, Default)]
pub(super) struct Spans {
    #[cfg(feature = "traces")]
    exporter: Option<Arc<Exporter>>,
}

pub(super) fn access_log(config: &Config) -> Result<AccessLog, BuildError> {
    if !config.log.access {
        return Ok(AccessLog::off());
    }
    let log = Log::standard_error()
        .map_err(|error| BuildError::Setup(format!("a thread for the log: {error}")))?;
    Ok(AccessLog::new(config.log.format, log))
}

// === impl Spans ===

#[cfg(feature = "traces")]
impl Spans {
    /// As configured; `instance` tells the program from its replicas.
    pub(super) fn open(
        config: &Config,
        metrics: &Metrics,
        instance: &str,
    ) -> Result<(Traces, Self), BuildError> {
        let traces = &config.traces;
        let Some(endpoint) = &traces.endpoint else { return Ok((Traces::off(), Self::default())) };
        Exporter::check(traces).map_err(BuildError::Traces)?;
        let counted = metrics.spans();
        let (begun, waiting) = Traces::new(traces, counted.full.clone());
        let exporter = Exporter::new(traces, endpoint, instance, waiting, counted);
        Ok((begun, Self { exporter: Some(Arc::new(exporter)) }))
    }

    /// Sends spans from now on.
    pub(super) fn start(&self, tasks: &mut JoinSet<()>, metrics: &Metrics) {
        let Some(exporter) = self.exporter.clone() else { return };
        let run = move || {
            let exporter = Arc::clone(&exporter);
            async move { exporter.run().await }
        };
        tasks.spawn(keep_running("traces", metrics.clone(), run));
    }

    /// Nothing is carried any more, but for what is being cut off: the last spans are sent.
    pub(super) async fn end(self, proxy: &Proxy) {
        let Some(exporter) = self.exporter else { return };
        let all = async {
            while proxy.open() > 0 {
                tokio::time::sleep(LOOK).await;
            }
            exporter.end().await;
        };
        if tokio::time::timeout(LAST_SPANS, all).await.is_err() {
            tracing::warn!("not all spans could be sent at the end");
        }
    }
}

/// Without the feature nothing is sent; a configuration that asks for it has been refused before.
#[cfg(not(feature = "traces"))]
impl Spans {
    pub(super) fn open(
        _config: &Config,
        _metrics: &Metrics,
        _instance: &str,
    ) -> Result<(Traces, Self), BuildError> {
        Ok((Traces::off(), Self::default()))
    }

    pub(super) fn start(&self, _tasks: &mut JoinSet<()>, _metrics: &Metrics) {}

    pub(super) async fn end(self, _proxy: &Proxy) {}
}
