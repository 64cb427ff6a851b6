//! Clients of MCP that have just asked for the newest revision, and heard that no server is there.
//!
//! Most go on with `initialize`, as for a server of an older revision (MCP 2026-07-28, "Backward Compatibility"). If
//! that one waited for the server, it would be the first to reach it, and the client would speak the older revision for
//! as long as it lives; without a proxy both fail. Bounded. Knows addresses and names; no request.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How soon a client goes on: at once, but it may be busy.
const SOON: Duration = Duration::from_secs(1);
/// More are forgotten, the oldest first.
const MAX: usize = 1000;

/// Which clients were refused, of which host, and when; in that order.
#[derive(Debug, Default)]
pub struct Probes(Mutex<VecDeque<(Instant, IpAddr, Box<str>)>>);

// === impl Probes ===

impl Probes {
    /// A `server/discover` from this address to this host was refused.
    pub fn refused(&self, source: IpAddr, host: &str) {
        let mut all = self.lock();
        if all.len() >= MAX {
            all.pop_front();
        }
        all.push_back((Instant::now(), source, host.into()));
    }

    /// Whether one was a moment ago.
    #[must_use]
    pub fn is_recent(&self, source: IpAddr, host: &str) -> bool {
        let now = Instant::now();
        let mut all = self.lock();
        while all.front().is_some_and(|(then, ..)| now.saturating_duration_since(*then) > SOON) {
            all.pop_front();
        }
        all.iter().any(|(_, from, to)| *from == source && **to == *host)
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, IpAddr, Box<str>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_probe_is_remembered_for_its_client_and_host_and_not_for_long() {
        let probes = Probes::default();
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        probes.refused(a, "tools.ns");
        assert!(probes.is_recent(a, "tools.ns"));
        assert!(!probes.is_recent(b, "tools.ns") && !probes.is_recent(a, "other.ns"));
        tokio::time::advance(SOON).await;
        assert!(probes.is_recent(a, "tools.ns"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!probes.is_recent(a, "tools.ns") && probes.lock().is_empty());
        for n in 0..=MAX {
            probes.refused(a, &format!("{n}.ns"));
        }
        assert!(!probes.is_recent(a, "0.ns") && probes.is_recent(a, "1.ns"));
    }
}
