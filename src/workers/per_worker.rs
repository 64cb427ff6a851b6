//! One value for each worker, so that workers do not wait for each other's cache lines.
//!
//! A value is shared memory all the same: a task may move between workers, and whoever reads visits all. Knows
//! nothing of what is kept.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use super::place;

/// A value for each worker, and one for all other threads. Each is made when it is first asked for.
#[derive(Debug)]
pub struct PerWorker<T> {
    others: Slot<T>,
    workers: Box<[Slot<T>]>,
}

/// What is read by all stands here, and what one worker changes behind it.
type Slot<T> = OnceLock<Box<Padded<T>>>;

/// Alone on its cache lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A number that every worker changes in a place of its own. What one has added another may take away.
#[derive(Debug, Default)]
pub struct Tally(PerWorker<AtomicI64>);

// === impl PerWorker ===

impl<T> Default for PerWorker<T> {
    /// For the workers that have been started, or are about to be; later ones share the value of the others.
    fn default() -> Self {
        let workers = std::iter::repeat_with(OnceLock::new).take(place::most()).collect();
        Self { others: OnceLock::new(), workers }
    }
}

impl<T: Default> PerWorker<T> {
    /// That of this thread.
    pub fn own(&self) -> &T {
        let slot = self.workers.get(place::here()).unwrap_or(&self.others);
        &slot.get_or_init(Box::default).0
    }

    /// The one that belongs to no worker.
    pub fn common(&self) -> &T {
        &self.others.get_or_init(Box::default).0
    }
}

impl<T> PerWorker<T> {
    /// All that have been made.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let slots = std::iter::once(&self.others).chain(&self.workers);
        slots.filter_map(OnceLock::get).map(|slot| &slot.deref().0)
    }

    /// How many workers have one of their own.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }
}

// === impl Tally ===

impl Tally {
    /// So many more.
    pub fn add(&self, more: i64) {
        self.0.own().fetch_add(more, Ordering::Relaxed);
    }

    /// All together. While others change it, it may miss some of what they do; it is never below zero.
    #[must_use]
    pub fn total(&self) -> u64 {
        let all = self.0.iter().map(|one| one.load(Ordering::Relaxed)).sum::<i64>();
        u64::try_from(all).unwrap_or(0)
    }

    /// All together, which are not counted any more. What is added meanwhile is counted now or next time.
    pub fn take(&self) -> u64 {
        let all = self.0.iter().map(|one| one.swap(0, Ordering::Relaxed)).sum::<i64>();
        u64::try_from(all).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;

    /// Runs on a thread that is the worker of this number.
    fn as_worker<R: Send>(number: usize, run: impl FnOnce() -> R + Send) -> R {
        let run = move || {
            place::take(number, false);
            run()
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    #[test]
    fn each_worker_has_its_own_and_all_other_threads_share_one() {
        place::expect(2);
        let all = PerWorker::<Cell<u32>>::default();
        assert_eq!(all.iter().count(), 0, "none is made before it is asked for");
        let address = |one: &Cell<u32>| std::ptr::from_ref(one).addr();
        let own = |number| {
            place::take(number, false);
            let found = address(all.own());
            place::take(usize::MAX, false);
            found
        };
        let (first, second) = (own(0), own(1));
        assert_ne!(first, second);
        assert_eq!(own(0), first);
        assert_eq!(own(usize::MAX), address(all.common()));
        assert_eq!(own(1_000_000), address(all.common()), "a worker that was not expected");
        assert_eq!(all.iter().count(), 3);
        assert!(first.abs_diff(second) >= 128, "they share a cache line");
    }

    #[test]
    fn a_tally_is_what_all_have_added_and_taken_away() {
        place::expect(2);
        let tally = Tally::default();
        tally.add(1);
        as_worker(0, || tally.add(5));
        as_worker(1, || tally.add(-2));
        assert_eq!(tally.total(), 4);
        as_worker(1, || tally.add(-9));
        assert_eq!(tally.total(), 0, "never below zero");
        as_worker(0, || tally.add(6));
        assert_eq!(tally.take(), 1);
        assert_eq!((tally.take(), tally.total()), (0, 0));
    }

    #[test]
    fn nothing_is_lost_when_many_threads_share_a_place() {
        let tally = Tally::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| tally.add(1)));
            }
        });
        assert_eq!(tally.total(), 40_000);
    }
}
