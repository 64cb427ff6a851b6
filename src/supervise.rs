//! Background tasks that outlive their faults.
//!
//! A task that panics is logged, counted and started again, after a pause that grows with a fault which repeats:
//! it fills neither the log nor its time. Knows no task; what a panic says and where it was is for the panic hook.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::backoff::Pauses;
use crate::telemetry::metrics::Metrics;

/// Between a panic and the next start: what a task has to do anew, such as lists of the whole cluster, others pay too.
const PAUSES: Pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(30));
/// A task that has run for so long begins with the shortest pause again.
const HEALTHY: Duration = Duration::from_secs(60);

/// Runs what `start` makes until it ends by itself; `task` is its name in the log and in the metric.
pub async fn keep_running<F>(task: &'static str, metrics: Metrics, mut start: impl FnMut() -> F)
where
    F: Future<Output = ()>,
{
    let failed = metrics.background_failed(task);
    let mut pauses = PAUSES;
    loop {
        let began = Instant::now();
        if AssertUnwindSafe(start()).catch_unwind().await.is_ok() {
            return;
        }
        if Instant::now().saturating_duration_since(began) >= HEALTHY {
            pauses = PAUSES;
        }
        failed.increment(1);
        let pause = pauses.take();
        tracing::error!(task, ?pause, "a background task has panicked, starting it again");
        tokio::time::sleep(pause).await;
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

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_with_a_fault_that_repeats_and_is_short_after_a_time_without_one() {
        let began = Instant::now();
        let mut starts = Vec::new();
        keep_running("test", Metrics::new(), || {
            starts.push(Instant::now().saturating_duration_since(began).as_secs());
            let number = starts.len();
            async move {
                if number == 3 {
                    tokio::time::sleep(HEALTHY).await;
                }
                assert!(number == 5, "a test's");
            }
        })
        .await;
        assert_eq!(starts, [0, 1, 3, 64, 66]);
    }
}
