//! What silence and age do to a body: comments, the idle limit, the total limit.
//!
//! One lazy timer: a frame only stores the time, and the timer, when it fires, compares and sleeps
//! again. Knows no bytes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::Limits;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The client has heard nothing for the keep-alive time.
    Comment,
    /// Upstream has said nothing for the idle limit.
    Idle,
    /// The record has reached its total limit.
    Total,
}

/// The limits of one body; `None` is without.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyTimeouts {
    /// Silence toward the client after which a comment is due.
    pub keep_alive: Option<Duration>,
    /// Silence of upstream.
    pub idle: Option<Duration>,
    /// When the record must be over.
    pub total: Option<Instant>,
}

/// A running timer.
#[derive(Debug)]
pub struct BodyTimer {
    limits: BodyTimeouts,
    sleep: Pin<Box<Sleep>>,
    upstream: Instant,
    client: Instant,
}

// === impl BodyTimeouts ===

impl BodyTimeouts {
    /// The limits of a kind of call for an record that arrived at `started`; no comments.
    #[must_use]
    pub fn of(limits: &Limits, started: Instant) -> Self {
        let total = limits.total.map(|total| started + total);
        Self { keep_alive: None, idle: limits.idle, total }
    }
}

// === impl BodyTimer ===

impl BodyTimer {
    /// A timer that starts now; `None` if nothing can ever be due.
    #[must_use]
    pub fn start(limits: BodyTimeouts) -> Option<Self> {
        if limits.keep_alive.is_none() && limits.idle.is_none() && limits.total.is_none() {
            return None;
        }
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
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, may_comment: bool) -> Poll<Expired> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.limits.total.is_some_and(|end| end <= now) {
                return Poll::Ready(Expired::Total);
            }
            if self.limits.idle.is_some_and(|limit| self.upstream + limit <= now) {
                return Poll::Ready(Expired::Idle);
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
                return Poll::Ready(Expired::Comment);
            }
        }
    }
}

/// When something may be due at the earliest.
fn next(limits: &BodyTimeouts, upstream: Instant, client: Instant) -> Option<Instant> {
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
            BodyTimeouts { keep_alive: Some(30 * SECOND), idle: Some(70 * SECOND), total: None };
        let start = Instant::now();
        let mut timer = BodyTimer::start(limits).unwrap();
        for (due, at) in [(Expired::Comment, 30), (Expired::Comment, 60), (Expired::Idle, 70)] {
            assert_eq!(poll_fn(|cx| timer.poll_expired(cx, true)).await, due);
            assert_eq!(start + at * SECOND, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_put_everything_off_but_the_end() {
        let start = Instant::now();
        let limits = BodyTimeouts {
            keep_alive: Some(30 * SECOND),
            idle: Some(40 * SECOND),
            total: Some(start + 80 * SECOND),
        };
        let mut timer = BodyTimer::start(limits).unwrap();
        tokio::time::advance(29 * SECOND).await;
        timer.passed();
        assert_eq!(poll_fn(|cx| timer.poll_expired(cx, true)).await, Expired::Comment);
        assert_eq!(start + 59 * SECOND, Instant::now());
        timer.passed();
        assert_eq!(poll_fn(|cx| timer.poll_expired(cx, false)).await, Expired::Total);
        assert_eq!(start + 80 * SECOND, Instant::now());
    }

    #[test]
    fn without_limits_there_is_no_timer() {
        assert!(BodyTimer::start(BodyTimeouts::default()).is_none());
    }
}
