//! The connections of one endpoint: idle HTTP/1 senders as a stack, the warmest first, and one shared
//! HTTP/2 sender.
//!
//! One short mutex, no task, no key. Knows senders and ages; what the endpoint's habits are, it
//! learns in `upstream/reuse.rs`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use super::connect::{Http1, Http2, Sender};
use super::reuse::Reuse;

/// How often idle connections are looked at.
pub const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// What one endpoint has open and unused.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    discarded: Counter,
}

#[derive(Debug)]
struct State {
    /// Connections of an earlier one are not kept.
    epoch: u64,
    /// Oldest first.
    idle: Vec<Idle>,
    /// Another one is opened when all have as many streams as they take.
    shared: Vec<Http2>,
    reuse: Reuse,
}

#[derive(Debug)]
struct Idle {
    http1: Http1,
    since: Instant,
}

// === impl Pool ===

impl Pool {
    /// Empty; `discarded` counts what is closed unused or found closed.
    #[must_use]
    pub fn new(reuse: Reuse, discarded: Counter) -> Self {
        let state = State { epoch: 0, idle: Vec::new(), shared: Vec::new(), reuse };
        Self { state: Mutex::new(state), discarded }
    }

    /// A connection that may be used, and its epoch; never HTTP/2 if `http1`.
    pub fn take(&self, http1: bool, now: Instant) -> Option<(Sender, u64)> {
        let mut state = self.lock();
        let epoch = state.epoch;
        if !http1 {
            state.shared.retain(|http2| !http2.sender.is_closed());
            if let Some(http2) = state.shared.iter().find(|http2| http2.has_room()) {
                return Some((Sender::Http2(http2.clone()), epoch));
            }
        }
        let limit = state.reuse.limit();
        let mut at = state.idle.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let idle = state.idle.get(at)?;
            if idle.http1.sender.is_closed() {
                state.idle.remove(at);
                self.discarded.increment(1);
            } else if now.saturating_duration_since(idle.since) >= limit {
                // Everything below it is older still; it stays to be watched.
                return None;
            } else if idle.http1.sender.is_ready() {
                return Some((Sender::Http1(state.idle.remove(at).http1), epoch));
            }
            // Not ready: its answer has ended and its task has not noticed yet. The next one.
        }
        None
    }

    /// For [`Pool::put`] and [`Pool::share`]: when a connection was taken or its dial began.
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn put(&self, http1: Http1, epoch: u64, now: Instant) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.idle.push(Idle { http1, since: now });
        }
    }

    /// Shares an HTTP/2 connection.
    pub fn share(&self, http2: &Http2, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.shared.push(http2.clone());
        }
    }

    /// Lets go of every connection there is; what they carry at the moment goes on.
    pub fn renew(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        self.discarded.increment(state.idle.len() as u64);
        state.idle.clear();
        state.shared.clear();
    }

    /// The backend announced for how long it keeps idle connections.
    pub fn announced(&self, timeout: Duration) {
        self.lock().reuse.announced(timeout);
    }

    /// Looks at what is idle: learns from it, and closes what is of no use any more.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.lock();
        let State { idle, shared, reuse, .. } = &mut *state;
        let mut watched = false;
        // The oldest of those that are too old to be used stays to be watched, no more.
        idle.retain(|idle| {
            let age = now.saturating_duration_since(idle.since);
            if idle.http1.sender.is_closed() {
                reuse.seen_closed(age, SWEEP_EVERY);
                self.discarded.increment(1);
                return false;
            }
            reuse.seen_open(age);
            let old = age >= reuse.limit();
            let keep = !old || (age < reuse.keep() && !std::mem::replace(&mut watched, true));
            if !keep {
                self.discarded.increment(1);
            }
            keep
        });
        shared.retain(|http2| !http2.sender.is_closed());
    }

    /// For how long idle connections are used at the moment.
    #[must_use]
    pub fn reuse_limit(&self) -> Duration {
        self.lock().reuse.limit()
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
