//! How often something may be done that many requests would like to have done, such as a line of the log.
//!
//! Knows time only.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one of all who ask in a period go ahead.
#[derive(Debug, Default)]
pub struct Limiter(AtomicU64);

// === impl Limiter ===

impl Limiter {
    /// Nobody has asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether nobody else has asked in this period of length `every`.
    pub fn is_first(&self, every: Duration) -> bool {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Periods since anyone first asked, from 1.
        let age = Instant::now().saturating_duration_since(*START).as_millis();
        let period = 1 + u64::try_from(age / every.as_millis().max(1)).unwrap_or(u64::MAX - 1);
        self.0.swap(period, Ordering::Relaxed) != period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_of_all_goes_ahead_in_each_period() {
        const EVERY: Duration = Duration::from_secs(10);
        let limiter = Limiter::new();
        for _ in 0..3 {
            assert!(limiter.is_first(EVERY));
            assert!((0..100).all(|_| !limiter.is_first(EVERY)));
            tokio::time::advance(EVERY).await;
        }
    }
}
