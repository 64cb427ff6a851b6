//! Requests that wait for a backend, and how many may (D12).
//!
//! A place is taken when the first attempt has failed and given back on drop. Knows addresses, not
//! requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;

use crate::config::HoldConfig;

/// All who wait.
#[derive(Clone, Debug)]
pub struct Holds(Arc<Shared>);

/// One place; dropping it frees it.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    source: IpAddr,
}

#[derive(Debug)]
struct Shared {
    limits: HoldConfig,
    gauge: Gauge,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

// === impl Holds ===

impl Holds {
    /// Nobody waits; `gauge` shows how many do.
    #[must_use]
    pub fn new(limits: HoldConfig, gauge: Gauge) -> Self {
        gauge.set(0.0);
        Self(Arc::new(Shared { limits, gauge, waiting: Mutex::default() }))
    }

    /// A place for a request from this address; `None` if too many wait already.
    #[must_use]
    pub fn enter(&self, source: IpAddr) -> Option<Held> {
        self.enter_up_to(source, self.0.limits.max_per_source)
    }

    /// The same for a request of a session, whose client has proved by its token that it does not make up hosts: one
    /// agent may have as many as it likes.
    #[must_use]
    pub fn enter_in_session(&self, source: IpAddr) -> Option<Held> {
        self.enter_up_to(source, usize::MAX)
    }

    fn enter_up_to(&self, source: IpAddr, max_per_source: usize) -> Option<Held> {
        let mut waiting = self.0.lock();
        let here = waiting.by_source.get(&source).copied().unwrap_or_default();
        if waiting.all >= self.0.limits.max || here >= max_per_source {
            return None;
        }
        waiting.all += 1;
        waiting.by_source.insert(source, here + 1);
        drop(waiting);
        self.0.gauge.increment(1.0);
        Some(Held { shared: Arc::clone(&self.0), source })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.gauge.decrement(1.0);
        let mut waiting = self.shared.lock();
        waiting.all -= 1;
        if let Some(here) = waiting.by_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                waiting.by_source.remove(&self.source);
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_for_each_source_and_come_back() {
        let holds = Holds::new(HoldConfig { max: 3, max_per_source: 2 }, Gauge::noop());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = holds.enter(a).unwrap();
        let second = holds.enter(a).unwrap();
        assert!(holds.enter(a).is_none(), "two of one source");
        drop(holds.enter_in_session(a).expect("sessions are not counted by source"));
        let third = holds.enter(b).unwrap();
        assert!(holds.enter(b).is_none(), "three in all");
        drop(first);
        assert!(holds.enter(a).is_some());
        drop((second, third));
        assert!(holds.0.lock().by_source.is_empty(), "nothing is left behind");
    }
}
