//! Requests that wait for a backend, and how many may (D12).
//!
//! A place is taken when the first attempt has failed and given back on drop. Knows addresses, names of backends and
//! sessions, not requests.

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
#[derive(Clone, Debug)]
enum Whose {
    /// A request's in this line.
    Line(Line),
    /// That of all requests of a session.
    Session(TokenId),
}

/// Requests from one address for one backend; `None` are those for hosts that nobody knows, since whoever asks can
/// make up as many as it likes.
type Line = (IpAddr, Option<Box<str>>);

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
    by_line: HashMap<Line, usize>,
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

    /// A place for a request from this address for this backend, as its route is told from all others; without one
    /// nobody knows its host. `None` if too many wait already.
    #[must_use]
    pub fn enter(&self, source: IpAddr, backend: Option<&str>) -> Option<HoldPlace> {
        let line = (source, backend.map(Into::into));
        let mut waiting = self.0.lock();
        if !waiting.admits(&line, &self.0.limits) {
            return None;
        }
        waiting.all += 1;
        *waiting.by_source.entry(source).or_default() += 1;
        *waiting.by_line.entry(line.clone()).or_default() += 1;
        drop(waiting);
        Some(self.held(Whose::Line(line)))
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
        match &self.whose {
            Whose::Line(line) => {
                waiting.all -= 1;
                leave(&mut waiting.by_source, &line.0);
                leave(&mut waiting.by_line, line);
            }
            Whose::Session(session) if leave(&mut waiting.by_session, session) => {
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

// === impl Waiting ===

impl Waiting {
    /// Whether one more may wait in this line. While any place is free an address has as many as one may have. Behind a
    /// gateway all clients have one address, so it gets more for backends that are known: for each at most twice as many
    /// as are left, so that one that is gone does not take those of another, and only a few of the last fifth, which is
    /// for other addresses.
    fn admits(&self, line: &Line, limits: &HoldConfig) -> bool {
        let free = limits.max.saturating_sub(self.all);
        let of_source = self.by_source.get(&line.0).copied().unwrap_or_default();
        if free == 0 || of_source < limits.max_per_source {
            return free > 0;
        }
        if line.1.is_none() {
            return false;
        }
        let in_line = self.by_line.get(line).copied().unwrap_or_default();
        let few = in_line < limits.max_per_source / 4 && free > limits.max / 10;
        // Who has no place of its own gets none beside.
        limits.max_per_source > 0 && (few || in_line < 2 * free && free > limits.max / 5)
    }
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

    fn holds(max: usize, max_per_source: usize) -> Holds {
        Holds::new(HoldConfig { max, max_per_source }, Gauge::noop())
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// As many places as there are for this line.
    fn fill(holds: &Holds, source: IpAddr, backend: Option<&str>) -> Vec<HoldPlace> {
        std::iter::from_fn(|| holds.enter(source, backend)).collect()
    }

    #[test]
    fn places_are_bounded_in_all_and_come_back() {
        let holds = holds(3, 2);
        let first = holds.enter(A, None).unwrap();
        let second = holds.enter(A, None).unwrap();
        assert!(holds.enter(A, None).is_none(), "two of one source for hosts that nobody knows");
        let [one, other] = [1, 2].map(|n| TokenId([n; 16]));
        let session = [(); 3].map(|()| holds.enter_in_session(one).expect("one place for all"));
        assert!(
            holds.enter_in_session(other).is_none() && holds.enter(B, None).is_none(),
            "three in all"
        );
        let [left, rest @ ..] = session;
        drop(left);
        assert!(holds.enter(B, None).is_none(), "others of the session wait");
        drop(rest);
        let third = holds.enter(B, Some("s")).unwrap();
        assert!(holds.enter(B, Some("s")).is_none(), "three in all");
        drop(first);
        assert!(holds.enter(A, None).is_some());
        drop((second, third));
        let waiting = holds.0.lock();
        assert!(waiting.by_source.is_empty() && waiting.by_session.is_empty());
        assert!(waiting.by_line.is_empty());
        assert_eq!(waiting.all, 0, "nothing is left behind");
    }

    /// All agents of kagent 1.0 have the address of one gateway.
    #[test]
    fn a_gateway_has_most_of_the_places_for_one_backend_and_others_always_find_some() {
        let holds = holds(1000, 100);
        let gone = fill(&holds, A, Some("gone"));
        assert_eq!(gone.len(), 667, "hundreds of agents may wait for one starting pod");
        assert!(holds.enter(A, None).is_none(), "a host that nobody knows");
        let starting = fill(&holds, A, Some("starting"));
        assert_eq!(starting.len(), 133, "and others for another one");
        let more = ["a", "b", "c", "d", "e"].map(|other| fill(&holds, A, Some(other)));
        assert_eq!(
            more.each_ref().map(Vec::len),
            [25, 25, 25, 25, 0],
            "and a few for others still"
        );
        let others = fill(&holds, B, Some("gone"));
        assert_eq!(others.len(), 100, "what is left is for other addresses");
        drop(gone);
        assert!(holds.enter(A, Some("more")).is_some());
    }

    /// As before there were gateways.
    #[test]
    fn hosts_that_a_client_makes_up_take_no_more_than_its_own_places() {
        let holds = holds(1000, 100);
        let made_up = [A, B].map(|source| fill(&holds, source, None));
        assert_eq!(made_up.each_ref().map(Vec::len), [100, 100]);
        let known = fill(&holds, A, Some("known"));
        assert_eq!(known.len(), 534, "two thirds of what is free");
    }

    #[test]
    fn no_place_for_each_source_is_none_at_all() {
        assert!(holds(10, 0).enter(A, Some("s")).is_none());
        assert!(holds(0, 10).enter(A, Some("s")).is_none());
        assert_eq!(fill(&holds(4, 10), A, None).len(), 4);
    }
}
