//! Which worker serves a connection: the one that took it, unless that has far more than another.
//!
//! The kernel spreads connections by chance, and a stream of hours stays where it is: without this, some workers
//! would be full while others idle. Knows no connection but its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;
use tokio::runtime::Handle;

/// So many more than the least loaded worker each may have, and an eighth besides.
const APART: usize = 2;

/// The workers.
#[derive(Debug)]
pub struct Spread(Vec<Worker>);

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Worker {
    handle: Handle,
    /// Connections.
    open: AtomicUsize,
    shown: Gauge,
}

/// A connection's place at a worker, until dropped.
#[derive(Debug)]
pub struct Seat {
    spread: Arc<Spread>,
    worker: usize,
}

// === impl Spread ===

impl Spread {
    /// Nobody has a connection yet; each worker is shown by its gauge.
    #[must_use]
    pub fn new(workers: impl IntoIterator<Item = (Handle, Gauge)>) -> Self {
        let worker = |(handle, shown)| Worker { handle, open: AtomicUsize::new(0), shown };
        Self(workers.into_iter().map(worker).collect())
    }

    /// A place for a connection that this worker has taken.
    #[must_use]
    pub fn seat(self: &Arc<Self>, taken_by: usize) -> Seat {
        let open = |worker: &Worker| worker.open.load(Ordering::Relaxed);
        let own = self.0.get(taken_by).map_or(usize::MAX, open);
        let least = self.0.iter().map(open).enumerate().min_by_key(|(_, open)| *open);
        let worker = match least {
            Some((worker, least)) if own >= least + APART + least / 8 => worker,
            _ => taken_by,
        };
        if let Some(worker) = self.0.get(worker) {
            worker.open.fetch_add(1, Ordering::Relaxed);
            worker.shown.increment(1.0);
        }
        Seat { spread: Arc::clone(self), worker }
    }
}

// === impl Seat ===

impl Seat {
    /// Where the connection is served, if that is not this worker.
    #[must_use]
    pub fn elsewhere(&self, taken_by: usize) -> Option<Handle> {
        let worker = self.spread.0.get(self.worker).filter(|_| self.worker != taken_by)?;
        Some(worker.handle.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(worker) = self.spread.0.get(self.worker) {
            worker.open.fetch_sub(1, Ordering::Relaxed);
            worker.shown.decrement(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(workers: usize) -> Arc<Spread> {
        let worker = || (Handle::current(), Gauge::noop());
        Arc::new(Spread::new(std::iter::repeat_with(worker).take(workers)))
    }

    fn open(spread: &Spread) -> Vec<usize> {
        spread.0.iter().map(|worker| worker.open.load(Ordering::Relaxed)).collect()
    }

    #[tokio::test]
    async fn connections_that_all_come_to_one_worker_are_spread() {
        for workers in [1, 2, 4] {
            let spread = spread(workers);
            let seats: Vec<Seat> = (0..64).map(|_| spread.seat(0)).collect();
            let open = open(&spread);
            let (least, most) = (open.iter().min().unwrap(), open.iter().max().unwrap());
            assert!(*most <= least + APART + least / 8, "{open:?}");
            assert_eq!(open.iter().sum::<usize>(), 64);
            let moved = seats.iter().filter(|seat| seat.elsewhere(0).is_some()).count();
            assert_eq!(moved, 64 - open[0]);
        }
    }

    #[tokio::test]
    async fn a_connection_stays_with_who_took_it_where_nobody_has_far_less() {
        let spread = spread(2);
        let seats: Vec<Seat> = (0..40).map(|n| spread.seat(n % 2)).collect();
        assert!(seats.iter().enumerate().all(|(n, seat)| seat.elsewhere(n % 2).is_none()));
        drop(seats);
        assert_eq!(open(&spread), [0, 0]);
    }
}
