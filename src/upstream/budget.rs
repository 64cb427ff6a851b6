//! How many requests may be sent again: a share of those sent, and a few each second besides.
//!
//! Without a bound, retries multiply the load of a backend that is failing under load. Of our own and not tower's: to
//! count a request takes no lock, and the clock is passed in. Knows no request.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::workers::per_worker::Tally;

/// What was not used in about this many seconds is lost.
const WINDOW: f64 = 10.0;

/// The retries of one cluster.
#[derive(Debug)]
pub struct TokenBucket {
    share: f64,
    per_second: f64,
    sent: Tally,
    state: Mutex<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    tokens: f64,
    /// The share of what was sent lately, which fades with time: as much of it may be saved up.
    recent: f64,
    since: Instant,
}

// === impl TokenBucket ===

impl TokenBucket {
    /// `percent` of the requests and `per_second` besides.
    #[must_use]
    pub fn new(percent: u32, per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            share: f64::from(percent) / 100.0,
            per_second,
            sent: Tally::default(),
            state: Mutex::new(BudgetState { tokens: per_second, recent: 0.0, since: now }),
        }
    }

    /// A request comes, of which a share may be retried.
    pub fn sent(&self) {
        self.sent.add(1);
    }

    /// Whether one may be sent again; if so it is counted.
    pub fn take(&self, now: Instant) -> bool {
        let mut state = self.settled(now);
        let allowed = state.tokens >= 1.0;
        if allowed {
            state.tokens -= 1.0;
        }
        allowed
    }

    /// Turns what was sent into what may be repeated. To be called every second or so, since only the
    /// calls tell old requests from new ones.
    pub fn refill(&self, now: Instant) {
        drop(self.settled(now));
    }

    fn settled(&self, now: Instant) -> MutexGuard<'_, BudgetState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = u32::try_from(self.sent.take()).unwrap_or(u32::MAX);
        let share = f64::from(sent) * self.share;
        let time = now.saturating_duration_since(state.since).as_secs_f64();
        state.recent = state.recent * (-time / WINDOW).exp() + share;
        let most = self.per_second * WINDOW + state.recent;
        state.tokens = (state.tokens + share + time * self.per_second).min(most);
        state.since = now;
        state
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn taken(budget: &TokenBucket, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn a_share_of_what_was_sent_and_a_few_each_second() {
        let start = Instant::now();
        let budget = TokenBucket::new(20, 10, start);
        assert_eq!(taken(&budget, start), 10);
        for _ in 0..100 {
            budget.sent();
        }
        assert_eq!(taken(&budget, start), 20);
        assert_eq!(taken(&budget, start + Duration::from_secs(1)), 10);
        assert_eq!(taken(&budget, start + Duration::from_secs(3601)), 100, "ten seconds' worth");
    }

    #[test]
    fn an_hour_of_calls_without_a_retry_saves_up_no_more_than_some_seconds_worth() {
        let start = Instant::now();
        let budget = TokenBucket::new(20, 10, start);
        let mut now = start;
        for _ in 0..3600 {
            now += Duration::from_secs(1);
            (0..1000).for_each(|_| budget.sent());
            budget.refill(now);
        }
        let all = (0..100_000).take_while(|_| budget.take(now)).count();
        assert!((2000..2500).contains(&all), "{all}: ten seconds of 200 and 10");
    }

    #[test]
    fn zero_is_never() {
        let start = Instant::now();
        let budget = TokenBucket::new(0, 0, start);
        budget.sent();
        assert!(!budget.take(start + Duration::from_secs(60)));
    }
}
