//! Pauses between tries: each is twice the one before, up to a bound.
//!
//! Reads no clock, waits for nothing and adds no jitter; knows nothing of what is tried.

use std::time::Duration;

/// The pauses of one who tries again.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    first: Duration,
    longest: Duration,
    /// How many have been taken.
    taken: u32,
}

// === impl Pauses ===

impl Pauses {
    /// None has been taken yet.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, taken: 0 }
    }

    /// The one behind so many others.
    #[must_use]
    pub fn after(self, others: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(others)).min(self.longest)
    }

    /// The next one.
    pub fn take(&mut self) -> Duration {
        let pause = self.after(self.taken);
        self.taken = self.taken.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_one_before_up_to_the_longest() {
        let mut pauses = Pauses::new(Duration::from_millis(20), Duration::from_millis(90));
        let taken: Vec<_> = (0..4).map(|_| pauses.take().as_millis()).collect();
        assert_eq!(taken, [20, 40, 80, 90]);
        assert_eq!(pauses.after(0).as_millis(), 20);
        assert_eq!(pauses.after(u32::MAX).as_millis(), 90);
    }
}
