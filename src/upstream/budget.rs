//! How many requests may be sent again: a share of those sent, and a few each second besides.
//!
//! Without a bound, retries multiply the load of a backend that is failing under load. The clock is
//! passed in. `proxy/attempt.rs` asks before it repeats.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// What was not used in this many seconds is lost.
const WINDOW: f64 = 10.0;

/// The retries of one cluster.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    per_second: f64,
    sent: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    since: Instant,
}

// === impl Budget ===

impl Budget {
    /// `percent` of the requests and `per_second` besides.
    #[must_use]
    pub fn new(percent: u32, per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            share: f64::from(percent) / 100.0,
            per_second,
            sent: AtomicU64::new(0),
            state: Mutex::new(State { tokens: per_second, since: now }),
        }
    }

    /// A request is sent for the first time.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one may be sent again; if so it is counted.
    pub fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = u32::try_from(self.sent.swap(0, Ordering::Relaxed)).unwrap_or(u32::MAX);
        let share = f64::from(sent) * self.share;
        let time = now.saturating_duration_since(state.since).as_secs_f64();
        let most = self.per_second * WINDOW + share.max(state.tokens);
        state.tokens = (state.tokens + share + time * self.per_second).min(most);
        state.since = now;
        let allowed = state.tokens >= 1.0;
        if allowed {
            state.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn taken(budget: &Budget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn a_share_of_what_was_sent_and_a_few_each_second() {
        let start = Instant::now();
        let budget = Budget::new(20, 10, start);
        assert_eq!(taken(&budget, start), 10);
        for _ in 0..100 {
            budget.sent();
        }
        assert_eq!(taken(&budget, start), 20);
        assert_eq!(taken(&budget, start + Duration::from_secs(1)), 10);
        assert_eq!(taken(&budget, start + Duration::from_secs(3601)), 100, "ten seconds' worth");
    }

    #[test]
    fn zero_is_never() {
        let start = Instant::now();
        let budget = Budget::new(0, 0, start);
        budget.sent();
        assert!(!budget.take(start + Duration::from_secs(60)));
    }
}
