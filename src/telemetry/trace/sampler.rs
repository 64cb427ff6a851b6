//! Which traces are taken: those that a caller takes, and a share of those that begin here.
//!
//! The trace's id decides, so that all who see it with the same share decide alike. Pure.

use crate::protocol::trace_context::TraceContext;

/// Decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// An id is taken whose last 56 bits are not below; those are random (Trace Context Level 2, section 2.2.2.5.2).
    threshold: u64,
    follow_callers: bool,
}

/// One more than 56 bits can hold.
const ALL: u64 = 1 << 56;

// === impl Sampler ===

impl Sampler {
    /// Takes this share, from 0 to 1; with `follow_callers` only of traces that begin here.
    #[must_use]
    pub fn new(ratio: f64, follow_callers: bool) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "from 0 to 2^56, which a float holds"
        )]
        let taken = (ratio.clamp(0.0, 1.0) * ALL as f64) as u64;
        Self { threshold: ALL - taken, follow_callers }
    }

    /// Whether a request of this caller is taken.
    #[must_use]
    pub fn takes(&self, caller: &TraceContext) -> bool {
        if self.follow_callers { caller.is_sampled() } else { self.holds(caller.trace) }
    }

    /// Whether a new trace of this id is taken; `None` is that none ever is, and none begins.
    #[must_use]
    pub fn begins(&self, trace: u128) -> Option<bool> {
        (self.threshold < ALL).then(|| self.holds(trace))
    }

    fn holds(&self, trace: u128) -> bool {
        let last = u64::try_from(trace & u128::from(ALL - 1)).unwrap_or_default();
        last >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::trace_context::SAMPLED;

    #[test]
    fn callers_are_followed_unless_told_otherwise() {
        let sampled = TraceContext { trace: 1, span: 1, flags: SAMPLED };
        let unsampled = TraceContext { flags: 0, ..sampled };
        for (ratio, follow_callers, expected) in [
            (0.0, true, (true, false)),
            (1.0, true, (true, false)),
            (0.0, false, (false, false)),
            (1.0, false, (true, true)),
        ] {
            let sampler = Sampler::new(ratio, follow_callers);
            let takes = (sampler.takes(&sampled), sampler.takes(&unsampled));
            assert_eq!(takes, expected, "{ratio} {follow_callers}");
        }
    }

    #[test]
    fn a_share_of_new_traces_is_taken_by_the_end_of_their_ids() {
        assert_eq!(Sampler::new(0.0, true).begins(u128::MAX), None);
        let half = Sampler::new(0.5, true);
        assert_eq!(half.begins(1 << 55), Some(true));
        assert_eq!(half.begins((1 << 55) - 1), Some(false));
        assert_eq!(half.begins((0xabcd << 56) + (1 << 55) - 1), Some(false));
        assert_eq!(Sampler::new(1.0, true).begins(0), Some(true));
        assert_eq!(Sampler::new(0.25, true).begins(0x3f << 50), Some(true));
        let mut random = fastrand::Rng::with_seed(7);
        let tenth = Sampler::new(0.1, true);
        let taken = (0..10_000).filter(|_| tenth.begins(random.u128(..)) == Some(true)).count();
        assert!((900..1100).contains(&taken), "{taken} of 10,000");
    }
}
