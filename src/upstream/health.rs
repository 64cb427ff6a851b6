//! Passive ejection: an endpoint that fails is not dialled for a while, longer each time.
//!
//! The clock and the jitter are passed in. Knows nothing of connections or choices.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Pauses;

/// The first ejection; it doubles with each further failure.
const FIRST: Duration = Duration::from_secs(1);
/// The first one of an endpoint that has never answered: most likely it is starting. kmcp's pods have no
/// readiness probe, and are ready before they listen.
const FIRST_OF_NEW: Duration = Duration::from_millis(125);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(30);
/// Resets in a row, before an answer's head, that eject: one may be a request the backend disliked.
const RESETS: u32 = 3;

/// How long one request has an endpoint for itself that was ejected until now. If it brings no news, the
/// next one may try.
const PROBE: Duration = Duration::from_secs(1);

/// How one endpoint has been doing.
#[derive(Debug)]
pub struct Health {
    epoch: Instant,
    /// It has answered.
    proven: AtomicBool,
    resets: AtomicU32,
    /// An [`Ejection`] in one word, so that of several threads one changes it.
    state: AtomicU64,
}

/// What is known of the failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ejection {
    /// Milliseconds after the epoch until which it is ejected; 0 is healthy.
    until: u64,
    /// Ejections in a row.
    failures: u8,
    /// `until` is the time of the one request that tries it.
    probing: bool,
}

// === impl Ejection ===

impl Ejection {
    /// What [`Ejection::word`] made.
    fn of(word: u64) -> Self {
        let failures = u8::try_from((word >> 1) & 0xff).unwrap_or(u8::MAX);
        Self { until: word >> 9, failures, probing: word & 1 == 1 }
    }

    /// 55 bits of milliseconds are a million years.
    fn word(self) -> u64 {
        self.until << 9 | u64::from(self.failures) << 1 | u64::from(self.probing)
    }

    fn is_ejected(self, at: u64) -> bool {
        self.until != 0 && at < self.until
    }
}

// === impl Health ===

impl Health {
    /// Healthy; `now` is the origin of its clock.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let (proven, resets, state) = Default::default();
        Self { epoch: now, proven, resets, state }
    }

    /// Whether it is ejected, be it that another request is trying it.
    #[must_use]
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.state().is_ejected(self.millis(now))
    }

    /// Whether a request may go there. Of all that ask after an ejection is over, one may, until it has
    /// brought news or a second has passed.
    pub fn admit(&self, now: Instant) -> bool {
        let (before, at) = (self.state(), self.millis(now));
        if before.until == 0 {
            return true;
        }
        let until = at + u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX);
        !before.is_ejected(at) && self.replace(before, Ejection { until, probing: true, ..before })
    }

    /// It answered: everything before is forgotten.
    pub fn answered(&self) {
        // Most requests find nothing to change; a store would bounce the cache line.
        if !self.proven.load(Ordering::Relaxed) {
            self.proven.store(true, Ordering::Relaxed);
        }
        if self.resets.load(Ordering::Relaxed) != 0 {
            self.resets.store(0, Ordering::Relaxed);
        }
        if self.state.load(Ordering::Relaxed) != 0 {
            self.state.store(0, Ordering::Relaxed);
        }
    }

    /// A dial failed. Returns whether this ejected it. `jitter` is any number.
    ///
    /// While it is ejected, further failures change nothing: they are of the same burst, or of requests
    /// that had no other endpoint. Only a failure after that, such as that of the one request that tries
    /// it, doubles the time.
    pub fn dial_failed(&self, now: Instant, jitter: u64) -> bool {
        let (before, at) = (self.state(), self.millis(now));
        if before.is_ejected(at) && !before.probing {
            return false;
        }
        let first = if self.proven.load(Ordering::Relaxed) { FIRST } else { FIRST_OF_NEW };
        let time = Pauses::new(first, LONGEST).after(before.failures.into());
        // Between half and all of it, so that replicas do not come back together.
        let half = u64::try_from(time.as_millis() / 2).unwrap_or(u64::MAX);
        let until = at + (half + jitter % (half + 1)).max(1);
        let failures = before.failures.saturating_add(1);
        // Whoever was faster has ejected it for the same failure, or has had an answer.
        self.replace(before, Ejection { until, failures, probing: false })
    }

    /// A connection broke before an answer's head. Returns whether this ejected it.
    pub fn was_reset(&self, now: Instant, jitter: u64) -> bool {
        let resets = self.resets.fetch_add(1, Ordering::Relaxed) + 1;
        resets >= RESETS && self.dial_failed(now, jitter)
    }

    fn state(&self) -> Ejection {
        Ejection::of(self.state.load(Ordering::Relaxed))
    }

    fn replace(&self, before: Ejection, next: Ejection) -> bool {
        let (before, next) = (before.word(), next.word());
        self.state.compare_exchange(before, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
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
    fn after_an_ejection_one_request_tries_it_before_the_others_come_back() {
        let start = Instant::now();
        let health = Health::new(start);
        health.answered();
        assert!(health.admit(start) && health.admit(start), "healthy: everybody");
        health.dial_failed(start, u64::MAX);
        assert!(!health.admit(start + MS * 499));
        let back = start + MS * 1000;
        assert!(!health.is_ejected(back));
        assert!(health.admit(back), "one tries it");
        assert!(health.is_ejected(back) && !health.admit(back), "for the others it is ejected");
        // No news: its client left, or it is a long call.
        assert!(health.is_ejected(back + MS * 999) && !health.admit(back + MS * 999));
        assert!(health.admit(back + MS * 1000), "the next one tries it");
        assert!(!health.admit(back + MS * 1000));
        health.answered();
        assert!(health.admit(back + MS * 1000) && health.admit(back + MS * 1000));
    }

    #[test]
    fn the_failure_of_the_one_that_tries_it_ejects_for_longer() {
        let start = Instant::now();
        let health = Health::new(start);
        health.answered();
        health.dial_failed(start, u64::MAX);
        let back = start + MS * 1000;
        assert!(health.admit(back));
        assert!(health.dial_failed(back + MS, u64::MAX), "the time of its try protects nobody");
        assert!(!health.dial_failed(back + MS, u64::MAX), "one failure");
        assert!(health.is_ejected(back + MS * 1000), "two seconds, at least one of them");
        assert!(!health.is_ejected(back + MS * 2002));
    }

    #[test]
    fn of_threads_that_fail_at_once_one_doubles_the_time() {
        let start = Instant::now();
        for round in 0..200u32 {
            let health = Health::new(start);
            health.answered();
            let (health, now) = (&health, start + MS * round);
            let ejected: usize = std::thread::scope(|scope| {
                let fail = || scope.spawn(move || usize::from(health.dial_failed(now, u64::MAX)));
                let threads: Vec<_> = std::iter::repeat_with(fail).take(4).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!((ejected, health.state().failures), (1, 1));
        }
    }

    #[test]
    fn a_state_is_one_word() {
        for state in [
            Ejection::default(),
            Ejection { until: 1, failures: 0, probing: true },
            Ejection { until: u64::MAX >> 9, failures: u8::MAX, probing: false },
        ] {
            assert_eq!(Ejection::of(state.word()), state);
        }
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
