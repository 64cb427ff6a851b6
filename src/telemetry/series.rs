//! The series of each route, shown as long as somebody counts for the route, and no longer.
//!
//! Knows labels; nothing of what is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::of_route::OfRoute;
use super::operations::SeriesCap;
use super::tools::ToolNames;

/// What is counted of routes, by the routes' labels.
#[derive(Debug)]
pub(super) struct Series {
    routes: Mutex<BTreeMap<String, Weak<OfRoute>>>,
    /// The tools of each host: an Agent may declare them before the first request.
    tools: Mutex<BTreeMap<String, Arc<ToolNames>>>,
    /// Of the calls of all routes.
    pub(super) cap: SeriesCap,
}

/// The host of a route's label, which may have a prefix or a port behind it.
#[must_use]
pub fn host_of(route: &str) -> &str {
    route.split(['/', ':']).next().unwrap_or(route)
}

// === impl Series ===

impl Series {
    pub(super) fn new(cap: SeriesCap) -> Self {
        Self { routes: Mutex::default(), tools: Mutex::default(), cap }
    }

    /// What is counted of this route: by whoever counts already, or from zero. It is shown as long as
    /// somebody holds it.
    pub(super) fn of(&self, route: &str) -> Arc<OfRoute> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = routes.get(route).and_then(Weak::upgrade) {
            return counted;
        }
        let counted = Arc::new(OfRoute::new(route, self.tools(route), self.cap.clone()));
        routes.insert(route.to_owned(), Arc::downgrade(&counted));
        counted
    }

    /// The tools of the host of this route: all routes of one host share them, and they are kept.
    pub(super) fn tools(&self, route: &str) -> Arc<ToolNames> {
        let mut hosts = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(host_of(route).to_owned()).or_default())
    }

    /// Of all routes that somebody holds, in the order of their labels.
    pub(super) fn live(&self) -> Vec<Arc<OfRoute>> {
        let mut live = Vec::new();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, counted| {
            let held = counted.upgrade();
            let is_held = held.is_some();
            live.extend(held);
            is_held
        });
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_those_of_the_host_whoever_comes_first() {
        let series = Series::new(SeriesCap::new(9));
        let before = series.of("a.ns:8080");
        series.tools("a.ns").add(["add"]);
        let after = series.of("a.ns/docs");
        assert!(before.tools.has("add") && after.tools.has("add"));
        assert!(!series.of("b.ns:8080").tools.has("add"));
        assert_eq!(["a.ns:8080", "a.ns/x:y", "*@a"].map(host_of), ["a.ns", "a.ns", "*@a"]);
    }

    #[test]
    fn what_is_counted_lives_as_long_as_it_is_held() {
        let series = Series::new(SeriesCap::new(9));
        let (one, two) = (series.of("r"), series.of("r"));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(series.live().len(), 1);
        drop(one);
        assert_eq!(series.live().len(), 1);
        drop(two);
        assert_eq!(series.live().len(), 0);
        assert!(series.routes.lock().unwrap().is_empty(), "nothing is kept of it");
    }
}
