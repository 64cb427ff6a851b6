//! The series of each route, shown as long as somebody counts for the route, and no longer; and the tools of each host.
//!
//! Knows labels; nothing of what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::of_route::OfRoute;
use super::operations::SeriesCap;
use super::tools::ToolNames;

/// What is counted of routes, by the routes' labels.
#[derive(Debug)]
pub(super) struct Series {
    routes: Mutex<BTreeMap<String, Weak<OfRoute>>>,
    hosts: Mutex<Hosts>,
    /// Of the calls of all routes.
    pub(super) cap: SeriesCap,
}

/// The tools of each host: as long as somebody counts for one of its routes, or declares something of it, which may be
/// before the first request.
#[derive(Debug, Default)]
struct Hosts {
    tools: BTreeMap<String, Arc<ToolNames>>,
    /// The hosts that somebody declares something of.
    declared: BTreeMap<String, BTreeSet<String>>,
}

/// The host of a route's label, which may have a prefix or a port behind it.
#[must_use]
pub fn host_of(route: &str) -> &str {
    route.split(['/', ':']).next().unwrap_or(route)
}

// === impl Series ===

impl Series {
    pub(super) fn new(cap: SeriesCap) -> Self {
        Self { routes: Mutex::default(), hosts: Mutex::default(), cap }
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

    /// The tools of the host of this route: all routes of one host share them.
    pub(super) fn tools(&self, route: &str) -> Arc<ToolNames> {
        Arc::clone(self.hosts().tools(host_of(route)))
    }

    /// Whoever this is declares these tools of these hosts, and nothing else any more.
    pub(super) fn declare<'n, N>(&self, by: &str, said: impl IntoIterator<Item = (&'n str, N)>)
    where
        N: IntoIterator<Item = &'n str>,
    {
        let mut now = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (route, names) in said {
            now.entry(host_of(route)).or_default().extend(names);
        }
        let mut hosts = self.hosts();
        for host in hosts.declared.remove(by).unwrap_or_default() {
            if !now.contains_key(&*host) {
                hosts.tools(&host).declare(by, None::<[&str; 0]>);
            }
        }
        for (host, names) in &now {
            hosts.tools(host).declare(by, Some(names.iter().copied()));
        }
        if !now.is_empty() {
            let known = now.into_keys().map(str::to_owned).collect();
            hosts.declared.insert(by.to_owned(), known);
        }
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of all routes that somebody holds, in the order of their labels. What nobody holds is forgotten.
    pub(super) fn live(&self) -> Vec<Arc<OfRoute>> {
        let mut live = Vec::new();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, counted| {
            let held = counted.upgrade();
            let is_held = held.is_some();
            live.extend(held);
            is_held
        });
        let is_wanted =
            |tools: &Arc<ToolNames>| Arc::strong_count(tools) > 1 || tools.is_declared();
        self.hosts().tools.retain(|_, tools| is_wanted(tools));
        live
    }
}

// === impl Hosts ===

impl Hosts {
    fn tools(&mut self, host: &str) -> &Arc<ToolNames> {
        self.tools.entry(host.to_owned()).or_default()
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
    fn tools_go_with_the_last_route_of_their_host_and_with_who_declares_them() {
        let series = Series::new(SeriesCap::new(9));
        let hosts = || series.hosts().tools.keys().cloned().collect::<Vec<_>>();
        let (one, other) = (series.of("a.ns:8080"), series.of("a.ns/docs"));
        series.tools("a.ns").add(["listed"]);
        series.declare("x/y", [("a.ns", ["add"]), ("b.ns", ["sub"])]);
        series.live();
        assert_eq!(hosts(), ["a.ns", "b.ns"]);
        series.declare("x/y", [("b.ns", ["sub"])]);
        assert!(!one.tools.has("add") && one.tools.has("listed"));
        drop(one);
        series.live();
        assert_eq!(hosts(), ["a.ns", "b.ns"]);
        drop(other);
        series.live();
        assert_eq!(hosts(), ["b.ns"]);
        series.declare("x/y", [("b.ns", ["sub"]); 0]);
        for n in 0..1000 {
            drop(series.of(&format!("{n}.ns")));
        }
        series.live();
        assert!(hosts().is_empty() && series.hosts().declared.is_empty());
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
