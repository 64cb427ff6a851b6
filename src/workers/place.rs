//! Which worker a thread is.
//!
//! Knows no value that is kept for workers.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most workers that were ever started together.
static MOST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(usize::MAX) };
    static STEALS: Cell<bool> = const { Cell::new(false) };
}

/// So many workers are about to be started.
pub(super) fn expect(count: usize) {
    MOST.fetch_max(count, Ordering::Relaxed);
}

/// How many values are kept for workers, by what has been started yet.
pub(super) fn most() -> usize {
    MOST.load(Ordering::Relaxed)
}

/// This thread is the worker of this number; whether it runs the tasks of others too.
pub(super) fn take(number: usize, steals: bool) {
    HERE.set(number);
    STEALS.set(steals);
}

/// The number of the worker that this thread is; one that there is not, if it is none.
pub(super) fn here() -> usize {
    HERE.get()
}

/// Whether this thread is one of several workers with one reactor and one set of tasks: what one of them has
/// opened, all may use.
#[must_use]
pub fn steals() -> bool {
    STEALS.get()
}
