//! The limits of an answer whose client does not read.
//!
//! hyper polls a body only while there is room for its bytes, so the clock inside it stands still once
//! the client stops reading. Where a route has an idle or a total limit, which none has by default, a
//! task of its own watches beside the body and ends the task that carries the exchange: the connection in
//! HTTP/1, the stream in HTTP/2. Knows no bytes; `proxy/stream.rs` reports to it, `listener` says what
//! carries an exchange.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::proxy::reply::timeouts::{ClockLimits, Due};

/// How much later than the limit: a body that can still be polled ends itself, and passes on what came
/// before.
const GRACE: Duration = Duration::from_secs(1);

/// The task that an exchange lives in, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Carrier(Arc<OnceLock<AbortHandle>>);

/// Watches one body until dropped.
#[derive(Debug)]
pub struct Backstop {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    born: Instant,
    /// Milliseconds since `born` of the last bytes from upstream.
    passed: AtomicU64,
    /// What came first: something was due, or (`None`) the body's own end.
    end: OnceLock<Option<Due>>,
}

// === impl Carrier ===

impl Carrier {
    /// Says what it is; once.
    pub fn is(&self, task: AbortHandle) {
        let _said_already = self.0.set(task);
    }

    fn cut(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

// === impl Backstop ===

impl Backstop {
    /// Begins to watch; `None` if no limit holds.
    #[must_use]
    pub fn start(limits: ClockLimits, carrier: &Carrier) -> Option<Self> {
        if limits.idle.is_none() && limits.total.is_none() {
            return None;
        }
        let (passed, end) = (AtomicU64::new(0), OnceLock::new());
        let shared = Arc::new(Shared { born: Instant::now(), passed, end });
        let watch = watch(Arc::clone(&shared), limits, carrier.clone());
        Some(Self { shared, task: tokio::spawn(watch).abort_handle() })
    }

    /// Bytes came from upstream.
    pub fn passed(&self) {
        let age = Instant::now().saturating_duration_since(self.shared.born).as_millis();
        self.shared.passed.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why it has ended the exchange, if it has.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        self.shared.end.get().copied().flatten()
    }
}

impl Drop for Backstop {
    fn drop(&mut self) {
        // From here on the carrier may carry another exchange, which must not be cut.
        let _due_before = self.shared.end.set(None);
        self.task.abort();
    }
}

async fn watch(shared: Arc<Shared>, limits: ClockLimits, carrier: Carrier) {
    loop {
        let passed = shared.born + Duration::from_millis(shared.passed.load(Ordering::Relaxed));
        let idle = limits.idle.map(|limit| (passed + limit, Due::Idle));
        let total = limits.total.map(|end| (end, Due::Total));
        let Some((at, due)) = [idle, total].into_iter().flatten().min_by_key(|(at, _)| *at) else {
            return;
        };
        if at + GRACE > Instant::now() {
            tokio::time::sleep_until(at + GRACE).await;
            continue;
        }
        if shared.end.set(Some(due)).is_ok() {
            carrier.cut();
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn carrier() -> (Carrier, tokio::task::JoinHandle<()>) {
        let (carrier, task) = (Carrier::default(), tokio::spawn(std::future::pending()));
        carrier.is(task.abort_handle());
        (carrier, task)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_first_ends_the_carrier_and_bytes_put_only_idleness_off() {
        for (passes, due, at) in [(1, Due::Idle, 51), (4, Due::Total, 101)] {
            let start = Instant::now();
            let total = Some(start + 100 * SECOND);
            let limits = ClockLimits { keep_alive: None, idle: Some(30 * SECOND), total };
            let (carrier, task) = carrier();
            let backstop = Backstop::start(limits, &carrier).unwrap();
            for _ in 0..passes {
                tokio::time::sleep(20 * SECOND).await;
                backstop.passed();
            }
            assert!(!task.is_finished() && backstop.due().is_none());
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!((backstop.due(), Instant::now() - start), (Some(due), at * SECOND));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_ended_leaves_its_carrier_alone() {
        let limits = ClockLimits { idle: Some(SECOND), ..ClockLimits::default() };
        let (carrier, task) = carrier();
        drop(Backstop::start(limits, &carrier));
        tokio::time::sleep(10 * SECOND).await;
        assert!(!task.is_finished());
        task.abort();
    }

    #[tokio::test]
    async fn without_limits_nothing_watches() {
        let limits = ClockLimits { keep_alive: Some(SECOND), ..ClockLimits::default() };
        assert!(Backstop::start(limits, &Carrier::default()).is_none());
    }
}
