//! Counters of one name that differ in labels from a closed set, each made at its first increment.
//!
//! A chain that only ever grows: few are there, so a walk beats a map, and none of it waits. Knows neither
//! names nor routes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters seen so far, by what tells them apart.
#[derive(Debug)]
pub(super) struct Family<L>(OnceLock<Box<Link<L>>>);

#[derive(Debug)]
struct Link<L> {
    labels: L,
    count: AtomicU64,
    next: Family<L>,
}

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
        Self(OnceLock::new())
    }
}

impl<L: Copy + PartialEq> Family<L> {
    /// Counts one.
    pub(super) fn count(&self, labels: L) {
        let first = || Box::new(Link { labels, count: AtomicU64::new(0), next: Self::default() });
        let mut at = self;
        loop {
            let link = at.0.get_or_init(first);
            if link.labels == labels {
                link.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            at = &link.next;
        }
    }

    /// All counters with what tells them apart.
    pub(super) fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        std::iter::successors(self.0.get(), |link| link.next.0.get())
            .map(|link| (link.labels, link.count.load(Ordering::Relaxed)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_by_itself_whoever_comes_first() {
        let family = Family::default();
        std::thread::scope(|scope| {
            for first in 0..4 {
                let family = &family;
                scope.spawn(move || {
                    (0..1000).for_each(|n| family.count((first + n) % 4));
                });
            }
        });
        let mut all: Vec<(i32, u64)> = family.iter().collect();
        all.sort_unstable();
        assert_eq!(all, [(0, 1000), (1, 1000), (2, 1000), (3, 1000)]);
    }
}
