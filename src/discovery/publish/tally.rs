//! How many endpoints of EndpointSlices are not dialled at this moment, by reason, and the log lines about it.
//!
//! Whoever may write slices must not fill the log: a line at most every second, the gauges tell the rest.

use std::net::IpAddr;
use std::time::Duration;

use metrics::Gauge;
use tokio::time::Instant;

use crate::discovery::whose::LeftOut;
use crate::route::ObjectId;
use crate::telemetry::metrics::Metrics;

/// Log lines come no more often than this.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The gauges, one for each reason.
#[derive(Debug)]
pub(super) struct Tally {
    gauges: Vec<(&'static str, Gauge)>,
    logged: Option<Instant>,
}

// === impl Tally ===

impl Tally {
    /// Every endpoint may be dialled.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let gauges = LeftOut::WORDS.map(|word| (word, metrics.left_out(word)));
        gauges.iter().for_each(|(_, gauge)| gauge.set(0.0));
        Self { gauges: gauges.into(), logged: None }
    }

    /// Other endpoints of a Service are not dialled than before.
    pub(super) fn change(
        &mut self,
        service: &ObjectId,
        before: &[(IpAddr, LeftOut)],
        after: &[(IpAddr, LeftOut)],
    ) {
        before.iter().filter_map(|(_, why)| self.gauge(why)).for_each(|gauge| gauge.decrement(1.0));
        after.iter().filter_map(|(_, why)| self.gauge(why)).for_each(|gauge| gauge.increment(1.0));
        let mut odd = after.iter().filter(|left| !left.1.is_usual() && !before.contains(left));
        let now = Instant::now();
        let late = self.logged.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY);
        if let (true, Some((address, why))) = (late, odd.next()) {
            self.logged = Some(now);
            let (service, why, more) = (service.to_string(), why.to_string(), odd.count());
            tracing::warn!(
                service, %address, why, more,
                "an EndpointSlice claims an address that its Service may not have; it is not dialled"
            );
        }
    }

    fn gauge(&self, why: &LeftOut) -> Option<&Gauge> {
        self.gauges.iter().find(|(word, _)| *word == why.word()).map(|(_, gauge)| gauge)
    }
}
