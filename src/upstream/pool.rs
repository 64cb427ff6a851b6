//! The connections of one endpoint: idle HTTP/1 connections as a stack, the warmest first, and shared
//! HTTP/2 senders.
//!
//! One short mutex, no task, no key. Knows senders and ages; what the endpoint's habits are, it
//! learns in `upstream/reuse.rs`.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use super::connect::{Http2, Sender};
use super::h1::Connection;
use super::reuse::Reuse;

/// How often idle connections are looked at.
pub const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Idle HTTP/1 connections that are kept, at most. More than ever lie idle under a steady load, however
/// large; a burst leaves behind what its backend has a descriptor and its thread for.
const MAX_IDLE: usize = 1024;
/// An HTTP/2 connection beside another one is closed after this long without a stream: a burst may have
/// opened it, and the next burst may want it.
const SURPLUS_IDLE: Duration = Duration::from_secs(30);

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
    /// Another one is opened when all have as many streams as they take. The first one with room is taken,
    /// so that the others run empty.
    shared: Vec<Shared>,
    reuse: Reuse,
}

#[derive(Debug)]
struct Idle {
    http1: Box<Connection>,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    http2: Http2,
    /// Seen without a stream, and not taken since.
    idle: Option<Instant>,
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
            state.shared.retain(|shared| !shared.http2.sender.is_closed());
            if let Some(shared) = state.shared.iter_mut().find(|shared| shared.http2.has_room()) {
                return Some((shared.take(), epoch));
            }
        }
        let limit = state.reuse.limit();
        let mut at = state.idle.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let idle = state.idle.get_mut(at)?;
            if !idle.http1.is_open() {
                state.idle.remove(at);
                self.discarded.increment(1);
            } else if now.saturating_duration_since(idle.since) >= limit {
                // Everything below it is older still; it stays to be watched.
                return None;
            } else {
                return Some((Sender::Http1(state.idle.remove(at).http1), epoch));
            }
        }
        None
    }

    /// This HTTP/2 connection, if it may be used and has room.
    pub fn take_shared(&self, id: &Weak<AtomicUsize>) -> Option<(Sender, u64)> {
        let mut state = self.lock();
        let epoch = state.epoch;
        let shared = state.shared.iter_mut().find(|shared| shared.http2.is(id))?;
        let open = shared.http2.has_room() && !shared.http2.sender.is_closed();
        open.then(|| (shared.take(), epoch))
    }

    /// For [`Pool::put`] and [`Pool::share`]: when a connection was taken or its dial began.
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn put(&self, http1: Box<Connection>, epoch: u64, now: Instant) {
        let mut state = self.lock();
        if state.epoch != epoch {
            return;
        }
        if state.idle.len() < MAX_IDLE {
            state.idle.push(Idle { http1, since: now });
        } else {
            self.discarded.increment(1);
        }
    }

    /// Shares an HTTP/2 connection.
    pub fn share(&self, http2: &Http2, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.shared.push(Shared { http2: http2.clone(), idle: None });
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
        idle.retain_mut(|idle| {
            let age = now.saturating_duration_since(idle.since);
            if !idle.http1.is_open() {
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
        let mut first = true;
        shared.retain_mut(|shared| {
            if shared.http2.sender.is_closed() {
                return false;
            }
            let surplus = shared.idle_for(now) >= SURPLUS_IDLE && !first;
            first = false;
            if surplus {
                self.discarded.increment(1);
            }
            !surplus
        });
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

// === impl Shared ===

impl Shared {
    fn take(&mut self) -> Sender {
        self.idle = None;
        Sender::Http2(self.http2.clone())
    }

    /// For how long it has been seen without a stream.
    fn idle_for(&mut self, now: Instant) -> Duration {
        if self.http2.streams() > 0 {
            self.idle = None;
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.idle.get_or_insert(now))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use tokio::net::TcpStream;

    use super::*;
    use crate::socket::Tcp;
    use crate::upstream::connect::{speak_http1, speak_http2};
    use crate::upstream::faults::HeadLimits;
    use crate::upstream::h1::io::Io;

    const S: Duration = Duration::from_secs(1);

    fn pool() -> Pool {
        Pool::new(Reuse::new(4 * S, 55 * S), Counter::noop())
    }

    async fn connection(http2: bool) -> Sender {
        let heads = HeadLimits { bytes: 1 << 16, fields: 100 };
        if !http2 {
            let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let (ours, theirs) = tokio::join!(TcpStream::connect(address), server.accept());
            // Held open.
            tokio::spawn(async move {
                let _theirs = theirs;
                std::future::pending::<()>().await;
            });
            return speak_http1(Io::Plain(Tcp::new(ours.unwrap()).unwrap()), heads);
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(theirs), service),
            );
        }
        speak_http2(ours, ([127, 0, 0, 1], 1).into(), heads).await.map(Sender::Http2).unwrap()
    }

    async fn shared(pool: &Pool) -> Http2 {
        let Sender::Http2(http2) = connection(true).await else { panic!("no HTTP/2") };
        pool.share(&http2, 0);
        http2
    }

    #[tokio::test]
    async fn an_http2_connection_beside_another_ends_after_a_while_without_a_stream() {
        let (pool, start) = (pool(), Instant::now());
        drop((shared(&pool).await, shared(&pool).await));
        let stream = shared(&pool).await;
        let count = || pool.lock().shared.len();
        pool.sweep(start);
        assert_eq!(count(), 3);
        pool.sweep(start + SURPLUS_IDLE - S);
        assert_eq!(count(), 3, "not yet");
        pool.sweep(start + SURPLUS_IDLE);
        assert_eq!(count(), 2, "the first one, and the one with a stream");
        pool.sweep(start + 100 * SURPLUS_IDLE);
        assert_eq!(count(), 2, "a stream is never cut");
        drop(stream);
        let ended = start + 200 * SURPLUS_IDLE;
        pool.sweep(ended);
        assert_eq!(count(), 2, "its time without a stream begins now");
        pool.sweep(ended + SURPLUS_IDLE);
        assert_eq!(count(), 1, "the first one stays");
        assert!(pool.take(false, ended).is_some());
    }

    #[tokio::test]
    async fn streams_go_to_the_first_connection_with_room_so_that_the_others_run_empty() {
        let pool = pool();
        let first = shared(&pool).await.id();
        let second = shared(&pool).await.id();
        let taken = pool.take(false, Instant::now()).unwrap().0;
        assert!(matches!(&taken, Sender::Http2(http2) if http2.is(&first)));
        let (asked_for, _) = pool.take_shared(&second).unwrap();
        assert!(matches!(&asked_for, Sender::Http2(http2) if http2.is(&second)));
    }

    #[tokio::test]
    async fn no_more_idle_connections_are_kept_than_anyone_needs() {
        let (pool, now) = (pool(), Instant::now());
        for _ in 0..MAX_IDLE + 3 {
            let Sender::Http1(http1) = connection(false).await else { panic!("no HTTP/1") };
            pool.put(http1, 0, now);
        }
        assert_eq!(pool.lock().idle.len(), MAX_IDLE);
    }
}
