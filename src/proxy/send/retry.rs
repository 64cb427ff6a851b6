//! How often one request may be sent, and for how long it waits for a backend (D11, D12).
//!
//! Costs nothing until something fails. Whoever waits has a place in the queue, and only here is one
//! taken. Opens no connection and finds no route.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Broken;
use super::hold::{HoldPlace, Holds};
use crate::backoff::Pauses;
use crate::proxy::error::ProxyError;
use crate::route::{Route, RouteSource};
use crate::upstream::{ConnectError, Want};

/// Between rounds over all endpoints, or between two tries to begin a session anew.
pub(super) const PAUSES: Pauses =
    Pauses::new(Duration::from_millis(20), Duration::from_millis(500));
/// What the last dial of a hold has at least.
const LAST_DIAL: Duration = Duration::from_millis(100);

/// The tries and the patience of one request.
#[derive(Debug)]
pub struct Retry<'a> {
    holds: &'a Holds,
    source: IpAddr,
    /// When the request arrived: every wait counts from there.
    started: Instant,
    /// By the route it is on.
    until: Instant,
    /// Boxed: rare, and large enough to weigh on every connection.
    past: Option<Box<Past>>,
}

/// What has happened to the request so far.
#[derive(Debug)]
struct Past {
    pauses: Pauses,
    held: Option<HoldPlace>,
    /// Why nothing could be reached, when that was last clear.
    error: Option<ConnectError>,
    /// Endpoints that have had the request. Sent again, it gets a new connection: what closed one idle
    /// connection may have closed the next one too, and this may be its only repeat.
    tried: Vec<SocketAddr>,
    repeated: bool,
}

// === impl Retry ===

impl<'a> Retry<'a> {
    /// Nothing has happened yet to a request from `source`, which arrived at `started`.
    #[must_use]
    pub const fn new(holds: &'a Holds, source: IpAddr, started: Instant) -> Self {
        Self { holds, source, started, until: started, past: None }
    }

    /// When the request arrived.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// It goes by this route from now on, where nothing has failed yet; the GET of a card waits longer.
    pub fn on_route(&mut self, route: &Route, card: bool) {
        let times = route.config.to.hold;
        self.until = self.started + if card { times.card } else { times.request };
        if let Some(past) = &mut self.past {
            past.tried.clear();
            (past.error, past.pauses) = (None, PAUSES);
        }
    }

    /// It does not wait for this route.
    pub fn hurry(&mut self) {
        self.until = self.started;
    }

    /// Endpoints that have had the request in this round.
    #[must_use]
    pub fn tried(&self) -> &[SocketAddr] {
        self.past.as_ref().map_or(&[], |past| &past.tried)
    }

    /// Takes a place among those who wait for a backend, if it has none yet; without one nobody knows its host.
    /// False if too many wait already.
    pub fn hold(&mut self, backend: Option<&str>) -> bool {
        let past = self.past.get_or_insert_default();
        if past.held.is_none() {
            past.held = self.holds.enter(self.source, backend);
        }
        past.held.is_some()
    }

    /// It does not wait any more: its place is another's.
    pub fn release(&mut self) {
        if let Some(past) = &mut self.past {
            past.held = None;
        }
    }

    /// Whether the request may be sent again, now that this has become of it. Counts, and waits where it
    /// must.
    pub async fn may_repeat(&mut self, route: &Route, broken: &Broken) -> bool {
        let past = self.past.get_or_insert_default();
        if (broken.written && past.repeated) || !route.cluster.budget.take(Instant::now()) {
            return false;
        }
        past.repeated |= broken.written;
        past.tried.push(broken.address);
        // A new connection that closes at once is as good as a failed dial.
        let elsewhere = broken.reused || route.cluster.has_other(Want::Any, &past.tried);
        elsewhere || self.pause(route).await
    }

    /// Nothing could be reached, for this reason: waits a while, where waiting may help.
    ///
    /// # Errors
    /// Waiting does not help, its time is over, or too many wait already.
    pub async fn wait(
        &mut self,
        route: &Route,
        error: Option<ConnectError>,
    ) -> Result<(), ProxyError> {
        let past = self.past.get_or_insert_default();
        let waits = matches!(error, None | Some(ConnectError::Io(..) | ConnectError::Timeout(..)));
        // A dial that the end of the hold cut short says less than the one before it.
        let cut = matches!(error, Some(ConnectError::Timeout(..))) && past.held.is_some();
        if !cut || past.error.is_none() {
            past.error = error;
        }
        if !waits || Instant::now() >= self.until {
            return Err(unreachable(route, past.error.take()));
        }
        past.tried.clear();
        if self.pause(route).await { Ok(()) } else { Err(ProxyError::Overloaded) }
    }

    /// Waits a while; false if the time is over or too many wait already.
    async fn pause(&mut self, route: &Route) -> bool {
        let now = Instant::now();
        if now >= self.until || !self.hold(Some(&route.identity)) {
            return false;
        }
        let past = self.past.get_or_insert_default();
        let next = (now + past.pauses.take()).min(self.until);
        route.cluster.wait(next).await;
        true
    }

    /// For the next dial of a request that waits: no more than is left of its time, and a little at its
    /// very end. `None` if it does not wait.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let waits = self.past.as_ref().is_some_and(|past| past.held.is_some());
        let left = || self.until.saturating_duration_since(Instant::now()).max(LAST_DIAL);
        waits.then(left)
    }
}

// === impl Past ===

impl Default for Past {
    fn default() -> Self {
        Self { pauses: PAUSES, held: None, error: None, tried: Vec::new(), repeated: false }
    }
}

fn unreachable(route: &Route, error: Option<ConnectError>) -> ProxyError {
    let host = route.config.host.clone();
    match error {
        None => {
            let why = match route.source {
                RouteSource::Static => "its name resolves to no address",
                RouteSource::Cluster => "its Service has no ready pod",
            };
            ProxyError::NoReadyEndpoint(host, why.to_owned())
        }
        Some(error @ ConnectError::Io(..)) => ProxyError::NoReadyEndpoint(host, error.to_string()),
        Some(error @ ConnectError::Timeout(..)) => ProxyError::ConnectTimeout(error.into()),
        Some(
            error @ (ConnectError::Handshake(..) | ConnectError::Tls(..) | ConnectError::Name(_)),
        ) => ProxyError::ConnectFailed(error.into()),
    }
}
