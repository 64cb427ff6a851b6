//! A shared value whose users each worker counts for itself.
//!
//! Every copy of an `Arc` changes one number, which all processors that copy it pass around. Here each worker has
//! an `Arc` of its own around it. Knows nothing of what is shared.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, OnceLock};

use super::per_worker::PerWorker;

/// The value, for those who keep it: copies are counted together, as those of an `Arc` are.
pub struct Common<T>(Arc<Kept<T>>);

struct Kept<T> {
    value: Arc<T>,
    /// Made for the first user: of most routes and callers of a cluster there is none.
    each: LazyLock<PerWorker<OnceLock<Near<T>>>>,
}

/// The same value, as its users hold it. It may be dropped anywhere.
pub struct Near<T>(Arc<Own<T>>);

/// What a worker holds of it, once for all its users.
struct Own<T>(Arc<T>);

// === impl Common ===

impl<T> Common<T> {
    /// Shares it.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Kept { value: Arc::new(value), each: LazyLock::new(PerWorker::default) }))
    }

    /// For whoever is no worker, or needs it rarely.
    #[must_use]
    pub fn far(&self) -> &Arc<T> {
        &self.0.value
    }

    /// For a user on this thread.
    #[must_use]
    pub fn near(&self) -> Near<T> {
        let own = self.0.each.own();
        own.get_or_init(|| Near(Arc::new(Own(Arc::clone(&self.0.value))))).clone()
    }

    /// Whether that is the same value.
    #[must_use]
    pub fn is_same(&self, other: &T) -> bool {
        std::ptr::eq(&**self, other)
    }
}

impl<T> Clone for Common<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Common<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Common<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Common<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Common<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

// === impl Near ===

impl<T> Near<T> {
    /// Whether that is the same value.
    #[must_use]
    pub fn is_same(&self, other: &T) -> bool {
        std::ptr::eq(&**self, other)
    }
}

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

impl<T: fmt::Debug> fmt::Debug for Near<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_costs_the_value_itself_no_count_and_the_value_goes_with_the_last_one() {
        let common = Common::new(7);
        let value = Arc::clone(common.far());
        assert_eq!(Arc::strong_count(&value), 2);
        let users = [common.near(), common.near(), common.near()];
        assert_eq!(Arc::strong_count(&value), 3, "one for all users of this thread");
        assert_eq!((*users[2], *common), (7, 7));
        let kept = common.clone();
        assert_eq!(Arc::strong_count(&value), 3);
        assert!(common.is_same(&users[0]) && users[0].is_same(&kept));
        let other = Common::new(7);
        assert!(!other.is_same(&users[0]) && other == kept);
        drop((common, kept));
        assert_eq!(Arc::strong_count(&value), 2, "held by its users");
        drop(users);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
