//! Clients of MCP that have just asked for the newest revision, and heard that no server is there.
//!
//! Most go on with `initialize`, as for a server of an older revision (MCP 2026-07-28, "Backward Compatibility"). If
//! that one waited for the server, it would be the first to reach it, and the client would speak the older revision for
//! as long as it lives; without a proxy both fail. It may come to another replica, so all are told. Bounded. Holds
//! hashes; knows no request.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use hashlink::LruCache;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::Sessions;
use super::letter::PeerRequest;
use super::peers::{NoAnswer, TRIES};
use super::short_hash::short_hash;

/// How soon a client goes on: at once, but it may be busy.
const SOON: Duration = Duration::from_secs(1);
/// How long its refusal may wait until all replicas know of it: one that hangs is found out about in this time.
const TELL: Duration = Duration::from_secs(1);
/// More are forgotten, the oldest first.
const MAX: usize = 1000;

/// A client and the host that it asked for: its address alone does not tell it from others, for a gateway has one for
/// all, so the hash of what its heads say of it counts too ([`fingerprint`](crate::headers::client::fingerprint)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prober([u8; 16]);

/// Which clients were refused.
#[derive(Debug)]
pub struct Probes(Mutex<Noted>);

#[derive(Debug)]
struct Noted {
    last: LruCache<Prober, Refused>,
    /// What begins later goes on behind none of them.
    until: Option<Instant>,
}

/// When a client's next request begins, if it is one that goes on.
#[derive(Clone, Copy, Debug)]
struct Refused {
    from: Instant,
    until: Instant,
}

// === impl Prober ===

impl Prober {
    /// The client of this address with these heads, and the host that it asks for.
    #[must_use]
    pub fn new(source: IpAddr, fingerprint: u64, host: &str) -> Self {
        let source = source.to_canonical().to_string();
        // What may be of any length is last.
        let parts = [source.as_bytes(), b"\0", &fingerprint.to_be_bytes(), host.as_bytes()];
        Self(short_hash(&parts))
    }
}

// === impl Probes ===

impl Default for Probes {
    fn default() -> Self {
        Self(Mutex::new(Noted { last: LruCache::new(MAX), until: None }))
    }
}

impl Probes {
    /// A `server/discover` of this client was refused here, or is about to be within `wait` by another replica.
    pub(super) fn refused(&self, prober: Prober, wait: Duration) {
        let from = Instant::now();
        let until = from + wait + SOON;
        let mut noted = self.lock();
        noted.until = noted.until.max(Some(until));
        // One that is told of twice is the same.
        let before = noted.last.get(&prober).filter(|before| from <= before.until);
        let from = before.map_or(from, |before| before.from);
        noted.last.insert(prober, Refused { from, until });
    }

    /// Whether any client may go on with a request that has begun at this time: else nobody has to be told from others.
    #[must_use]
    pub fn may_precede(&self, begun: Instant) -> bool {
        self.lock().until.is_some_and(|until| begun <= until)
    }

    /// Whether one was right before a request that has begun at this time.
    #[must_use]
    pub fn precedes(&self, prober: Prober, begun: Instant) -> bool {
        let refused = self.lock().last.get(&prober).copied();
        refused.is_some_and(|refused| (refused.from..=refused.until).contains(&begun))
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sessions ===

impl Sessions {
    /// A `server/discover` of this client is about to be refused. When this returns all replicas know, but for those
    /// that do not answer within a second, or are of a release that does not know the letter.
    pub async fn probe_refused(&self, prober: Prober) {
        // Its client may not wait for the refusal.
        self.probes.refused(prober, TELL);
        let peers = self.peers.alive(self.own);
        if !peers.is_empty() {
            let told = peers.iter().map(|(_, address)| self.tell_probed(*address, prober));
            let _in_time = timeout(TELL, join_all(told)).await;
            self.probes.refused(prober, Duration::ZERO);
        }
    }

    /// Again and again while the other one may only be busy. One that does not read the letter is not asked for more.
    async fn tell_probed(&self, address: SocketAddr, prober: Prober) {
        for _ in 0..TRIES {
            match self.exchange(address, PeerRequest::Probed(prober)).await {
                Err(NoAnswer::Busy) => {}
                Ok(_) | Err(NoAnswer::NobodyListens | NoAnswer::Unread) => return,
            }
        }
    }

    pub(super) fn hear_probed(&self, prober: Prober) {
        self.probes.refused(prober, TELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_probe_counts_for_its_address_and_host_and_for_what_begins_right_behind_it() {
        let probes = Probes::default();
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let of = Prober::new;
        assert!(!probes.may_precede(Instant::now()), "there is none");
        let before = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        probes.refused(of(a, 7, "tools.ns"), Duration::ZERO);
        let then = Instant::now();
        assert!(probes.precedes(of(a, 7, "tools.ns"), then));
        assert!(!probes.precedes(of(a, 7, "tools.ns"), before), "it was there first");
        for other in [of(b, 7, "tools.ns"), of(a, 7, "other.ns"), of(a, 8, "tools.ns")] {
            assert!(!probes.precedes(other, then), "another one");
        }
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
        assert!(probes.precedes(of(mapped, 7, "tools.ns"), then), "by another listener");
        assert!(probes.precedes(of(a, 7, "tools.ns"), then + SOON));
        let late = Duration::from_millis(1);
        assert!(!probes.precedes(of(a, 7, "tools.ns"), then + SOON + late));
        assert!(probes.may_precede(then + SOON) && !probes.may_precede(then + SOON + late));
        // However long the request that began then has waited meanwhile.
        tokio::time::advance(SOON * 9).await;
        assert!(probes.precedes(of(a, 7, "tools.ns"), then + SOON));
        // Another replica refuses once all know.
        probes.refused(of(b, 7, "tools.ns"), TELL);
        let told = Instant::now();
        assert!(probes.precedes(of(b, 7, "tools.ns"), told + TELL + SOON));
        assert!(!probes.precedes(of(b, 7, "tools.ns"), told + TELL + SOON + late));
        for n in 0..=MAX {
            probes.refused(of(a, 7, &format!("{n}.ns")), Duration::ZERO);
        }
        let now = Instant::now();
        assert!(!probes.precedes(of(a, 7, "0.ns"), now) && probes.precedes(of(a, 7, "1.ns"), now));
    }
}
