//! The connections of one endpoint: idle HTTP/1 connections as a stack, the warmest first, and shared
//! HTTP/2 senders.
//!
//! Each worker keeps those that it has used last, behind a short mutex that others rarely take; no task, no key. A
//! connection belongs to the reactor that has opened it, so workers take from each other only where they share one.
//! Knows senders and ages; what the endpoint's habits are, it learns in `upstream/reuse.rs`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use super::connect::{Http2, Sender};
use super::h1::Connection;
use super::reuse::Reuse;
use crate::workers::per_worker::PerWorker;
use crate::workers::place;

/// How often idle connections are looked at.
pub const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Idle HTTP/1 connections that are kept by all workers, at most. More than ever lie idle under a steady load, however
/// large; a burst leaves behind what its backend has a descriptor and its thread for.
const MAX_IDLE: usize = 1024;
/// What each worker may keep of them at least.
const MIN_IDLE: usize = 16;
/// An HTTP/2 connection beside another one is closed after this long without a stream: a burst may have
/// opened it, and the next burst may want it.
const SURPLUS_IDLE: Duration = Duration::from_secs(30);

/// What one endpoint has open and unused.
#[derive(Debug)]
pub struct Pool {
    each: PerWorker<Mutex<Kept>>,
    /// Connections of an earlier one are not kept.
    generation: AtomicU64,
    reuse: Mutex<Reuse>,
    /// Nanoseconds: what `reuse` says, where every request reads it.
    limit: AtomicU64,
    /// Nanoseconds: what was announced last; the most there is before anything was.
    announced: AtomicU64,
    discarded: Counter,
}

/// What one worker keeps.
#[derive(Debug, Default)]
struct Kept {
    /// That of the connections.
    generation: u64,
    /// Oldest first.
    idle: Vec<Idle>,
    /// Another one is opened when all have as many streams as they take. The first one with room is taken,
    /// so that the others run empty.
    shared: Vec<Http2Shared>,
}

#[derive(Debug)]
struct Idle {
    http1: Box<Connection>,
    since: Instant,
}

#[derive(Debug)]
struct Http2Shared {
    http2: Http2,
    /// Seen without a stream, and not taken since.
    idle: Option<Instant>,
}

// === impl Pool ===

impl Pool {
    /// Empty; `discarded` counts what is closed unused or found closed.
    #[must_use]
    pub fn new(reuse: Reuse, discarded: Counter) -> Self {
        let limit = AtomicU64::new(nanos(reuse.limit()));
        let (each, generation) = (PerWorker::default(), AtomicU64::new(0));
        Self {
            each,
            generation,
            reuse: Mutex::new(reuse),
            limit,
            announced: AtomicU64::new(u64::MAX),
            discarded,
        }
    }

    /// A connection that may be used, and its generation; never HTTP/2 if `http1`.
    pub fn take(&self, http1: bool, now: Instant) -> Option<(Sender, u64)> {
        self.first(|kept| self.take_of(kept, http1, now))
    }

    /// This HTTP/2 connection, if it may be used and has room.
    pub fn take_shared(&self, id: &Weak<AtomicUsize>) -> Option<(Sender, u64)> {
        self.first(|kept| {
            let mut kept = self.lock(kept);
            let generation = kept.generation;
            let shared = kept.shared.iter_mut().find(|shared| shared.http2.is(id))?;
            let open = shared.http2.has_room() && !shared.http2.sender.is_closed();
            open.then(|| (shared.take(), generation))
        })
    }

    /// What this worker finds with itself, or else, where they share a reactor, with another.
    fn first<T>(&self, find: impl Fn(&Mutex<Kept>) -> Option<T>) -> Option<T> {
        let found = find(self.each.own());
        if found.is_some() || !place::steals() {
            return found;
        }
        self.each.iter().find_map(find)
    }

