//! From a route to a connection: a warm one, or one dialled, with a second dial beside a slow first.
//!
//! Opens connections and tells endpoints how that went; never sees a request.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::retry::{PAUSES, Retry};
use super::trip::Cause;
use crate::route::Route;
use crate::telemetry::metrics::Counted;
use crate::upstream::{ConnectError, Endpoint, EndpointId, Lease, Want};
use crate::workers::near::Near;

/// A dial that takes longer is hedged by a second one (RFC 8305 section 5).
const SECOND_DIAL: Duration = Duration::from_millis(250);

/// A lease from one of the endpoints: a warm connection, or the first of the dials that succeeds;
/// never HTTP/2 if `http1`.
///
/// # Errors
/// That of the last dial; `None` if there is no endpoint.
pub async fn lease(
    route: &Route,
    http1: bool,
    retry: &Retry<'_>,
) -> Result<Lease, Option<ConnectError>> {
    let tried = retry.tried();
    let picked =
        route.cluster.pick(Want::Any, tried).or_else(|| route.cluster.pick(Want::Any, &[]));
    let Some(first) = picked else { return Err(None) };
    if tried.is_empty()
        && let Some(lease) = first.idle_connection(http1)
    {
        route.metrics.add(Counted::Reused, 1);
        return Ok(lease);
    }
    let limit = route.config.to.timeouts.connect;
    let left = retry.time_left();
    // Boxed, as waiting is.
    Box::pin(dial(route, first, http1, left.map_or(limit, |left| left.min(limit)))).await
}

/// A lease from the endpoint where a session lives, and from no other: a warm connection unless it has to be
/// `fresh`, or one that is dialled; never HTTP/2 if `http1`. What we lack ourselves for a dial is waited for.
///
/// # Errors
/// Why the session has no home there.
pub async fn pinned(
    route: &Route,
    id: &EndpointId,
    (fresh, http1): (bool, bool),
) -> Result<Lease, Cause> {
    match to(route, id, fresh, http1).await {
        // Boxed, as waiting is.
        Err(Cause::OurOwn) => Box::pin(pinned_later(route, id, (fresh, http1))).await,
        leased => leased,
    }
}

/// The same once we have what a dial takes.
async fn pinned_later(
    route: &Route,
    id: &EndpointId,
    (fresh, http1): (bool, bool),
) -> Result<Lease, Cause> {
    let until = Instant::now() + route.config.to.hold.session;
    let mut pauses = PAUSES;
    loop {
        let next = Instant::now() + pauses.take();
        if next >= until {
            return Err(Cause::OurOwn);
        }
        tokio::time::sleep_until(next).await;
        let leased = to(route, id, fresh, http1).await;
        if !matches!(leased, Err(Cause::OurOwn)) {
            return leased;
        }
    }
}

/// The same, without waiting.
///
/// # Errors
/// The endpoint is gone, or cannot be dialled.
pub async fn to(route: &Route, id: &EndpointId, fresh: bool, http1: bool) -> Result<Lease, Cause> {
    let Some(endpoint) = route.cluster.pick(Want::Pinned(id), &[]) else {
        return Err(Cause::PodGone);
    };
    if !fresh && let Some(lease) = endpoint.idle_connection(http1) {
        route.metrics.add(Counted::Reused, 1);
        return Ok(lease);
    }
    let deadline = route.config.to.timeouts.connect;
    // Boxed, as waiting is.
    match Box::pin(endpoint.clone().dial(http1, deadline)).await {
        Ok(lease) => {
            let shares = lease.reused;
            route.metrics.add(if shares { Counted::Reused } else { Counted::Opened }, 1);
            Ok(lease)
        }
        Err(error) => {
            tracing::debug!(%error, "dial failed");
            if error.is_our_own() {
                return Err(Cause::OurOwn);
            }
            dial_failed(route, &endpoint);
            Err(Cause::Unreachable)
        }
    }
}

/// The same on a new connection; those of before are not used any more. Behind an address of several pods they may
/// lead to one that is gone, which they do not show.
///
/// # Errors
/// The endpoint is gone, or cannot be dialled.
pub async fn anew(route: &Route, id: &EndpointId) -> Result<Lease, Cause> {
    if let Some(endpoint) = route.cluster.pick(Want::Pinned(id), &[]) {
        endpoint.pool.renew();
    }
    to(route, id, true, false).await
}

async fn dial(
    route: &Route,
    first: Near<Endpoint>,
    http1: bool,
    deadline: Duration,
) -> Result<Lease, Option<ConnectError>> {
    let mut tried: Vec<SocketAddr> = vec![first.address];
    let mut open: Vec<Near<Endpoint>> = Vec::new();
    let mut dials = FuturesUnordered::new();
    let start = |endpoint: Near<Endpoint>, open: &mut Vec<Near<Endpoint>>| {
        open.push(endpoint.clone());
        async move { (endpoint.clone(), endpoint.dial(http1, deadline).await) }
    };
    dials.push(start(first, &mut open));
    let mut last = None;
    loop {
        let ended = tokio::select! {
            biased;
            ended = dials.next() => ended,
            () = tokio::time::sleep(SECOND_DIAL) => {
                match route.cluster.pick(Want::Any, &tried) {
                    Some(next) => {
                        tried.push(next.address);
                        dials.push(start(next, &mut open));
                        continue;
                    }
                    None => dials.next().await,
                }
            }
        };
        match ended {
            Some((endpoint, Ok(lease))) => {
                let shares = lease.reused;
                route.metrics.add(if shares { Counted::Reused } else { Counted::Opened }, 1);
                // What was overtaken is slow or dead, and would be waited for again by the next one.
                let overtaken = open.iter().take_while(|other| !other.is_same(&endpoint));
                overtaken.for_each(|other| dial_failed(route, other));
                return Ok(lease);
            }
            Some((endpoint, Err(error))) => {
                tracing::debug!(%error, "dial failed");
                dial_failed(route, &endpoint);
                open.retain(|other| !other.is_same(&endpoint));
                last = Some(error);
            }
            None => return Err(last),
        }
        if dials.is_empty()
            && let Some(next) = route.cluster.pick(Want::Any, &tried)
        {
            if let Some(lease) = next.idle_connection(http1) {
                route.metrics.add(Counted::Reused, 1);
                return Ok(lease);
            }
            tried.push(next.address);
            dials.push(start(next, &mut open));
        }
    }
}

fn dial_failed(route: &Route, endpoint: &Endpoint) {
    if endpoint.health.dial_failed(Instant::now(), fastrand::u64(..)) {
        route.metrics.add(Counted::Ejections, 1);
    }
}
