//! Clients of MCP that have just asked for the newest revision, and heard that no server is there.
//!
//! Most go on with `initialize`, as for a server of an older revision (MCP 2026-07-28, "Backward Compatibility"). If
//! that one waited for the server, it would be the first to reach it, and the client would speak the older revision for
//! as long as it lives; without a proxy both fail. Its address alone does not tell it from others, for a gateway has one
//! for all. Bounded. Knows addresses, names and hashes; no request.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashlink::LruCache;
use tokio::time::Instant;

/// How soon a client goes on: at once, but it may be busy.
const SOON: Duration = Duration::from_secs(1);
/// More are forgotten, the oldest first.
const MAX: usize = 1000;

/// Which clients were refused, of which host, and when. A client is its address, and the hash of what its heads say of
/// it ([`fingerprint`](crate::headers::client::fingerprint)).
#[derive(Debug)]
pub struct Probes(Mutex<Refused>);

type Refused = LruCache<(IpAddr, u64, Box<str>), Instant>;

// === impl Probes ===

impl Default for Probes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX)))
    }
}

impl Probes {
    /// A `server/discover` of this client to this host was refused.
    pub fn refused(&self, (source, client): (IpAddr, u64), host: &str) {
        self.lock().insert((source, client, host.into()), Instant::now());
    }

    /// Whether none is known, so that nobody has to be told from others.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether one was right before a request that has begun at this time.
    #[must_use]
    pub fn precedes(&self, (source, client): (IpAddr, u64), host: &str, begun: Instant) -> bool {
        let refused = self.lock().get(&(source, client, host.into())).copied();
        let before = refused.and_then(|refused| begun.checked_duration_since(refused));
        before.is_some_and(|before| before <= SOON)
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_probe_counts_for_its_address_and_host_and_for_what_begins_right_behind_it() {
        let probes = Probes::default();
        let [a, b] = [1, 2].map(|n| (IpAddr::from([10, 0, 0, n]), 7));
        assert!(probes.is_empty());
        let before = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        probes.refused(a, "tools.ns");
        let then = Instant::now();
        assert!(probes.precedes(a, "tools.ns", then));
        assert!(!probes.precedes(a, "tools.ns", before), "it was there first");
        assert!(!probes.precedes(b, "tools.ns", then) && !probes.precedes(a, "other.ns", then));
        assert!(!probes.precedes((a.0, 8), "tools.ns", then), "another one at the same address");
        assert!(probes.precedes(a, "tools.ns", then + SOON));
        assert!(!probes.precedes(a, "tools.ns", then + SOON + Duration::from_millis(1)));
        // However long the request that began then has waited meanwhile.
        tokio::time::advance(SOON * 9).await;
        assert!(probes.precedes(a, "tools.ns", then + SOON));
        for n in 0..=MAX {
            probes.refused(a, &format!("{n}.ns"));
        }
        let now = Instant::now();
        assert!(!probes.precedes(a, "0.ns", now) && probes.precedes(a, "1.ns", now));
    }
}
