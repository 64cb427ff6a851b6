//! The series of each route, shown as long as somebody counts for the route, and no longer.
//!
//! Knows labels; nothing of what is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::of_route::OfRoute;

/// What is counted of routes, by the routes' labels.
#[derive(Debug, Default)]
pub(super) struct Series(Mutex<BTreeMap<String, Weak<OfRoute>>>);

// === impl Series ===

impl Series {
    /// What is counted of this route: by whoever counts already, or from zero. It is shown as long as
    /// somebody holds it.
    pub(super) fn of(&self, route: &str) -> Arc<OfRoute> {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = routes.get(route).and_then(Weak::upgrade) {
            return counted;
        }
        let counted = Arc::new(OfRoute::new(route));
        routes.insert(route.to_owned(), Arc::downgrade(&counted));
        counted
    }

    /// Of all routes that somebody holds, in the order of their labels.
    pub(super) fn live(&self) -> Vec<Arc<OfRoute>> {
        let mut live = Vec::new();
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let series = Series::default();
        let (one, two) = (series.of("r"), series.of("r"));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(series.live().len(), 1);
        drop(one);
        assert_eq!(series.live().len(), 1);
        drop(two);
        assert_eq!(series.live().len(), 0);
        assert!(series.0.lock().unwrap().is_empty(), "nothing is kept of it");
    }
}
