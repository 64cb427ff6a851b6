//! What one request has met on its way to a backend, and for how long it still waits (D11, D12).
//!
//! Costs nothing until something fails. Opens no connection; `proxy/attempt.rs` asks it after each
//! failure, and `proxy/reroute.rs` takes it along to another route.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::error::ProxyError;
use crate::proxy::send::attempt::Broken;
use crate::proxy::send::hold::{Held, Holds};
use crate::route::{Route, Source};
use crate::upstream::ConnectError;

/// First pause between rounds over all endpoints; it doubles up to the second bound.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What the last dial of a hold has at least.
const LAST_DIAL: Duration = Duration::from_millis(100);

/// The patience of one request.
#[derive(Debug)]
pub struct Troubles<'a> {
    holds: &'a Holds,
    source: IpAddr,
    until: Instant,
    /// Boxed: rare, and large enough to weigh on every connection.
    met: Option<Box<Met>>,
}

/// What it has met.
#[derive(Debug)]
struct Met {
    pause: Duration,
    held: Option<Held>,
    /// Why nothing could be reached, when that was last clear.
    error: Option<ConnectError>,
    /// Endpoints that have had the request. Sent again, it gets a new connection: what closed one idle
    /// connection may have closed the next one too, and this may be its only repeat.
    had: Vec<SocketAddr>,
    repeated: bool,
}

// === impl Troubles ===

impl<'a> Troubles<'a> {
    /// None yet; a request from `source` waits no longer than `until`.
    #[must_use]
    pub const fn new(holds: &'a Holds, source: IpAddr, until: Instant) -> Self {
        Self { holds, source, until, met: None }
    }

    /// Endpoints that have had the request in this round.
    pub(in crate::proxy) fn had(&self) -> &[SocketAddr] {
        self.met.as_ref().map_or(&[], |met| &met.had)
    }

    /// It does not wait any more: its place is another's.
    pub(in crate::proxy) fn resume(&mut self) {
        if let Some(met) = &mut self.met {
            met.held = None;
        }
    }

    /// It goes another way, where nothing has failed yet.
    pub(in crate::proxy) fn elsewhere(&mut self) {
        if let Some(met) = &mut self.met {
            met.had.clear();
            (met.error, met.pause) = (None, FIRST_PAUSE);
        }
    }

    /// Whether the request may be sent again (D11), now that this has become of it. Counts, and waits
    /// where it must.
    pub(in crate::proxy) async fn may_repeat(&mut self, route: &Route, broken: &Broken) -> bool {
        let met = self.met.get_or_insert_default();
        if (broken.written && met.repeated) || !route.cluster.budget.take(Instant::now()) {
            return false;
        }
        met.repeated |= broken.written;
        met.had.push(broken.address);
        // A new connection that closes at once is as good as a failed dial.
        let elsewhere = broken.reused || route.cluster.pick(&met.had).is_some();
        elsewhere || self.pause(route).await
    }

    /// Nothing could be reached, for this reason: waits a while, where waiting may help.
    pub(in crate::proxy) async fn wait(
        &mut self,
        route: &Route,
        error: Option<ConnectError>,
    ) -> Result<(), ProxyError> {
        let met = self.met.get_or_insert_default();
        let waits = matches!(error, None | Some(ConnectError::Io(..) | ConnectError::Timeout(..)));
        // A dial that the end of the hold cut short says less than the one before it.
        let cut = matches!(error, Some(ConnectError::Timeout(..))) && met.held.is_some();
        if !cut || met.error.is_none() {
            met.error = error;
        }
        if !waits || Instant::now() >= self.until {
            return Err(unreachable(route, met.error.take()));
        }
        met.had.clear();
        if self.pause(route).await { Ok(()) } else { Err(ProxyError::Overloaded) }
    }

    /// Waits a while; false if the time is over or too many wait already.
    async fn pause(&mut self, route: &Route) -> bool {
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        let met = self.met.get_or_insert_default();
        if met.held.is_none() {
            met.held = self.holds.enter(self.source);
        }
        if met.held.is_none() {
            return false;
        }
        route.cluster.wait((now + met.pause).min(self.until)).await;
        met.pause = (met.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// For the next dial of a request that waits: no more than is left of its time, and a little at its
    /// very end.
    pub(in crate::proxy) fn left(&self) -> Option<Duration> {
        let waits = self.met.as_ref().is_some_and(|met| met.held.is_some());
        let left = || self.until.saturating_duration_since(Instant::now()).max(LAST_DIAL);
        waits.then(left)
    }
}

// === impl Met ===

impl Default for Met {
    fn default() -> Self {
        Self { pause: FIRST_PAUSE, held: None, error: None, had: Vec::new(), repeated: false }
    }
}

fn unreachable(route: &Route, error: Option<ConnectError>) -> ProxyError {
    let host = route.config.host.clone();
    match error {
        None => {
            let why = match route.source {
                Source::Static => "its name resolves to no address",
                Source::Cluster => "its Service has no ready pod",
            };
            ProxyError::NoReadyEndpoint(host, why.to_owned())
        }
        Some(error @ ConnectError::Io(..)) => ProxyError::NoReadyEndpoint(host, error.to_string()),
        Some(error @ ConnectError::Timeout(..)) => ProxyError::ConnectTimeout(error),
        Some(
            error @ (ConnectError::Handshake(..) | ConnectError::Tls(..) | ConnectError::Name(_)),
        ) => ProxyError::ConnectFailed(error),
    }
}
