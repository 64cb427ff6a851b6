//! Passive ejection: an endpoint that fails is left out for a while, longer each time.
//!
//! The clock and the jitter are passed in. Knows nothing of connections; `upstream/endpoint.rs` tells
//! what happened, `upstream/balance.rs` leaves the ejected out.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The first ejection; it doubles with each further failure.
const FIRST: Duration = Duration::from_secs(1);
/// The first one of an endpoint that has never answered: most likely it is starting. kmcp's pods have no
/// readiness probe, and are ready before they listen.
const FIRST_OF_NEW: Duration = Duration::from_millis(125);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(30);
/// Resets in a row, before an answer's head, that eject: one may be a request the backend disliked.
const RESETS: u32 = 3;

/// How one endpoint has been doing.
#[derive(Debug)]
pub struct Health {
    epoch: Instant,
    /// It has answered.
    proven: AtomicBool,
    failures: AtomicU32,
    resets: AtomicU32,
    /// Milliseconds after the epoch; 0 is never ejected.
    until: AtomicU64,
}

// === impl Health ===

impl Health {
    /// Healthy; `now` is the origin of its clock.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let (proven, failures, resets, until) = Default::default();
        Self { epoch: now, proven, failures, resets, until }
    }

    /// Whether it should be left out.
    #[must_use]
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && self.millis(now) < until
    }

    /// It answered: everything before is forgotten.
    pub fn answered(&self) {
        // Most requests find nothing to change; a store would bounce the cache line.
        if !self.proven.load(Ordering::Relaxed) {
            self.proven.store(true, Ordering::Relaxed);
        }
        if self.failures.load(Ordering::Relaxed) != 0 || self.resets.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.resets.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// A dial failed. Returns whether this ejected it. `jitter` is any number.
    ///
    /// While it is ejected, further failures change nothing: they are of the same burst, or of requests
    /// that had no other endpoint. Only a failure after that doubles the time.
    pub fn dial_failed(&self, now: Instant, jitter: u64) -> bool {
        if self.is_ejected(now) {
            return false;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let first = if self.proven.load(Ordering::Relaxed) { FIRST } else { FIRST_OF_NEW };
        let time = first.saturating_mul(1 << failures.min(8)).min(LONGEST);
        // Between half and all of it, so that replicas do not come back together.
        let half = u64::try_from(time.as_millis() / 2).unwrap_or(u64::MAX);
        let millis = half + jitter % (half + 1);
        self.until.store(self.millis(now) + millis.max(1), Ordering::Relaxed);
        true
    }

    /// A connection broke before an answer's head. Returns whether this ejected it.
    pub fn was_reset(&self, now: Instant, jitter: u64) -> bool {
        let resets = self.resets.fetch_add(1, Ordering::Relaxed) + 1;
        resets >= RESETS && self.dial_failed(now, jitter)
    }

    fn millis(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn failures_eject_for_longer_and_longer_and_an_answer_forgives() {
        let start = Instant::now();
        let health = Health::new(start);
        health.answered();
        assert!(!health.is_ejected(start));
        let mut now = start;
        for (failure, longest) in [1000, 2000, 4000, 8000, 16000, 30000, 30000].iter().enumerate() {
            assert!(health.dial_failed(now, u64::MAX - failure as u64), "failure {failure}");
            assert!(health.is_ejected(now + MS * (longest / 2 - 1)), "failure {failure}");
            assert!(!health.is_ejected(now + MS * *longest), "failure {failure}");
            assert!((0..50).all(|_| !health.dial_failed(now, 0)), "one burst is one failure");
            now += MS * 40_000;
        }
        health.answered();
        assert!(!health.is_ejected(now));
        health.dial_failed(now, 0);
        assert!(!health.is_ejected(now + MS * 500), "it begins at the shortest again");
    }

    #[test]
    fn an_endpoint_that_has_never_answered_is_asked_again_sooner() {
        let start = Instant::now();
        let health = Health::new(start);
        let mut now = start;
        for longest in [125, 250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
            assert!(health.dial_failed(now, u64::MAX));
            assert!(health.is_ejected(now + MS * (longest / 2 - 1)), "{longest}");
            assert!(!health.is_ejected(now + MS * longest), "{longest}");
            now += MS * 40_000;
        }
        health.answered();
        health.dial_failed(now, 0);
        assert!(health.is_ejected(now + MS * 499), "like every other from then on");
    }

    #[test]
    fn one_reset_may_be_the_request_s_fault_three_in_a_row_are_not() {
        let start = Instant::now();
        let health = Health::new(start);
        assert!(!health.was_reset(start, 0));
        assert!(!health.was_reset(start, 0));
        health.answered();
        assert!(!health.was_reset(start, 0));
        assert!(!health.was_reset(start, 0));
        assert!(!health.is_ejected(start));
        assert!(health.was_reset(start, 0));
        assert!(health.is_ejected(start));
    }
}
