//! Background tasks that outlive their faults.
//!
//! A task that panics is logged, counted and started again, after a pause that keeps a fault which repeats from
//! filling the log. Knows no task; what a panic says and where it was is for the panic hook.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

use crate::telemetry::metrics::Metrics;

/// Between a panic and the next start.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what `start` makes until it ends by itself; `task` is its name in the log and in the metric.
pub async fn keep_running<F>(task: &'static str, metrics: Metrics, mut start: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    let failed = metrics.background_failed(task);
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        failed.increment(1);
        tracing::error!(task, "a background task has panicked, starting it again");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again_until_it_ends_by_itself() {
        let metrics = Metrics::new();
        let mut starts = 0;
        keep_running("test", metrics.clone(), || {
            starts += 1;
            let fails = starts < 4;
            async move { assert!(!fails, "a test's") }
        })
        .await;
        assert_eq!(starts, 4);
        let text = metrics.render();
        let line = "kagent_proxy_background_tasks_failed_total{task=\"test\"} 3\n";
        assert!(text.contains(line), "{text}");
    }
}
