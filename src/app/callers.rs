//! Lets the series of callers go that there are no more.
//!
//! Knows the table, which says who there is, and the metrics; touches no request.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::proxy::Proxy;
use crate::telemetry::metrics::Metrics;

/// How often that is looked at.
const EVERY: Duration = Duration::from_secs(30);

/// Looks now and then. Never returns.
pub(super) async fn forget_gone(metrics: Metrics, proxy: Arc<Proxy>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.forget_callers(&proxy.routes().agents(), Instant::now());
    }
}
