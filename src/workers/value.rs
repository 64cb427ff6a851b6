//! A value of a header of which each worker has bytes of its own.
//!
//! Every copy of a value changes a count beside its bytes, which all workers would pass around. Knows no header.

use std::sync::OnceLock;

use http::HeaderValue;

use super::per_worker::PerWorker;

/// The value.
#[derive(Debug)]
pub struct OwnValue {
    value: HeaderValue,
    each: PerWorker<OnceLock<HeaderValue>>,
}

// === impl OwnValue ===

impl OwnValue {
    /// This value.
    #[must_use]
    pub fn new(value: HeaderValue) -> Self {
        Self { value, each: PerWorker::default() }
    }

    /// It, for a user on this thread.
    #[must_use]
    pub fn near(&self) -> HeaderValue {
        self.each.own().get_or_init(|| self.copied()).clone()
    }

    /// In bytes of its own.
    fn copied(&self) -> HeaderValue {
        let copied = HeaderValue::from_bytes(self.value.as_bytes());
        copied.unwrap_or_else(|_| self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::place;
    use super::*;

    #[test]
    fn workers_share_no_bytes_of_it_and_the_users_of_one_do() {
        place::expect(2);
        let value = OwnValue::new(HeaderValue::from_static("1.1 us"));
        let bytes = |worker| {
            place::take(worker, false);
            let near = value.near();
            place::take(usize::MAX, false);
            assert_eq!(near, "1.1 us");
            near.as_bytes().as_ptr().addr()
        };
        assert_eq!(bytes(0), bytes(0));
        assert_ne!(bytes(0), bytes(1));
    }
}
