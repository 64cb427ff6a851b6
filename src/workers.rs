//! The threads that carry requests.
//!
//! Either each has a scheduler of its own, and tasks stay where they were spawned; or they share one, and take
//! tasks from each other, which costs each request on its way. Knows no task.

pub mod moment;
pub mod near;
pub mod per_worker;
pub mod place;
pub mod value;

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, available_parallelism};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Who runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Whichever thread has time.
    Shared,
    /// The thread whose connection it is of.
    PerCore,
}

/// Run what is spawned on their handles.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    runs: Runs,
}

#[derive(Debug)]
enum Runs {
    Each(Vec<Alone>),
    Together(Runtime),
}

/// A thread with a scheduler of its own, and how it is told to end.
#[derive(Debug)]
struct Alone(JoinHandle<()>, oneshot::Sender<Duration>);

// === impl Workers ===

impl Workers {
    /// So many threads, or one for each core that the program may use.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(count: Option<NonZeroUsize>, scheduler: Scheduler) -> io::Result<Self> {
        let count = match count {
            Some(count) => count,
            None => available_parallelism()?,
        };
        place::expect(count.get());
        if scheduler == Scheduler::Shared && count.get() > 1 {
            return Self::together(count.get());
        }
        let (mut handles, mut each) = (Vec::new(), Vec::new());
        for number in 0..count.get() {
            let (handle, alone) = Alone::start(number)?;
            handles.push(handle);
            each.push(alone);
        }
        Ok(Self { handles, runs: Runs::Each(each) })
    }

    fn together(count: usize) -> io::Result<Self> {
        let started = AtomicUsize::new(0);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(count).thread_name("traffic").on_thread_start(move || {
            // Whatever blocks has threads of its own, which come later, and for which there is no place.
            place::take(started.fetch_add(1, Ordering::Relaxed), true);
        });
        let runtime = builder.enable_all().build()?;
        Ok(Self { handles: vec![runtime.handle().clone()], runs: Runs::Together(runtime) })
    }

    /// Where tasks are spawned: one for each scheduler.
    #[must_use]
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends all tasks, and waits at most so long for what cannot be ended.
    pub fn end(self, within: Duration) {
        match self.runs {
            Runs::Together(runtime) => runtime.shutdown_timeout(within),
            Runs::Each(each) => {
                let ends = each.into_iter().map(|Alone(thread, end)| {
                    // A thread that has panicked has ended, too.
                    let _ended = end.send(within);
                    thread
                });
                // All are told before one is waited for.
                for thread in ends.collect::<Vec<_>>() {
                    let _ended = thread.join();
                }
            }
        }
    }
}

// === impl Alone ===

impl Alone {
    fn start(number: usize) -> io::Result<(Handle, Self)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ends) = oneshot::channel();
        let run = move || {
            place::take(number, false);
            let within = runtime.block_on(ends).unwrap_or_default();
            runtime.shutdown_timeout(within);
        };
        let thread = std::thread::Builder::new().name("traffic".to_owned()).spawn(run)?;
        Ok((handle, Self(thread, end)))
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
        for (count, scheduler, schedulers) in [
            (1, Scheduler::Shared, 1),
            (2, Scheduler::Shared, 1),
            (1, Scheduler::PerCore, 1),
            (3, Scheduler::PerCore, 3),
        ] {
            let workers = Workers::start(NonZeroUsize::new(count), scheduler).unwrap();
            assert_eq!(workers.handles().len(), schedulers, "{scheduler:?}");
            let (dropping, dropped) = std::sync::mpsc::channel();
            for (number, handle) in workers.handles().iter().enumerate() {
                let (tell, told) = std::sync::mpsc::channel();
                let dropping = dropping.clone();
                handle.spawn(async move {
                    let _dropped = Dropped(dropping);
                    // The clock runs there too.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let name = std::thread::current().name().map(str::to_owned);
                    tell.send((name, place::here(), place::steals())).unwrap();
                    std::future::pending::<()>().await;
                });
                let (name, here, steals) = told.recv().unwrap();
                assert_eq!(name.as_deref(), Some("traffic"), "{scheduler:?}");
                assert!(here < count, "{here} of {count}");
                assert!(here == number || steals, "{here} is not {number}");
                assert_eq!(steals, count > schedulers, "{scheduler:?}");
            }
            workers.end(Duration::from_secs(5));
            assert_eq!(dropped.try_iter().count(), schedulers, "{scheduler:?}: nothing is left");
        }
    }
}
