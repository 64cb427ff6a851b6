//! The limits of an answer whose client does not read.
//!
//! hyper polls a body only while there is room for its bytes, so the timer inside it stands still once
//! the client stops reading. Where a route has an idle or a total limit, which none has by default, a
//! task of its own watches beside the body and ends the task that carries the record: the connection in
//! HTTP/1, the stream in HTTP/2. Knows no bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::timeouts::{BodyTimeouts, Expired};
use crate::proxy::request::conn::ConnTask;

/// How much later than the limit: a body that can still be polled ends itself, and passes on what came
/// before.
const GRACE: Duration = Duration::from_secs(1);

/// Watches one body until dropped.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<WatchdogState>,
    task: AbortHandle,
}

#[derive(Debug)]
struct WatchdogState {
    born: Instant,
    /// Milliseconds since `born` of the last bytes from upstream.
    passed: AtomicU64,
    /// What came first: something was due, or (`None`) the body's own end.
    end: OnceLock<Option<Expired>>,
}

// === impl Watchdog ===

impl Watchdog {
    /// Begins to watch; `None` if no limit holds.
    #[must_use]
    pub fn start(limits: BodyTimeouts, carrier: &ConnTask) -> Option<Self> {
        if limits.idle.is_none() && limits.total.is_none() {
            return None;
        }
        let (passed, end) = (AtomicU64::new(0), OnceLock::new());
        let shared = Arc::new(WatchdogState { born: Instant::now(), passed, end });
        let watch = watch(Arc::clone(&shared), limits, carrier.clone());
        Some(Self { shared, task: tokio::spawn(watch).abort_handle() })
    }

    /// Bytes came from upstream.
    pub fn passed(&self) {
        let age = Instant::now().saturating_duration_since(self.shared.born).as_millis();
        self.shared.passed.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why it has ended the record, if it has.
    #[must_use]
    pub fn due(&self) -> Option<Expired> {
        self.shared.end.get().copied().flatten()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // From here on the carrier may carry another record, which must not be cut.
        let _due_before = self.shared.end.set(None);
        self.task.abort();
    }
}

async fn watch(shared: Arc<WatchdogState>, limits: BodyTimeouts, carrier: ConnTask) {
    loop {
        let passed = shared.born + Duration::from_millis(shared.passed.load(Ordering::Relaxed));
        let idle = limits.idle.map(|limit| (passed + limit, Expired::Idle));
        let total = limits.total.map(|end| (end, Expired::Total));
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

    fn carrier() -> (ConnTask, tokio::task::JoinHandle<()>) {
        let (carrier, task) = (ConnTask::default(), tokio::spawn(std::future::pending()));
        carrier.set(task.abort_handle());
        (carrier, task)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_first_ends_the_carrier_and_bytes_put_only_idleness_off() {
        for (passes, due, at) in [(1, Expired::Idle, 51), (4, Expired::Total, 101)] {
            let start = Instant::now();
            let total = Some(start + 100 * SECOND);
            let limits = BodyTimeouts { keep_alive: None, idle: Some(30 * SECOND), total };
            let (carrier, task) = carrier();
            let watchdog = Watchdog::start(limits, &carrier).unwrap();
            for _ in 0..passes {
                tokio::time::sleep(20 * SECOND).await;
                watchdog.passed();
            }
            assert!(!task.is_finished() && watchdog.due().is_none());
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!((watchdog.due(), Instant::now() - start), (Some(due), at * SECOND));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_ended_leaves_its_carrier_alone() {
        let limits = BodyTimeouts { idle: Some(SECOND), ..BodyTimeouts::default() };
        let (carrier, task) = carrier();
        drop(Watchdog::start(limits, &carrier));
        tokio::time::sleep(10 * SECOND).await;
        assert!(!task.is_finished());
        task.abort();
    }

    #[tokio::test]
    async fn without_limits_nothing_watches() {
        let limits = BodyTimeouts { keep_alive: Some(SECOND), ..BodyTimeouts::default() };
        assert!(Watchdog::start(limits, &ConnTask::default()).is_none());
    }
}
