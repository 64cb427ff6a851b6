//! Series of callers that there are no more: they go once nothing has been counted in them for a while.
//!
//! Costs a request nothing, unless it ends while series go: it counts as it always does, and what is idle is found by
//! comparing two looks. A caller that is there keeps its series, however long it says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{OTHER, Operations, Own, UNKNOWN, locked};

/// Who scrapes has the last count by then: Prometheus looks back as far for the newest sample.
pub(super) const REST: Duration = Duration::from_secs(300);

/// Callers that there are no more, each with how many calls it has made, and since when it has made no other.
pub(super) type Leaving = BTreeMap<Box<str>, (u64, Instant)>;

impl Operations {
    /// Forgets the series of callers that are not known and have ended no call for [`REST`], and returns those, each
    /// with how many calls. One that calls later begins anew.
    pub(in crate::telemetry) fn forget_callers(
        &self,
        is_known: &dyn Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<(Box<str>, u64)> {
        let mut leaving = locked(&self.leaving);
        let mut calls = BTreeMap::<Box<str>, u64>::new();
        for own in self.each.iter() {
            locked(own).add_calls(&mut calls, |caller| !is_known(caller));
        }
        leaving.retain(|caller, _| calls.contains_key(caller));
        let mut due = Vec::new();
        for (caller, calls) in calls {
            match leaving.get_mut(&caller) {
                Some((before, since)) if *before == calls => {
                    if now.saturating_duration_since(*since) >= REST {
                        due.push(caller);
                    }
                }
                Some(idle) => *idle = (calls, now),
                None => {
                    leaving.insert(caller, (calls, now));
                }
            }
        }
        if due.is_empty() { Vec::new() } else { self.forget(&due, &mut leaving) }
    }

    /// Forgets these, but for those that have called since.
    fn forget(&self, due: &[Box<str>], leaving: &mut Leaving) -> Vec<(Box<str>, u64)> {
        // Nobody counts meanwhile: no other place holds two of these locks.
        let mut all: Vec<_> = self.each.iter().map(locked).collect();
        let mut calls = BTreeMap::new();
        all.iter().for_each(|own| own.add_calls(&mut calls, |caller| is_among(due, caller)));
        calls
            .retain(|caller, calls| leaving.get(caller).is_some_and(|(before, _)| before == calls));
        let mut gone = 0;
        for own in &mut all {
            let before = own.series.len();
            own.series.retain(|(key, _)| !calls.contains_key(&key.caller));
            gone += before - own.series.len();
        }
        self.cap.give_back(gone);
        leaving.retain(|caller, _| !calls.contains_key(caller));
        calls.into_iter().collect()
    }
}

impl Own {
    /// Adds what these callers have called.
    fn add_calls(&self, calls: &mut BTreeMap<Box<str>, u64>, of: impl Fn(&str) -> bool) {
        for (key, durations) in &self.series {
            let caller = &*key.caller;
            if caller != UNKNOWN && caller != OTHER && of(caller) {
                match calls.get_mut(caller) {
                    Some(calls) => *calls += durations.count(),
                    None => drop(calls.insert(caller.into(), durations.count())),
                }
            }
        }
    }
}

/// The names are in order.
fn is_among(names: &[Box<str>], name: &str) -> bool {
    names.binary_search_by(|other| (**other).cmp(name)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{ErrorType, Operation, SeriesCap};
    use super::*;
    use crate::protocol::methods::Protocol;
    use crate::workers;

    fn call(operations: &Operations, caller: &'static str) {
        let (protocol, error) = (Protocol::Mcp, ErrorType::None);
        let operation = Operation { caller, protocol, method: "tools/call", tool: "add", error };
        operations.count(&operation, Duration::ZERO, 1);
    }

    /// The callers that have series, each with its calls.
    fn callers(operations: &Operations) -> Vec<(String, u64)> {
        let all = operations.all().into_iter();
        all.map(|(key, durations)| (key.caller.to_string(), durations.count())).collect()
    }

    fn counted(all: &[(&str, u64)]) -> Vec<(String, u64)> {
        all.iter().map(|(caller, calls)| ((*caller).to_owned(), *calls)).collect()
    }

    #[test]
    fn a_caller_that_is_gone_leaves_no_series_once_it_has_been_silent() {
        let cap = SeriesCap::new(9);
        let operations = Operations::new(cap.clone());
        let names = ["a/gone", "a/here", UNKNOWN, OTHER];
        names.into_iter().for_each(|caller| call(&operations, caller));
        let begin = Instant::now();
        let look = |after| operations.forget_callers(&|caller| caller == "a/here", begin + after);
        look(Duration::ZERO);
        look(REST - Duration::from_secs(1));
        assert_eq!(callers(&operations).len(), 4, "whoever scrapes sees the last count");
        // What was under way ends.
        call(&operations, "a/gone");
        look(REST);
        look(2 * REST - Duration::from_secs(1));
        let all = [("a/gone", 2), ("a/here", 1), (OTHER, 1), (UNKNOWN, 1)];
        assert_eq!(callers(&operations), counted(&all));
        look(2 * REST);
        assert_eq!(callers(&operations), counted(&all[1..]));
        assert_eq!(cap.state().0, 3, "there is room again");
        call(&operations, "a/gone");
        assert_eq!(callers(&operations)[0], ("a/gone".to_owned(), 1), "it begins anew");
        look(4 * REST);
        look(5 * REST);
        assert_eq!(callers(&operations), counted(&all[1..]));
        assert!(locked(&operations.leaving).is_empty(), "nothing is kept of it");
    }

    #[test]
    fn no_call_is_lost_that_ends_while_series_go() {
        const THREADS: usize = 3;
        const CALLS: u64 = 20_000;
        workers::place::expect(THREADS);
        let operations = Operations::new(SeriesCap::new(9));
        let running = AtomicUsize::new(THREADS);
        let mut gone = Vec::new();
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let (operations, running) = (&operations, &running);
                scope.spawn(move || {
                    workers::place::take(number, false);
                    (0..CALLS).for_each(|_| call(operations, "a/gone"));
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }
            let mut now = Instant::now();
            while running.load(Ordering::Relaxed) > 0 || gone.is_empty() {
                now += REST;
                gone.extend(operations.forget_callers(&|_| false, now));
            }
        });
        let left = callers(&operations).into_iter().map(|(_, calls)| calls);
        let all = gone.iter().map(|(_, calls)| *calls).chain(left).sum::<u64>();
        assert_eq!(all, THREADS as u64 * CALLS);
    }

    #[test]
    fn a_caller_that_comes_back_keeps_its_series() {
        let operations = Operations::new(SeriesCap::new(9));
        call(&operations, "a/b");
        let begin = Instant::now();
        operations.forget_callers(&|_| false, begin);
        operations.forget_callers(&|_| true, begin + REST);
        operations.forget_callers(&|_| false, begin + 2 * REST);
        assert_eq!(callers(&operations), counted(&[("a/b", 1)]), "its time begins anew");
        operations.forget_callers(&|_| false, begin + 3 * REST);
        assert_eq!(callers(&operations), []);
    }
}
