//! What operators see: logging and metrics.
//!
//! Knows the log configuration and the recorders; nothing of requests.

pub mod access_log;
pub mod family;
pub mod feed;
mod histogram;
pub mod log;
pub mod metrics;
pub mod names;
mod of_route;
pub mod operations;
pub mod panics;
pub mod peers;
pub mod record;
pub mod series;
pub mod streams;
mod text;
pub mod tools;
pub mod trace;

use self::log::Log;
use crate::config::{LogConfig, LogFormat};

/// Lets every event and every panic go to `log`. A second start (tests) changes nothing.
///
/// # Errors
/// When the level is no filter; the text says which directive.
pub fn start_logging(config: &LogConfig, log: Log) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(format!("{QUIET},{}", config.level))
        .map_err(|error| format!("log.level {:?}: {error}", config.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log);
    let _already_started = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    panics::observe();
    Ok(())
}

/// kube warns at every attempt of a watch that fails; discovery says it once. Later directives win.
const QUIET: &str = "kube_runtime=error,kube_client=error";
