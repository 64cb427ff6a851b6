//! The threads that carry requests.
//!
//! One thread takes the plain scheduler: what several need, to take work from each other, costs each request on
//! its way. Knows no task.

pub mod per_worker;
pub mod place;

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, available_parallelism};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Runs what is spawned on its handle.
#[derive(Debug)]
pub struct Workers {
    handle: Handle,
    runs: Runs,
}

#[derive(Debug)]
enum Runs {
    One(JoinHandle<()>, oneshot::Sender<Duration>),
    Several(Runtime),
}

// === impl Workers ===

impl Workers {
    /// So many threads, or one for each core that the program may use.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(count: Option<NonZeroUsize>) -> io::Result<Self> {
        let count = match count {
            Some(count) => count,
            None => available_parallelism()?,
        };
        place::expect(count.get());
        if count.get() == 1 {
            return Self::one();
        }
        let started = AtomicUsize::new(0);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(count.get()).thread_name("traffic").on_thread_start(move || {
            // Whatever blocks has threads of its own, which come later, and for which there is no place.
            place::take(started.fetch_add(1, Ordering::Relaxed), true);
        });
        let runtime = builder.enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runs: Runs::Several(runtime) })
    }

    fn one() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ends) = oneshot::channel();
        let run = move || {
            place::take(0, false);
            let within = runtime.block_on(ends).unwrap_or_default();
            runtime.shutdown_timeout(within);
        };
        let thread = std::thread::Builder::new().name("traffic".to_owned()).spawn(run)?;
        Ok(Self { handle, runs: Runs::One(thread, end) })
    }

    /// Where tasks are spawned.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends all tasks, and waits at most so long for what cannot be ended.
    pub fn end(self, within: Duration) {
        match self.runs {
            Runs::Several(runtime) => runtime.shutdown_timeout(within),
            Runs::One(thread, end) => {
                // A thread that has panicked has ended, too.
                let _ended = end.send(within);
                let _ended = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dropped(std::sync::mpsc::Sender<()>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _nobody_asks_any_more = self.0.send(());
        }
    }

    #[test]
    fn tasks_run_on_threads_of_their_own_until_the_end() {
        for count in [1, 2] {
            let workers = Workers::start(NonZeroUsize::new(count)).unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            let (dropping, dropped) = std::sync::mpsc::channel();
            workers.handle().spawn(async move {
                let _dropped = Dropped(dropping);
                // The clock runs there too.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let name = std::thread::current().name().map(str::to_owned);
                tell.send((name, place::here(), place::steals())).unwrap();
                std::future::pending::<()>().await;
            });
            let (name, here, steals) = told.recv().unwrap();
            assert_eq!(name.as_deref(), Some("traffic"), "{count}");
            assert!(here < count, "{here} of {count}");
            assert_eq!(steals, count > 1, "{count}");
            workers.end(Duration::from_secs(5));
            assert_eq!(dropped.try_recv(), Ok(()), "{count}: nothing is left");
        }
    }
}
