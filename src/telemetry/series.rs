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
    /// The tools that somebody has declared, by the routes' labels: known before the route's first request.
    declared: Mutex<BTreeMap<String, Arc<ToolNames>>>,
    /// Of the calls of all routes.
    pub(super) cap: SeriesCap,
}

// === impl Series ===

impl Series {
    pub(super) fn new(cap: SeriesCap) -> Self {
        Self { routes: Mutex::default(), declared: Mutex::default(), cap }
    }

    /// What is counted of this route: by whoever counts already, or from zero. It is shown as long as
    /// somebody holds it.
    pub(super) fn of(&self, route: &str) -> Arc<OfRoute> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = routes.get(route).and_then(Weak::upgrade) {
            return counted;
        }
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let tools = declared.get(route).cloned().unwrap_or_default();
        let counted = Arc::new(OfRoute::new(route, tools, self.cap.clone()));
        routes.insert(route.to_owned(), Arc::downgrade(&counted));
        counted
    }

    /// The declared tools of this route, which are kept.
    pub(super) fn tools(&self, route: &str) -> Arc<ToolNames> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = || routes.get(route).and_then(Weak::upgrade).map(|of| Arc::clone(&of.tools));
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        match declared.get(route) {
            Some(tools) => Arc::clone(tools),
            None => {
                let tools = known().unwrap_or_default();
                declared.insert(route.to_owned(), Arc::clone(&tools));
                tools
            }
        }
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
