//! The wake-up that a connection's task gives to itself when it takes the last bytes of a body.
//!
//! hyper wakes whoever sends a body's bytes each time its reader takes some. In HTTP/1 both are one task, and
//! behind the last bytes of a body of known length the sender is gone: the task would run once more for each
//! request, for nothing. Such a wake-up is heard here, and only such a one is left out. Knows wakers and no HTTP.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// What the wake-ups of one connection ring: its task's waker.
#[derive(Debug)]
struct Bell(Waker);

/// Whether this thread takes bytes at this moment, and whose bell was rung by that.
#[derive(Default)]
enum Taking {
    #[default]
    No,
    Silently,
    Rung(Arc<Bell>),
}

thread_local! {
    static TAKING: Cell<Taking> = const { Cell::new(Taking::No) };
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut bell = Some(self);
        // A thread that ends takes no bytes.
        let _ends = TAKING.try_with(|taking| {
            let next = match taking.take() {
                Taking::Silently => bell.take().map_or(Taking::Silently, Taking::Rung),
                other => other,
            };
            taking.set(next);
        });
        if let Some(bell) = bell {
            bell.0.wake_by_ref();
        }
    }
}

/// A connection that is driven by a waker of its own, so that `take` can hear its wake-ups. For HTTP/1
/// only: in HTTP/2 a reader also wakes its connection to tell the client that there is room again.
pub struct Driven<C> {
    /// What is driven.
    pub connection: C,
    /// The task that has polled last.
    task: Waker,
    /// Rings its bell.
    waker: Waker,
}

// === impl Driven ===

impl<C> Driven<C> {
    /// Drives this one.
    #[must_use]
    pub fn new(connection: C) -> Self {
        Self { connection, task: Waker::noop().clone(), waker: Waker::noop().clone() }
    }
}

impl<C: Future + Unpin> Future for Driven<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let Self { connection, task, waker } = &mut *self;
        if !task.will_wake(cx.waker()) {
            // Another task, or the first poll.
            task.clone_from(cx.waker());
            *waker = Waker::from(Arc::new(Bell(task.clone())));
        }
        Pin::new(connection).poll(&mut Context::from_waker(waker))
    }
}

/// Takes bytes of a body. If they are the last ones, no connection is woken by that.
pub(super) fn take<T>(take: impl FnOnce() -> T, is_last: impl FnOnce(&T) -> bool) -> T {
    let listening = Listening::begin();
    let taken = take();
    if is_last(&taken) {
        drop(TAKING.take());
    }
    drop(listening);
    taken
}

/// Until dropped, also by a panic, the first wake-up is held.
struct Listening;

// === impl Listening ===

impl Listening {
    fn begin() -> Self {
        TAKING.set(Taking::Silently);
        Self
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Taking::Rung(bell) = TAKING.take() {
            bell.0.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often a task is woken that, driven, does this with its waker.
    fn woken(mut work: impl FnMut(&Waker)) -> usize {
        let count = Arc::new(Count::default());
        let mut driven = Driven::new(poll_fn(|cx| {
            work(cx.waker());
            Poll::<()>::Pending
        }));
        let waker = Waker::from(Arc::clone(&count));
        assert!(Pin::new(&mut driven).poll(&mut Context::from_waker(&waker)).is_pending());
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn only_what_the_last_bytes_ring_is_left_out() {
        assert_eq!(woken(Waker::wake_by_ref), 1, "outside");
        assert_eq!(woken(|waker| take(|| waker.wake_by_ref(), |()| false)), 1, "more may come");
        assert_eq!(woken(|waker| take(|| waker.wake_by_ref(), |()| true)), 0, "the last ones");
        assert_eq!(woken(|_| take(|| (), |()| false)), 0, "nobody was woken");
        let behind = |waker: &Waker| {
            take(|| (), |()| true);
            waker.wake_by_ref();
        };
        assert_eq!(woken(behind), 1, "behind the last ones");
    }

    #[test]
    fn another_s_wake_up_is_not_left_out() {
        let other = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&other));
        take(|| waker.wake_by_ref(), |()| true);
        assert_eq!(other.0.load(Ordering::Relaxed), 1, "no connection's");
        let held = |first: &Waker| {
            let second = |second: &Waker| {
                take(
                    || {
                        first.wake_by_ref();
                        second.wake_by_ref();
                    },
                    |()| true,
                );
            };
            assert_eq!(woken(second), 1, "one body rings one bell");
        };
        assert_eq!(woken(held), 0);
    }

    #[test]
    fn a_panic_leaves_nothing_out() {
        let panics = |waker: &Waker| {
            let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                take(
                    || {
                        waker.wake_by_ref();
                        panic!("a test's");
                    },
                    |()| true,
                );
            }));
            assert!(taken.is_err());
        };
        assert_eq!(woken(panics), 1, "what was held");
        assert_eq!(woken(Waker::wake_by_ref), 1, "what comes afterwards");
    }

    #[test]
    fn whoever_wakes_from_another_thread_is_heard() {
        let count = Arc::new(Count::default());
        let mut seen = None;
        let mut driven = Driven::new(poll_fn(|cx| {
            seen = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let waker = Waker::from(Arc::clone(&count));
        assert!(Pin::new(&mut driven).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(driven);
        let seen = seen.unwrap();
        let elsewhere = || std::thread::scope(|scope| scope.spawn(|| seen.wake_by_ref()).join());
        take(elsewhere, |_| true).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
