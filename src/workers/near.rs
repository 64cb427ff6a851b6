//! A shared value whose users each worker counts for itself.
//!
//! Every copy of an `Arc` changes one number, which all processors that copy it pass around. Here each worker has
//! an `Arc` of its own around it. Knows nothing of what is shared.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::per_worker::PerWorker;

/// The value.
#[derive(Debug)]
pub struct Common<T> {
    value: Arc<T>,
    each: PerWorker<OnceLock<Near<T>>>,
}

/// The same value, as its users hold it. It may be dropped anywhere.
#[derive(Debug)]
pub struct Near<T>(Arc<Own<T>>);

/// What a worker holds of it, once for all its users.
#[derive(Debug)]
struct Own<T>(Arc<T>);

// === impl Common ===

impl<T> Common<T> {
    /// Shares it.
    #[must_use]
    pub fn new(value: Arc<T>) -> Self {
        Self { value, each: PerWorker::default() }
    }

    /// For whoever is no worker, or needs it rarely.
    #[must_use]
    pub fn far(&self) -> &Arc<T> {
        &self.value
    }

    /// For a user on this thread.
    #[must_use]
    pub fn near(&self) -> Near<T> {
        self.each.own().get_or_init(|| Near(Arc::new(Own(Arc::clone(&self.value))))).clone()
    }

    /// Whether that is the same value.
    #[must_use]
    pub fn is(&self, other: &Near<T>) -> bool {
        Arc::ptr_eq(&self.value, &other.0.0)
    }
}

impl<T> Deref for Common<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

// === impl Near ===

impl<T> Clone for Near<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Near<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_costs_the_value_itself_no_count_and_the_value_goes_with_the_last_one() {
        let value = Arc::new(7);
        let common = Common::new(Arc::clone(&value));
        assert_eq!(Arc::strong_count(&value), 2);
        let users = [common.near(), common.near(), common.near()];
        assert_eq!(Arc::strong_count(&value), 3, "one for all users of this thread");
        assert_eq!((*users[2], *common), (7, 7));
        assert!(common.is(&users[0]));
        assert!(!Common::new(Arc::new(7)).is(&users[0]));
        drop(common);
        assert_eq!(Arc::strong_count(&value), 2, "held by its users");
        drop(users);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
