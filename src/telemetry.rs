//! What operators see: logging, metrics and their upkeep.
//!
//! Knows the log configuration and the recorder; nothing of requests. `app.rs` starts it.

pub mod access_log;
pub mod metrics;

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::config::{LogConfig, LogFormat};

/// How often samples are folded into histograms: without it the recorder keeps every raw sample until
/// someone scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts logging to standard error. A second start (tests) changes nothing.
///
/// # Errors
/// When the level is no filter; the text says which directive.
pub fn start_logging(config: &LogConfig) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(format!("{QUIET},{}", config.level))
        .map_err(|error| format!("log.level {:?}: {error}", config.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_started = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    Ok(())
}

/// kube warns at every attempt of a watch that fails; discovery says it once. Later directives win.
const QUIET: &str = "kube_runtime=error,kube_client=error";

/// The recorder of one running proxy, with the buckets of `metrics.rs`.
///
/// # Errors
/// When a bucket list is empty, which a test excludes.
pub fn recorder()
-> Result<metrics_exporter_prometheus::PrometheusRecorder, metrics_exporter_prometheus::BuildError>
{
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), metrics::SECONDS)?;
    Ok(builder.build_recorder())
}

/// Folds samples until the task is dropped.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}