    fn take_of(&self, kept: &Mutex<Kept>, http1: bool, now: Instant) -> Option<(Sender, u64)> {
        let limit = self.reuse_limit();
        let mut kept = self.lock(kept);
        let generation = kept.generation;
        if !http1 {
            kept.shared.retain(|shared| !shared.http2.sender.is_closed());
            if let Some(shared) = kept.shared.iter_mut().find(|shared| shared.http2.has_room()) {
                return Some((shared.take(), generation));
            }
        }
        let mut at = kept.idle.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let idle = kept.idle.get_mut(at)?;
            if !idle.http1.is_open() {
                kept.idle.remove(at);
                self.discarded.increment(1);
            } else if now.saturating_duration_since(idle.since) >= limit {
                // Everything below it is older still; it stays to be watched.
                return None;
            } else {
                return Some((Sender::Http1(kept.idle.remove(at).http1), generation));
            }
        }
        None
    }

    /// For [`Pool::put`] and [`Pool::share`]: when a connection was taken or its dial began.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn put(&self, http1: Box<Connection>, generation: u64, now: Instant) {
        let mut kept = self.lock(self.each.own());
        if kept.generation != generation {
            return;
        }
        if kept.idle.len() < self.most() {
            kept.idle.push(Idle { http1, since: now });
        } else {
            self.discarded.increment(1);
        }
    }

    /// Idle connections that each worker keeps, at most.
    fn most(&self) -> usize {
        (MAX_IDLE / self.each.workers().max(1)).max(MIN_IDLE)
    }

    /// Shares an HTTP/2 connection.
    pub fn share(&self, http2: &Http2, generation: u64) {
        let mut kept = self.lock(self.each.own());
        if kept.generation == generation {
            kept.shared.push(Http2Shared { http2: http2.clone(), idle: None });
        }
    }

    /// Lets go of every connection there is; what they carry at the moment goes on.
    pub fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.each.iter().for_each(|kept| drop(self.lock(kept)));
    }

    /// The backend announced for how long it keeps idle connections.
    pub fn announced(&self, timeout: Duration) {
        // With each response nearly always the same: no lock for that.
        if self.announced.load(Ordering::Relaxed) == nanos(timeout) {
            return;
        }
        let mut reuse = lock(&self.reuse);
        self.announced.store(nanos(timeout), Ordering::Relaxed);
        reuse.announced(timeout);
        self.limit.store(nanos(reuse.limit()), Ordering::Relaxed);
    }

    /// Looks at what is idle: learns from it, and closes what is of no use any more.
    pub fn sweep(&self, now: Instant) {
        let mut reuse = lock(&self.reuse);
        let mut watched = false;
        for kept in self.each.iter() {
            let mut kept = self.lock(kept);
            self.sweep_idle(&mut kept.idle, &mut reuse, &mut watched, now);
            self.sweep_shared(&mut kept.shared, now);
        }
        self.limit.store(nanos(reuse.limit()), Ordering::Relaxed);
    }

    fn sweep_idle(
        &self,
        idle: &mut Vec<Idle>,
        reuse: &mut Reuse,
        watched: &mut bool,
        now: Instant,
    ) {
        // One of those that are too old to be used stays to be watched, the oldest of its worker, and no more.
        idle.retain_mut(|idle| {
            let age = now.saturating_duration_since(idle.since);
            if !idle.http1.is_open() {
                reuse.seen_closed(age, SWEEP_EVERY);
                self.discarded.increment(1);
                return false;
            }
            reuse.seen_open(age);
            let old = age >= reuse.limit();
            let keep = !old || (age < reuse.keep() && !std::mem::replace(watched, true));
            if !keep {
                self.discarded.increment(1);
            }
            keep
        });
    }

    fn sweep_shared(&self, shared: &mut Vec<Http2Shared>, now: Instant) {
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
        Duration::from_nanos(self.limit.load(Ordering::Relaxed))
    }

    /// What a worker keeps, without what is of an earlier generation: whoever looks first lets go of that.
    fn lock<'a>(&self, kept: &'a Mutex<Kept>) -> MutexGuard<'a, Kept> {
        let mut kept = lock(kept);
        let generation = self.generation();
        if kept.generation != generation {
            self.discarded.increment(kept.idle.len() as u64);
            *kept = Kept { generation, ..Kept::default() };
        }
        kept
    }
}

/// A poisoned lock only means that another thread panicked between two plain stores.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Http2Shared ===

impl Http2Shared {
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

    impl Pool {
        fn kept(&self, look: impl Fn(&Kept) -> usize) -> usize {
            self.each.iter().map(|kept| look(&self.lock(kept))).sum()
        }
    }

    /// Runs this as another thread would that is the worker of this number.
    fn as_worker<R>(number: usize, steals: bool, run: impl FnOnce() -> R) -> R {
        place::take(number, steals);
        let result = run();
        place::take(usize::MAX, false);
        result
    }

    async fn http1() -> Box<Connection> {
        match connection(false).await {
            Sender::Http1(http1) => http1,
            Sender::Http2(_) => panic!("no HTTP/1"),
        }
    }

    const S: Duration = Duration::from_secs(1);

    fn pool() -> Pool {
        Pool::new(Reuse::new(4 * S, 55 * S), Counter::noop())
    }

    async fn connection(http2: bool) -> Sender {
        let heads = HeadLimits::new(1 << 16, 100);
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
        let count = || pool.kept(|kept| kept.shared.len());
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
        for _ in 0..pool.most() + 3 {
            pool.put(http1().await, 0, now);
        }
        assert_eq!(pool.kept(|kept| kept.idle.len()), pool.most());
    }

    #[tokio::test]
    async fn a_worker_takes_what_another_has_kept_only_where_they_share_a_reactor() {
        place::expect(2);
        let (pool, now) = (pool(), Instant::now());
        let (one, two) = (http1().await, http1().await);
        as_worker(0, false, || pool.put(one, 0, now));
        as_worker(1, false, || {
            assert!(pool.take(true, now).is_none(), "it belongs to another reactor");
            pool.put(two, 0, now);
            assert!(pool.take(true, now).is_some(), "its own");
        });
        as_worker(1, true, || {
            assert!(pool.take(true, now).is_some(), "of the other one");
            assert!(pool.take(true, now).is_none(), "there were two");
        });
        let id = shared(&pool).await.id();
        assert!(as_worker(0, true, || pool.take(false, now)).is_some());
        assert!(as_worker(0, true, || pool.take_shared(&id)).is_some());
        assert!(as_worker(0, false, || pool.take(false, now)).is_none());
        assert!(as_worker(0, false, || pool.take_shared(&id)).is_none());
    }

    #[tokio::test]
    async fn what_any_worker_keeps_is_swept_and_let_go_of() {
        place::expect(2);
        let (pool, now) = (pool(), Instant::now());
        for number in [0, 0, 1, 1] {
            let http1 = http1().await;
            as_worker(number, false, || pool.put(http1, 0, now));
        }
        let idle = || pool.kept(|kept| kept.idle.len());
        assert_eq!(idle(), 4);
        pool.sweep(now + 4 * S);
        assert_eq!(idle(), 1, "one is watched, of all");
        let (late, early) = (http1().await, http1().await);
        pool.renew();
        assert_eq!(idle(), 0);
        as_worker(0, false, || pool.put(late, 0, now));
        assert_eq!(idle(), 0, "it was taken before");
        as_worker(0, false, || pool.put(early, pool.generation(), now));
        assert_eq!(as_worker(0, false, || pool.take(true, now)).unwrap().1, 1);
    }
}
