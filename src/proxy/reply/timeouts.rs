//! What silence and age do to a body: comments, the idle limit, the total limit.
//!
//! One lazy timer: a frame only stores the time, and the timer, when it fires, compares and sleeps
//! again. Knows no bytes; `proxy/stream.rs` asks it while nothing comes from upstream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::Limits;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The client has heard nothing for the keep-alive time.
    Comment,
    /// Upstream has said nothing for the idle limit.
    Idle,
    /// The exchange has reached its total limit.
    Total,
}

/// The limits of one body; `None` is without.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockLimits {
    /// Silence toward the client after which a comment is due.
    pub keep_alive: Option<Duration>,
    /// Silence of upstream.
    pub idle: Option<Duration>,
    /// When the exchange must be over.
    pub total: Option<Instant>,
}

/// A running clock.
#[derive(Debug)]
pub struct Clock {
    limits: ClockLimits,
    sleep: Pin<Box<Sleep>>,
    upstream: Instant,
    client: Instant,
}

// === impl ClockLimits ===

impl ClockLimits {
    /// The limits of a kind of call for an exchange that arrived at `started`; no comments.
    #[must_use]
    pub fn of(limits: &Limits, started: Instant) -> Self {
        let total = limits.total.map(|total| started + total);
        Self { keep_alive: None, idle: limits.idle, total }
    }
}

// === impl Clock ===

impl Clock {
    /// A clock that starts now; `None` if nothing can ever be due.
    #[must_use]
    pub fn start(limits: ClockLimits) -> Option<Self> {
        let now = Instant::now();
        let next = next(&limits, now, now)?;
        Some(Self {
            limits,
            sleep: Box::pin(tokio::time::sleep_until(next)),
            upstream: now,
            client: now,
        })
    }

    /// Bytes came from upstream and go to the client.
    pub fn passed(&mut self) {
        self.upstream = Instant::now();
        self.client = self.upstream;
    }

    /// Waits for what is due next; comments only while `may_comment`.
    pub fn poll_due(&mut self, cx: &mut Context<'_>, may_comment: bool) -> Poll<Due> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.limits.total.is_some_and(|end| end <= now) {
                return Poll::Ready(Due::Total);
            }
            if self.limits.idle.is_some_and(|limit| self.upstream + limit <= now) {
                return Poll::Ready(Due::Idle);
            }
            let silent = self.limits.keep_alive.is_some_and(|limit| self.client + limit <= now);
            if silent {
                // Where no comment may stand, the place is looked at again after the same time.
                self.client = now;
            }
            if let Some(next) = next(&self.limits, self.upstream, self.client) {
                self.sleep.as_mut().reset(next);
            }
            if silent && may_comment {
                return Poll::Ready(Due::Comment);
            }
        }
    }
}

/// When something may be due at the earliest.
fn next(limits: &ClockLimits, upstream: Instant, client: Instant) -> Option<Instant> {
    let idle = limits.idle.map(|limit| upstream + limit);
    let comment = limits.keep_alive.map(|limit| client + limit);
    [idle, comment, limits.total].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_brings_a_comment_and_then_the_limit() {
        let limits =
            ClockLimits { keep_alive: Some(30 * SECOND), idle: Some(70 * SECOND), total: None };
        let start = Instant::now();
        let mut clock = Clock::start(limits).unwrap();
        for (due, at) in [(Due::Comment, 30), (Due::Comment, 60), (Due::Idle, 70)] {
            assert_eq!(poll_fn(|cx| clock.poll_due(cx, true)).await, due);
            assert_eq!(start + at * SECOND, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_put_everything_off_but_the_end() {
        let start = Instant::now();
        let limits = ClockLimits {
            keep_alive: Some(30 * SECOND),
            idle: Some(40 * SECOND),
            total: Some(start + 80 * SECOND),
        };
        let mut clock = Clock::start(limits).unwrap();
        tokio::time::advance(29 * SECOND).await;
        clock.passed();
        assert_eq!(poll_fn(|cx| clock.poll_due(cx, true)).await, Due::Comment);
        assert_eq!(start + 59 * SECOND, Instant::now());
        clock.passed();
        assert_eq!(poll_fn(|cx| clock.poll_due(cx, false)).await, Due::Total);
        assert_eq!(start + 80 * SECOND, Instant::now());
    }

    #[test]
    fn without_limits_there_is_no_clock() {
        assert!(Clock::start(ClockLimits::default()).is_none());
    }
}
