//! What a connection is doing: heads, open requests, silence.
//!
//! Tells a slow head and a forgotten connection from a stream that is merely silent. Knows no bytes
//! and no sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often an idle connection is looked at within its idle limit, which it may overstay by one look.
const LOOKS: u32 = 8;

/// A head that has begun in this very poll of the connection: nearly every one is whole by its end, and nobody
/// has looked at the clock.
const BEGUN: u64 = u64::MAX;

/// What a connection is doing.
pub(super) struct Activity {
    born: Instant,
    /// Requests whose answer has not ended: their reads are bodies, not heads.
    open: Arc<AtomicUsize>,
    /// Milliseconds since `born`, plus one, of a head's first byte; zero outside heads, [`BEGUN`] while the
    /// connection works on it.
    head: AtomicU64,
    /// Heads that came whole: a request may begin and end between two looks.
    requests: AtomicU64,
    /// Everything that was said in response to requests has left, in HTTP/1.
    settled: AtomicBool,
    /// A head that could not be read got a response of ours, in HTTP/1.
    refused: AtomicBool,
    /// A response has made something else of the connection, in HTTP/1.
    switched: AtomicBool,
}

// === impl Activity ===

impl Activity {
    /// Of a new connection, on which `open` counts the requests under way.
    pub(super) fn new(open: Arc<AtomicUsize>) -> Self {
        Self {
            born: Instant::now(),
            open,
            head: AtomicU64::new(1),
            requests: AtomicU64::new(0),
            settled: AtomicBool::new(true),
            refused: AtomicBool::new(false),
            switched: AtomicBool::new(false),
        }
    }

    /// A head is complete; another one may have begun behind it in HTTP/2.
    pub(super) fn on_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.settled.store(false, Ordering::Relaxed);
    }

    /// Every response has ended, and every byte of them has gone to the kernel. What a client still sends of a request
    /// is no reason to write.
    pub(super) fn settle(&self) {
        if !self.settled.load(Ordering::Relaxed) {
            self.settled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether no response is under way, and none waits for the kernel: what is written now belongs to no
    /// request that the proxy has seen.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// A response of ours goes out for a head that could not be read.
    pub(super) fn on_refusal(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether one has.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The connection becomes something else once its request has come to its end.
    pub(super) fn on_switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// Whether it does: it ends by itself then.
    pub(super) fn has_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        let age = Instant::now().saturating_duration_since(self.born);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes came of which it is known whether they leave a head unfinished.
    pub(super) fn on_head(&self, inside: bool) {
        let since = self.head.load(Ordering::Relaxed);
        if inside && since == 0 {
            self.head.store(self.now() + 1, Ordering::Relaxed);
        } else if !inside && since != 0 {
            self.head.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes came: in HTTP/1, with no request open, those of a head.
    pub(super) fn on_read(&self) {
        if self.open.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(BEGUN, Ordering::Relaxed);
        }
    }

    /// The connection waits for more: for the rest of a head that has begun.
    pub(super) fn on_wait(&self) {
        if self.head.load(Ordering::Relaxed) == BEGUN {
            self.head.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// Ends if no head has come whole within `limit`; never once one has.
    pub(super) async fn without_request(&self, limit: Duration) {
        tokio::time::sleep_until(self.born + limit).await;
        if self.requests.load(Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
    }

    /// Ends when a head took too long, or when no request has been open for `idle` (zero is without
    /// limit): never early, and late by at most the time between two looks.
    pub(super) fn overdue(&self, head: Duration, idle: Duration) -> impl Future<Output = Overdue> {
        let look = Some(idle / LOOKS).filter(|idle| !idle.is_zero());
        let look = look.map_or(head, |look| look.min(head));
        let (mut idle_since, mut requests) = (Instant::now(), 0);
        async move {
            loop {
                self.on_wait();
                let started = self.head.load(Ordering::Relaxed);
                let head_due = started
                    .checked_sub(1)
                    .map(|started| self.born + Duration::from_millis(started) + head);
                let now = Instant::now();
                if head_due.is_some_and(|due| due <= now) {
                    return Overdue::Head;
                }
                let seen = self.requests.load(Ordering::Relaxed);
                if started != 0 || seen != requests || self.open.load(Ordering::Relaxed) > 0 {
                    (idle_since, requests) = (now, seen);
                } else if !idle.is_zero() && idle_since + idle <= now {
                    return Overdue::Idle;
                }
                let next = head_due.unwrap_or(now + look).min(now + look);
                tokio::time::sleep_until(next).await;
            }
        }
    }
}

/// Why a connection is closed although nothing went wrong.
pub(super) enum Overdue {
    /// A head did not come whole.
    Head,
    /// No request has been open for long.
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn activity() -> (Activity, Arc<AtomicUsize>) {
        let open = Arc::new(AtomicUsize::new(0));
        let activity = Activity::new(Arc::clone(&open));
        activity.on_head(false);
        (activity, open)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_between_two_looks_puts_the_idle_end_off() {
        let (activity, _) = activity();
        let busy = async {
            for _ in 0..100 {
                activity.on_request();
                tokio::time::sleep(9 * SECOND).await;
            }
            Instant::now()
        };
        let (overdue, last) = tokio::join!(
            async { (activity.overdue(10 * SECOND, 80 * SECOND).await, Instant::now()) },
            busy
        );
        assert!(matches!(overdue.0, Overdue::Idle));
        let after = overdue.1 - (last - 9 * SECOND);
        assert!((80 * SECOND..=90 * SECOND).contains(&after), "{after:?} after the last request");
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_http_2_do_not_keep_a_connection() {
        let (activity, _) = activity();
        activity.on_request();
        let pings = async {
            loop {
                tokio::time::sleep(SECOND).await;
                activity.on_head(false);
            }
        };
        let overdue =
            tokio::time::timeout(200 * SECOND, activity.overdue(10 * SECOND, 80 * SECOND));
        tokio::select! {
            overdue = overdue => assert!(matches!(overdue, Ok(Overdue::Idle))),
            () = pings => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_request_is_neither_idle_nor_a_slow_head() {
        let (activity, open) = activity();
        activity.on_request();
        open.store(1, Ordering::Relaxed);
        activity.on_read();
        let overdue = activity.overdue(10 * SECOND, 80 * SECOND);
        assert!(tokio::time::timeout(3600 * SECOND, overdue).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_deadline_from_its_first_byte() {
        let (activity, _) = activity();
        activity.on_request();
        tokio::time::advance(37 * SECOND).await;
        activity.on_read();
        activity.on_wait();
        tokio::time::advance(3 * SECOND).await;
        activity.on_read();
        activity.on_wait();
        let start = Instant::now();
        let overdue = activity.overdue(10 * SECOND, 900 * SECOND).await;
        assert!(matches!(overdue, Overdue::Head));
        assert_eq!(Instant::now() - start, 7 * SECOND);
    }
}
