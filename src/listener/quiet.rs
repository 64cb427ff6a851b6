//! A future that is polled when it was woken, and not whenever its task runs.
//!
//! For what waits beside a connection as long as it lives: a timer or a signal that is looked at in every
//! poll of a busy task costs more than the little it says. Knows nothing of connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future that its task may poll at no price.
pub(super) struct Quiet<F> {
    future: F,
    /// Wakes the task that has polled last.
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    rung: AtomicBool,
    task: Waker,
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

// === impl Quiet ===

impl Bell {
    /// Rung already, so that what is polled with it is polled once in any case.
    fn of(task: &Waker) -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self { rung: AtomicBool::new(true), task: task.clone() });
        let waker = Waker::from(Arc::clone(&bell));
        (bell, waker)
    }
}

impl<F: Future + Unpin> Quiet<F> {
    /// Is polled once in any case.
    pub(super) fn new(future: F) -> Self {
        let (bell, waker) = Bell::of(Waker::noop());
        Self { future, bell, waker }
    }
}

impl<F: Future + Unpin> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell, waker } = &mut *self;
        if !bell.task.will_wake(cx.waker()) {
            // Another task, or the first poll.
            (*bell, *waker) = Bell::of(cx.waker());
        }
        // What rings from here on is seen by the next poll, for which the task is woken.
        if !bell.rung.load(Ordering::Relaxed) || !bell.rung.swap(false, Ordering::Acquire) {
            return Poll::Pending;
        }
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_woken_and_then_its_task_is_too() {
        let (polls, notify) = (AtomicUsize::new(0), Notify::new());
        let mut notified = Box::pin(notify.notified());
        let mut quiet = Quiet::new(poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            notified.as_mut().poll(cx)
        }));
        for _ in 0..100 {
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut quiet).poll(cx)));
            assert!(polled.await.is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        let (ended, ()) =
            tokio::join!(tokio::time::timeout(Duration::from_secs(5), &mut quiet), async {
                tokio::task::yield_now().await;
                notify.notify_waiters();
            });
        ended.expect("its task is woken");
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }
}
