//! What is counted of the talk between replicas.
//!
//! Knows no letter: it is told what an answer came to.

use metrics::{Counter, Gauge};

/// The handles.
#[derive(Debug)]
pub struct PeerMetrics {
    pub(super) answered: Counter,
    pub(super) silent: Counter,
    pub(super) alive: Gauge,
    pub(super) split: Gauge,
}

// === impl PeerMetrics ===

impl PeerMetrics {
    /// Handles that count nowhere.
    #[must_use]
    pub fn noop() -> Self {
        let (answered, silent) = (Counter::noop(), Counter::noop());
        Self { answered, silent, alive: Gauge::noop(), split: Gauge::noop() }
    }

    /// A replica was asked, and has answered or not.
    pub fn asked(&self, answered: bool) {
        if answered { &self.answered } else { &self.silent }.increment(1);
    }

    /// So many others answer.
    pub fn alive(&self, others: usize) {
        self.alive.set(u32::try_from(others).unwrap_or(u32::MAX));
    }

    /// Whether several replicas have keys of their own.
    pub fn split(&self, split: bool) {
        self.split.set(if split { 1.0 } else { 0.0 });
    }
}
