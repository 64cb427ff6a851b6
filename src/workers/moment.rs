//! What time it is for the work of one poll: whoever asks first looks at the clock, and the others hear the same.
//!
//! A look costs as much as a hundred instructions, and a response that comes whole asks five times. For durations that
//! people are told, and for how long a connection was idle: what may be off by the length of a poll. Knows no tasks.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    static MOMENT: Cell<Moment> = const { Cell::new(Moment::Outside) };
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// No poll is under way that has one.
    Outside,
    /// Nobody has asked yet.
    Unknown,
    Known(Instant),
}

/// The time, by the clock or as somebody has heard it in this poll.
#[must_use]
pub fn now() -> Instant {
    match MOMENT.get() {
        Moment::Known(moment) => moment,
        Moment::Outside => Instant::now(),
        Moment::Unknown => {
            let now = Instant::now();
            MOMENT.set(Moment::Known(now));
            now
        }
    }
}

/// The time by the clock, which the rest of this poll hears too: for what limits are reckoned from.
#[must_use]
pub fn renewed() -> Instant {
    let now = Instant::now();
    if !matches!(MOMENT.get(), Moment::Outside) {
        MOMENT.set(Moment::Known(now));
    }
    now
}

/// Until dropped, also by a panic, it is one moment on this thread.
#[derive(Debug)]
pub struct Halted(());

// === impl Halted ===

impl Halted {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        MOMENT.set(Moment::Unknown);
        Self(())
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        MOMENT.set(Moment::Outside);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_one_moment_from_the_first_question_to_the_end_of_a_poll() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = now();
        let poll = Halted::begin();
        tokio::time::advance(SECOND).await;
        assert_eq!(now() - start, SECOND, "nobody had asked before");
        tokio::time::advance(SECOND).await;
        assert_eq!(now() - start, SECOND);
        assert_eq!((renewed() - start, now() - start), (2 * SECOND, 2 * SECOND));
        tokio::time::advance(SECOND).await;
        drop(poll);
        assert_eq!((renewed() - start, now() - start), (3 * SECOND, 3 * SECOND));
        let panicked = std::panic::catch_unwind(|| {
            let _poll = Halted::begin();
            std::panic::resume_unwind(Box::new(now()));
        });
        assert!(panicked.is_err());
        tokio::time::advance(SECOND).await;
        assert_eq!(now() - start, 4 * SECOND);
    }
}
