//! Requests that wait for a backend, and how many may (D12).
//!
//! A place is taken when the first attempt has failed and given back on drop. Knows addresses and sessions, not
//! requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;

use crate::config::HoldConfig;
use crate::session::token::TokenId;

/// All who wait.
#[derive(Clone, Debug)]
pub struct Holds(Arc<HoldState>);

/// One place; dropping it frees it.
#[derive(Debug)]
pub struct HoldPlace {
    shared: Arc<HoldState>,
    whose: Whose,
}

/// Whose place it is.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// A request's from this address.
    Source(IpAddr),
    /// That of all requests of a session.
    Session(TokenId),
}

#[derive(Debug)]
struct HoldState {
    limits: HoldConfig,
    gauge: Gauge,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
    by_session: HashMap<TokenId, usize>,
}

// === impl Holds ===

impl Holds {
    /// Nobody waits; `gauge` shows how many do.
    #[must_use]
    pub fn new(limits: HoldConfig, gauge: Gauge) -> Self {
        gauge.set(0.0);
        Self(Arc::new(HoldState { limits, gauge, waiting: Mutex::default() }))
    }

    /// A place for a request from this address; `None` if too many wait already.
    #[must_use]
    pub fn enter(&self, source: IpAddr) -> Option<HoldPlace> {
        let mut waiting = self.0.lock();
        let here = waiting.by_source.get(&source).copied().unwrap_or_default();
        if waiting.all >= self.0.limits.max || here >= self.0.limits.max_per_source {
            return None;
        }
        waiting.all += 1;
        waiting.by_source.insert(source, here + 1);
        drop(waiting);
        Some(self.held(Whose::Source(source)))
    }

    /// The same for a request of a session, whose client has proved by its token that it does not make up hosts: one
    /// agent may have as many as it likes, and all requests of a session have one place.
    #[must_use]
    pub fn enter_in_session(&self, session: TokenId) -> Option<HoldPlace> {
        let mut waiting = self.0.lock();
        let others = waiting.by_session.get(&session).copied().unwrap_or_default();
        if others == 0 {
            if waiting.all >= self.0.limits.max {
                return None;
            }
            waiting.all += 1;
        }
        waiting.by_session.insert(session, others + 1);
        drop(waiting);
        Some(self.held(Whose::Session(session)))
    }

    fn held(&self, whose: Whose) -> HoldPlace {
        self.0.gauge.increment(1.0);
        HoldPlace { shared: Arc::clone(&self.0), whose }
    }
}

impl Drop for HoldPlace {
    fn drop(&mut self) {
        self.shared.gauge.decrement(1.0);
        let mut waiting = self.shared.lock();
        match self.whose {
            Whose::Source(source) => {
                waiting.all -= 1;
                leave(&mut waiting.by_source, &source);
            }
            Whose::Session(session) if leave(&mut waiting.by_session, &session) => {
                waiting.all -= 1;
            }
            Whose::Session(_) => {}
        }
    }
}

/// One fewer; whether nobody is left.
fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        counts.remove(key);
    }
    last
}

// === impl HoldState ===

impl HoldState {
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
        let [one, other] = [1, 2].map(|n| TokenId([n; 16]));
        let session = [(); 3].map(|()| holds.enter_in_session(one).expect("one place for all"));
        assert!(
            holds.enter_in_session(other).is_none() && holds.enter(b).is_none(),
            "three in all"
        );
        let [left, rest @ ..] = session;
        drop(left);
        assert!(holds.enter(b).is_none(), "others of the session wait");
        drop(rest);
        let third = holds.enter(b).unwrap();
        assert!(holds.enter(b).is_none(), "three in all");
        drop(first);
        assert!(holds.enter(a).is_some());
        drop((second, third));
        let waiting = holds.0.lock();
        assert!(waiting.by_source.is_empty() && waiting.by_session.is_empty());
        assert_eq!(waiting.all, 0, "nothing is left behind");
    }
}
