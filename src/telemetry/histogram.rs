//! How often a duration fell between which bounds, and all of them together.
//!
//! Plain counters: a sample costs two additions. Knows neither names nor routes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::names::BOUNDS;

/// Counts durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Up to this bound, and above the one before.
    within: [AtomicU64; BOUNDS.len()],
    beyond: AtomicU64,
    /// Microseconds: nanoseconds of ten thousand streams would be too many within weeks.
    sum: AtomicU64,
}

/// What several histograms have counted.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Durations up to each of the bounds, those up to the ones before too.
    pub(super) up_to: [u64; BOUNDS.len()],
    /// All durations.
    pub(super) count: u64,
    /// Microseconds.
    pub(super) sum: u64,
}

// === impl Histogram ===

impl Histogram {
    /// Counts one. What is above a bound by less than a microsecond is above it.
    pub(super) fn record(&self, time: Duration) {
        let micros = |more| {
            let whole = time.as_secs().saturating_mul(1_000_000);
            whole.saturating_add(u64::from((time.subsec_nanos() + more) / 1000))
        };
        let (up, nearest) = (micros(999), micros(500));
        let bucket = BOUNDS.iter().zip(&self.within).find(|(bound, _)| up <= **bound);
        bucket.map_or(&self.beyond, |(_, bucket)| bucket).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nearest, Ordering::Relaxed);
    }
}

// === impl Samples ===

impl Samples {
    /// Adds what was counted here.
    pub(super) fn add(&mut self, histogram: &Histogram) {
        let mut below = 0;
        for (up_to, within) in self.up_to.iter_mut().zip(&histogram.within) {
            below += within.load(Ordering::Relaxed);
            *up_to += below;
        }
        self.count += below + histogram.beyond.load(Ordering::Relaxed);
        self.sum += histogram.sum.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_up_to_every_bound_that_it_does_not_exceed() {
        let (one, two) = (Histogram::default(), Histogram::default());
        let nanos = Duration::from_nanos;
        one.record(nanos(0));
        one.record(nanos(1_000_000));
        one.record(nanos(1_000_001));
        two.record(nanos(2_499_999_400));
        two.record(Duration::from_secs(1800));
        two.record(Duration::from_secs(1801));
        let mut samples = Samples::default();
        samples.add(&one);
        samples.add(&two);
        let up_to = |bound| samples.up_to[BOUNDS.iter().position(|other| *other == bound).unwrap()];
        assert_eq!(up_to(1_000), 2);
        assert_eq!(up_to(2_500), 3);
        assert_eq!(up_to(1_000_000), 3);
        assert_eq!(up_to(2_500_000), 4);
        assert_eq!(up_to(1_800_000_000), 5);
        assert_eq!(samples.count, 6);
        assert_eq!(samples.sum, 1_000 + 1_000 + 2_499_999 + 3_601_000_000);
    }
}
