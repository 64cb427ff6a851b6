//! Counters of one name that differ in labels from a closed set, each registered at its first increment.
//!
//! Few of them, so a scan beats a map. Knows neither names nor recorders.

use arc_swap::ArcSwap;
use metrics::Counter;

/// The counters seen so far, by what tells them apart.
#[derive(Debug)]
pub(super) struct Family<L>(ArcSwap<Vec<(L, Counter)>>);

/// What happens to sessions, with its cause where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// One began.
    Opened,
    /// A request was carried in one.
    Carried,
    /// One was begun anew, because of this.
    Revived(&'static str),
    /// A client was told that there is none, because of this.
    Lost(&'static str),
    /// A call was answered in its server's place: nobody knows whether it ran.
    AnsweredLost,
    /// One was ended by its client.
    Closed,
    /// A request was sent where the task is that it names.
    Task,
}

// === impl Family ===

impl<L> Default for Family<L> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<L: Copy + PartialEq> Family<L> {
    /// Counts one; `register` makes the counter if there is none yet.
    pub(super) fn count(&self, labels: L, register: impl FnOnce() -> Counter) {
        if let Some((_, counter)) = self.0.load().iter().find(|(seen, _)| *seen == labels) {
            counter.increment(1);
            return;
        }
        let counter = register();
        counter.increment(1);
        self.0.rcu(|seen| {
            let mut seen = Vec::clone(seen);
            seen.push((labels, counter.clone()));
            seen
        });
    }
}

// === impl SessionEvent ===

impl SessionEvent {
    /// The words of the metric: event and cause.
    pub(super) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Opened => ("opened", ""),
            Self::Carried => ("carried", ""),
            Self::Revived(cause) => ("revived", cause),
            Self::Lost(cause) => ("lost", cause),
            Self::AnsweredLost => ("answered_lost", ""),
            Self::Closed => ("closed", ""),
            Self::Task => ("task", ""),
        }
    }
}
